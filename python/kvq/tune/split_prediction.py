# SPDX-License-Identifier: Apache-2.0
"""Prices of a step (kvq.tune.split_model) on a GPU that is not here, out of the static model of `kvq inspect`: of its
datasheet, and of the machine code of the attend and merge kernels with their default schedules.

Each price says below what it is made of. Launches are in none of them, as in all predictions, so that `step` and `wake`
are nothing: policies are compared by what differs between them. What no datasheet says is left out too: blocks that
end unevenly, and what instructions before and after a kernel's loop cost, but for the loads that wait for each other.
The model of a step adds what a GPU that is full of programs does at once, waiting and reading: its times are longer than
those that are predicted of the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvq.inspect.gpus import Gpu
from kvq.tune.kernel_requests import bare_request
from kvq.tune.prediction import GpuPredictor
from kvq.tune.problem import Problem, Space
from kvq.tune.request_fields import Fields, parse
from kvq.tune.split_model import Prices, resident_programs, warps_of_program
from kvq.tune.split_policy import ACCELERATOR, attend_request

CHAINED_LOADS = 3  # at the begin of a program: its work item, an entry of the block table, its first page
F32 = 4  # bytes
MICRO = 1e-6


@dataclass(frozen=True)
class KernelCost:
    """Of an element, in seconds, by a kernel's machine code."""

    all: float  # of the whole GPU, full of warps
    one_warp: float  # of a warp alone
    warps: int  # that a multiprocessor has room for


class SplitPredictor:
    """`gpu`: a name of the table of `kvq inspect`; none for the oldest that runs the target."""

    def __init__(self, target: str, gpu: str = "") -> None:
        self._kernels = GpuPredictor(target, gpu)
        self.gpu: Gpu = self._kernels.gpu
        self.machine, self.compiler = self._kernels.machine, self._kernels.compiler
        self._costs: dict[str, KernelCost] = {}

    def space(self, problem: Problem) -> Space:
        return Space(str(ACCELERATOR), (str(ACCELERATOR),))

    def resident(self, problem: Problem) -> int:
        """Programs of the attend kernel that run at once: its warps, by registers and shared memory, on all
        multiprocessors."""
        warps = self._cost(self._attend(problem)).warps * self.gpu.multiprocessors
        return resident_programs(warps, self._schedule(problem))

    def predicted_prices(self, problem: Problem) -> Prices:
        """CandidateFailed where a kernel cannot be compiled."""
        fields = parse(self._attend(problem).request)
        attend = self._cost(self._attend(problem))
        merge = self._cost(self._merge(problem, fields), self.gpu.second_level_ns)
        return Prices(
            step=0.0, wake=0.0, program=self._program(fields, self.resident(problem)),
            # Of a program that has the GPU for itself: what its warps, which share its tokens, wait for their pages, or
            # compute.
            token=(fields.dk + fields.dv) * attend.one_warp / warps_of_program(self._schedule(problem)),
            # Of all programs together: bytes over the bandwidth, or instructions over what all pipes take.
            read=(fields.dk + fields.dv) * attend.all,
            # Of one partial result of a query head: a warp goes through them one after the other, and they were written
            # just before, so that the second level has them.
            merge=fields.dv * merge.one_warp,
        )  # fmt: skip

    def _program(self, fields: Fields, resident: int) -> float:
        """Loads that wait for each other, and the partial results of its rows, which the memory gets in the end, by its
        share of the bandwidth while all others do the same."""
        waits = CHAINED_LOADS * self.gpu.latency_ns * 1e-9
        partial = min(fields.ratio, fields.rows) * (fields.dv + 1) * F32
        return waits + partial * resident / (self.gpu.bandwidth_gb_s * 1e9)

    def _schedule(self, problem: Problem) -> str:
        return self._kernels.space(self._attend(problem)).default

    def _attend(self, problem: Problem) -> Problem:
        return Problem(attend_request(problem.request)[0], problem.target, problem.conditions)

    def _merge(self, problem: Problem, fields: Fields) -> Problem:
        return Problem(bare_request("merge", fields.text), problem.target, problem.conditions)

    def _cost(self, problem: Problem, latency_ns: float | None = None) -> KernelCost:
        """With the default schedule. `latency_ns`: of its loads; None: the memory's."""
        if problem.request not in self._costs:
            gpu = replace(self.gpu, latency_ns=latency_ns or self.gpu.latency_ns)
            row = self._kernels.row(problem, "", gpu)
            of_one = MICRO / self._kernels.elements(problem)
            self._costs[problem.request] = KernelCost(
                row["predicted_us"] * of_one, row["predicted_us_of_one_warp"] * of_one, row["warps"]
            )
        return self._costs[problem.request]
