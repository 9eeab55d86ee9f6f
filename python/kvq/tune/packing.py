# SPDX-License-Identifier: Apache-2.0
"""Tuned schedules for machines that are not here: their kernels and choices, in a kernel store that is taken there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.tune.capability import Machine
from kvq.tune.compiler import compiler_hash
from kvq.tune.database import Database
from kvq.tune.lookup import DEFAULT, Answer, lookup
from kvq.tune.problem import Problem


@dataclass(frozen=True)
class Packed:
    """What became of a problem for a machine. `why`: the schedule that the lookup found is not legal here, in the
    compiler's words; the machine takes the default one then."""

    problem: Problem
    machine: Machine
    answer: Answer
    why: str = ""

    @property
    def is_chosen(self) -> bool:
        return not self.why

    def __str__(self) -> str:
        return f"{self.problem.request} for {self.machine}: {self.why or self.answer}"


def machines_measured(database: Database) -> list[Machine]:
    """Those with a measured entry, as the runtime describes machines now: it would look for no other's choice."""
    measured = {entry.key.machine for entry in database.entries() if not entry.predicted}
    return [machine for hash, machine in database.machines().items() if hash in measured and machine.is_current]


def pack(
    context: lowlevel.Context,
    database: Database,
    machines: Iterable[Machine],
    problems: Iterable[Problem],
    progress: Callable[[dict[str, Any]], None],
) -> Iterator[Packed]:
    """For each machine the schedules of the problems of its target, as a lookup answers. One that is the default is no
    choice. The kernels with default schedules are not put there: kvq_prepare_targets does."""
    problems, compiler = list(problems), compiler_hash()
    for machine in dict.fromkeys(machines):
        for problem in problems:
            if problem.target != machine.target:
                continue
            answer = lookup(database, problem, machine, compiler)
            if answer.how == DEFAULT or answer.entry is None or answer.schedule == answer.entry.default:
                continue
            why = ""
            try:
                context.prepare_schedule(machine.target, machine.text, problem.request, answer.schedule, progress)
            except InvalidArgument as error:
                why = str(error)
            yield Packed(problem, machine, answer, why)
