# SPDX-License-Identifier: Apache-2.0
"""`kvq tune kernel` and `kvq tune model`: search, and choose what won."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from kvq.cli.preparation import cache_arguments, shapes_of
from kvq.cli.tune_place import Place, place_of, place_options
from kvq.cli.tuning import database_option
from kvq.cli.tuning_run import tune_and_choose
from kvq.tune.kernel_requests import Shape, cache_requests, is_accelerator
from kvq.tune.kernels import make_runner
from kvq.tune.problem import CACHES, Conditions, Problem
from kvq.tune.request_fields import parse
from kvq.tune.search_options import AUTO, STRATEGIES, SearchOptions
from kvq.tune.split_policy import split_request
from kvq.tune.split_worker import SplitWorker
from kvq.tune.split_worker import make_runner as make_step_runner
from kvq.tune.splits import SplitProblem, all_threads, problem_of
from kvq.tune.sweep_run import RUNNER, Worker


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed([
        place_options,
        click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="N", help="For all of it."),
        click.option("--strategy", type=click.Choice(STRATEGIES), default=AUTO, show_default=True),
        click.option("--tokens", type=click.IntRange(1), default=4096, show_default=True, help="Of a sequence."),
        click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences of a step."),
        click.option("--threads", type=click.IntRange(1), default=1, show_default=True),
        click.option("--cache", "state", type=click.Choice(CACHES), default=CACHES[0], show_default=True,
                     help="Whether runs read from memory or from a cache of the processor."),
        click.option("--store", metavar="DIR", help="The kernel store whose schedules are chosen.  [default: "
                     "$KVQ_STORE, or the user's]"),
        database_option,
        click.option("-q", "--quiet", is_flag=True, help="The last line alone."),
    ]):  # fmt: skip
        command = option(command)
    return command


@click.command("kernel", short_help="Tune one kernel, and choose the schedule that won.")
@click.argument("request")
@click.option("--heads", type=click.IntRange(1), default=8, show_default=True, help="KV heads.")
@click.option("--window", type=click.IntRange(0), default=0, show_default=True, help="Tokens that a query sees; 0: all.")
@search_options
def kernel(
    request: str, heads: int, window: int, target: str | None, device: str | None, gpu: str | None, **given: Any
) -> int:  # fmt: skip
    """Tune one kernel by its REQUEST, such as
    attend:k4c32-v4t32:vnni:p64:dk128:dv128:g4:f32:rows4:lag0:win0:cap0:exact.

    What wins is kept in the database and, for this processor or a GPU that is here, chosen for all caches that are opened from now on. A
    kernel that was tuned before is not compiled again.
    """
    parse(request)
    place = place_of(target, device, gpu)
    return _tune([Problem(request, place.target, _conditions(given, heads, window))], place, **given)


@click.command("model", short_help="Tune kernels and split policy of a model's cache, and choose what won.")
@cache_arguments
@search_options
def model(
    subject: str, caches: tuple[str, ...], dtype: str | None, accuracy: str, target: str | None, device: str | None,
    gpu: str | None, **given: Any,
) -> int:  # fmt: skip
    """Tune all kernels that caches of a model run, and how the caches split keys over programs, in one budget of seconds.

    MODEL is what `kvq eval` takes; its weights are not read. SHAPE is q_heads=N,kv_heads=N,d=N (or dk=, dv=), with
    attention_window=N and score_cap=X where the model has them.

    \b
      kvq tune model smollm2 kivi-4 kvq-4 --seconds 120
      kvq tune model q_heads=32,kv_heads=8,d=128 kvq-4 --seconds 60
    """
    place = place_of(target, device, gpu)
    where = place.target
    problems = [Problem(text, where, _conditions(given, shape.kv_heads, shape.window))
                for shape in shapes_of(subject, dtype) for cache in caches
                for text in cache_requests(cache, shape, where, accuracy)]  # fmt: skip
    policies = [_split_problem(cache, shape, where, accuracy, given) for shape in shapes_of(subject, dtype)
                for cache in caches]  # fmt: skip
    return _tune(list(dict.fromkeys([*problems, *policies])), place, **given)


def _conditions(given: dict[str, Any], heads: int, window: int) -> Conditions:
    return Conditions(given["state"], given["tokens"], given["batch"], heads, given["threads"], window)


def _split_problem(
    cache: str, shape: Shape, target: str, accuracy: str, given: dict[str, Any]
) -> SplitProblem:  # fmt: skip
    """A policy is for all lengths, batches and threads: those that are given are the longest and the largest, and there
    are as many threads as there can be."""
    contexts = sorted({max(1, given["tokens"] // 4), given["tokens"]})
    threads = () if is_accelerator(target) else sorted({given["threads"], *all_threads()})
    return problem_of(split_request(cache, shape, target, accuracy), target, contexts=contexts,
                      batches=sorted({1, given["batch"]}), threads=threads,
                      window=shape.window, cache=given["state"])  # fmt: skip


def _tune(
    problems: Sequence[Problem | SplitProblem], place: Place, *, seconds: float | None, strategy: str, store: str | None,
    path: Path | None, quiet: bool, **_: Any,
) -> int:  # fmt: skip
    kernels = Worker(RUNNER, SearchOptions(strategy=strategy), partial(make_runner, gpu=place.gpu))
    worker = SplitWorker(partial(make_step_runner, gpu=place.gpu, store=store), kernels=kernels)
    return tune_and_choose(problems, worker, place.context(store), path, seconds, quiet)
