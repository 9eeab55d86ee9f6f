# SPDX-License-Identifier: Apache-2.0
"""A sweep on the machines of a Ray cluster. Ray is imported by the first call.

Each machine has one worker, which takes the whole machine: two searches on one would disturb each other's times. A
worker records into a database of its own and sends its rows; the one who started the sweep alone writes its database. A
problem is tuned once, on whichever machine is free first, and its rows carry that machine's capability vector.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from kvq.errors import Error, FailedPrecondition, Unsupported
from kvq.tune import transfer
from kvq.tune.database import Database
from kvq.tune.problem import Problem
from kvq.tune.rows import key_of
from kvq.tune.search_options import SearchOptions
from kvq.tune.sweep_run import FAILED, THERE, Done, Worker

TRIES = 2  # of a problem whose machine was lost
START_SECONDS = 300  # for a worker to start: it waits for all processors of its machine
# What Ray prints among the results whatever its log level is, of what we say ourselves in one sentence: lost workers
# and machines. Its other warnings stay.
SAID_BY_US = "A worker died or was killed|has been marked dead"


def _ray(address: str) -> ModuleType:
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", SAID_BY_US)  # read when Ray is imported
    try:
        import ray
    except ImportError as error:
        raise Unsupported(
            "Ray is not installed: pip install ray, or leave --ray out to use this machine alone"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise FailedPrecondition(
            f"there is no Ray cluster at '{address}' ({error}): give the address of its head, or 'local'"
        ) from error
    return ray


class RemoteWorker:
    """A Worker behind Ray: everything goes in and out as plain data."""

    def __init__(self, place: str, options: SearchOptions) -> None:
        self.worker = Worker(place, options)

    def identity(self, target: str) -> tuple[str, str] | None:
        """The machine's hash and the compiler's; None where it has no runner for the target."""
        try:
            runner = self.worker.runner(target)
        except Error:
            return None
        return runner.machine.hash, runner.compiler

    def work(self, problem: Problem) -> tuple[Done, list[str]]:
        with tempfile.TemporaryDirectory() as folder, Database(Path(folder) / "tuning.db") as database:
            done = self.worker.work(problem, database)
            return done, list(transfer.to_lines(transfer.rows_of(database)))


def run(
    problems: Sequence[Problem], place: str, options: SearchOptions, database: Database, address: str
) -> Iterator[Done]:
    """Each problem when it is done, in whatever order."""
    ray = _ray(address)
    try:
        workers = _workers(ray, place, options)
        identities = {target: _identities(ray, workers, target) for target in {each.target for each in problems}}
        waiting = deque()
        for problem in problems:
            if (done := _there(identities[problem.target], problem, database)) is not None:
                yield done
            else:
                waiting.append((problem, 1))
        yield from _distributed(ray, workers, waiting, database)
    finally:
        ray.shutdown()


def _workers(ray: ModuleType, place: str, options: SearchOptions) -> list[Any]:
    """One on each living machine that has processors for it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote, workers = ray.remote(RemoteWorker), []
    for node in ray.nodes():
        cores = int(node["Resources"].get("CPU", 0))
        if node["Alive"] and cores:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options_here = {"num_cpus": cores, "num_gpus": node["Resources"].get("GPU", 0), "scheduling_strategy": here}
            workers.append(remote.options(**options_here).remote(place, options))
    if not workers:
        raise FailedPrecondition("the Ray cluster has no machine with processors: start a worker there (ray start)")
    return workers


def _identities(ray: ModuleType, workers: list[Any], target: str) -> set[tuple[str, str]]:
    """Of the machines that have a runner for the target. A machine that is lost meanwhile has none."""
    found = set()
    for asked in [worker.identity.remote(target) for worker in workers]:
        try:
            found.add(ray.get(asked, timeout=START_SECONDS))
        except ray.exceptions.GetTimeoutError as error:
            raise FailedPrecondition(
                f"a machine of the Ray cluster gave no worker within {START_SECONDS} s: end what keeps its processors"
            ) from error
        except _lost(ray):
            continue
    return found - {None}


def _lost(ray: ModuleType) -> tuple[type[Exception], ...]:
    """What Ray raises where a worker's machine or process is gone, or went before the worker came to be."""
    return ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError


def _there(identities: set[tuple[str, str]], problem: Problem, database: Database) -> Done | None:
    """The problem as done, where one of the machines has a measured entry of it."""
    for identity in sorted(identities):
        entry = database.entry(key_of(problem, *identity))
        if entry is not None and not entry.predicted:
            return Done(problem, THERE, entry.schedule)
    return None


def _distributed(ray: ModuleType, workers: list[Any], waiting: deque, database: Database) -> Iterator[Done]:
    idle, running = list(workers), {}
    while waiting or running:
        while waiting and idle:
            worker, (problem, tries) = idle.pop(), waiting.popleft()
            running[worker.work.remote(problem)] = (worker, problem, tries)
        if not running:
            raise FailedPrecondition(f"all machines of the Ray cluster are lost, {len(waiting)} problems are left: "
                                     "start them and run the sweep again, which goes on")  # fmt: skip
        (ready,), _ = ray.wait(list(running), num_returns=1)
        worker, problem, tries = running.pop(ready)
        try:
            done, lines = ray.get(ready)
        except _lost(ray) as error:
            if tries < TRIES:
                waiting.append((problem, tries + 1))
            else:
                words = f"{tries} machines were lost while they worked on it ({type(error).__name__})"
                yield Done(problem, FAILED, words)
            continue
        idle.append(worker)
        transfer.from_lines(lines, "a worker's rows").add_to(database)
        lost = "; a machine was lost while it worked on it" if tries > 1 else ""
        yield replace(done, text=done.text + lost)
