#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What our attend kernels cost on NVIDIA GPUs, found without one: counts of the simulator and of machine code, and
predicted times, beside a kernel over a plain cache of halves. Nothing is timed.
"""
import argparse
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "bench"), str(ROOT / "tests" / "ptxsim"), str(ROOT / "tests")]

from gpu import cases, plain  # noqa: E402

COLUMNS = ("kernel", "target", "regs", "spill B", "warps", "B/elem", "requested", "used %", "conflicts", "instr/elem",
           "MMA/tile")
MATRIX = ("HMMA", "IMMA", "FP8 MMA")


def inspect(ptx, target, work, source):
    """The report of a kernel, with times for the GPUs of exactly this architecture."""
    from kvq.inspect import gpus, inspect_kernel

    own = [gpu for gpu in gpus.GPUS.values() if gpu.architecture == target]
    return inspect_kernel(ptx, gpus.architecture_of(f"nvptx:{target}"), work=work, source=source, gpus=own,
                          elements=cases.PREDICTED_ELEMENTS)


def attend_report(case, target, size, folder):
    from kvq.inspect import attend, tools

    ptx = tools.run("kvqc", [f"--target=nvptx:{target}", f"--request={case.request}", "--no-bundle"]).stdout
    return inspect(ptx, target, attend.attend_workload(case.request, ptx, size, folder), case.request)


def plain_report(target, size, folder):
    """Of the tile program of halves: the same compiler, another cache."""
    from kvq.inspect import tools, workload

    command = [str(plain.TILE_PROGRAM), f"--target=nvptx:{target}", "--no-bundle"]
    work = workload.read(plain.write_tile_workload(folder, size.tokens, size.heads, cases.RATIO, size.splits))
    return inspect(tools.run("kvqc", command).stdout, target, work, plain.TILE_PROGRAM.stem)


def by_hand_report(target, size, folder):
    import toolchain
    from kvq.inspect import workload

    work = workload.read(plain.write_workload(folder, size.tokens, size.heads, cases.RATIO, size.splits))
    ptx = toolchain.ptx(plain.KERNEL, folder=plain.FOLDER)
    return inspect(ptx, target, work, plain.KERNEL)


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
    size, used = counters["bytes_per_element"], counters["sector_share_used"]
    per_element = instructions(report)
    return (name, target, report["resources"]["registers"], report["resources"]["spill_bytes"],
            report["occupancy"]["warps"], f"{size['read_unique']:.4f}", f"{size['requested']:.4f}",
            "" if used is None else f"{100 * used:.1f}", counters["bank_conflicts"],
            "" if per_element is None else f"{per_element:.3f}",
            "" if loop is None else f"{sum(loop['classes'].get(name, 0) for name in MATRIX):.0f}")


def add(records, name, target, report):
    """The report as records: each figure that a kernel is judged by, and each prediction under its name."""
    case = {"kernel": name, "target": target}
    found = {"registers": (report["resources"]["registers"], "registers"),
             "spills": (report["resources"]["spill_bytes"], "bytes"),
             "bytes": (report["counters"]["bytes_per_element"]["read_unique"], "bytes/element"),
             "requested": (report["counters"]["bytes_per_element"]["requested"], "bytes/element"),
             "conflicts": (report["counters"]["bank_conflicts"], "conflicts")}
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
    return head, [(name, target, *(f"{1000 * counts[kind]:.0f}" if kind in counts else "" for kind in classes))
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
            yield f"{name:16} {gpu['gpu']:9} predicted {time} us, {share}, limited by {gpu['predicted_limiter']}"


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--tokens", type=int, default=4096, help="of the launches that are counted (default 4096)")
    parser.add_argument("--target", action="append", choices=cases.TARGETS, help="only this one")
    parser.add_argument("--format", action="append", metavar="PAIR", help="only this one, k4c32-v4t32, f16 (a tile program) or f16-cuda (by hand)")
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
    print("\n".join(("", *table(COLUMNS, [row(*found) for found in reports]), "",
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
