#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Attend kernels on a GPU that is here: bytes of packed pages a second, as shares of what the GPU copies, and beside
what the static model predicts. `--device ptxsim` tries the program out in the simulator, whose times say nothing.
"""
import argparse
import pathlib
import statistics

import common
from gpu import cases

COPY = pathlib.Path(__file__).parent / "gpu" / "copy.ptx"
THREADS, PIECES = 256, 4  # of a block of copy.ptx; of 16 bytes, that a thread moves
LAUNCHES = 16  # of a sample, at least: they share one wait


def copier(context, size):
    """A callable that copies so many bytes within the GPU and waits; the bytes that it moves, read and written."""
    import numpy as np
    from kvq import lowlevel

    kernel = lowlevel.compile(context, COPY.read_text(encoding="utf-8"), "copy")
    source, target = context.buffer(size), context.buffer(size)
    source.fill(1)
    target.fill(0)
    blocks = -(-size // (16 * PIECES * THREADS))

    def once():
        for _ in range(LAUNCHES):
            kernel.launch([source, target, size // 16], grid=[blocks, 1, 1], block=[THREADS, 1, 1])
        context.synchronize()
        return LAUNCHES

    once()
    last = np.zeros(16, np.uint8)
    target.download(last, offset=size // 16 * 16 - 16)
    assert last.all(), "copy.ptx does not copy"
    return once, 2 * (size // 16 * 16)


def attender(runner, problem, options):
    """A callable that runs the default kernel over all copies of its inputs and returns how many; bytes of one."""
    from kvq.tune import measure
    from kvq.tune.kernel_requests import bytes_read

    copies = options.copies or measure.copies_for(runner, problem)
    workload = runner.workload(problem, copies)
    kernel = runner.compile(problem, runner.space(problem).default)

    turns = [index % copies for index in range(max(LAUNCHES, copies))]

    def once():
        workload.run(kernel, turns)
        return len(turns)

    once()
    return once, bytes_read(problem.request, problem.conditions)


def predicted(context, problem):
    """Seconds by the model of `kvq inspect`, or why there are none."""
    from kvq import errors
    from kvq.tune.prediction import GpuPredictor

    try:
        predictor = GpuPredictor(context.level, context.description)
        return predictor.predict(problem, ""), predictor.gpu.name
    except errors.Error as error:
        return None, str(error)


def measure_case(context, runner, case, options, records):
    from kvq.tune.problem import Conditions, Problem

    problem = Problem(case.request, context.level,
                      Conditions(tokens=options.tokens, batch=options.batch, heads=options.heads))
    attend, attend_bytes = attender(runner, problem, options)
    copy, copy_bytes = copier(context, options.copy_mib << 20)
    times = common.interleave({"copy": copy, "attend": attend}, options.rounds)
    rates = {name: [size / value / 1e6 for value in times[name]]
             for name, size in (("copy", copy_bytes), ("attend", attend_bytes))}
    copied, spread = common.median_and_spread(rates["copy"])
    records.add(f"{case.format}/copy", copied, "GB/s", spread)
    reached, spread = common.median_and_spread(rates["attend"])
    seconds, of = predicted(context, problem)
    records.add(f"{case.format}/attend", reached, "GB/s", spread, f"{case.format}/copy", reached / copied,
                bytes=attend_bytes, us=1e3 * statistics.median(times["attend"]),
                predicted_us=seconds and 1e6 * seconds, predicted_of=of)
    told = f"predicted {1e6 * seconds:.3g} us for {of}" if seconds else f"no prediction: {of}"
    print(f"       measured {1e3 * statistics.median(times['attend']):.1f} us; {told}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, or ptxsim for a trial run")
    parser.add_argument("--tokens", type=int, default=32768, help="of a sequence (default 32768)")
    parser.add_argument("--batch", type=int, default=8, help="sequences (default 8)")
    parser.add_argument("--heads", type=int, default=8, help="KV heads (default 8)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--copies", type=int, help="of the inputs (default: more than the second level holds)")
    parser.add_argument("--copy-mib", type=int, default=512, help="that are copied (default 512)")
    parser.add_argument("--format", action="append", metavar="PAIR", help="only this one")
    parser.add_argument("--json", metavar="FILE", help="append the records to FILE")
    options = parser.parse_args()
    from kvq import errors, lowlevel
    from kvq.tune.kernels import KernelRunner

    try:
        context = lowlevel.Context(options.device, store_dir="")
    except errors.Error as error:
        raise SystemExit(f"bench gpu needs a GPU: {error}") from error
    print(f"gpu: {context.description}")
    records, runner = common.Records("gpu"), KernelRunner(options.device, context.level)
    for case in cases.CASES:
        if not options.format or case.format in options.format:
            measure_case(context, runner, case, options, records)
    if options.json:
        records.write(options.json, common.facts(context))


if __name__ == "__main__":
    main()
