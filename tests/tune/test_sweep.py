# SPDX-License-Identifier: Apache-2.0
"""Sweeps: the problems of a file, its mistakes with their lines, resuming, and the same on a Ray cluster."""

import json
import re
import sys

import fake_ray
import pytest
import sweep_runners
import torch
import tune_command
from kvq import lowlevel
from kvq.errors import Error, Unsupported
from kvq.tune import sweep
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape, bytes_read, elements_read, request
from kvq.tune.model_shapes import from_config
from kvq.tune.problem import Conditions
from kvq.tune.search_options import SearchOptions

HAND = """
[[model]]
name = "small"
q_heads = 6
kv_heads = 2
head_dim = 64
dtype = "float32"
"""
HEAD = 'formats = ["kivi-4", "kvq-2"]\ncontexts = ["4k", 32768]\ntargets = ["x86-64-v3"]\n'
TWO = 'formats = ["kivi-4", "kvq-2"]\ncontexts = ["4k", 32768]\ntargets = ["x86-64-v3", "nvptx:sm_90"]\n' + HAND
MAKE = "sweep_runners:make"
LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "torch_dtype": "bfloat16"}


@pytest.fixture
def file(tmp_path):
    def write(text, suffix=".toml"):
        path = tmp_path / f"sweep{suffix}"
        path.write_text(as_yaml(text) if suffix != ".toml" else text, encoding="utf-8")
        return path

    return write


def as_yaml(text):
    """The same in YAML, key for key in the same line. In front of the first [[model]] there must be an empty line."""
    lines, inside = text.splitlines(), ""
    for at, line in enumerate(lines):
        if line == "[[model]]":
            if inside == "":
                assert lines[at - 1] == ""
                lines[at - 1] = "model:"
            inside, lines[at] = "    ", "  -"
        elif line == "[search]":
            inside, lines[at] = "  ", "search:"
        else:
            lines[at] = re.sub(r"^(\w+) = ", rf"{inside}\1: ", line)
    return "\n".join(lines) + "\n"


both = pytest.mark.parametrize("suffix", [".toml", ".yaml", ".yml"])


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("KVQ_TUNE_DB", str(tmp_path / "tuning.db"))
    return tmp_path / "tuning.db"


def run(capsys, *arguments):
    return tune_command.run(capsys, "sweep", *arguments)


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_request_is_the_one_that_the_runtime_makes():
    """For a cache that decodes one token: its kernels are those whose requests we make."""
    shape = Shape(q_heads=6, kv_heads=2, dk=64, dv=64, window=96, score_cap=True)
    context = lowlevel.Context("cpu", level="x86-64-v3", threads=1)
    cache = lowlevel.Cache(context, "kivi-2", layers=1, q_heads=6, kv_heads=2, dk=64, dv=64, dtype="float32", blocks=8,
                           sequences=1, attention_window=96, score_cap=30.0, accuracy="normal")
    q, kv = torch.ones(1, 6, 1, 64), torch.ones(1, 2, 1, 64)
    with cache.plan([cache.add()], [1]) as step:
        step.forward(0, q, kv, kv, 0.1, torch.empty_like(q))
    made = {request(kernel, "kivi-2", shape, "x86-64-v3", "normal") for kernel in ("attend", "append")}
    assert made <= {kernel["name"] for kernel in context.kernels()}


@pytest.mark.parametrize(
    ("format", "shape", "target", "text"),
    [
        ("kvq-4", Shape(32, 8, 128, 128, "bf16"), "nvptx:sm_80",
         "attend:k4c32-v4t32:mma:p64:dk128:dv128:g4:bf16:rows8:lag0:win0:cap0:exact"),
        ("kivi-4", Shape(16, 1, 64, 64, "f16"), "nvptx:sm_90",
         "attend:k4c32-v4t32:mma:p64:dk64:dv64:g16:f16:rows16:lag1:win0:cap0:exact"),
        ("kivi-4", Shape(16, 1, 256, 256, "f16"), "nvptx:sm_90",
         "attend:k4c32-v4t32:mma:p64:dk256:dv256:g16:f16:rows8:lag1:win0:cap0:exact"),
        ("k4th-v4th/w128,block", Shape(8, 8, 96, 96), "x86-64",
         "attend:k4t96-v4t96:vnni:p64:dk96:dv96:g1:f32:rows1:lag0:win0:cap0:exact"),
        ("k4c128-v4t64", Shape(14, 2, 64, 64, window=512), "x86-64",
         "attend:k4c128-v4t64:vnni:p128:dk64:dv64:g7:f32:rows7:lag0:win1:cap0:exact"),
    ],
)
def test_requests_of_other_shapes(format, shape, target, text):
    assert request("attend", format, shape, target) == text


def test_bytes_are_those_of_the_pages():
    text = request("attend", "kvq-4", Shape(32, 8, 128, 128, "bf16"), "x86-64")
    page = lowlevel.format_page_bytes("kvq-4", 128, 128)
    assert bytes_read(text, Conditions(tokens=4096, batch=2, heads=8)) == 2 * 8 * 64 * page
    assert bytes_read(text, Conditions(tokens=4096, heads=1, window=640)) == 10 * page
    assert elements_read(text, Conditions(tokens=100, batch=2, heads=3)) == 2 * 3 * 100 * 256
    assert bytes_read(request("append", "kvq-4", Shape(1, 1, 64, 64), "x86-64"), Conditions()) is None


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        (LLAMA, [Shape(32, 8, 128, 128, "bf16")]),
        ({"text_config": {**LLAMA, "head_dim": 64}, "dtype": "float16"}, [Shape(32, 8, 64, 64, "bf16")]),
        ({**LLAMA, "sliding_window": 4096}, [Shape(32, 8, 128, 128, "bf16", window=4096)]),
        ({**LLAMA, "sliding_window": 4096, "use_sliding_window": False}, [Shape(32, 8, 128, 128, "bf16")]),
        ({**LLAMA, "sliding_window": 512, "attn_logit_softcapping": 50.0,
          "layer_types": ["sliding_attention", "full_attention"] * 2},
         [Shape(32, 8, 128, 128, "bf16", 0, True), Shape(32, 8, 128, 128, "bf16", 512, True)]),
        ({"num_attention_heads": 12, "hidden_size": 768}, [Shape(12, 12, 64, 64, "f32")]),
    ],
)
def test_shapes_of_a_config(config, shapes):
    assert from_config(config) == shapes


@pytest.mark.parametrize("change", [{"kv_lora_rank": 512}, {"layer_types": ["chunked_attention"]}, {"dtype": "int8"}])
def test_models_that_kvq_does_not_hold_are_refused(change):
    with pytest.raises(Unsupported):
        from_config({**LLAMA, **change})


# -- files -------------------------------------------------------------------------------------------------------------


@both
def test_the_product_is_the_list_of_problems(file, suffix):
    plan = sweep.read(file(TWO + '[search]\nseconds = 3\nstrategy = "halving"\n', suffix))
    assert len(plan.problems) == 2 * 2 * 2 and plan.left_out == ()
    assert plan.search == SearchOptions(seconds=3, strategy="halving")
    assert {problem.target for problem in plan.problems} == {"x86-64-v3", "nvptx:sm_90"}
    assert {problem.conditions for problem in plan.problems} == {Conditions(tokens=4096, heads=2),
                                                                Conditions(tokens=32768, heads=2)}
    assert set(plan.models.values()) == {("small",)}
    host = sweep.read(file('formats = ["kvq-2"]\ncontexts = [100]\n' + HAND, suffix))
    assert [problem.target for problem in host.problems] == [lowlevel.shared_context().level]


@both
def test_models_of_one_shape_share_problems(file, tmp_path, suffix):
    (tmp_path / "llama").mkdir()
    config = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "torch_dtype": "float32"}
    (tmp_path / "llama" / "config.json").write_text(json.dumps(config))
    models = '[[model]]\nconfig = "llama"\n[[model]]\nconfig = "llama/config.json"\nname = "b"\n'
    plan = sweep.read(file(HEAD + HAND + models, suffix))
    assert len(plan.problems) == 4 and set(plan.models.values()) == {("small", "llama", "b")}


def test_what_has_no_kernel_is_left_out_with_its_reason(file):
    plan = sweep.read(file(HEAD.replace('"kvq-2"', '"k4c32-v4t128"') + HAND))
    assert len(plan.problems) == 2
    assert plan.left_out == (("attend of small, k4c32-v4t128, x86-64-v3",
                              "V's head size 64 is not a multiple of its per-token group of 128 channels: use a group "
                              "that divides it"),)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEAD + "format = 3\n" + HAND, 4, "'format' is unknown: use formats, contexts, targets, "),
        (HEAD + HAND + "heads = 3\n", 11, "'heads' is unknown: use name, config, q_heads"),
        (HEAD + HAND + HAND + "heads = 3\n", 18, "'heads' is unknown"),
        (HEAD + HAND + "[search]\nseed = 1\nspeed = 2\n", 13, "'speed' is unknown: use seconds, trials, strategy"),
        (HEAD + HAND + "[search]\nseconds = 0\n", 12, "seconds is 0: it must be a number above 0"),
        (HEAD + HAND + "[search]\nstrategy = 'best'\n", 12, "strategy is 'best': it must be one of auto, exhaustive"),
        (HEAD + HAND + "[search]\nisolate = 1\n", 12, "isolate is 1: it must be true or false"),
        ("\ncontexts = []\nformats = ['kvq-2']\n" + HAND, 2, "contexts is []: give a list with at least one, such as"),
        ("formats = 'kvq-2'\ncontexts = [1]\n" + HAND, 1, "formats is 'kvq-2': give a list"),
        ("formats = ['kvq-2']\n" + HAND, 1, "contexts is missing: add a list, such as [\"4k\", 32768]"),
        ("contexts = [1]\nformats = ['kivi-9']\n" + HAND, 2, "cache format 'kivi-9' is neither a preset"),
        (HEAD + "classes = ['quick']\n" + HAND, 4, "accuracy is 'quick'"),
        (HEAD + "kernels = ['attention']\n" + HAND, 4, "there is no kernel 'attention': use one of attend"),
        (HEAD + "batches = [0]\n" + HAND, 4, "0 is no number from 1"),
        (HEAD + "caches = ['hot']\n" + HAND, 4, "'hot' is no state of the caches: use cold or warm"),
        (HEAD.replace("v3", "v9") + HAND, 3, "there is no target 'x86-64-v9': use host, one of x86-64, "),
        (HEAD.replace("x86-64-v3", "nvptx:sm_70") + HAND, 3, "there is no target 'nvptx:sm_70': use one of nvptx"),
        (HEAD.replace("4k", "4q") + HAND, 2, "'4q' is no number of tokens: write 4096 or \"4k\""),
        (HEAD, 1, "there is no model: add a list of models with config"),
        (HEAD + "model = [1]\n", 4, "a model is 1: give config, or q_heads"),
        (HEAD + "model = 1\n", 4, "there is no model: add a list"),
        (HEAD + "search = [1]\n" + HAND, 4, "search is [1]: give a table, such as seconds and trials"),
        (HEAD + HAND.replace("kv_heads = 2\n", ""), (5, 6), "kv_heads is missing: add it, or name a config"),
        (HEAD + HAND + "config = 'x'\n", 7, "q_heads stands beside config, which says it"),
        (HEAD + HAND.replace("= 64", "= true"), 9, "head_dim is True: it must be a number from 0"),
        (HEAD + HAND.replace("float32", "int8"), 10, "dtype is 'int8': use one of float32"),
        (HEAD + "\n[[model]]\nconfig = 'absent'\n", 6, "absent cannot be read"),
        (HEAD + HAND.replace("= 64", "= 17"), 1, "nothing is left of the product: attend of small, kivi-4, x86-64-v3"),
        (HEAD + HAND.replace("= 6\n", "= 5\n"), 1, "5 query heads over 2 KV heads are not supported"),
    ],
)
@both
def test_a_mistake_is_named_with_file_line_and_remedy(file, text, line, words, suffix):
    """`line`: in YAML another one where a table is meant, which begins with its first key there."""
    is_refused(file(text, suffix), line if isinstance(line, int) else line[suffix != ".toml"], words)


@pytest.mark.parametrize(
    ("suffix", "text", "line", "words"),
    [
        (".toml", HEAD + "x = = 3\n", 4, "write TOML, as in docs/tuning.md"),
        (".toml", HEAD + "x = [", 4, "write TOML"),
        (".toml", HEAD + "formats = ['kvq-2']\n", 4, "Cannot overwrite a value"),
        (".toml", HEAD + "search.speed = 3\n" + HAND, 4, "'speed' is unknown"),
        (".toml", "formats = [\n  ['kivi-4'],\n]\ncontexts = [1]\nwrong = 1\n", 5, "'wrong' is unknown"),
        (".toml", "x = " + "[" * 5000, 1, "nested too deeply"),
        (".yaml", "formats: [kvq-2]\ncontexts: [1]\nformats: [kvq-4]\n", 3, "'formats' stands here a second time"),
        (".yaml", "formats: [kvq-2]\nmodel:\n  - q_heads: 1\n    q_heads: 2\n", 4, "'q_heads' stands here a second"),
        (".yaml", "formats: [kvq-2\ncontexts: [1]\n", 2, "write YAML, as in docs/tuning.md"),
        (".yaml", "formats:\n\t- kvq-2\n", 2, "write YAML"),
        (".yaml", "formats: !!python/object:os.system [kvq-2]\n", 1, "could not determine a constructor for the tag"),
        (".yaml", "formats: &x [kvq-2]\ncontexts: [1]\nclasses: *x\n", 1, "what this anchor names is used again (*name)"),
        (".yaml", "formats: [kvq-2]\ncontexts: [2026-13-01]\n", 2, "'2026-13-01' is no timestamp (month must be in"),
        (".yaml", "formats: [kvq-2]\n[a]: 1\n", 2, "a key is a list or a table"),
        (".yaml", "formats: [kvq-2]\nyes: 1\n", 2, "'True' is unknown"),
        (".yaml", "formats: [kvq-2]\n---\ncontexts: [1]\n", 2, "but found another document"),
        (".yaml", "a: 1\nb: \x07\n", 2, "special characters are not allowed: write YAML"),
        (".yaml", "# nothing\n", 1, "formats is missing"),
        (".yaml", "\n- kvq-2\n", 2, "it has no keys: write them"),
        (".yaml", "x: " + "[" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_is_no_such_file_is_named_with_its_line(tmp_path, suffix, text, line, words):
    path = tmp_path / f"sweep{suffix}"
    path.write_text(text)
    is_refused(path, line, words)


def is_refused(path, line, words):
    with pytest.raises(Error) as found:
        sweep.read(path)
    message = str(found.value)
    assert message.startswith(f"{path}:{line}: ") and words in message and "\n" not in message, message


def test_without_pyyaml_one_sentence_says_so(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(Unsupported, match="^PyYAML is not installed: pip install PyYAML, or write the sweep as TOML$"):
        sweep.read(file(TWO, ".yaml"))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(Error, match="absent.toml cannot be read"):
        sweep.read(tmp_path / "absent.toml")


# -- running -----------------------------------------------------------------------------------------------------------


def test_a_sweep_fills_the_database_and_the_second_time_repeats_nothing(file, path, capsys):
    given = file(TWO)
    sweep_runners.made.clear()
    code, out, err = run(capsys, given, "--runner", MAKE)
    assert code == 0 and out == f"{path}: 4 tuned, 4 predicted\n"
    assert "[8/8]" in err and "tuned: rows=2: " in err and ", 1 wrong" in err
    with Database(path, readonly=True) as database:
        entries = database.entries()
        assert len(entries) == 8 and {entry.schedule for entry in entries if not entry.predicted} == {"rows=2"}
        assert {entry.schedule for entry in entries if entry.predicted} == {"rows=3"}
    events = len(sweep_runners.made[0].events)
    before = path.read_bytes()
    code, out, _ = run(capsys, given, "--runner", MAKE)
    assert code == 0 and out == f"{path}: 8 there already\n" and path.read_bytes() == before
    assert events > 0 and sweep_runners.made[1].events == []


def test_an_interrupted_sweep_goes_on(file, path, capsys):
    given = file(HEAD + HAND)
    assert run(capsys, given, "--runner", "sweep_runners:stop_at_third")[0] == 130
    with Database(path, readonly=True) as database:
        assert len(database.entries()) == 2
    sweep_runners.made.clear()
    assert run(capsys, given, "--runner", MAKE)[1] == f"{path}: 2 there already, 2 tuned\n"
    assert len(sweep_runners.made[0].workloads) == 2


def test_problems_that_fail_are_named_and_the_others_done(file, path, capsys):
    code, out, err = run(capsys, file(HEAD + HAND), "--runner", "sweep_runners:refuse", "-q")
    assert code == 1 and out == f"{path}: 4 failed\n"
    assert err.count("there is no machine for x86-64-v3: bring one") == 4
    code, _, err = run(capsys, file(HEAD + HAND), "--runner", "sweep_runners:refuse")
    assert code == 1 and err.count("failed: there is no machine for x86-64-v3: bring one") == 4


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("no_such_module:make", "the runner no_such_module:make cannot be loaded (No module named 'no_such_module')"),
        ("sweep_runners:none", "cannot be loaded (module 'sweep_runners' has no attribute 'none'): name another"),
        ("nonsense", "the runner 'nonsense' is no place: write module:function"),
    ],
)
@pytest.mark.parametrize("where", [[], ["--ray", "local"]])
def test_a_runner_that_is_not_there_is_one_sentence(file, path, capsys, monkeypatch, place, words, where):
    cluster = fake_ray.Cluster(monkeypatch, {"a": 4})
    code, out, err = run(capsys, file(HEAD + HAND), "--runner", place, *where, "-q")
    assert code == 2 and out == "" and err.count("\n") == 1 and words in err
    assert cluster.addresses == [] and not path.exists()


def test_a_dry_run_shows_the_problems_and_touches_nothing(file, path, capsys):
    code, out, _ = run(capsys, file(TWO.replace('"kvq-2"', '"k4c32-v4t128"')), "--dry-run")
    assert code == 0 and not path.exists()
    made = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag1:win0:cap0:exact"
    assert f"{made} on x86-64-v3, cold:tokens4096" in out
    assert "(small)" in out and "left out: attend of small, k4c32-v4t128" in out
    assert out.endswith("4 problems, 2 left out\n")


def test_candidates_are_isolated_on_request(file, path, capsys):
    text = HEAD.replace(', "kvq-2"', "").replace(", 32768", "") + HAND + "[search]\nisolate = true\n"
    assert run(capsys, file(text), "--runner", MAKE)[1] == f"{path}: 1 tuned\n"
    with Database(path, readonly=True) as database:
        wrong = [trial for trial in database.trials() if trial.status == "wrong"]
    assert [trial.schedule for trial in wrong] == ["rows=3"]


# -- Ray ---------------------------------------------------------------------------------------------------------------


def test_without_ray_one_sentence_says_so(file, path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = run(capsys, file(HEAD + HAND), "--runner", MAKE, "--ray", "auto", "-q")
    assert code == 2 and out == ""
    assert err == "kvq: Ray is not installed: pip install ray, or leave --ray out to use this machine alone\n"


def test_a_cluster_does_what_this_machine_does(file, path, capsys, monkeypatch):
    cluster = fake_ray.Cluster(monkeypatch, {"a": 4, "b": 8, "gone": None})
    given = file(TWO)
    assert run(capsys, given, "--runner", MAKE, "--ray", "local", "-q")[:2] == (0, f"{path}: 4 tuned, 4 predicted\n")
    assert cluster.addresses == ["local"] and cluster.shut == 1
    assert [(each["num_cpus"], each["scheduling_strategy"]) for each in cluster.options] == [
        (4, ("a", False)), (8, ("b", False))]
    assert {node for node, name, *_ in cluster.calls if name == "work"} == {"a", "b"}
    with Database(path, readonly=True) as database:
        assert len(database.entries()) == 8 and database.verify() == []
    cluster.calls.clear()
    assert run(capsys, given, "--runner", MAKE, "--ray", "local", "-q")[1].startswith(f"{path}: 4 there already")


def test_a_cluster_names_machines_as_choices_do(file, path, capsys, monkeypatch):
    fake_ray.Cluster(monkeypatch, {"a": 4})
    given = file(HEAD + HAND)
    assert run(capsys, given, "--runner", "sweep_runners:make_here", "--ray", "local", "-q")[1] == f"{path}: 4 tuned\n"
    with Database(path, readonly=True) as database:
        (machine,) = database.machines().values()
    assert machine.text == lowlevel.Context("cpu", level="x86-64-v3").machine


def test_a_lost_machine_leaves_its_problem_to_another(file, path, capsys, monkeypatch):
    cluster = fake_ray.Cluster(monkeypatch, {"a": 4, "b": 8})
    get = cluster.get

    def get_and_lose(given, timeout=None):
        if timeout is None:
            cluster.lost.add("b")  # once it has work
        return get(given, timeout)

    cluster.module.get = get_and_lose
    assert run(capsys, file(HEAD + HAND), "--runner", MAKE, "--ray", "x", "-q")[:2] == (0, f"{path}: 4 tuned\n")
    works = [(node, problem) for node, name, problem in cluster.calls if name == "work"]
    assert len(works) == 5 and [node for node, _ in works].count("b") == 1
    cluster.lost.update({"a", "b"})
    code, _, err = run(capsys, file(HEAD + HAND.replace("64", "128")), "--runner", MAKE, "--ray", "x", "-q")
    assert code == 2 and "all machines of the Ray cluster are lost, 4 problems are left: start them" in err
    assert cluster.shut == 2


def test_a_machine_that_goes_before_it_has_a_worker_is_passed_over(file, path, capsys, monkeypatch):
    cluster = fake_ray.Cluster(monkeypatch, {"a": 4, "b": 8})
    cluster.never.add("b")
    assert run(capsys, file(HEAD + HAND), "--runner", MAKE, "--ray", "x", "-q")[:2] == (0, f"{path}: 4 tuned\n")
    assert [node for node, name, *_ in cluster.calls if name == "work"].count("b") == 1


def test_a_busy_machine_is_said(file, path, capsys, monkeypatch):
    cluster = fake_ray.Cluster(monkeypatch, {"a": 4})
    cluster.busy.add("a")
    code, _, err = run(capsys, file(HEAD + HAND), "--runner", MAKE, "--ray", "x", "-q")
    assert code == 2 and "gave no worker within 300 s: end what keeps its processors" in err and cluster.shut == 1


def test_a_cluster_without_machines_is_said(file, path, capsys, monkeypatch):
    fake_ray.Cluster(monkeypatch, {"gone": None})
    code, _, err = run(capsys, file(HEAD + HAND), "--runner", MAKE, "--ray", "x", "-q")
    assert code == 2 and "the Ray cluster has no machine with processors" in err
