# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from kvq.evaluate.results import Summary

WIDTH = 150  # of a log, which has none of its own


def show(summaries: Sequence[Summary]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    for title, table in (_quality(summaries), _passkey(summaries), *_costs(summaries)):
        if table.row_count:
            console.print(f"\n{title}")  # as rich's own title it would be wrapped to the table's width
            console.print(table)


def _table(names: Sequence[str]) -> Table:
    result = Table(box=box.SIMPLE)
    result.add_column("cache", no_wrap=True)
    for name in names:
        result.add_column(name, justify="right", no_wrap=True)
    return result


def _quality(summaries: Sequence[Summary]) -> tuple[str, Table]:
    found = [(row["cache"], row["quality"]) for row in summaries if row["quality"]]
    size = f"{found[0][1]['tokens']} predicted tokens in {len(found[0][1]['windows'])} windows" if found else ""
    # Only beside class `exact`: without another class of the same format every row would say 0.
    compared = len({row["accuracy"] for row in summaries if row["quality"] and row["accuracy"]}) > 1
    table = _table(["perplexity", "KL, nats", *(["more than exact"] if compared else []), "top-1"])
    for name, values in found:
        more = values["kl_over_exact"]
        cell = "" if more is None else f"{100 * more:+.1f} %"
        table.add_row(
            name, f"{values['perplexity']:.3f}", f"{values['kl']:.5f}", *([cell] if compared else []),
            f"{100 * values['top1']:.2f} %",
        )  # fmt: skip
    return f"quality over {size}", table


def _passkey(summaries: Sequence[Summary]) -> tuple[str, Table]:
    found = [row for row in summaries if row["passkey"]]
    places = sorted({(part["context"], part["depth"]) for row in found for part in row["passkey"]})
    table = _table([f"{n} @ {d} %" for n, d in places])
    for row in found:
        cells = {(part["context"], part["depth"]): f"{part['right']}/{part['trials']}" for part in row["passkey"]}
        table.add_row(row["cache"], *(cells.get(place, "") for place in places))
    return "passkey: right of asked, by tokens of context and depth", table


def _costs(summaries: Sequence[Summary]) -> Iterator[tuple[str, Table]]:
    """One table for each context length."""
    figures = ("memory", "decode", "prefill")
    lengths = sorted({part["context"] for row in summaries for name in figures for part in row[name]})
    for length in lengths:
        names = ["MB used", "MB held", "bits used", "bits an element", "decode, tokens/s", "ms a step",
                 "prefill, tokens/s"]
        batches = {part["batch"] for row in summaries for name in figures for part in row[name]}
        rows = f", {max(batches)} rows" if max(batches) > 1 else ""
        table = _table(names)
        for row in summaries:
            memory, decode, prefill = (
                next((part for part in row[name] if part["context"] == length), None) for name in figures
            )
            if memory or decode or prefill:
                table.add_row(row["cache"], *_memory_cells(memory), *_decode_cells(decode), *_prefill_cells(prefill))
        yield f"memory and speed at {length} tokens{rows}", table


def _memory_cells(memory: dict[str, float] | None) -> list[str]:
    if memory is None:
        return [""] * 4
    return [
        *(f"{memory[name] / 1e6:.{1 if memory[name] >= 1e7 else 3}f}" for name in ("bytes_used", "bytes_held")),
        f"{memory['bits_per_element_used']:.2f}",
        f"{memory['bits_per_element']:.2f}",
    ]


def _decode_cells(decode: dict[str, float] | None) -> list[str]:
    if decode is None:
        return [""] * 2
    return [f"{decode['tokens_per_s']:.1f}", f"{decode['ms']:.1f} ± {decode['ms_spread']:.1f}"]


def _prefill_cells(prefill: dict[str, float] | None) -> list[str]:
    if prefill is None:
        return [""]
    relative = prefill["ms_spread"] / prefill["ms"]
    return [f"{prefill['tokens_per_s']:.0f} ± {100 * relative:.0f} %"]
