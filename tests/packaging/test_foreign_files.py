# SPDX-License-Identifier: Apache-2.0
"""The installed package beside files that another distribution put into its folder."""

import shutil

import pytest

from wheel_env import Installed

pytestmark = pytest.mark.wheel


@pytest.fixture
def copied(installed, tmp_path):
    """The installed package, where a test may add files: (its site-packages, a function that imports it)."""
    site = tmp_path / "site"
    shutil.copytree(installed.site, site, ignore=shutil.ignore_patterns("libkvq-compiler.so", "__pycache__"))

    def import_kvq():
        lines = f"import sys; sys.path.insert(0, {str(site)!r}); import kvq; print(kvq.__file__)"
        return Installed.run(installed, "-c", lines)

    return site, import_kvq


def refusal(result):
    assert result.returncode != 0
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    return last.removeprefix("ImportError: ")


def test_alone_it_imports(copied):
    site, import_kvq = copied
    result = import_kvq()
    assert result.returncode == 0 and result.stdout.strip() == str(site / "kvq" / "__init__.py"), result.stderr


@pytest.mark.parametrize("entry", ["cache.py", "ops.cpython-311-x86_64-linux-gnu.so", "models"])
def test_a_module_of_another_distribution_is_named(copied, entry):
    site, import_kvq = copied
    (site / "kvq" / entry).touch()
    info = site / "other_cache-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-cache\nVersion: 2.5\n")
    (info / "RECORD").write_text(f"kvq/{entry},,\nother_cache-2.5.dist-info/METADATA,,\n")
    assert refusal(import_kvq()) == (
        f"kvq-jit cannot be imported beside the distribution other-cache 2.5, which put {entry} there, because both "
        "own the folder kvq: run `pip uninstall other-cache`, then `pip install --force-reinstall kvq-jit`"
    )


def test_a_module_of_nobody_is_named(copied):
    site, import_kvq = copied
    (site / "kvq" / "stray.py").touch()
    said = refusal(import_kvq())
    assert "a file stray.py that kvq-jit did not install" in said and str(site / "kvq") in said


def test_files_that_are_no_modules_are_left_alone(copied):
    site, import_kvq = copied
    (site / "kvq" / "notes.txt").touch()
    (site / "kvq" / "__pycache__").mkdir(exist_ok=True)
    assert import_kvq().returncode == 0
