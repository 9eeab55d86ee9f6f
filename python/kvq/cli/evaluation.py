# SPDX-License-Identifier: Apache-2.0
"""`kvq eval`: reads what is asked, measures it (kvq.evaluate.evaluation), shows and writes the results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kvq import lowlevel
from kvq.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from kvq.evaluate import machine, settings as limits
from kvq.evaluate.caches import CacheKind, in_classes
from kvq.evaluate.prose import handbook
from kvq.evaluate.records import Record, Records, write_atomically
from kvq.evaluate.settings import METRICS, Settings, parse_classes, parse_metrics, parse_numbers
from kvq.evaluate.source import Source, find_source

DEFAULT_CACHES = ("dynamic", "kvq-8", "kivi-4", "kivi-2")
MOST = 1 << 24  # tokens, steps, windows: beyond that a number is a slip of the hand

HELP = f"""Measure caches on a model: perplexity, KL, top-1, passkey retrieval, memory, speed.

MODEL is a folder with config.json, safetensors and a tokenizer, a GGUF file or a folder with one, or smollm2, the model
of the demo. CACHE is any text that kvq takes, dynamic (full precision), quanto-4 or another of transformers' own;
without any, {' '.join(DEFAULT_CACHES)}.

\b
  kvq eval smollm2 dynamic kivi-4 kivi-2 --out results
  kvq eval ~/models/llama kvq-4 k4c64-v2t32/w128,block --metrics quality,memory --text book.txt
  kvq eval smollm2 kivi-2 quanto-2 --metrics decode --context 1k,4k --json speed.json
  kvq eval smollm2 kvq-8 kvq-4 --metrics quality --accuracy exact,normal,fast

With --out each measurement is kept as it finishes; the same command goes on where it was interrupted. What each figure
means is in docs/evaluation.md."""

_count = click.IntRange(1, MOST)


@click.command("eval", help=HELP, short_help="Measure caches on a model.")
@click.argument("model")
@click.argument("caches", nargs=-1, metavar="[CACHE]...")
@click.option("--metrics", default=",".join(METRICS), show_default=True, help="What to measure, with commas between.")
@click.option("--text", "text_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Prose in UTF-8 to measure on.  [default: the Debian Administrator's Handbook]")
@click.option("--windows", type=_count, default=3, show_default=True, help="Windows of the text for quality.")
@click.option("--tokens", type=click.IntRange(2, MOST), help="Tokens of a window.  [default: 2048, or all positions]")
@click.option("--context", metavar="N,N", help="Context lengths for all else; 4k is 4096.  [default: 1024,4096]")
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True,
              help="Rows, of the same text, for memory and speed.")
@click.option("--depths", default="0,25,50,75,100", show_default=True, metavar="N,N",
              help="Depths of the passkey, in percent.")
@click.option("--trials", type=_count, default=1, show_default=True, help="Passkeys for each depth.")
@click.option("--steps", type=_count, default=12, show_default=True, help="Timed steps of decoding.")
@click.option("--rounds", type=_count, default=3, show_default=True, help="Timed prompts of each length.")
@click.option("--prefill", type=click.Choice(("stored", "raw")),
              help="What tokens of one prompt see of each other.  [default: KVQCache's own]")
@click.option("--accuracy", "classes", metavar="CLASS,..",
              help=f"Accuracy classes, kvq's caches in each of them: {', '.join(lowlevel.ACCURACY_CLASSES)}.  "
                   f"[default: {lowlevel.DEFAULT_ACCURACY}]")
@click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32", show_default=True)
@click.option("--threads", type=click.IntRange(1, 4096), help="Threads of torch and of kvq.  [default: all]")
@click.option("--device", type=click.Choice(("cpu", "ref")), default="cpu", show_default=True,
              help="Of kvq's kernels; ref is the slow scalar reference.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep results, report.json and report.png here.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Use what is finished in --out already.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the results there.")
@click.option("--png", "png_file", type=click.Path(path_type=Path), metavar="FILE", help="Draw the results there.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def evaluate(model: str, caches: tuple[str, ...], **options: Any) -> None:
    from kvq.cli.progress import ProgressReporter

    # Everything that can be wrong without the model is refused before torch and the model are loaded.
    context = lowlevel.shared_context(options["device"], threads=options["threads"] or 0)
    kinds = _kinds(caches or DEFAULT_CACHES, context, options["prefill"], parse_classes(options["classes"]))
    source = find_source(model)
    settings = _settings(options, source)
    settings.check_positions(source.positions())
    text = _text(options["text_file"]) if settings.needs_text() else ""
    outputs = _outputs(options)
    records = Records(options["out"])
    with ProgressReporter(options["quiet"]) as reporter:
        reporter.line(f"kvq {lowlevel.version()}: {source.name}, {len(kinds)} caches, {', '.join(settings.metrics)}")
        try:
            found, facts = _measure(source, kinds, text, context, settings, records, options, reporter)
        except KeyboardInterrupt:
            where = "nothing was kept, which --out does"
            if options["out"]:
                where = f"what is finished is kept in {options['out']}, and the same command goes on from there"
            reporter.line(f"interrupted; {where}")
            raise
    _present(found, kinds, facts, outputs, records)


def _kinds(
    texts: Sequence[str], context: lowlevel.Context, prefill: str | None, classes: Sequence[str]
) -> list[CacheKind]:
    options = {"context": context, **({"prefill": prefill} if prefill else {})}
    return [kind for text in dict.fromkeys(texts) for kind in in_classes(text, classes, options)]


def _settings(options: dict[str, Any], source: Source) -> Settings:
    positions = source.positions()
    contexts = options["context"]
    return Settings(
        metrics=parse_metrics(options["metrics"]),
        windows=options["windows"],
        tokens=options["tokens"] or limits.default_tokens(positions),
        contexts=(
            parse_numbers(contexts, "context", 1, MOST)
            if contexts
            else limits.default_contexts(positions, options["steps"])
        ),
        batch=options["batch"],
        depths=parse_numbers(options["depths"], "depth", 0, 100),
        trials=options["trials"],
        steps=options["steps"],
        rounds=options["rounds"],
        threads=options["threads"] or 0,
    )


def _text(file: Path | None) -> str:
    if file is None:
        try:
            return handbook()
        except FailedPrecondition as error:
            raise FailedPrecondition(f"{error}, or name a text of your own with --text") from None
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"the text {file} cannot be read ({error.strerror}): give a file of prose") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"the text {file} is not UTF-8: convert it") from None
    if not text.strip():
        raise InvalidArgument(f"the text {file} is empty: give a file of prose")
    return text


def _outputs(options: dict[str, Any]) -> dict[str, list[Path]]:
    """Where the JSON and the picture go; refused now where a folder is missing, not after hours of measuring."""
    out = options["out"]
    for file in filter(None, (options["json_file"], options["png_file"])):
        if file.is_dir():
            raise InvalidArgument(f"{file} is a folder: give a file in it")
        if not file.absolute().parent.is_dir():
            raise InvalidArgument(f"the folder of {file} does not exist: make it, or give another")
        if not os.access(file.absolute().parent, os.W_OK):
            raise PermissionDenied(f"the folder of {file} cannot be written: give another")
    return {
        "json": [path for path in (out and out / "report.json", options["json_file"]) if path],
        "png": [path for path in (out and out / "report.png", options["png_file"]) if path],
    }


def _measure(
    source: Source,
    kinds: list[CacheKind],
    text: str,
    context: lowlevel.Context,
    settings: Settings,
    records: Records,
    options: dict[str, Any],
    reporter: Any,
) -> tuple[list[Record], dict[str, Any]]:
    from kvq.evaluate import model as models
    from kvq.evaluate.evaluation import Evaluation, Inputs

    models.set_threads(settings.threads)
    subject = models.open_model(source, models.dtype_of(options["dtype"]), models.tokenizer_cache())
    inputs = Inputs(subject, source.fingerprint(), kinds, text, context)
    evaluation = Evaluation(inputs, settings, records)
    found = evaluation.run(reporter, fresh=not options["resume"])
    file = options["text_file"]
    return found, {
        "model": {"name": source.name, "fingerprint": inputs.fingerprint, **subject.facts()},
        "machine": machine.describe(context, models.torch_threads()),
        "settings": {
            **settings.as_dict(),
            "prefill": options["prefill"],
            "accuracy": parse_classes(options["classes"]),
            "text": file.name if file else "Debian Administrator's Handbook",
        },
    }


def _present(
    found: list[Record],
    kinds: list[CacheKind],
    facts: dict[str, Any],
    outputs: dict[str, list[Path]],
    records: Records,
) -> None:
    from kvq.cli import tables
    from kvq.evaluate import results

    summaries = results.summarize(found, kinds)
    tables.show(summaries)
    report = {
        "schema": results.SCHEMA,
        **facts,
        "caches": summaries,
        "records": found,
        "measured_again": [{"file": path.name, "why": why} for path, why in records.corrupt],
    }
    for path in outputs["json"]:
        write_atomically(path, json.dumps(report, indent=1) + "\n")
    if outputs["png"]:
        title = f"{facts['model']['name']}, {facts['model']['dtype']}, {facts['machine']['processor']}"
        picture = results.draw(title, summaries)
        for path in outputs["png"]:
            write_atomically(path, picture)
    written = [str(path) for paths in outputs.values() for path in paths]
    if written:
        click.echo(f"wrote {', '.join(written)}")
