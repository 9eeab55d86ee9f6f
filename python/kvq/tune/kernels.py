# SPDX-License-Identifier: Apache-2.0
"""The runner of a processor that is here, the host's or a GPU: compiles a request's kernels by the runtime, checks them
against device `ref` and times them over the launches that a step makes."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kvq import errors, lowlevel
from kvq.tune import budgets, cache_launches, launch_data
from kvq.tune.attend_launch import AttendShared, Part, Plan, attend_launch
from kvq.tune.capability import parse_machine
from kvq.tune.compiler import compiler_hash
from kvq.tune.kernel_requests import is_accelerator
from kvq.tune.launch_memory import Launch, LaunchMemory
from kvq.tune.problem import CheckCase, Deviation, Infeasible, Predictor, Problem, Runner, Space
from kvq.tune.request_fields import Fields, parse
from kvq.tune.split_policy import SplitPolicy, parse_policy

CHECK_HEADS = 2
CHECK_WINDOW = 50  # more than a page: tokens that a query sees of a request with a window
MERGED_RATIO = 4  # query heads of a KV head, of which a request for merge says nothing
REFUSED = (errors.InvalidArgument, errors.Unsupported, errors.ResourceExhausted)  # by the compiler


@functools.cache
def device_of(target: str) -> str | None:
    """The device of this machine that runs kernels of a target; None where there is none."""
    if not is_accelerator(target):
        return "cpu"
    try:
        lowlevel.Context("cuda", level=target, store_dir="")
    except errors.Error:
        return None
    return "cuda"


def make_runner(target: str, gpu: str = "") -> Runner | Predictor:
    """What measures kernels of a target; for a GPU that is not here, or one of the table of `kvq inspect`, what predicts
    by the static model."""
    device = None if gpu else device_of(target)
    if device is None:
        from kvq.tune.prediction import GpuPredictor

        return GpuPredictor(target, gpu)
    return KernelRunner(device, target)


class KernelRunner:
    """Of one device and level. On a host kernels are launched with as many threads as the conditions say."""

    def __init__(self, device: str, target: str) -> None:
        self.compiler = compiler_hash()
        self.device, self.level = device, target
        self._context = self._context_of(1)
        self.machine = parse_machine(self._context.machine)
        self._reference = lowlevel.Context("ref", threads=1, store_dir="")
        self._wanted: dict[tuple[str, CheckCase], _Checked] = {}
        self._lock = threading.Lock()

    def _context_of(self, threads: int) -> lowlevel.Context:
        # Nothing is kept in a folder: a kernel that is timed was compiled for it.
        return lowlevel.Context(self.device, level=self.level, threads=threads, store_dir="")

    @property
    def _is_host(self) -> bool:
        return self.device == "cpu"

    @property
    def policy(self) -> SplitPolicy:
        return parse_policy(self._context.default_split_policy)

    def space(self, problem: Problem) -> Space:
        default, schedules = self._context.schedule_space(problem.request)
        return Space(default, tuple(schedules))

    def compile(self, problem: Problem, schedule: str) -> lowlevel.Kernel:
        context = self._context_of(problem.conditions.threads) if self._is_host else self._context
        try:
            return lowlevel.open_kernel(context, problem.request, schedule=schedule)
        except REFUSED as error:
            raise Infeasible(str(error)) from error

    def check(self, problem: Problem, kernel: lowlevel.Kernel, case: CheckCase) -> Deviation:
        fields = parse(problem.request)
        with self._lock:  # the launch's memory
            checked = self._checked(fields, case)
            got = checked.launch.run(kernel)
        if fields.operation == "attend":
            return budgets.partials(fields, case, got, checked.wanted)
        if fields.operation == "merge":
            return budgets.merged(fields, got, checked.wanted)
        return budgets.same_bits(got, checked.wanted)

    def _checked(self, fields: Fields, case: CheckCase) -> _Checked:
        """The launch of a case with what the reference makes of it."""
        if (fields.text, case) not in self._wanted:
            launch = check_launch(fields, case, LaunchMemory(self._context), self._reference)
            # The reference works on memory of the host.
            same = launch if self._is_host else check_launch(fields, case, LaunchMemory(self._reference), self._reference)
            wanted = same.run(lowlevel.open_kernel(self._reference, fields.text))
            self._wanted[fields.text, case] = _Checked(launch, wanted)
        return self._wanted[fields.text, case]

    def workload_bytes(self, problem: Problem) -> int:
        memory = LaunchMemory(self._context)
        workload_launches(problem, 1, memory, self._reference, self.policy)
        return memory.bytes

    def workload(self, problem: Problem, copies: int) -> KernelWorkload:
        memory = LaunchMemory(self._context)
        launches = workload_launches(problem, copies, memory, self._reference, self.policy)
        return KernelWorkload(launches, self._context)


@dataclass(frozen=True)
class _Checked:
    launch: Launch
    wanted: dict[str, object]


@dataclass
class KernelWorkload:
    launches: list[Launch]
    context: lowlevel.Context

    def run(self, kernel: lowlevel.Kernel, copies: Sequence[int]) -> float:
        launches = [self.launches[copy] for copy in copies]
        begin = time.perf_counter()
        for launch in launches:
            kernel.launch(launch.arguments, grid=launch.grid)
        self.context.synchronize()  # which a host has nothing to do for
        return time.perf_counter() - begin

    def close(self) -> None:
        self.launches.clear()


# -- launches of a request ---------------------------------------------------------------------------------------------


def check_launch(fields: Fields, case: CheckCase, memory: LaunchMemory, reference: lowlevel.Context) -> Launch:
    """Small, with everything in it that a kernel must tell apart: tokens without a page, partial pages, a ring that has
    wrapped, programs that are not full, several splits."""
    rows = cache_launches.rows_of(case, fields)
    if fields.operation == "attend":
        plan = check_plan(fields)
        return attend_launch(plan, launch_data.check_data(plan, case, reference), memory)
    if fields.operation == "append":
        return cache_launches.append_launch(fields, rows, 5, CHECK_HEADS, memory)
    if fields.operation.startswith("quantize"):
        return cache_launches.commit_launch(fields, rows, 5, CHECK_HEADS, memory)
    if fields.operation.startswith("dequantize"):
        tokens = 2 * fields.page + fields.page // 3
        return cache_launches.dequantize_launch(fields, rows, tokens, 2, CHECK_HEADS, memory, reference)
    return cache_launches.merge_launch(fields, case.seed, [1, 2, 5, 3, 16], 6, memory, spread=case.factor)


def check_plan(fields: Fields) -> Plan:
    queries = -(-fields.rows // fields.ratio)
    moves = fields.commit_group + fields.full_precision  # where a frontier moves first
    parts = (Part(moves + 2 * fields.page + 11, queries), Part(moves - 2, min(queries + 1, 32)), Part(7, 1),
             Part(moves + 1100, 1))  # fmt: skip
    return Plan(fields, parts, CHECK_HEADS, window=fields.page + CHECK_WINDOW)


def workload_plan(problem: Problem, fields: Fields, policy: SplitPolicy) -> Plan:
    """As many queries of each sequence as one program takes."""
    conditions = problem.conditions
    part = Part(conditions.tokens, max(1, fields.rows // fields.ratio))
    window = conditions.window or conditions.tokens
    return Plan(fields, (part,) * conditions.batch, conditions.heads, window, conditions.threads, policy)


def merge_splits(problem: Problem, fields: Fields, policy: SplitPolicy) -> list[int]:
    """Parts of each query of a step."""
    plan = workload_plan(problem, fields, policy)
    return [plan.splits(part).total for part in plan.parts]


def workload_launches(
    problem: Problem, copies: int, memory: LaunchMemory, reference: lowlevel.Context, policy: SplitPolicy
) -> list[Launch]:  # fmt: skip
    fields, conditions = parse(problem.request), problem.conditions
    heads, batch = conditions.heads, conditions.batch
    rows = cache_launches.rows_of(launch_data.PLAIN, fields)
    if fields.operation == "attend":
        plan = workload_plan(problem, fields, policy)
        data = launch_data.workload_data(plan, reference)
        shared = AttendShared.of(plan, data, memory)
        return [attend_launch(plan, data, memory, shared) for _ in range(copies)]
    if fields.operation == "append":
        return [cache_launches.append_launch(fields, rows, batch, heads, memory) for _ in range(copies)]
    if fields.operation.startswith("quantize"):
        return [cache_launches.commit_launch(fields, rows, batch, heads, memory) for _ in range(copies)]
    if fields.operation.startswith("dequantize"):
        return [cache_launches.dequantize_launch(fields, rows, conditions.tokens, batch, heads, memory, reference)
                for _ in range(copies)]  # fmt: skip
    splits, q_heads = merge_splits(problem, fields, policy), MERGED_RATIO * heads
    return [cache_launches.merge_launch(fields, seed, splits, q_heads, memory) for seed in range(copies)]
