# SPDX-License-Identifier: Apache-2.0
"""`kvq chat`: a conversation on one cache (kvq.evaluate.conversation), on a terminal or through pipes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from kvq import lowlevel
from kvq.errors import Error, InvalidArgument
from kvq.evaluate.caches import parse_cache
from kvq.evaluate.source import find_source

HELP = """Talk to a model, all turns on one cache.

MODEL is what `kvq eval` takes. A line is a turn; lines come from standard input too.

\b
  /reset       forget the conversation
  /report      tokens, bytes and bits of the cache
  /save FILE   write the conversation and its cache
  /load FILE   go on with what /save wrote
  /help        this list
  /quit        end; so does the end of input

Ctrl-C ends a turn. While the question is read in, the turn is dropped as if it had not been asked; while the answer is
given, the part that was given stays in the conversation. A second Ctrl-C during the same turn ends the chat."""

COMMANDS = HELP.split("\b\n", 1)[1].split("\n\n", 1)[0]


@click.command("chat", help=HELP, short_help="Talk to a model, all turns on one cache.")
@click.argument("model")
@click.option("--cache", "cache_text", default="kivi-4", show_default=True, metavar="CACHE",
              help="The cache to talk through.")
@click.option("--system", default="", metavar="TEXT", help="A system message to begin with.")
@click.option("--max-new-tokens", type=click.IntRange(1, 1 << 24), default=512, show_default=True,
              help="Of one answer.")
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.0, show_default=True,
              help="0: always the likeliest token.")
@click.option("--seed", type=click.IntRange(0), help="Of sampling.")
@click.option("--accuracy", type=click.Choice(lowlevel.ACCURACY_CLASSES), default=lowlevel.DEFAULT_ACCURACY,
              show_default=True, help="Accuracy class of kvq's arithmetic.")
@click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1, 4096), help="Threads of torch and of kvq.  [default: all]")
@click.option("--device", type=click.Choice(("cpu", "ref")), default="cpu", show_default=True,
              help="Of kvq's kernels; ref is the slow scalar reference.")
def chat(model: str, cache_text: str, **options: Any) -> None:
    context = lowlevel.shared_context(options["device"], threads=options["threads"] or 0)
    kind = parse_cache(cache_text, {"context": context, "accuracy": options["accuracy"]})
    source = find_source(model)
    _note(f"loading {source.name} ...")

    from kvq.evaluate import model as models
    from kvq.evaluate.conversation import Conversation, Sampling

    models.set_threads(options["threads"] or 0)
    subject = models.open_model(source, models.dtype_of(options["dtype"]), models.tokenizer_cache())
    sampling = Sampling(options["temperature"], options["seed"], options["max_new_tokens"])
    session = _Session(Conversation(subject, kind, sampling, options["system"]))
    _note(f"{source.name} with {kind.text}; /help lists the commands")
    if not session.conversation.templated:
        _note("the tokenizer has no chat template: what you type is continued as it is")
    session.run()


def _note(text: str) -> None:
    """What is not the model's: on standard error, so that answers can be piped."""
    click.echo(text, err=True)


class _Session:
    def __init__(self, conversation: Any) -> None:
        self.conversation = conversation
        self._stopped = False

    def run(self) -> None:
        for line in self._lines():
            if line.startswith("/"):
                if not self._command(line):
                    return
            elif line:
                self._turn(line)

    def _lines(self) -> Iterator[str]:
        terminal = sys.stdin.isatty()
        if terminal:
            import readline  # noqa: F401  gives input() editing and history
        while True:
            try:
                yield (input("> ") if terminal else next(sys.stdin)).strip()
            except (EOFError, StopIteration):
                return
            except KeyboardInterrupt:
                _note("\nno turn is running; /quit ends the chat")

    def _turn(self, question: str) -> None:
        with self._interruptible():
            try:
                turn = self.conversation.ask(question, _write, lambda: self._stopped)
            except Error as error:
                _note(f"kvq: {error}")
                return
        click.echo()
        if turn.ended == "dropped":
            _note("interrupted before the answer: the question was not asked")
        elif turn.ended == "interrupted":
            _note("interrupted: what was answered stays in the conversation")
        elif turn.ended == "full":
            _note(f"the context of {self.conversation.report()['positions']} tokens is full: begin anew with /reset")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C asks the turn to end after the token, or the piece of the prompt, that is being computed."""
        self._stopped = False
        usual = signal.getsignal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopped = True
            signal.signal(signal.SIGINT, usual)

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _command(self, line: str) -> bool:
        """Whether the chat goes on."""
        name, _, argument = line.partition(" ")
        actions = {"/reset": self._reset, "/report": self._report, "/save": self._save, "/load": self._load,
                   "/help": lambda argument: _note(COMMANDS)}
        if name in ("/quit", "/exit"):
            return False
        try:
            if name not in actions:
                raise InvalidArgument(f"there is no command {name}: /help lists them")
            actions[name](argument.strip())
        except (Error, OSError) as error:
            _note(f"kvq: {error}")
        return True

    def _reset(self, argument: str) -> None:
        self.conversation.reset()
        _note("the conversation is empty")

    def _report(self, argument: str) -> None:
        report = self.conversation.report()
        bits = report["bits_per_element"]
        click.echo(
            f"{report['cache']}: {report['tokens']} tokens of at most {report['positions']}, "
            f"{report['tokens_in_cache']} in the cache; {report['bytes_used']} bytes in use, "
            f"{report['bytes_held']} held"
            + (f"; {bits:.2f} bits an element in use" if bits is not None else "")
        )

    def _save(self, argument: str) -> None:
        self.conversation.save(_file(argument, "/save"))
        _note(f"saved to {argument}")

    def _load(self, argument: str) -> None:
        self.conversation.load(_file(argument, "/load"))
        _note(f"loaded {argument}: {self.conversation.report()['tokens']} tokens")


def _file(argument: str, command: str) -> Path:
    if not argument:
        raise InvalidArgument(f"{command} needs a file: {command} FILE")
    return Path(argument).expanduser()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
