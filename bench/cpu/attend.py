# SPDX-License-Identifier: Apache-2.0
"""The stream rate, and steps of decoding at several lengths, formats, classes and threads as shares of it."""
import common
from cpu.setting import D, FORMATS
from cpu.steps import Steps, add_step

STREAM = "the read loop"   # its turn among the steps


def stream(setting):
    """stream/<loop>/<threads>, in GB/s."""
    for threads in setting.size.threads:
        for loop, times in setting.stream.measure(threads, setting.rounds).items():
            rates = [setting.stream.bytes / ms / 1e6 for ms in times]
            value, spread = common.median_and_spread(rates)
            setting.records.add(f"stream/{loop}/{threads}", value, "GB/s", spread, threads=threads,
                                bytes=setting.stream.bytes, best=loop == setting.stream.best[threads])


def measure(setting, prefix, tokens, threads, rotate, repeat=1):
    """One record <prefix>/<format>/<class>/<tokens>/<threads> for each format and class, all in turns."""
    context = setting.context(threads)
    steps = {(text, name): Steps(context, text, [tokens], rotate=rotate, accuracy=name)
             for text in FORMATS for name in setting.classes}
    contenders = {case: repeated(step.run, repeat) for case, step in steps.items()}
    contenders[STREAM] = setting.stream_contender(threads)
    times = common.interleave(contenders, setting.rounds)
    for (text, name), step in steps.items():
        add_step(setting, f"{prefix}/{text}/{name}/{tokens}/{threads}", times[text, name], step.elements, step.bytes,
                 stream_times=times[STREAM], format=text, accuracy=name, tokens=tokens, threads=threads, d=D,
                 rotated_bytes=step.bytes * step.layers)


def repeated(turn, count):
    """A turn of `count` steps: one over a single small cache is too short to be timed."""
    return lambda: sum(turn() for _ in range(count))


def attend(setting):
    """attend/<format>/<class>/<tokens>/<threads>: from memory."""
    for tokens in setting.size.lengths:
        for threads in setting.size.threads:
            measure(setting, "attend", tokens, threads, setting.rotate)


def cached(setting):
    """cached/<format>/<class>/<tokens>/1: one cache again and again, at the shortest length: what computing costs."""
    measure(setting, "cached", setting.size.lengths[0], 1, rotate=0, repeat=16)
