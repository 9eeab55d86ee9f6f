# SPDX-License-Identifier: Apache-2.0
"""Predicts schedules for GPUs that are not here, by the static model of `kvq inspect` (docs/nvidia.md)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.inspect import attend, gpus, inspect_kernel, tools
from kvq.inspect.requests import DEFAULT
from kvq.inspect.workload import Workload
from kvq.tune import simulated_launch
from kvq.tune.capability import accelerator
from kvq.tune.compiler import compiler_hash
from kvq.tune.kernel_requests import elements_read
from kvq.tune.problem import Infeasible, Problem, Space

PROGRAMS = ("kvqc", "ptxas", "nvdisasm", "ptx-run")
SIMULATED = attend.AttendSize(tokens=1024, heads=1, splits=2)  # what the simulator counts; costs are by element


class GpuPredictor:
    """`device`: what a GPU calls itself, which picks its line of the table; else the oldest that runs the target."""

    def __init__(self, target: str, device: str = "") -> None:
        self.architecture = gpus.architecture_of(target)
        for program in PROGRAMS:
            tools.find(program)  # says which one is missing
        able = gpus.gpus_of(self.architecture.name)
        named = [gpu for gpu in able if gpu.name in device]
        self.gpu = min(named or able, key=lambda gpu: int(gpu.architecture.removeprefix("sm_")))
        self.machine = accelerator(target, self.gpu.name)
        self.compiler = compiler_hash()
        self._reference = lowlevel.Context("ref", threads=1, store_dir="")

    def space(self, problem: Problem) -> Space:
        lines = tools.run("kvqc", [*self._options(problem), "--list-schedules"]).stdout.splitlines()
        default = [line.removesuffix(DEFAULT) for line in lines if line.endswith(DEFAULT)]
        return Space(default[0] if default else "", tuple(line.removesuffix(DEFAULT) for line in lines))

    def predict(self, problem: Problem, schedule: str) -> float:
        return self.row(problem, schedule)["predicted_us"] * 1e-6

    def row(self, problem: Problem, schedule: str, gpu: gpus.Gpu | None = None) -> dict[str, Any]:
        """What `kvq inspect` predicts of the GPU, or one with other figures, for all elements of a problem; its times are
        finite."""
        chosen = [f"--schedule={schedule}"] if schedule else []
        try:
            ptx = tools.run("kvqc", [*self._options(problem), *chosen, "--no-bundle"]).stdout
            found = self._predicted(ptx, problem, gpu or self.gpu)
        except InvalidArgument as error:  # in the words of kvqc or ptxas
            raise Infeasible(str(error)) from error
        if found is None or found["predicted_us"] is None:
            raise Infeasible("the model finds no loop in its machine code")
        return found

    def _predicted(self, ptx: str, problem: Problem, gpu: gpus.Gpu) -> dict[str, Any] | None:
        with tempfile.TemporaryDirectory(prefix="kvq-tune-") as folder:
            work, elements = self._workload(ptx, problem, Path(folder))
            report = inspect_kernel(ptx, self.architecture, work=work, elements=elements, gpus=[gpu])
        return report["predicted"]["gpus"][0] if report["predicted"] else None

    def elements(self, problem: Problem) -> int:
        """Of K or V, or of partial results, that a launch visits."""
        if problem.request.startswith("attend:"):
            return elements_read(problem.request, problem.conditions)
        return simulated_launch.elements_of(problem)

    def _workload(self, ptx: str, problem: Problem, folder: Path) -> tuple[Workload, int]:
        """A small launch, and the elements of the problem's own."""
        if problem.request.startswith("attend:"):
            return attend.attend_workload(problem.request, ptx, SIMULATED, folder), self.elements(problem)
        few = simulated_launch.small(problem)
        launch = simulated_launch.launch_of(few, self._reference)
        return simulated_launch.simulated(few, ptx, launch, folder), self.elements(problem)

    @staticmethod
    def _options(problem: Problem) -> list[str]:
        return [f"--target={problem.target}", f"--request={problem.request}"]
