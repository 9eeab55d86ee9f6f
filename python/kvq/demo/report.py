# SPDX-License-Identifier: Apache-2.0
"""What the demo leaves behind: report.json, report.png and the table on the screen."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One format. Bytes include the window and all that the pool has reserved."""

    format: str
    bytes_per_token: float
    bits_per_element: float
    perplexity: float
    kl: float
    top1: float
    tokens_per_s: dict[str, float]


@dataclass(frozen=True)
class Report:
    machine: dict[str, Any]
    baselines: dict[str, Any]
    rows: list[Row]


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def table(report: Report, texts: dict[str, str], totals: dict[str, int]) -> Table:
    """`texts`: canonical text of each format; `totals`: bytes of its cache at the longest context."""
    lengths = list(report.rows[0].tokens_per_s)
    result = Table(title=f"{report.machine['model']}: caches at {lengths[-1]} tokens, tokens/s while decoding")
    result.add_column("format", no_wrap=True)
    for name in ("MB", "bytes/token", "vs fp16", "vs dtype", "bits", "perplexity", "KL", "top-1"):
        result.add_column(name, justify="right", no_wrap=True)
    for length in lengths:
        result.add_column(f"at {length}", justify="right", no_wrap=True)
    full = report.rows[0].bytes_per_token
    half = report.baselines["fp16"]["bytes_per_token"]
    for row in report.rows:
        text = texts.get(row.format, row.format)
        result.add_row(
            row.format if text == row.format else f"{row.format}  {text}",
            f"{totals[row.format] / 1e6:.1f}",
            f"{row.bytes_per_token:.0f}",
            f"{half / row.bytes_per_token:.2f}x",
            f"{full / row.bytes_per_token:.2f}x",
            f"{row.bits_per_element:.2f}",
            f"{row.perplexity:.3f}",
            f"{row.kl:.5f}",
            f"{100 * row.top1:.2f} %",
            *(f"{speed:.1f}" for speed in row.tokens_per_s.values()),
        )
    for name, values in report.baselines.items():
        if "tokens_per_s" in values and name != "DynamicCache":
            size = values["bytes_per_token"]
            result.add_row(
                name,
                f"{totals[name] / 1e6:.1f}",
                f"{size:.0f}",
                f"{half / size:.2f}x",
                f"{full / size:.2f}x",
                f"{values['bits_per_element']:.2f}",
                *("",) * 3,
                *(f"{speed:.1f}" for speed in values["tokens_per_s"].values()),
            )
    return result


def plot(report: Report, path: Path) -> None:
    """KL and perplexity against measured bits an element."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    full, formats = report.rows[0], report.rows[1:]
    for axis, column in zip(axes, ("kl", "perplexity"), strict=True):
        for row in formats:
            value = getattr(row, column)
            if column == "kl" and value <= 0:  # no place on a logarithmic axis
                continue
            axis.plot(row.bits_per_element, value, "o", markersize=7)
            axis.annotate(row.format, (row.bits_per_element, value), xytext=(6, 4), textcoords="offset points", size=8)
        axis.set_xlabel("measured bits an element, window and pool slack included")
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("KL to full precision, nats")
    axes[1].axhline(full.perplexity, linestyle="--", color="gray", label=f"full precision {full.perplexity:.2f}")
    if all(math.isfinite(row.perplexity) for row in formats):
        axes[1].legend(loc="upper right")
    axes[1].set_ylabel("perplexity")
    figure.suptitle(f"{report.machine['model']}, {report.machine['text']}")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
