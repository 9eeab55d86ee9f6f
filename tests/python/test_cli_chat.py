# SPDX-License-Identifier: Apache-2.0
"""`kvq chat` on a tiny model: it answers what generate() answers to the same history, whatever happens between."""

import io
import os
import signal
from pathlib import Path

import pytest
import tiny_model
import torch
from kvq.cli import main
from kvq.evaluate import conversation, open_model, parse_cache
from kvq.evaluate.source import find_source
from transformers import DynamicCache

import kvq

EIGHT = "k8c32-v8t16/w32,block"
QUESTIONS = ["Who is there?", "And what do you want, at this time of the night?", "Go away then."]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def subject(model):
    return open_model(find_source(str(model)))


@pytest.fixture
def talk(model, monkeypatch, capsys):
    def talk(*lines, arguments=("--cache", EIGHT), folder=model):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        capsys.readouterr()
        code = main(["chat", str(folder), "--max-new-tokens", "24", "--threads", "1", *arguments])
        screen = capsys.readouterr()
        return code, screen.out, screen.err

    return talk


def expected(subject, questions, make, limit=24):
    """Answers to the questions in turn, each from generate() over the whole history and a new cache."""
    messages, answers = [], []
    for question in questions:
        messages.append({"role": "user", "content": question})
        inputs = subject.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = subject.model.generate(**inputs, past_key_values=make(), max_new_tokens=limit, do_sample=False)
        answers.append(subject.tokenizer.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


@pytest.fixture
def new_cache(subject):
    return lambda text=EIGHT: kvq.KVQCache(subject.model.config, text, threads=1)


@pytest.fixture
def new_chat(subject):
    def new_chat(text=EIGHT, limit=24, **options):
        sampling = conversation.Sampling(max_new_tokens=limit)
        return conversation.Conversation(subject, parse_cache(text), sampling, **options)

    return new_chat


def test_piped_chat_says_what_generate_says(talk, subject, new_cache):
    answers = expected(subject, QUESTIONS, new_cache)
    assert len(set(answers)) == 3
    code, out, _ = talk(*QUESTIONS)
    assert code == 0 and out == "".join(f"{answer}\n" for answer in answers)


def test_ordinary_cache_too(talk, subject):
    answers = expected(subject, QUESTIONS, lambda: DynamicCache(config=subject.model.config))
    assert talk(*QUESTIONS, arguments=("--cache", "dynamic"))[1] == "".join(f"{answer}\n" for answer in answers)


def test_a_turn_reads_in_only_what_is_new(new_chat):
    chat = new_chat()
    first, second = chat.ask(QUESTIONS[0]), chat.ask(QUESTIONS[1])
    assert first.prompt_tokens == len(QUESTIONS[0]) + 3  # <user> .. </s> <answer>
    ended = first.ended == "stop"
    # The last token of an answer is not in the cache yet; </s> after it is new unless the model said it.
    assert second.prompt_tokens == len(QUESTIONS[1]) + 3 + 1 + (not ended)
    assert chat.held == chat.ids[:-1]


def test_answers_are_streamed(new_chat):
    parts = []
    turn = new_chat().ask(QUESTIONS[1], parts.append)
    assert "".join(parts) == turn.answer


def test_reset_forgets(talk, subject, new_cache):
    _, out, _ = talk(QUESTIONS[0], "/reset", QUESTIONS[1])
    alone = [expected(subject, [question], new_cache)[0] for question in QUESTIONS[:2]]
    assert out == f"{alone[0]}\n{alone[1]}\n"


def test_report_is_the_caches_own(talk, new_chat):
    _, out, _ = talk(QUESTIONS[0], "/report")
    chat = new_chat()
    chat.ask(QUESTIONS[0])
    report = chat.cache.report()
    line = out.splitlines()[-1]
    assert f"{len(chat.ids)} tokens of at most 512" in line
    assert f"{int(report['bytes_used'])} bytes in use, {int(report['bytes_touched'])} held" in line
    bits = 8 * report["bytes_used"] / (len(chat.held) * 2 * 2 * 2 * 32)  # layers, heads, K and V, D
    assert f"{bits:.2f} bits" in line


def test_context_full_is_one_sentence_and_keeps_the_chat(talk):
    code, out, err = talk("x" * 600, QUESTIONS[0])
    (line,) = [line for line in err.splitlines() if line.startswith("kvq: ")]
    assert code == 0 and "the model takes 512" in line and "/reset" in line
    assert out == talk(QUESTIONS[0])[1]


def test_an_answer_ends_where_the_context_does(new_chat):
    chat = new_chat(limit=4096)
    turn = chat.ask("x" * 480)
    assert turn.ended in ("full", "stop") and len(chat.ids) <= 512
    if turn.ended == "full":
        assert len(chat.ids) == 512
        with pytest.raises(conversation.ContextFull):
            chat.ask("y")


def test_no_template_continues_text(tmp_path, talk):
    plain = tiny_model.save_model(tmp_path / "plain", template=False)
    code, out, err = talk("Once upon", " a time", folder=plain)
    assert code == 0 and "no chat template" in err and len(out.splitlines()) >= 2


# -- interruption -----------------------------------------------------------------------------------------------------


def test_interrupted_answer_stays(new_chat, subject, new_cache):
    chat, calls = new_chat(), []
    turn = chat.ask(QUESTIONS[1], stopped=lambda: calls.append(1) or len(calls) > 8)
    whole = expected(subject, [QUESTIONS[1]], new_cache)[0]
    assert turn.ended == "interrupted" and whole.startswith(turn.answer) and 0 < len(turn.answer) < len(whole)
    assert chat.held == chat.ids[:-1]
    history = [{"role": "user", "content": QUESTIONS[1]}, {"role": "assistant", "content": turn.answer},
               {"role": "user", "content": QUESTIONS[2]}]
    inputs = subject.tokenizer.apply_chat_template(
        history, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = subject.model.generate(**inputs, past_key_values=new_cache(), max_new_tokens=24, do_sample=False)
    answer = subject.tokenizer.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert chat.ask(QUESTIONS[2]).answer == answer


@pytest.mark.parametrize("cache", [EIGHT, "dynamic"])
def test_interrupted_question_was_not_asked(monkeypatch, new_chat, cache):
    monkeypatch.setattr(conversation, "PIECE", 16)
    chat, undisturbed, calls = new_chat(cache), new_chat(cache), []
    assert chat.ask(QUESTIONS[0]) == undisturbed.ask(QUESTIONS[0])
    before = list(chat.messages)
    turn = chat.ask("z" * 100, stopped=lambda: calls.append(1) or len(calls) > 3)
    assert turn.ended == "dropped" and chat.messages == before
    assert chat.ask(QUESTIONS[1]).answer == undisturbed.ask(QUESTIONS[1]).answer


def test_ctrl_c_ends_a_turn_and_not_the_chat(monkeypatch, talk, subject, new_cache):
    """The signal comes with the fifth token of the first answer."""
    # A shell starts programs in the background with the signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    calls = []

    class Interrupting(conversation._Stop):
        def __call__(self, input_ids, scores, **kwargs):
            calls.append(1)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(input_ids, scores, **kwargs)

    monkeypatch.setattr(conversation, "_Stop", Interrupting)
    code, out, err = talk(QUESTIONS[1], QUESTIONS[2])
    first, second = out.splitlines()
    assert code == 0 and "what was answered stays" in err
    assert 5 <= len(first) <= 6 and expected(subject, [QUESTIONS[1]], new_cache)[0].startswith(first)
    assert len(second) > 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failure_inside_a_turn_leaves_the_conversation(monkeypatch, new_chat):
    chat, undisturbed = new_chat(), new_chat()
    assert chat.ask(QUESTIONS[0]) == undisturbed.ask(QUESTIONS[0])

    def fail(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chat.ask(QUESTIONS[2], fail)
    assert chat.ask(QUESTIONS[1]).answer == undisturbed.ask(QUESTIONS[1]).answer


def test_a_template_that_rewrites_history_is_followed(new_chat, subject, monkeypatch):
    """Earlier answers are left out by some templates: the cache goes back to what is still true."""
    template = subject.tokenizer.chat_template.replace("{{ message.content }}",
                                                       "{{ message.content if message.role == 'user' else '' }}")
    monkeypatch.setattr(subject.tokenizer, "chat_template", template)
    chat = new_chat("dynamic")
    chat.ask(QUESTIONS[0])
    turn = chat.ask(QUESTIONS[1])
    messages = [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": ""},
                {"role": "user", "content": QUESTIONS[1]}]
    inputs = subject.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt",
                                                   return_dict=True)
    output = subject.model.generate(**inputs, past_key_values=DynamicCache(config=subject.model.config),
                                    max_new_tokens=24, do_sample=False)
    assert turn.answer == subject.tokenizer.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert turn.prompt_tokens < inputs.input_ids.shape[1]


# -- files ------------------------------------------------------------------------------------------------------------


class Snapshots:
    """A stand-in for snapshots of a KVQCache, by their contract: save(path), KVQCache.open(path, config,
    accuracy=...)."""

    files = {}

    @staticmethod
    def save(cache, path):
        rows = [cache.packed.read(layer) for layer in range(len(cache.layers))]
        Snapshots.files[path] = (cache.format, rows)
        Path(path).write_bytes(b"snapshot")

    @staticmethod
    def open(path, config, accuracy):
        text, rows = Snapshots.files[path]
        cache = kvq.KVQCache(config, text, accuracy=accuracy, threads=1)
        cache.load(rows)
        return cache


@pytest.fixture
def snapshots(monkeypatch):
    monkeypatch.setattr(kvq.KVQCache, "save", Snapshots.save, raising=False)
    monkeypatch.setattr(kvq.KVQCache, "open", Snapshots.open, raising=False)


def test_a_saved_chat_goes_on(snapshots, talk, tmp_path):
    file = tmp_path / "chat.kvq"
    code, whole, _ = talk(*QUESTIONS)
    _, first, _ = talk(*QUESTIONS[:2], f"/save {file}")
    _, rest, err = talk("Something else.", f"/load {file}", QUESTIONS[2])
    assert f"loaded {file}" in err and code == 0
    assert whole == first + rest.splitlines(keepends=True)[-1]


def test_what_cannot_be_loaded_leaves_the_chat(snapshots, talk, tmp_path):
    file = tmp_path / "chat.kvq"
    talk(QUESTIONS[0], f"/save {file}")
    _, usual, _ = talk(*QUESTIONS[:2])
    beside = tmp_path / "chat.kvq.chat.json"
    whole = beside.read_text()
    for text, sentence in (
        (whole[:-20], "not a whole JSON document"),
        ("[]", "not a conversation of schema"),
        (whole.replace('"held"', '"help"'), "no proper held"),
        (whole.replace(EIGHT, "k4c32-v4t16/w32,block"), "--cache"),
    ):
        beside.write_text(text)
        _, out, err = talk(QUESTIONS[0], f"/load {file}", QUESTIONS[1])
        assert sentence in err and out == usual
    assert "cannot be read" in talk(f"/load {tmp_path / 'none'}")[2]


def test_commands_that_are_wrong_say_so(talk):
    code, _, err = talk("/save", "/nothing", "/save somewhere", "/help", "/quit", "never asked")
    assert code == 0 and "/save needs a file" in err and "there is no command /nothing" in err
    assert "nothing to save yet" in err and "/reset" in err


def test_an_ordinary_cache_cannot_be_saved(talk, tmp_path):
    assert "cannot be saved" in talk(QUESTIONS[0], f"/save {tmp_path / 'x'}", arguments=("--cache", "dynamic"))[2]


def test_bad_arguments_are_refused(talk, tmp_path):
    for arguments, sentence in ((("--cache", "kivi4"), "did you mean"), (("--cache", "k4"), "not a pair")):
        code, _, err = talk("hello", arguments=arguments)
        assert code == 2 and sentence in err and "Traceback" not in err
    assert talk("hello", folder=tmp_path / "none")[0] == 2
