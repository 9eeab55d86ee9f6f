#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvq's attention on the CPU beside the memory's speed and its peers, in one run: ./dev bench cpu --json FILE.

Writes the records to FILE and a roofline beside it. bench/README.md has the method.
"""
import argparse
import pathlib
import sys
import time

import common
from cpu import attend, beside, native, peers, quantize, report, roofline, shapes
from cpu.setting import FULL, MOST_ROUNDS, QUICK, Setting

PARTS = {
    "stream": attend.stream,
    "attend": attend.attend,
    "cached": attend.cached,
    "peers": peers.peers,
    "heads": shapes.heads,
    "ratios": shapes.ratios,
    "queries": shapes.queries,
    "window": shapes.window,
    "prefill": shapes.prefill,
    "ragged": shapes.ragged,
    "torch": beside.torch,
    "quantize": quantize.quantize,
}


def parse(arguments):
    from kvq import lowlevel

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="append the records to FILE and draw FILE's name with .png")
    parser.add_argument("--quick", action="store_true",
                        help="two minutes: fewer tokens and rounds; ggml only if it is built already")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="NAME",
                        help=f"only this part; may be repeated: {', '.join(PARTS)}")
    parser.add_argument("--accuracy", action="append", choices=lowlevel.ACCURACY_CLASSES, metavar="CLASS",
                        help="only this accuracy class; may be repeated")
    parser.add_argument("--rounds", type=int, help=f"timed rounds (default {FULL.rounds}; --quick {QUICK.rounds})")
    parser.add_argument("--level", help="CPU level that kvq compiles for (default: the best of this machine)")
    parser.add_argument("--rotate-mib", type=int, help="bytes to rotate over (default: twice the last-level cache, at "
                        "most 1024)")
    options = parser.parse_args(arguments)
    if options.rounds is not None and not 1 <= options.rounds <= MOST_ROUNDS:
        parser.error(f"--rounds is {options.rounds}: give 1 to {MOST_ROUNDS}")
    return options


def run_parts(setting, names):
    """The names of the parts that failed; each says why in one sentence, and the others go on."""
    from kvq import errors

    failed = []
    for name in names:
        begin = time.monotonic()
        print(f"--> {name}", flush=True)
        try:
            PARTS[name](setting)
        except (native.Missing, errors.Error, MemoryError) as error:
            print(f"bench cpu: part {name} failed: {error}", flush=True)
            failed.append(name)
        print(f"--> {name}: done in {time.monotonic() - begin:.0f} s", flush=True)
    return failed


def main(arguments=None):
    options = parse(arguments)
    common.tune_allocator()
    import torch
    from kvq import errors

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        setting = Setting(QUICK if options.quick else FULL, options.level, options.rotate_mib, options.rounds,
                          build_ggml=not options.quick, classes=options.accuracy)
    except errors.Error as error:
        sys.exit(f"bench cpu: {error}")
    context = setting.context(1)
    print(f"{common.title('cpu', context)}; classes {', '.join(setting.classes)}; rotating over "
          f"{setting.rotate >> 20} MiB; {setting.rounds} rounds")
    failed = run_parts(setting, options.only or PARTS)
    about, records = common.facts(context), setting.records.records
    shown = report.print_report(report.Report(records, about, setting.classes, setting.size), setting.missing)
    if options.json:
        setting.records.write(options.json, about, classes=setting.classes, quick=options.quick, shown=shown,
                              peers=peers.versions(), missing=setting.missing, failed=failed,
                              rotated_bytes=setting.rotate)
        picture = pathlib.Path(options.json).with_suffix(".png")
        roofline.draw(picture, records, about, setting.size.threads)
        print(f"written: {options.json}, {picture}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
