# SPDX-License-Identifier: Apache-2.0
"""The demo's four parts in order: kernels, chat, table, report. The measuring itself is kvq.evaluate's."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import kvq
from kvq import evaluate
from kvq.evaluate.machine import describe
from kvq.demo.report import Report, Row, plot, quality_table, size_table, write_json
from kvq.lowlevel import Context, format_canonical, shared_context

FULL_PRECISION = "full precision"
QUANTO = "QuantizedCache quanto int4"
TINY_TEXT = "The quick brown fox jumps over the lazy dog. " * 40
QUESTION = (
    "I administer a small office with one Debian server and twelve workstations. Last week a power cut damaged the "
    "root file system of the server, and nobody had tested the backups. Explain, step by step, how I should organise "
    "backups, updates and monitoring from now on, which tools Debian offers for each, and how to check every month "
    "that everything can really be restored."
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    formats: tuple[str, ...]
    windows: int
    window_tokens: int
    lengths: tuple[int, ...]
    steps: int
    answer_tokens: int


NORMAL = Size(
    formats=(
        "kvq-8",
        "kvq-4",
        "kvq-k4v2",
        "k2c32-v4t32/w128,block",
        "kvq-2",
        "kivi-4",
        "kivi-2",
        "k4t32-v4t32/w128,block",
    ),
    windows=3,
    window_tokens=2048,
    lengths=(1024, 4096, 8192),
    steps=12,
    answer_tokens=160,
)
FULL = Size(NORMAL.formats, 8, 2048, NORMAL.lengths, 32, 256)
TINY = Size(("k8c32-v8t16/w32,block", "k2c32-v2t16/w32,sliding"), 2, 96, (64, 96), 2, 48)


class Stages:
    """Names each part while it runs and says how long it took."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Any]:
        start = time.perf_counter()
        if not self.console.is_terminal:
            self.console.print(f"{name} ...")
            yield lambda message: None
            self.console.print(f"  {time.perf_counter() - start:.1f} s")
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(name)
            yield lambda message: bar.update(task, description=f"{name}: {message}")
        self.console.print(f"[bold]{name}[/bold]: {time.perf_counter() - start:.1f} s")


def run(options: argparse.Namespace) -> Report:
    console = Console()
    if not console.is_terminal:
        console.width = 120
    stages = Stages(console)
    size = TINY if options.tiny else FULL if options.full else NORMAL
    options.out.mkdir(parents=True, exist_ok=True)
    context = shared_context(options.device)
    console.print(
        f"kvq {kvq.__version__}, device {options.device}, level {context.level}, {evaluate.torch_threads()} threads of "
        f"torch, accuracy class {options.accuracy}; allocator tuned (MALLOC_MMAP_MAX_=0), without which the ordinary "
        "caches are several times slower"
    )
    with stages.stage("load the model"):
        subject = evaluate.tiny() if options.tiny else evaluate.smollm2(options.out / "tokenizer")
        ids = subject.encode(TINY_TEXT if options.tiny else evaluate.handbook())
    show_kernels(console, stages, subject, size, context, options.accuracy)
    show_chat(console, stages, subject, size, context, options.accuracy)
    report, totals = measure(stages, subject, ids, size, context, options)
    report.machine.update(describe(context, evaluate.torch_threads()))
    console.print(size_table(report, {name: format_canonical(name) for name in size.formats}, totals))
    console.print(quality_table(report))
    console.print(
        "Quality: windows of text in one forward, each "
        "query seeing what decoding would have shown it. Speed: median of single steps, one row; quanto's flush every "
        "128 tokens is not in it."
    )
    write_json(report, options.out / "report.json")
    plot(report, options.out / "report.png")
    console.print(f"wrote {options.out / 'report.json'} and {options.out / 'report.png'}")
    return report


def show_kernels(
    console: Console, stages: Stages, subject: evaluate.Subject, size: Size, context: Context, accuracy: str
) -> None:
    with stages.stage("compile the kernels") as say:
        for name in size.formats:
            cache = kvq.KVQCache(subject.model.config, name, accuracy=accuracy, context=context)
            cache.prepare(progress=lambda record: say(record["name"]))
    kernels = context.kernels()
    listing = Table(title=f"{len(kernels)} kernels for {context.level}", box=box.SIMPLE)
    listing.add_column("kernel", overflow="fold")
    listing.add_column("from")
    listing.add_column("compiled in ms", justify="right")
    listing.add_column("bytes", justify="right")
    for record in sorted(kernels, key=lambda record: record["name"]):
        source = "new" if record["source"] == "compiled" else record["source"]
        listing.add_row(record["name"], source, f"{record['compile_ms']:.0f}", str(record["object_bytes"]))
    console.print(listing)


def show_chat(
    console: Console, stages: Stages, subject: evaluate.Subject, size: Size, context: Context, accuracy: str
) -> None:
    formats = size.formats[-2:] if len(size.formats) == 2 else ("kivi-4", "kivi-2")
    with stages.stage("answer a question with three caches"):
        found = evaluate.answers(subject, QUESTION, formats, context, size.answer_tokens, accuracy)
    console.print(f"[bold]Question[/bold]: {QUESTION}", highlight=False)
    columns = Table(show_lines=True)
    for answer in found:
        columns.add_column(answer.cache, ratio=1)
    columns.add_row(*(answer.text for answer in found))
    console.print(columns, highlight=False)
    for answer in found[1:]:
        where = "the same to the end" if answer.differs_at is None else f"differs from token {answer.differs_at} on"
        console.print(f"{answer.cache}: {where}")


def measure(
    stages: Stages,
    subject: evaluate.Subject,
    ids: Any,
    size: Size,
    context: Context,
    options: argparse.Namespace,
) -> tuple[Report, dict[str, int]]:
    count, steps = options.windows or size.windows, options.steps or size.steps
    with stages.stage(f"quality on {count} windows of {size.window_tokens} tokens") as say:
        texts = evaluate.windows(ids, count, size.window_tokens)
        quality = evaluate.compare(subject, texts, size.formats, context, say, options.accuracy)
    with stages.stage(f"prompt of {size.lengths[-1]} tokens") as say:
        states = evaluate.prompt_states(subject, ids[:, : size.lengths[-1]])
    fills = {FULL_PRECISION: evaluate.dynamic, QUANTO: evaluate.quanto}
    fills.update({name: evaluate.packed(name, context, options.accuracy) for name in size.formats})
    with stages.stage(f"decode with {len(fills)} caches in turn") as say:
        speed = evaluate.measure(subject, states, fills, size.lengths, steps, say)
    rows = [_row(name, speed[name], quality[name]) for name in (FULL_PRECISION, *size.formats)]
    full = speed[FULL_PRECISION]
    half = full.bytes_per_token * 16 / full.bits_per_element
    baselines = {
        "DynamicCache": _baseline(full),
        QUANTO: _baseline(speed[QUANTO]),
        "fp16": {"bytes_per_token": half, "bits_per_element": 16.0},
    }
    text = f"{count} windows of {size.window_tokens} tokens of the Debian handbook"
    machine = {
        "model": subject.name,
        "dtype": subject.dtype,
        "accuracy": options.accuracy,
        "text": "a repeated sentence" if options.tiny else text,
    }
    return Report(machine, baselines, rows), {name: measured.bytes_total for name, measured in speed.items()}


def _speeds(measured: evaluate.Measured) -> dict[str, float]:
    return {str(length): speed for length, speed in measured.tokens_per_s.items()}


def _baseline(measured: evaluate.Measured) -> dict[str, Any]:
    return {
        "bytes_per_token": measured.bytes_per_token,
        "bits_per_element": measured.bits_per_element,
        "tokens_per_s": _speeds(measured),
    }


def _row(name: str, measured: evaluate.Measured, quality: evaluate.Quality) -> Row:
    return Row(
        format=name,
        bytes_per_token=measured.bytes_per_token,
        bits_per_element=measured.bits_per_element,
        perplexity=quality.perplexity,
        kl=quality.kl,
        top1=quality.top1,
        tokens_per_s=_speeds(measured),
    )
