#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails on what every file of the project must not have or must have: length, licence line, machine paths, labels.

It does not check formatting (scripts/format.sh) or includes (scripts/layer_lint.py).
"""
import argparse
import pathlib
import re
import sys

MAX_LINES = 1000
TOPS = (".ci", "bench", "cmake", "codegen", "dialect", "docs", "examples", "passes", "python", "runtime", "scripts",
        "tests", "tools")
LICENSED = (".h", ".c", ".cpp", ".cu", ".cuh", ".td", ".py", ".cmake", ".sh", ".ini")
TEXT = LICENSED + (".mlir", ".md", ".txt", ".json", ".in", ".map", "")
# Written in pieces, so that this file passes its own check.
PRIVATE = re.compile("|".join(re.escape(a + b) for a, b in (
    ("/wo", "rk/"), ("/ro", "ot/"), ("/tmp/", "venv"), ("/ho", "me/"), ("py", "pi.org"), ("python", "hosted.org"),
    ("download.py", "torch.org"), ("deb.deb", "ian.org"))))
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
LABEL = re.compile(r"^- `([a-z]+_c\d+)`", re.MULTILINE)
SOURCES = ("runtime", "dialect", "passes", "codegen", "python")
TESTS = ("tests",)


def files(root, tops):
    for top in tops:
        for file in sorted((root / top).rglob("*")):
            parts = file.relative_to(root).parts
            if file.is_file() and file.suffix in TEXT and "__pycache__" not in parts:
                yield file
    if tops is TOPS:
        yield from sorted(f for f in root.iterdir() if f.is_file() and (f.suffix in TEXT) and f.name != "LICENSE")


def check_file(path, text):
    lines = text.splitlines()
    generated = path.startswith(("docs/generated/", "tests/golden/"))
    if len(lines) > MAX_LINES and not generated:
        yield f"{path}:{MAX_LINES}: {len(lines)} lines, at most {MAX_LINES} are allowed; split the file by subject"
    licensed = pathlib.PurePath(path).suffix in LICENSED or pathlib.PurePath(path).name in ("CMakeLists.txt", "dev")
    if licensed and not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
        yield f"{path}:1: no licence; begin with a comment 'SPDX-License-Identifier: Apache-2.0'"
    for number, line in enumerate(lines, 1):
        if match := PRIVATE.search(line):
            yield f"{path}:{number}: '{match[0]}' belongs to one machine; use a relative path or a setting"
        if match := UNFINISHED.search(line):
            yield f"{path}:{number}: '{match[0]}' marks unfinished work; finish it or write down the limit"


def check_labels(root):
    spec = (root / "docs/format-spec.md").read_text(encoding="utf-8")
    for kind, tops in (("source file", SOURCES), ("test", TESTS)):
        text = "\n".join(f.read_text(encoding="utf-8") for f in files(root, tops))
        # A test's name may go on after the label, as in quantize_c4_constant_group.
        present = set(re.findall(r"(?<![a-z0-9])([a-z]+_c\d+)(?!\d)", text))
        for label in LABEL.findall(spec):
            if label not in present:
                number = spec[:spec.index(f"- `{label}`")].count("\n") + 1
                yield (f"docs/format-spec.md:{number}: no {kind} names {label}; name it where the rule is "
                       f"{'enforced' if kind == 'source file' else 'tested'}")


def lint(root):
    root = pathlib.Path(root)
    for file in files(root, TOPS):
        yield from check_file(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8"))
    yield from check_labels(root)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Fails on what a file of the project must not have or must have.")
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parent.parent)
    options = parser.parse_args(arguments)
    broken = list(lint(options.root))
    for line in broken:
        print(line)
    print(f"files: {len(broken)} broken rules" if broken else "files: lengths, licences, paths and labels are right")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
