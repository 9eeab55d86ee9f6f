#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the wheel kvq-jit with pip and prints its size. It takes what build/release has already compiled.

`pip wheel .` alone configures a tree of its own and compiles everything, minutes. With the tree and the preset of
./dev build the same commands compile the same files, so that only what a wheel has on top is left: linking LLVM in,
seconds. Nothing is downloaded: the build backend is the one of .venv.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "build" / "release"


def make_program(tree):
    """The ninja that built a tree. Another version of ninja would not trust its log and build everything again."""
    match = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.+)$", (tree / "CMakeCache.txt").read_text(), re.MULTILINE)
    return match[1]


def pip_command(out, tree=None):
    """`pip wheel` into a folder; with the objects of a tree of the preset release, or from nothing."""
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-q",
               "--disable-pip-version-check", "--wheel-dir", str(out)]
    if tree is not None:
        command += ["-C", f"build-dir={tree}",
                    "-C", f"cmake.args=--preset=release;-DCMAKE_MAKE_PROGRAM={make_program(tree)}"]
    return command


def build(out, tree=None):
    """Builds into an empty folder and returns the wheel's path."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("kvq_jit-*.whl"):
        stale.unlink()
    subprocess.run(pip_command(out, tree), check=True, cwd=ROOT)
    (wheel,) = out.glob("kvq_jit-*.whl")
    return wheel


def sizes(wheel):
    """Bytes of the wheel, and of its files when they are installed."""
    with zipfile.ZipFile(wheel) as archive:
        return wheel.stat().st_size, sum(info.file_size for info in archive.infolist())


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="./dev wheel", description="Builds the wheel kvq-jit.")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "wheel", help="folder of the wheel")
    parser.add_argument("--from-nothing", action="store_true", help="as a user's pip does, in a tree of its own")
    options = parser.parse_args(arguments)
    try:
        wheel = build(options.out.resolve(), None if options.from_nothing else RELEASE)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"build_wheel: {error}; run ./dev wheel, which sets up and builds build/release first")
    packed, installed = sizes(wheel)
    print(f"{wheel}: {packed / 1e6:.1f} MB, {installed / 1e6:.1f} MB when installed")


if __name__ == "__main__":
    main()
