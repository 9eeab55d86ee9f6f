#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that what the TableGen files show and promise is tested.

Dialects: every ```mlir block of dialect/<name>/*.td stands in tests/lit/<name>/examples.mlir, which is read and
printed by a lit test; every label that a .td file defines (`load_c1: ...`) is named in tests/lit/<name>/*_errors.mlir.
Passes, with --kvq-opt PROGRAM: every ```mlir block of passes/*.td has the form `before ==> after`, and the pass turns
the first into the second. Their labels are named in tests/lit/passes/*_errors.mlir.

Only whole programs can be run, so this compares and runs text; what an example means is for the reader.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIT = ROOT / "tests" / "lit"
BLOCK = re.compile(r"^ *```mlir\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LABEL = re.compile(r"^ *(?:- )?(\w+_c\d+): ", re.MULTILINE)
# Long types of the examples under a short name.
ALIASES = """
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, \
v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, \
dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!kvq_codes = tensor<32x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
"""


def normalized(text):
    """The text without comments, every run of white space one blank."""
    return " ".join(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE).split())


def label_errors(sources, tests):
    """One message for each label of the sources that no test names in a comment."""
    tested = set()
    for test in tests:
        for comment in re.findall(r"^\s*// (.*)$", test.read_text(encoding="utf-8"), re.MULTILINE):
            tested.update(re.findall(r"\w+_c\d+", comment))
    for source in sources:
        for label in LABEL.findall(source.read_text(encoding="utf-8")):
            if label not in tested:
                yield f"{source.relative_to(ROOT)}: no negative test names the label {label}"


def dialect_errors(folder):
    sources = sorted(folder.glob("*.td"))
    tests = LIT / folder.name
    shown = normalized((tests / "examples.mlir").read_text(encoding="utf-8"))
    for source in sources:
        for block in BLOCK.findall(source.read_text(encoding="utf-8")):
            if normalized(block) not in shown:
                first = block.strip().splitlines()[0].strip()
                missing = (tests / "examples.mlir").relative_to(ROOT)
                yield f"{source.relative_to(ROOT)}: the example '{first}' is not in {missing}"
    yield from label_errors(sources, sorted(tests.glob("*_errors.mlir")))


def run(program, arguments, text):
    result = subprocess.run([program, *arguments], input=ALIASES + text, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout if result.returncode == 0 else result.stderr


def pass_errors(source, program):
    text = source.read_text(encoding="utf-8")
    for name, body in re.findall(r':\s*Pass<"([\w-]+)".*?\{(.*?)\n\}', text, re.DOTALL):
        for block in BLOCK.findall(body):
            where = f"{source.relative_to(ROOT)}: the example of {name}"
            before, arrow, after = block.partition("==>")
            if not arrow:
                yield f"{where} has no `==>`"
                continue
            # Both sides through the printer, so that only names and order of the printed form count.
            code, actual = run(program, [f"--{name}"], before)
            if code != 0:
                yield f"{where} does not run:\n{actual}"
                continue
            code, wanted = run(program, [], after)
            if code != 0:
                yield f"{where} shows a result that is no program:\n{wanted}"
            elif actual != wanted:
                yield f"{where} gives\n{actual}\nand not\n{wanted}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kvq-opt", help="also run the examples of the passes with this program")
    options = parser.parse_args()
    errors = []
    for folder in sorted(path for path in (ROOT / "dialect").iterdir() if path.is_dir()):
        errors += dialect_errors(folder)
    passes = sorted((ROOT / "passes").glob("*.td"))
    errors += label_errors(passes, sorted((LIT / "passes").glob("*_errors.mlir")))
    if options.kvq_opt:
        for source in passes:
            errors += pass_errors(source, options.kvq_opt)
    for error in errors:
        print(f"check_examples: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
