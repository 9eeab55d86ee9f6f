# SPDX-License-Identifier: Apache-2.0
"""What the benchmark programs share: interleaved rounds, medians, records, and an allocator that is fair to PyTorch.

A record is {suite, name, value, unit, spread, baseline, ratio} and what else a suite knows of the case. baseline names
another record of the same run, and ratio is the baseline's value over this one's (above 1: this one is faster). Both
are null where there is nothing to compare with; spread is null where a value was not measured in rounds.
"""
import json
import os
import pathlib
import statistics
import sys
import time

# Without these, glibc returns every large tensor to the kernel and page faults cost PyTorch several times its own work.
TUNED_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


def tune_allocator():
    """Starts this program again with the allocator's settings, which are read only when a process begins."""
    if any(os.environ.get(name) != value for name, value in TUNED_ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **TUNED_ALLOCATOR})


def last_level_cache_bytes():
    """Size of the largest cache that the system reports, or 32 MiB where it reports none."""
    sizes = []
    for file in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text(encoding="ascii").strip()
        sizes.append(int(text[:-1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[text[-1]])
    return max(sizes, default=32 * 2**20)


def facts(context):
    """What every figure of a run depends on: processor and its features, level, commit, versions, allocator."""
    import torch
    from kvq.evaluate import machine

    return {
        **machine.describe(context, torch.get_num_threads()),
        "features": machine.features(),
        "levels": context.levels,
        "dirty": (machine.commit() or "").endswith("+"),
        "last_level_cache_bytes": last_level_cache_bytes(),
    }


def title(suite, context):
    """The first words of a suite's output."""
    from kvq.evaluate import machine

    cores = len(os.sched_getaffinity(0))
    return f"{suite}: {machine.processor()}, {cores} cores; kvq level {context.level}; allocator tuned"


def rotation_bytes(mib=None):
    """Bytes that a contender works through in turn so as to read memory: twice the last-level cache, at most 1 GiB."""
    return mib * 2**20 if mib else min(2 * last_level_cache_bytes(), 2**30)


def copies_for(rotate_bytes, copy_bytes):
    """How many copies of so many bytes exceed what is to be rotated over; one does where nothing is."""
    return max(1, min(256, -(-rotate_bytes // copy_bytes)))


def median_and_spread(values):
    """The median and half the range between the quartiles, which needs four values."""
    if len(values) < 4:
        return statistics.median(values), None
    low, _, high = statistics.quantiles(values, n=4)
    return statistics.median(values), (high - low) / 2


def interleave(contenders, rounds, warm_up=1, before=None):
    """Times contenders {name: callable returning the number of units it did} in turns.

    before: {name: callable}, what is done ahead of a contender's turn and not timed.
    Returns {name: [milliseconds a unit, one of each round]}. A machine that becomes slower for a while slows all of
    them; the order turns by one each round, so that nobody always follows the same neighbour.
    """
    names = list(contenders)
    times = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            if before and name in before:
                before[name]()
            begin = time.perf_counter()
            units = contenders[name]()
            elapsed = (time.perf_counter() - begin) * 1e3 / units
            if turn >= 0:
                times[name].append(elapsed)
    return times


class Records:
    """Collects the records of one suite and prints each as it comes."""

    def __init__(self, suite):
        self.suite = suite
        self.records = []

    def add(self, name, value, unit, spread=None, baseline=None, ratio=None, **case):
        self.records.append({"suite": self.suite, "name": name, "value": value, "unit": unit, "spread": spread,
                             "baseline": baseline, "ratio": ratio, **case})
        around = f" +-{spread:.3f}" if spread is not None else ""
        against = f"   {ratio:.2f}x of {baseline}" if baseline else ""
        print(f"{self.suite:6} {name:58} {value:10.3f} {unit}{around}{against}", flush=True)

    def add_times(self, prefix, times, baselines_of, unit="ms"):
        """One record per contender, or per contender and baseline where it has some."""
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            value, spread = median_and_spread(values)
            for baseline in baselines_of(name, medians) or [None]:
                ratio = medians[baseline] / value if baseline else None
                self.add(f"{prefix} {name}", value, unit, spread, baseline and f"{prefix} {baseline}", ratio)

    def write(self, path, about, **own):
        """Writes {machine, records, and `own` under the suite's name}. The records join those that are in the file
        already: a run of several suites is one file."""
        file = pathlib.Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"records": []}
        content |= {"machine": about, "records": content["records"] + self.records}
        if own:
            content[self.suite] = own
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
