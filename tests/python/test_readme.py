# SPDX-License-Identifier: Apache-2.0
"""The Python programs in README.md run as they stand, one after the other, as a reader would type them."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.model
def test_the_programs_of_the_readme_run(tmp_path, monkeypatch, capsys):
    programs = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(programs) >= 2
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in programs:
        exec(compile(program, str(README), "exec"), names)
    assert names["branch"].lengths[0] == names["cache"].lengths[0] + 20 and names["thawed"] == 0
    assert (tmp_path / "chat.kvq").stat().st_size > names["cache"].report()["bytes_used"]
    said = capsys.readouterr().out
    assert "The way of a cache:" in said and str(names["cache"].lengths) in said
