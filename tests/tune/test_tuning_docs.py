# SPDX-License-Identifier: Apache-2.0
"""Everything that docs/tuning.md tells a reader to type runs, in its order; the sweep with a runner that needs no
machine."""

import json
import re
import shlex
from pathlib import Path

from kvq.cli import main
from kvq.tune import sweep, sweep_run
from kvq.tune.database import Database
from kvq.tune.search import SMALL

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "tuning.md"
CONFIG = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "torch_dtype": "bfloat16"}


def test_the_commands_and_the_program_of_the_document_run(tmp_path, monkeypatch, capsys):
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("toml", "python"))
    (settings,), (choosing, program) = blocks
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (kvq tune .*)$", text, re.MULTILINE)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVQ_TUNE_DB", str(tmp_path / "tuning.db"))
    monkeypatch.setenv("KVQ_STORE", str(tmp_path / "store"))
    (tmp_path / "sweep.toml").write_text(settings)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps(CONFIG))
    verbs = {"model", "kernel", "splits", "sweep", "show", "verify", "report", "export", "import", "merge", "prune"}
    assert {command[1] for command in commands} == verbs
    for command in commands:
        runner = ["--runner", "sweep_runners:make_here"] if command[1] == "sweep" else []
        assert main([*command, *runner]) == 0, command
    said = capsys.readouterr().out
    assert "8 problems, 0 left out" in said and "8 tuned" in said and "rows=2" in said
    assert "14 there already" not in said and re.search(r"\d+ tuned, \d+ left; \d+ chosen; \d+ compiles", said), said
    assert (tmp_path / "report.html").stat().st_size > 10_000
    names = {}
    exec(compile(choosing, str(DOCUMENT), "exec"), names)
    assert capsys.readouterr().out.strip() == names["schedules"][0] != names["default"]
    exec(compile(program, str(DOCUMENT), "exec"), names)
    assert names["answer"].how == "nearest" and names["answer"].schedule == "rows=2"
    assert set(names["answer"].differences) == {"tokens 4096, not 8192", "compiler c0ffeec0ffee, not unknown"}
    with Database(readonly=True) as database:
        assert sum(entry.schedule == "rows=2" for entry in database.entries()) == 8


def test_the_document_names_every_key_and_strategy():
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in (*sweep._LISTS, *sweep._MODEL, *sweep.SearchOptions.__dataclass_fields__):
        assert f"`{name}`" in text or f"\n{name} = " in text, name
    assert f"at most {SMALL} schedules" in text and sweep_run.RUNNER not in text
