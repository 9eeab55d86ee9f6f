# SPDX-License-Identifier: Apache-2.0
"""`kvq tune splits`: how caches split keys over programs, measured, and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from kvq.cli.preparation import cache_arguments, shapes_of
from kvq.cli.tune_place import place_of, place_options
from kvq.cli.tuning import database_option
from kvq.cli.tuning_run import tune_and_choose
from kvq.errors import InvalidArgument
from kvq.tune import splits
from kvq.tune.problem import CACHES
from kvq.tune.split_policy import split_request
from kvq.tune.split_worker import SplitWorker, make_runner
from kvq.tune.sweep import tokens_of


class Numbers(click.ParamType):
    """1k,4096: numbers with commas."""

    name = "N,.."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(tokens_of(int(part) if part.isdecimal() else part) for part in str(value).split(","))
        except InvalidArgument:
            self.fail(f"'{value}' is no list of numbers from 1: write 4096 or 1k,4k", param, ctx)


def text_of(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


@click.command("splits", short_help="Tune how a model's caches split keys over programs, and choose what won.")
@cache_arguments
@place_options
@click.option("--contexts", type=Numbers(), default=text_of(splits.CONTEXTS), show_default=True,
              help="Tokens of a sequence: lengths that are measured.")
@click.option("--batches", type=Numbers(), help=f"Sequences of a step.  [default: {text_of(splits.BATCHES)}; on GPUs "
              f"{text_of(splits.ACCELERATOR_BATCHES)}]")
@click.option("--threads", type=Numbers(), help="Of a context on a host.  [default: 1, 2, 4, .. and all that there are]")
@click.option("--cache", "state", type=click.Choice(CACHES), default=CACHES[0], show_default=True,
              help="Whether steps read from memory or from a cache of the processor.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="N", help="For all of it.")
@click.option("--again", is_flag=True, help="Forget what was measured before.")
@click.option("--store", metavar="DIR", help="The kernel store whose policies are chosen.  [default: $KVQ_STORE, or the "
              "user's]")
@database_option
@click.option("-q", "--quiet", is_flag=True, help="The last line alone.")
def tune_splits(
    subject: str, caches: tuple[str, ...], dtype: str | None, accuracy: str, target: str | None,
    device: str | None, gpu: str | None, contexts: tuple[int, ...], batches: tuple[int, ...] | None,
    threads: tuple[int, ...] | None, state: str, seconds: float | None, again: bool, store: str | None,
    path: Path | None, quiet: bool,
) -> int:  # fmt: skip
    """Tune how caches of a model split the keys of a sequence over programs.

    MODEL and SHAPE are as for `kvq tune model`. Steps are measured over all combinations of contexts, batches and
    threads. A policy is one rule for all of them, and for all lengths: it is computed from a model of the times, checked,
    measured against the default and chosen where it is faster on average. Caches that are made from then on have it.
    Of a GPU that is not here the model is made of its datasheet; what is best by it is kept as predicted, and not chosen.

    \b
      kvq tune splits q_heads=32,kv_heads=8,d=128 kvq-4 --contexts 4k,32k --batches 1,8
      kvq tune splits q_heads=32,kv_heads=8,d=128 kvq-4 --device cuda
      kvq tune splits q_heads=32,kv_heads=8,d=128 kvq-4 --gpu H100
    """
    place = place_of(target, device, gpu)
    where = place.target
    problems = [splits.problem_of(split_request(cache, shape, where, accuracy), where, contexts=contexts,
                                  batches=batches or (), threads=threads or (), window=shape.window, cache=state)
                for shape in shapes_of(subject, dtype) for cache in caches]  # fmt: skip
    worker = SplitWorker(partial(make_runner, gpu=place.gpu, store=store), again=again)
    context = place.context(store)
    return tune_and_choose(list(dict.fromkeys(problems)), worker, context, path, seconds, quiet, tells_steps=True)
