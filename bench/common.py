# SPDX-License-Identifier: Apache-2.0
"""What the benchmark programs share: interleaved rounds, medians, records, and an allocator that is fair to PyTorch.

A record is {suite, name, value, unit, baseline, ratio}: baseline names another record's contender of the same run, and
ratio is the baseline's value over this one's (above 1: this one is faster). Both are null where there is nothing to
compare with.
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


def machine():
    """The processor's name and the number of cores that this process may use."""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {len(os.sched_getaffinity(0))} cores"
    return f"{len(os.sched_getaffinity(0))} cores"


def interleave(contenders, rounds, warm_up=1):
    """Times contenders {name: callable returning the number of units it did} in turns.

    Returns {name: [milliseconds a unit, one of each round]}. A machine that becomes slower for a while slows all of
    them; the order turns by one each round, so that nobody always follows the same neighbour.
    """
    names = list(contenders)
    times = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
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

    def add(self, name, value, unit, baseline=None, ratio=None):
        self.records.append({"suite": self.suite, "name": name, "value": value, "unit": unit, "baseline": baseline,
                             "ratio": ratio})
        against = f"   {ratio:6.2f}x of {baseline}" if baseline else ""
        print(f"{self.suite:10} {name:64} {value:10.3f} {unit}{against}", flush=True)

    def add_times(self, prefix, times, baselines_of, unit="ms"):
        """One record per contender and baseline, and one for the spread: half the range between the quartiles."""
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            for baseline in baselines_of(name, medians) or [None]:
                ratio = medians[baseline] / medians[name] if baseline else None
                self.add(f"{prefix} {name}", medians[name], unit, baseline and f"{prefix} {baseline}", ratio)
            if len(values) > 3:
                low, _, high = statistics.quantiles(values, n=4)
                self.add(f"{prefix} {name}, spread", (high - low) / 2, unit)

    def write(self, path):
        """Appends to the records that are in the file already: a run of several suites is one file."""
        file = pathlib.Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        file.write_text(json.dumps(before + self.records, indent=1) + "\n", encoding="utf-8")
