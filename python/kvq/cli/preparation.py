# SPDX-License-Identifier: Apache-2.0
"""`kvq prepare`: fills a kernel store for other machines, on one that has none of their processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.evaluate.source import find_source
from kvq.tune import model_shapes, packing
from kvq.tune.capability import parse_machine
from kvq.tune.database import Database
from kvq.tune.kernel_requests import DTYPES as SHORT
from kvq.tune.kernel_requests import Shape, cache_requests
from kvq.tune.problem import Conditions, Problem

SHAPE = {"layers": 1, "q_heads": None, "kv_heads": None, "dk": None, "dv": None, "attention_window": 0, "score_cap": 0.0}
DTYPES = ("float32", "bfloat16", "float16")


def cache_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which caches of which model a command is about: subject, caches, dtype, accuracy."""
    for each in reversed([
        click.argument("subject", metavar="MODEL|SHAPE"),
        click.argument("caches", metavar="CACHE...", nargs=-1, required=True),
        click.option("--dtype", type=click.Choice(DTYPES), help="Of K and V.  [default: the model's; of a SHAPE float16]"),
        click.option("--accuracy", type=click.Choice(lowlevel.ACCURACY_CLASSES), default=lowlevel.DEFAULT_ACCURACY,
                     show_default=True),
    ]):  # fmt: skip
        command = each(command)
    return command


@click.command("prepare", short_help="Compile a cache's kernels for other machines.")
@cache_arguments
@click.option("--targets", required=True, metavar="TARGET,..",
              help="What to compile for: CPU levels (x86-64-v4) and GPUs (nvptx:sm_90).")
@click.option("--store", metavar="DIR", help="The kernel store to fill.  [default: $KVQ_STORE, or the user's]")
@click.option("--db", "path", type=click.Path(path_type=Path), metavar="FILE",
              help="Also the schedules of this database of kvq tune, for the machines that it has measured.")
@click.option("--machine", "also", multiple=True, metavar="JSON",
              help="With --db: also for the machine that lowlevel.Context(..).machine describes so there.")
@click.option("--tokens", type=click.IntRange(1), default=4096, show_default=True,
              help="With --db: of a sequence, for which schedules are looked up.")
@click.option("--quiet", "-q", is_flag=True, help="The last line alone.")
def prepare(
    subject: str, caches: tuple[str, ...], targets: str, store: str | None, dtype: str | None, accuracy: str,
    path: Path | None, also: tuple[str, ...], tokens: int, quiet: bool,
) -> None:  # fmt: skip
    """Compile all kernels that caches of a model need on machines that are not here, into a kernel store.

    MODEL is what `kvq eval` takes; its weights are not read. SHAPE is q_heads=N,kv_heads=N,d=N (or dk=, dv=), with
    attention_window=N and score_cap=X where the model has them.

    \b
      kvq prepare smollm2 kivi-4 kvq-4 --targets nvptx:sm_80,nvptx:sm_90 --store pack
      kvq prepare q_heads=32,kv_heads=8,d=128 kvq-4 --targets x86-64-v4 --store pack

    With the folder as its store (KVQ_STORE, store_dir) a machine of such a target compiles nothing, and may be frozen.
    GPUs get PTX and, where NVRTC is installed here, machine code. With --db kernels also get the schedules that were
    measured on such a machine, or near it, and the machine finds them as chosen.
    """
    if path is None and also:
        raise InvalidArgument("--machine is given without --db: name the database that has its schedules")
    if path is not None and not path.is_file():
        raise InvalidArgument(f"there is no database {path}: give one that kvq tune filled")
    machines = [parse_machine(text) for text in also]
    context = lowlevel.shared_context(store_dir=store)
    found: dict[str, int] = {"compiled": 0, "store": 0}

    def tell(record: dict[str, Any]) -> None:
        found[record["source"]] += 1
        if not quiet:
            click.echo(f"{record['source']:8}  {record['compile_ms']:7.0f} ms  {record['name']}")

    names = [name for name in targets.replace(",", " ").split() if name]
    if "=" in subject:
        sizes = parse_shape(subject)
        for cache in caches:
            lowlevel.prepare_targets(context, cache, names, **sizes, dtype=dtype or "float16", accuracy=accuracy,
                                     progress=tell)  # fmt: skip
    else:
        source = find_source(subject)  # a mistyped path is reported before torch is loaded
        from kvq.evaluate.prepare import prepare_model

        for cache in caches:
            prepare_model(source, cache, names, context, dtype, accuracy, tell)
    if path is not None:
        problems = [Problem(request, target, Conditions("cold", tokens, 1, shape.kv_heads, 1, shape.window))
                    for target in names for shape in shapes_of(subject, dtype) for cache in caches
                    for request in cache_requests(cache, shape, target, accuracy)]  # fmt: skip
        with Database(path, readonly=True) as database:
            machines = packing.machines_measured(database) + machines
            packed = list(packing.pack(context, database, machines, problems, tell))
        for each in packed:
            if not quiet:
                click.echo(str(each))
        chosen = sum(each.is_chosen for each in packed)
        click.echo(f"{chosen} schedules chosen, {len(packed) - chosen} are not legal here")
    click.echo(f"{found['compiled']} compiled, {found['store']} were there")


def parse_shape(text: str) -> dict[str, Any]:
    """What prepare_targets takes of q_heads=32,kv_heads=8,d=128."""
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in SHAPE and name != "d":
            raise InvalidArgument(f"a shape has no {name!r}: use q_heads, kv_heads, d (or dk and dv), attention_window, "
                                  "score_cap")  # fmt: skip
        try:
            number = float(value) if name == "score_cap" else int(value)
        except ValueError:
            raise InvalidArgument(f"{name} is {value!r}: give a number") from None
        given.update({"dk": number, "dv": number} if name == "d" else {name: number})
    if missing := [name for name, default in SHAPE.items() if default is None and name not in given]:
        raise InvalidArgument(f"the shape {text!r} lacks {', '.join(missing)}: write q_heads=N,kv_heads=N,d=N")
    return given


def shapes_of(subject: str, dtype: str | None) -> list[Shape]:
    """Of a MODEL|SHAPE, without a model's weights."""
    if "=" in subject:
        sizes = parse_shape(subject)
        kind = SHORT[dtype or "float16"]
        return [Shape(sizes["q_heads"], sizes["kv_heads"], sizes["dk"], sizes["dv"], kind,
                      sizes.get("attention_window", 0), bool(sizes.get("score_cap", 0)))]  # fmt: skip
    source = find_source(subject)
    if source.gguf is None:
        config = source.config() or {}
    else:
        from kvq.evaluate.prepare import config_of_gguf  # loads transformers

        config = config_of_gguf(source)
    if dtype is not None:
        config = {**config, "dtype": dtype}
    try:
        return model_shapes.from_config(config)
    except KeyError as error:
        raise InvalidArgument(f"the config of {subject} has no {error}: is it a language model?") from error
