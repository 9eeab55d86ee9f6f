# SPDX-License-Identifier: Apache-2.0
"""Measures SmolLM2-135M-Instruct with quantized caches on this machine: kernels, chat, quality, speed, report.

This file reads the options and restarts itself once with the allocator settings that a fair baseline needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvq.evaluate import allocator
from kvq.lowlevel import ACCURACY_CLASSES, DEFAULT_ACCURACY


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kvq.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more windows and more decoding steps")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model in place of SmolLM2, for tests")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder of report.json and report.png")
    parser.add_argument("--device", default="cpu", choices=("cpu", "ref"), help="ref: the slow scalar reference")
    parser.add_argument("--windows", type=int, help="windows of text to measure quality on")
    parser.add_argument("--steps", type=int, help="decoding steps timed at each context length")
    parser.add_argument("--accuracy", choices=ACCURACY_CLASSES, default=DEFAULT_ACCURACY, help="of kvq's arithmetic")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    allocator.tune("kvq.demo", sys.argv[1:])
    from kvq.demo.run import run

    run(options)


if __name__ == "__main__":
    main()
