# SPDX-License-Identifier: Apache-2.0
"""A runner of split policies without a machine: a step takes what known prices say, as a machine gives it."""

import noisy
from kvq.tune.problem import Conditions, Deviation, Space
from kvq.tune.request_fields import parse
from kvq.tune.split_model import CacheShape, Prices
from kvq.tune.split_policy import ACCELERATOR, SplitPolicy, attend_request, parse_policy
from kvq.tune.splits import problem_of
from made_rows import COMPILER, MACHINE
from synthetic import ROUND, Clock

REQUEST = "split:k4c32-v4t32:vnni:p64:dk128:dv128:g4:f16:heads8:lag0:win0:cap0:exact"
DEFAULT = str(SplitPolicy())
TEXT, HEADS = attend_request(REQUEST)
SHAPE = CacheShape(parse(TEXT), HEADS)
PRICES = Prices(step=5e-6, wake=1e-5, program=2e-6, token=8e-9, read=2e-9, merge=2e-8)
DEAR_PROGRAMS = Prices(step=5e-6, wake=1e-5, program=4e-5, token=8e-9, read=2e-9, merge=2e-7)
SPLITS = problem_of(REQUEST, "x86-64-v4", threads=(1, 2, 4, 16))

GPU = "nvptx:sm_90"
GPU_REQUEST = "split:k4c32-v4t32:mma:p64:dk128:dv128:g4:f16:heads8:lag0:win0:cap0:exact"
GPU_DEFAULT = str(ACCELERATOR)
GPU_SHAPE = CacheShape(parse(attend_request(GPU_REQUEST)[0]), HEADS, resident=264)  # 8 warps on 132 multiprocessors, 4 a program
GPU_PRICES = Prices(step=8e-6, wake=0.0, program=3e-6, token=3.5e-9, read=5e-11, merge=4e-7)
GPU_DEAR_PROGRAMS = Prices(step=8e-6, wake=0.0, program=2e-5, token=3.5e-9, read=5e-11, merge=1e-6)
GPU_SPLITS = problem_of(GPU_REQUEST, GPU, batches=(1, 16, 64))


def conditions(tokens, batch=1, threads=1):
    return Conditions("cold", tokens, batch, HEADS, threads, 0)


class SplitsOnPaper:
    compiler, machine = COMPILER, MACHINE

    def __init__(self, prices=PRICES, kind="plain", wrong=(), seed=0):
        self.prices, self.wrong, self.clock = prices, wrong, Clock()
        self.disturbed, self.checked, self.timed = noisy.Disturbances(kind, seed, ROUND), set(), []

    def seconds(self, conditions, policy):
        return self.prices.seconds(SHAPE.load(conditions, parse_policy(policy)))

    def space(self, problem):
        return Space(DEFAULT, (DEFAULT,))

    def resident(self, problem):
        return 0

    def compile(self, problem, schedule):
        return schedule

    def check(self, problem, kernel, case):
        self.checked.add(kernel)
        return Deviation(1.0 if kernel in self.wrong else 0.0, 1e-3)

    def workload_bytes(self, problem):
        return 1 << 20

    def workload(self, problem, copies):
        return _Steps(self, problem.conditions)


class _Steps:
    def __init__(self, runner, conditions):
        self.runner, self.conditions = runner, conditions

    def run(self, kernel, copies):
        runner = self.runner
        assert kernel in runner.checked, f"{kernel} is timed and was not checked"
        runner.timed.append((str(self.conditions), kernel))
        stretch = runner.disturbed(len(runner.timed) % ROUND)
        seconds = runner.seconds(self.conditions, kernel) * stretch
        runner.clock.now += len(copies) * seconds
        return len(copies) * seconds

    def close(self):
        pass
