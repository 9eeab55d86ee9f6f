# SPDX-License-Identifier: Apache-2.0
"""Steps of a cache under split policies, as candidates that kvq.tune.measure compiles, checks and times: a policy's
"kernel" is the policy, its workload attention and merge of one token of every sequence, through a cache of its own.

The copies of a workload are layers: a step of a model goes from layer to layer too. Planning, which a model does once
for all its layers, is not in the times; on a GPU, where attention is done some time after the call, the wait for all of
them is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvq import errors, lowlevel
from kvq.tune import budgets
from kvq.tune.attend_launch import SCORE_CAP
from kvq.tune.capability import parse_machine
from kvq.tune.check_data import keys_and_values, queries
from kvq.tune.compiler import compiler_hash
from kvq.tune.kernel_requests import DTYPES
from kvq.tune.launch_data import noise
from kvq.tune.launch_memory import ELEMENT, decode, encode
from kvq.tune.problem import CheckCase, Deviation, Infeasible, Problem, Space
from kvq.tune.request_fields import Fields, parse
from kvq.tune.split_model import resident_programs
from kvq.tune.split_policy import attend_request, parse_policy

if TYPE_CHECKING:
    import numpy as np

LONG = {short: name for name, short in DTYPES.items() if name != short}
PIECE = 4096  # tokens that are appended at once
CHECK_HEADS = 2
CHECK_TOKENS = 1500, 10240  # at least, and at most two and a half of a policy's shortest splits


@dataclass(frozen=True)
class CacheKind:
    """What caches of a request are made with."""

    fields: Fields
    heads: int
    window: int = 0

    def cache(
        self, context: lowlevel.Context, policy: str, tokens: int, *, layers: int = 1, sequences: int = 1
    ) -> lowlevel.Cache:
        fields = self.fields
        rule = f"w{fields.full_precision},{'sliding' if fields.lag else 'block'}"
        return lowlevel.Cache(
            context, f"{fields.pair}/{rule}", layers=layers, q_heads=self.heads * fields.ratio, kv_heads=self.heads,
            dk=fields.dk, dv=fields.dv, dtype=LONG[fields.dtype], sequences=sequences, page_tokens=fields.page,
            blocks=sequences * (-(-tokens // fields.page) + 1), attention_window=self.window if fields.window else 0,
            score_cap=SCORE_CAP if fields.cap else 0.0, accuracy=fields.accuracy, split_policy=policy,
        )  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Values in memory of a context, as a cache takes them: NumPy has no bf16."""

    buffer: lowlevel.Buffer
    array: object
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, context: lowlevel.Context, encoded: np.ndarray, dtype: str) -> Tensor:
        import numpy as np

        raw = np.ascontiguousarray(encoded)
        buffer = context.buffer(raw.nbytes)
        buffer.upload(raw.reshape(-1).view(np.uint8))
        return cls(buffer, buffer.array(list(raw.shape), LONG[dtype]), raw.shape, dtype)

    def read(self) -> np.ndarray:
        import numpy as np

        raw = np.empty(self.shape, ELEMENT[self.dtype])
        self.buffer.download(raw.reshape(-1).view(np.uint8))
        return decode(raw, self.dtype)


class SplitRunner:
    """Of one device and level. `store`: the folder whose kernels, and chosen schedules, are run; None: the user's; "":
    none. Threads are a host's: a GPU has one context for all conditions."""

    def __init__(self, device: str, target: str, store: str | None = None) -> None:
        self.compiler = compiler_hash()
        self.device, self.level = device, target
        self._store = store
        self._contexts: dict[int, lowlevel.Context] = {}
        self.machine = parse_machine(self._context(1).machine)
        self._reference = lowlevel.Context("ref", threads=1, store_dir="")
        self._wanted: dict[tuple[str, CheckCase, int, int], np.ndarray] = {}
        self._deviations: dict[tuple[str, str, CheckCase], Deviation] = {}

    @property
    def default(self) -> str:
        return self._context(1).default_split_policy

    def space(self, problem: Problem) -> Space:
        """The default alone: what else is tried the model says (kvq.tune.splits)."""
        return Space(self.default, (self.default,))

    def resident(self, problem: Problem) -> int:
        """Programs of the attend kernel that run at once on the GPU, with the schedule that caches there have; 0 on a
        host."""
        if self._is_host:
            return 0
        request, _ = attend_request(problem.request)
        kernel = lowlevel.open_kernel(self._context(1), request)
        schedule = kernel.schedule or self._context(1).schedule_space(request)[0]
        return resident_programs(kernel.resident_warps, schedule)

    def compile(self, problem: Problem, schedule: str) -> str:
        parse_policy(schedule)
        return schedule

    def check(self, problem: Problem, kernel: str, case: CheckCase) -> Deviation:
        """Of a policy by itself: what it was found to be is known from then on."""
        known = problem.request, kernel, case
        if known not in self._deviations:
            self._deviations[known] = self._check(problem, kernel, case)
        return self._deviations[known]

    def _check(self, problem: Problem, policy: str, case: CheckCase) -> Deviation:
        least, most = CHECK_TOKENS
        tokens = min(max(least, 5 * parse_policy(policy).tokens // 2), most)
        kind = _kind(problem, CHECK_HEADS, min(problem.conditions.window, tokens // 2))
        known = problem.request, case, kind.window, tokens
        if known not in self._wanted:
            self._wanted[known] = checked_answer(kind, self._reference, self.default, case, tokens)
        wanted = self._wanted[known]
        got = checked_answer(kind, self._context(1), policy, case, tokens)
        rows = wanted.size // kind.fields.dv
        allowed = budgets.over_rows(budgets.arithmetic(kind.fields, case), rows) + budgets.REFERENCE
        return Deviation(budgets.relative_rms(got, wanted), allowed + 2 * budgets.ROUNDOFF[kind.fields.dtype])

    def workload_bytes(self, problem: Problem) -> int:
        """Of one layer, under each of the two policies or more that take turns: the pages that attention reads."""
        kind, conditions = _kind(problem), problem.conditions
        tokens = min(conditions.tokens, conditions.window or conditions.tokens)
        return max(1, 2 * conditions.batch * kind.heads * tokens * kind.fields.page_bytes // kind.fields.page)

    def workload(self, problem: Problem, copies: int) -> StepWorkload:
        return StepWorkload(_kind(problem), problem, copies, self._context(problem.conditions.threads))

    @property
    def _is_host(self) -> bool:
        return self.device == "cpu"

    def _context(self, threads: int) -> lowlevel.Context:
        threads = threads if self._is_host else 1
        if threads not in self._contexts:
            self._contexts[threads] = lowlevel.Context(
                self.device, level=self.level, threads=threads, store_dir=self._store
            )
        return self._contexts[threads]


@dataclass
class StepWorkload:
    """One cache for each policy, made when it is first run, with a step open in which all layers have appended."""

    kind: CacheKind
    problem: Problem
    layers: int
    context: lowlevel.Context
    steps: dict[str, tuple[lowlevel.Cache, lowlevel.Step]] = field(default_factory=dict)
    answers: tuple[Tensor, ...] = ()  # q, and where its answer goes

    def run(self, kernel: str, copies: Sequence[int]) -> float:
        if kernel not in self.steps:
            self.steps[kernel] = self._open(kernel)
        _, step = self.steps[kernel]
        q, out = (each.array for each in self.answers)
        scale = self.kind.fields.dk**-0.5
        begin = time.perf_counter()
        for layer in copies:
            step.attend(layer, q, scale, out)
        self.context.synchronize()  # which a host has nothing to do for
        return time.perf_counter() - begin

    def close(self) -> None:
        for _, step in self.steps.values():
            step.abort()
        self.steps.clear()

    def _open(self, policy: str) -> tuple[lowlevel.Cache, lowlevel.Step]:
        """The same values in all layers, again and again: no kernel's time depends on them."""
        conditions, kind = self.problem.conditions, self.kind
        heads, fields = kind.heads, kind.fields
        if not self.answers:
            self.answers = self._noise(heads * fields.ratio, 1, fields.dk, fields.dv)
        try:
            cache = kind.cache(
                self.context, policy, conditions.tokens + 1, layers=self.layers, sequences=conditions.batch
            )
        except errors.ResourceExhausted as error:
            raise Infeasible(str(error)) from error
        sequences = [cache.add() for _ in range(conditions.batch)]
        piece = max(1, PIECE // conditions.batch)
        rows = self._noise(heads, min(piece, conditions.tokens), fields.dk, fields.dv)
        for begin in range(0, conditions.tokens, piece):
            count = min(piece, conditions.tokens - begin)
            with cache.plan(sequences, [count] * conditions.batch) as step:
                self._append(step, rows)
        step = cache.plan(sequences, [1] * conditions.batch)
        self._append(step, self._noise(heads, 1, fields.dk, fields.dv))
        return cache, step

    def _append(self, step: lowlevel.Step, rows: tuple[Tensor, ...]) -> None:
        for layer in range(self.layers):
            step.append(layer, *(each.array for each in rows))

    def _noise(self, heads: int, tokens: int, *sizes: int) -> tuple[Tensor, ...]:
        batch, dtype = self.problem.conditions.batch, self.kind.fields.dtype
        return tuple(Tensor.of(self.context, noise((batch, heads, tokens, size), dtype), dtype) for size in sizes)


def checked_answer(
    kind: CacheKind, context: lowlevel.Context, policy: str, case: CheckCase, tokens: int
) -> np.ndarray:  # fmt: skip
    """[q_heads, dv] of one token behind so many others."""
    import numpy as np

    fields = kind.fields
    k, v = keys_and_values(case, kind.heads, tokens + 1, fields.dk, fields.dv)
    seen = k[:, -kind.window :] if fields.window else k
    q = Tensor.of(context, encode(queries(case, seen, fields.ratio)[None, :, None], fields.dtype), fields.dtype)
    nothing = np.zeros((1, kind.heads * fields.ratio, 1, fields.dv), ELEMENT[fields.dtype])
    out = Tensor.of(context, nothing, fields.dtype)
    cache = kind.cache(context, policy, tokens + 1)
    sequence = cache.add()
    for begin, end in ((0, tokens), (tokens, tokens + 1)):
        rows = [Tensor.of(context, encode(each[None, :, begin:end], fields.dtype), fields.dtype) for each in (k, v)]
        with cache.plan([sequence], [end - begin]) as step:
            step.append(0, rows[0].array, rows[1].array)
            if begin:
                step.attend(0, q.array, fields.dk**-0.5, out.array)
    return out.read()[0, :, 0]


def _kind(problem: Problem, most_heads: int | None = None, window: int | None = None) -> CacheKind:
    text, heads = attend_request(problem.request)
    window = problem.conditions.window if window is None else window
    return CacheKind(parse(text), min(heads, most_heads or heads), window)
