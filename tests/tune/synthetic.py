# SPDX-License-Identifier: Apache-2.0
"""A runner without a machine: spaces whose times are known, samples as a machine gives them, and a clock that only it
moves. Candidates fail on demand."""

import itertools
import math
import random
import threading

import noisy
from kvq.tune.problem import Crashed, Deviation, Infeasible, Space, TimedOut
from made_rows import COMPILER, MACHINE

KNOBS = {"tile_tokens": (32, 64, 128, 256), "rows": (1, 2, 3, 4), "vectors": (1, 2, 4), "prefetch": (0, 1, 2, 4)}
ROUND = 1000  # samples: what a period of the disturbances is


def schedules(knobs=None):
    knobs = KNOBS if knobs is None else knobs
    names = list(knobs)
    return tuple(",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
                 for values in itertools.product(*knobs.values()))


def landscape(seed, names=None, knobs=None):
    """{schedule: seconds}: each knob has its own effect, each pair of knobs a smaller one, each schedule a still
    smaller one of its own; the slowest are some four times as slow as the fastest."""
    knobs = KNOBS if knobs is None else knobs
    rng = random.Random(seed)
    names = schedules(knobs) if names is None else names
    effects = {(knob, str(value)): rng.uniform(0, 0.35) for knob, values in knobs.items() for value in values}
    pairs = {}
    times = {}
    for name in names:
        parts = [tuple(part.split("=")) for part in name.split(",")]
        log = sum(effects[part] for part in parts)
        for pair in itertools.combinations(parts, 2):
            log += pairs.setdefault(pair, rng.uniform(0, 0.12))
        times[name] = 1e-3 * math.exp(log + rng.uniform(0, 0.05))
    return times


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class SyntheticWorkload:
    def __init__(self, runner, copies):
        self.runner, self.copies, self.closed, self.used = runner, copies, False, []

    def run(self, kernel, copies):
        assert not self.closed and all(0 <= copy < self.copies for copy in copies)
        self.used.append(tuple(copies))
        return sum(self.runner.spend(kernel) for _ in copies)

    def close(self):
        self.closed = True


class SyntheticRunner:
    """`times`: {schedule: seconds}. `fails`: {schedule: status}. `kind`: what disturbs samples. Everything that is done
    is in `events`: ("compile", schedule), ("check", schedule, case), ("time", schedule)."""

    compiler = COMPILER
    machine = MACHINE

    def __init__(self, times, *, default=None, kind="plain", seed=0, fails=None, compile_seconds=0.0):
        self.times, self.default = times, default or next(iter(times))
        self.fails, self.compile_seconds = fails or {}, compile_seconds
        self.clock, self.events, self.samples = Clock(), [], 0
        self.disturbed = noisy.Disturbances(kind, seed, ROUND)
        self.workloads = []
        self.lock = threading.Lock()

    def space(self, problem):
        return Space(self.default, tuple(self.times))

    def compile(self, problem, schedule):
        with self.lock:
            self.events.append(("compile", schedule))
            self.clock.now += self.compile_seconds
        if self.fails.get(schedule) == "infeasible":
            raise Infeasible("too many registers:\n 300 of 255")
        if self.fails.get(schedule) == "mistake":
            raise KeyError("a mistake of the runner")
        return schedule

    def check(self, problem, kernel, case):
        self.events.append(("check", kernel, case.name))
        if self.fails.get(kernel) == "wrong" and case.outliers:  # right on normal values
            return Deviation(0.5, 1e-3)
        return Deviation(math.nan if self.fails.get(kernel) == "nan" else 1e-4, 1e-3)

    def workload_bytes(self, problem):
        return 3 << 20

    def workload(self, problem, copies):
        self.workloads.append(SyntheticWorkload(self, copies))
        return self.workloads[-1]

    def spend(self, kernel):
        """Seconds of one run, which the clock goes on by."""
        assert ("check", kernel, "normal") in self.events, f"{kernel} is timed and was not checked"
        self.events.append(("time", kernel))
        self.samples += 1
        if self.fails.get(kernel) == "crashed":
            raise Crashed("the device was lost")
        if self.fails.get(kernel) == "timed out":
            raise TimedOut("it did not end within 5 s")
        seconds = self.times[kernel] * self.disturbed(self.samples % ROUND)
        self.clock.now += seconds
        return seconds

    def timed(self):
        return [event[1] for event in self.events if event[0] == "time"]


class SyntheticPredictor:
    compiler = COMPILER

    def __init__(self, times, machine, default=None, fails=()):
        self.times, self.machine, self.default, self.fails = times, machine, default or next(iter(times)), fails

    def space(self, problem):
        return Space(self.default, tuple(self.times))

    def predict(self, problem, schedule):
        if schedule in self.fails:
            raise Infeasible("it spills")
        return self.times[schedule]
