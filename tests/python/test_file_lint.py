# SPDX-License-Identifier: Apache-2.0
"""The file lint finds planted faults: length, licence, machine paths, unfinished work, labels without source or test."""
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "file_lint.py"
LICENCE = "// SPDX-License-Identifier: Apache-2.0\n"


@pytest.fixture(name="tree")
def make_tree(tmp_path):
    """A tree in which nothing is wrong: one rule, enforced and tested."""
    for path, text in {
        "docs/format-spec.md": "# Spec\n\n- `fake_c1` A rule.\n",
        "runtime/format/fake.cpp": LICENCE + "// fake_c1\n",
        "tests/unit/fake_test.cpp": LICENCE + "TEST(Fake, fake_c1_holds) {}\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def run_lint(root):
    return subprocess.run([sys.executable, SCRIPT, "--root", root], capture_output=True, text=True, check=False)


def test_clean_tree_passes(tree):
    result = run_lint(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path, text, said", [
    ("runtime/a.cpp", LICENCE + "\n" * 1000, "runtime/a.cpp:1000: 1001 lines"),
    ("runtime/a.cpp", "int a;\n", "runtime/a.cpp:1: no licence"),
    ("runtime/CMakeLists.txt", "add_library(a)\n", "runtime/CMakeLists.txt:1: no licence"),
    ("docs/a.md", "see /wo" "rk/a\n", "docs/a.md:1: '/wo" "rk/'"),
    ("scripts/a.py", "# SPDX-License-Identifier: Apache-2.0\n# TO" "DO: more\n", "scripts/a.py:2: 'TO" "DO'"),
    ("README.md", "from py" "pi.org\n", "README.md:1: "),
    ("docs/format-spec.md", "- `fake_c1` A.\n- `fake_c2` B.\n", "docs/format-spec.md:2: no source file names fake_c2"),
    ("docs/format-spec.md", "- `fake_c1` A.\n- `fake_c2` B.\n", "docs/format-spec.md:2: no test names fake_c2"),
])
def test_fault_is_found(tree, path, text, said):
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text(text, encoding="utf-8")
    result = run_lint(tree)
    assert result.returncode == 1
    assert said in result.stdout


def test_label_is_not_found_inside_a_longer_one(tree):
    (tree / "docs/format-spec.md").write_text("- `fake_c1` A.\n- `fake_c12` B.\n- `ake_c1` C.\n", encoding="utf-8")
    result = run_lint(tree)
    assert "no test names fake_c12" in result.stdout
    assert "no test names ake_c1" in result.stdout
