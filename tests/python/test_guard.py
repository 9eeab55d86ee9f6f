# SPDX-License-Identifier: Apache-2.0
"""`import kvq` beside a distribution of that name, wherever on sys.path it is. What lies in the package's own folder is
tested on the installed wheel (tests/packaging)."""

import os
import pathlib
import subprocess
import sys

import pytest

import kvq

OURS = pathlib.Path(kvq.__file__).parents[1]


def import_beside(folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(OURS), str(folder)))}
    code = "import kvq, sys; print(kvq.__file__)"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "entry, version",
    [
        ("kvq-1.2.3.dist-info", "1.2.3"),
        ("KVQ-0.9rc1.dist-info", "0.9rc1"),
        ("kvq-0.1-py3.11.egg-info", "0.1"),
        ("kvq.egg-info", "of unknown version"),
    ],
)
def test_a_distribution_named_kvq_is_refused(tmp_path, entry, version):
    (tmp_path / entry).mkdir()
    result = import_beside(tmp_path)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == (
        f"ImportError: kvq-jit cannot be imported beside the distribution kvq {version} in {tmp_path}, because both "
        "own the folder kvq: run `pip uninstall kvq`, then `pip install --force-reinstall kvq-jit`"
    )
    assert "_native" not in result.stderr


@pytest.mark.parametrize("entry", ["kvq_jit-0.1.0.dist-info", "kvq-tools-1.0.dist-info", "kvq_tools-1.0.dist-info",
                                   "kvqueue-1.0.dist-info", "kvq-1.0.txt", "kvq"])
def test_other_names_are_no_reason(tmp_path, entry):
    (tmp_path / entry).mkdir()
    result = import_beside(tmp_path)
    assert result.returncode == 0, result.stderr


def test_it_imports_nothing_that_the_interpreter_has_not(tmp_path):
    """Its cost is listing folders: no module beyond those of a bare start of Python."""
    code = f"import sys; before = set(sys.modules); sys.path.insert(0, {str(OURS / 'kvq')!r}); import _guard; " \
           "_guard.refuse_other_kvq(); _guard.refuse_other_files(); print(sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "['_guard']"
