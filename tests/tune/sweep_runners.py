# SPDX-License-Identifier: Apache-2.0
"""Runners that sweeps name by their place: a synthetic CPU, and predictions of a GPU that is not there."""

import synthetic
from kvq.errors import Unsupported
from kvq.tune.capability import accelerator, this_cpu
from made_rows import other_machine

TIMES = {"rows=1": 2e-3, "rows=2": 1e-3, "rows=3": 0.4e-3}
made = []  # runners of this process


def make(target):
    if target.startswith("nvptx:"):
        return synthetic.SyntheticPredictor(TIMES, accelerator(target, "a GPU"))
    runner = synthetic.SyntheticRunner(TIMES, fails={"rows=3": "wrong"})
    runner.machine = other_machine(target=target)
    made.append(runner)
    return runner


def make_here(target):
    """The synthetic CPU says that it is this one."""
    runner = make(target)
    runner.machine = this_cpu(target)
    return runner


def refuse(target):
    raise Unsupported(f"there is no machine for {target}: bring one")


def stop_at_third(target):
    """Ctrl-C in the third problem."""
    runner = make(target)
    space = runner.space
    asked = []

    def counted(problem):
        asked.append(problem)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return space(problem)

    runner.space = counted
    return runner
