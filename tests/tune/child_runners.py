# SPDX-License-Identifier: Apache-2.0
"""Runners that a child process makes: candidates that end their process, hang, or are wrong there."""

import os
import signal
import time

import synthetic

TIMES = {"rows=1": 1e-3, "rows=2": 2e-3, "rows=3": 3e-3, "rows=4": 4e-3, "rows=5": 5e-3}


class Dangerous(synthetic.SyntheticRunner):
    def compile(self, problem, schedule):
        if schedule == "rows=2":
            os.kill(os.getpid(), signal.SIGSEGV)
        if schedule == "rows=3":
            time.sleep(60)
        if schedule == "rows=5":
            os._exit(3)
        return super().compile(problem, schedule)


def dangerous():
    return Dangerous(TIMES, fails={"rows=4": "wrong"})


def mistaken():
    return synthetic.SyntheticRunner(TIMES, fails={"rows=1": "mistake"})


def absent():
    raise ImportError("there is no such runner")


def absent_for(target):
    return absent()
