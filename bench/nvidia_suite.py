#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What our attend kernels cost on NVIDIA GPUs, found without one: counts of the simulator and of machine code, and
predicted times, beside two kernels over a plain cache of halves: a tile program compiled by kvqc, which is the one that
ours compare with, and one by hand in CUDA C++. Nothing is timed.
"""
import argparse
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "bench"), str(ROOT / "tests" / "ptxsim"), str(ROOT / "tests")]

from gpu import cases, plain  # noqa: E402

COLUMNS = ("kernel", "target", "regs", "spill B", "warps", "B/elem", "requested", "used %", "conflicts", "steady B/elem",
           "used %", "conflicts", "instr/elem", "MMA/turn")
# How tables name the caches of halves, and --format.
LABELS = {"f16": "f16, tile program (kvqc)", "f16-cuda": "f16, by hand (CUDA C++)"}
MATRIX = ("HMMA", "IMMA", "FP8 MMA")


def inspect(ptx, target, work, less, source):
    """The report of a kernel, with times for the GPUs of exactly this architecture."""
    from kvq.inspect import gpus, inspect_kernel

    own = [gpu for gpu in gpus.GPUS.values() if gpu.architecture == target]
    return inspect_kernel(ptx, gpus.architecture_of(f"nvptx:{target}"), work=work, less=less, source=source, gpus=own,
                          elements=cases.PREDICTED_ELEMENTS)


def attend_report(case, target, size, folder):
    from kvq.inspect import attend, requests

    compiled = requests.compile_request(case.request, f"nvptx:{target}")
    return inspect(compiled.ptx, target, *attend.workloads(case.request, compiled, size, folder), case.request)


def plain_workloads(write, size, folder):
    """Of all tokens and of half of them."""
    from kvq.inspect import workload

    folders = folder, folder / "half"
    folders[1].mkdir()
    return [workload.read(write(place, size.tokens // parts, size.heads, cases.RATIO, size.splits))
            for parts, place in enumerate(folders, 1)]


def plain_report(target, size, folder):
    """Of the tile program of halves: the same compiler, another cache."""
    from kvq.inspect import tools

    command = [str(plain.TILE_PROGRAM), f"--target=nvptx:{target}", "--no-bundle"]
    works = plain_workloads(plain.write_tile_workload, size, folder)
    return inspect(tools.run("kvqc", command).stdout, target, *works, plain.TILE_PROGRAM.stem)


def by_hand_report(target, size, folder):
    import toolchain

    ptx = toolchain.ptx(plain.KERNEL, folder=plain.FOLDER)
    return inspect(ptx, target, *plain_workloads(plain.write_workload, size, folder), plain.KERNEL)


def instructions(report):
    """Thread instructions an element of the steady-state loop with those around and inside of it; None: not known."""
    return report["loop"] and report["loop"]["thread_instructions_per_element_of_nest"]


def by_class(report):
    """The same of the steady-state loop's own blocks, by class of instruction."""
    loop = report["loop"]
    if loop is None or not loop["elements_per_iteration"]:
        return {}
    return {name: 32 * count / loop["elements_per_iteration"] for name, count in loop["classes"].items() if count}


def row(name, target, report):
    counters, loop = report["counters"], report["loop"]
    size, steady = counters["bytes_per_element"], counters["steady_state"]
    per_element = instructions(report)
    return (LABELS.get(name, name), target, report["resources"]["registers"], report["resources"]["spill_bytes"],
            report["occupancy"]["warps"], f"{size['read_unique']:.4f}", f"{size['requested']:.4f}", percent(counters),
            counters["bank_conflicts"],
            *(("", "", "") if steady is None else
              (f"{steady['bytes_per_element']['read_unique']:.4f}", percent(steady), steady["bank_conflicts"])),
            "" if per_element is None else f"{per_element:.3f}",
            "" if loop is None else f"{sum(loop['classes'].get(name, 0) for name in MATRIX):.0f}")


def percent(counters):
    """Of the bytes of sectors, how many were used."""
    used = counters["sector_share_used"]
    return "" if used is None else f"{100 * used:.1f}"


def add(records, name, target, report):
    """The report as records: each figure that a kernel is judged by, and each prediction under its name."""
    case = {"kernel": name, "target": target}
    found = {"registers": (report["resources"]["registers"], "registers"),
             "spills": (report["resources"]["spill_bytes"], "bytes"),
             "bytes": (report["counters"]["bytes_per_element"]["read_unique"], "bytes/element"),
             "requested": (report["counters"]["bytes_per_element"]["requested"], "bytes/element"),
             "conflicts": (report["counters"]["bank_conflicts"], "conflicts")}
    if steady := report["counters"]["steady_state"]:
        found |= {"steady/bytes": (steady["bytes_per_element"]["read_unique"], "bytes/element"),
                  "steady/conflicts": (steady["bank_conflicts"], "conflicts")}
        if steady["sector_share_used"] is not None:
            found["steady/used"] = (steady["sector_share_used"], "of the bytes of sectors")
    if instructions(report) is not None:
        found["instructions"] = (instructions(report), "thread instructions/element")
    for kind, count in by_class(report).items():
        found[f"instructions/{kind}"] = (count, "thread instructions/element")
    for what, (value, unit) in found.items():
        records.add(f"{name}/{target}/{what}", value, unit, **case)
    for gpu in (report["predicted"] or {"gpus": []})["gpus"]:
        if gpu["predicted_us"] is not None:
            records.add(f"{name}/{target}/predicted/{gpu['gpu']}", gpu["predicted_us"], "us predicted",
                        limiter=gpu["predicted_limiter"], bandwidth_share=gpu["predicted_bandwidth_share"], **case)


def class_rows(reports):
    """The head of the table of classes, and its lines; 1000 elements, as most classes have few."""
    found = [(name, target, by_class(report)) for name, target, report in reports]
    classes = sorted({kind for *_, counts in found for kind in counts},
                     key=lambda kind: -max(counts.get(kind, 0) for *_, counts in found))
    head = ("per 1000 elements", "target", *classes)
    return head, [(LABELS.get(name, name), target, *(f"{1000 * counts[kind]:.0f}" if kind in counts else "" for kind in classes))
                  for name, target, counts in found]


def table(columns, rows):
    widths = [max(len(str(line[i])) for line in (columns, *rows)) for i in range(len(columns))]
    for line in (columns, *rows):
        yield "  ".join(str(value).ljust(w) if i < 2 else str(value).rjust(w)
                        for i, (value, w) in enumerate(zip(line, widths, strict=True)))


def predictions(reports):
    yield (f"PREDICTED from peak rates, not measured: us for {cases.PREDICTED_ELEMENTS} elements (32k tokens, 8 KV "
           "heads)")
    for name, _, report in reports:
        for gpu in (report["predicted"] or {"gpus": []})["gpus"]:
            time = "      -" if gpu["predicted_us"] is None else f"{gpu['predicted_us']:7.1f}"
            share = f"{100 * gpu['predicted_bandwidth_share']:5.1f} % of bandwidth"
            yield f"{LABELS.get(name, name):24} {gpu['gpu']:9} predicted {time} us, {share}, limited by {gpu['predicted_limiter']}"


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--tokens", type=int, default=4096, help="of the launches that are counted (default 4096)")
    parser.add_argument("--target", action="append", choices=cases.TARGETS, help="only this one")
    parser.add_argument("--format", action="append", metavar="PAIR",
                        help="only this one, k4c32-v4t32, f16 (a tile program compiled by kvqc) or f16-cuda (by hand)")
    options, _ = parser.parse_known_args(arguments)
    return options


def main(arguments=None):
    options = options_of(arguments)
    import common
    from kvq import lowlevel
    from kvq.errors import Error
    from kvq.inspect import attend

    records, reports, failed = common.Records("nvidia"), [], []
    size = attend.AttendSize(options.tokens)
    contenders = [(case.format, lambda t, f, case=case: attend_report(case, t, size, f)) for case in cases.CASES]
    contenders.append(("f16", lambda t, f: plain_report(t, size, f)))
    contenders.append(("f16-cuda", lambda t, f: by_hand_report(t, size, f)))
    for name, report_of in contenders:
        if options.format and name not in options.format:
            continue
        for target in options.target or cases.TARGETS:
            with tempfile.TemporaryDirectory(prefix="kvq-bench-") as folder:
                try:
                    report = report_of(target, pathlib.Path(folder))
                except Error as error:
                    failed.append(f"{name} for {target}: {error}")
                    continue
            add(records, name, target, report)
            reports.append((name, target, report))
    print("\n".join(("", "'steady': less a launch over half of the tokens, which leaves out what a launch does once",
                     *table(COLUMNS, [row(*found) for found in reports]), "",
                     "thread instructions of the steady-state loop by class",
                     *table(*class_rows(reports)), "", *predictions(reports))))
    for message in failed:
        print(f"not inspected: {message}")
    if options.json:
        records.write(options.json, common.facts(lowlevel.Context()), reports=[report for _, _, report in reports],
                      not_inspected=failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
