# SPDX-License-Identifier: Apache-2.0
"""`kvq prepare`: fills a kernel store for other machines, on one that has none of their processors."""

from __future__ import annotations

from typing import Any

import click

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.evaluate.source import find_source

SHAPE = {"layers": 1, "q_heads": None, "kv_heads": None, "dk": None, "dv": None, "attention_window": 0, "score_cap": 0.0}
DTYPES = ("float32", "bfloat16", "float16")


@click.command("prepare", short_help="Compile a cache's kernels for other machines.")
@click.argument("subject", metavar="MODEL|SHAPE")
@click.argument("caches", metavar="CACHE...", nargs=-1, required=True)
@click.option("--targets", required=True, metavar="TARGET,..",
              help="What to compile for: CPU levels (x86-64-v4) and GPUs (nvptx:sm_90).")
@click.option("--store", metavar="DIR", help="The kernel store to fill.  [default: $KVQ_STORE, or the user's]")
@click.option("--dtype", type=click.Choice(DTYPES), help="Of K and V.  [default: the model's; of a SHAPE float16]")
@click.option("--accuracy", type=click.Choice(lowlevel.ACCURACY_CLASSES), default=lowlevel.DEFAULT_ACCURACY,
              show_default=True)
@click.option("--quiet", "-q", is_flag=True, help="The last line alone.")
def prepare(
    subject: str, caches: tuple[str, ...], targets: str, store: str | None, dtype: str | None, accuracy: str, quiet: bool
) -> None:  # fmt: skip
    """Compile all kernels that caches of a model need on machines that are not here, into a kernel store.

    MODEL is what `kvq eval` takes; its weights are not read. SHAPE is q_heads=N,kv_heads=N,d=N (or dk=, dv=), with
    attention_window=N and score_cap=X where the model has them.

    \b
      kvq prepare smollm2 kivi-4 kvq-4 --targets nvptx:sm_80,nvptx:sm_90 --store pack
      kvq prepare q_heads=32,kv_heads=8,d=128 kvq-4 --targets x86-64-v4 --store pack

    With the folder as its store (KVQ_STORE, store_dir) a machine of such a target compiles nothing, and may be frozen.
    GPUs get PTX and, where NVRTC is installed here, machine code.
    """
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
