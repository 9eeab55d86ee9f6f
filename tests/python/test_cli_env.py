# SPDX-License-Identifier: Apache-2.0
"""`kvq env` and the command line's own behaviour: what is shown, what is imported, what stays private."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kvq.cli import environment, main
from kvq.evaluate import machine

import kvq


@pytest.fixture
def facts(capsys):
    assert main(["env", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_what_a_bug_report_needs(facts):
    assert set(facts) == {"kvq", "compiler", "processor", "accelerators", "memory", "kernel store", "python", "system",
                          "environment"}
    assert facts["kvq"]["accuracy classes"] == ["full", "exact", "normal", "fast"]
    assert facts["kvq"]["default accuracy class"] == kvq.lowlevel.DEFAULT_ACCURACY
    assert facts["kvq"]["version"] == kvq.__version__ and facts["kvq"]["kernel ABI"] >= 1
    context = kvq.lowlevel.shared_context()
    assert facts["processor"]["levels"] == context.levels and facts["processor"]["level in use"] == context.level
    assert facts["processor"]["cores for this process"] == len(os.sched_getaffinity(0))
    for name in ("torch", "transformers", "numpy"):
        assert facts["python"][name] == importlib.metadata.version(name)
    assert facts["system"]["libc"].startswith("glibc 2.")
    assert 0 < facts["memory"]["bytes available"] <= facts["memory"]["bytes in all"]
    if facts["compiler"]["plug-in"]:
        assert facts["compiler"]["LLVM"].split(".")[0].isdigit() and len(facts["compiler"]["hash"]) >= 16


def test_gpu_or_why_there_is_none(facts):
    line = facts["accelerators"]["cuda"]
    assert "\n" not in line
    assert "compute capability" in line or line.startswith("cannot be used: ") and line.count(": ") >= 2


def test_text_says_the_same(facts, capsys):
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    for section, values in facts.items():
        assert f"{section}:\n" in text
        assert all(f"  {name}: " in text for name in values)


def test_store_is_described(monkeypatch, tmp_path, capsys):
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    (store / "kernel").write_bytes(b"12345")
    monkeypatch.setenv("KVQ_STORE", str(store))
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["kernel store"]
    assert (found["exists"], found["mode"], found["files"], found["bytes"]) == (True, "drwx------", 1, 5)


def test_default_store_is_where_a_context_puts_kernels(tmp_path):
    """The rule is written down twice, here and in C++: both must find the same folder."""
    text = "module { kvq_tile.kernel @k() { kvq_tile.return } }"
    code = f"import kvq\ntry: kvq.compile({text!r})\nexcept kvq.Error: pass\n"
    code += "from kvq.cli.environment import store_folder\nprint(store_folder())"
    for extra in ({"XDG_CACHE_HOME": str(tmp_path / "xdg")}, {}, {"XDG_CACHE_HOME": "relative"}):
        environment = {name: value for name, value in os.environ.items() if name not in ("KVQ_STORE", "XDG_CACHE_HOME")}
        environment |= {"HOME": str(tmp_path / "user"), **extra}
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert Path(result.stdout.strip()).is_dir(), result.stderr
        assert tmp_path in Path(result.stdout.strip()).parents


def test_home_and_secrets_stay_private(monkeypatch, capsys):
    home = str(machine.PACKAGE.parent)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("KVQ_TORCH_INDEX", "https://somebody:password@example.org/simple")
    monkeypatch.setenv("KVQ_TOKEN", "hush")
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["env", "--json"]) == 0
    text = capsys.readouterr().out
    assert home not in text and "~/kvq" in text
    assert "password" not in text and "hush" not in text
    shown = json.loads(text)["environment"]
    assert shown["OMP_NUM_THREADS"] == "3" and shown["KVQ_TORCH_INDEX"] == "(set)"


def test_foreign_distributions_are_named(monkeypatch, tmp_path):
    info = tmp_path / "kvq-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kvq\nVersion: 9.9\n")
    assert environment.foreign_distributions() == []
    monkeypatch.syspath_prepend(str(tmp_path))
    assert environment.foreign_distributions() == [f"kvq 9.9 in {tmp_path}"]


@pytest.mark.parametrize("arguments", [["env", "--help"], ["--help"], ["eval", "--help"], ["chat", "--help"], ["env"],
                                       ["eval", "nowhere"], ["chat", "nowhere"]])
def test_torch_is_not_imported_without_need(arguments):
    code = (
        "import sys\nfrom kvq.cli import main\nmain(sys.argv[1:])\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "[]"


def test_module_is_a_program():
    command = [sys.executable, "-m", "kvq", "chat", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.startswith("kvq: there is no model 'nowhere'")
    assert len(result.stderr.splitlines()) == 1
