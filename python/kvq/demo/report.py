# SPDX-License-Identifier: Apache-2.0
"""What the demo leaves behind: report.json, report.png and the table on the screen."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One format. Bytes include the window and all that the pool has written to right after a prompt was loaded."""

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


def _columns(result: Table, names: list[str]) -> Table:
    result.add_column("format", no_wrap=True)
    for name in names:
        result.add_column(name, justify="right", no_wrap=True)
    return result


def size_table(report: Report, texts: dict[str, str], totals: dict[str, int]) -> Table:
    """`texts`: canonical text of each format; `totals`: bytes of its cache at the longest context."""
    length = list(report.rows[0].tokens_per_s)[-1]
    result = Table(title=f"memory at {length} tokens just loaded, window and all that was ever written to included", box=box.SIMPLE)
    _columns(result, ["MB", "bytes a token", "less than fp16", f"than {report.machine['dtype']}", "bits an element"])
    full, half = report.baselines["DynamicCache"], report.baselines["fp16"]
    sizes = {row.format: (row.bytes_per_token, row.bits_per_element) for row in report.rows}
    for name, values in report.baselines.items():
        if name in totals:
            sizes[name] = (values["bytes_per_token"], values["bits_per_element"])
    for name, (size, bits) in sizes.items():
        text = texts.get(name, name)
        result.add_row(
            name if text == name else f"{name}  {text}",
            f"{totals[name] / 1e6:.1f}",
            f"{size:.0f}",
            f"{half['bytes_per_token'] / size:.2f}x",
            f"{full['bytes_per_token'] / size:.2f}x",
            f"{bits:.2f}",
        )
    return result


def quality_table(report: Report) -> Table:
    lengths = list(report.rows[0].tokens_per_s)
    result = Table(title="quality, and tokens/s of decoding by tokens of context", box=box.SIMPLE)
    _columns(result, ["perplexity", "KL", "top-1", *(f"at {length}" for length in lengths)])
    for row in report.rows:
        quality = (f"{row.perplexity:.3f}", f"{row.kl:.5f}", f"{100 * row.top1:.2f} %")
        result.add_row(row.format, *quality, *(f"{speed:.1f}" for speed in row.tokens_per_s.values()))
    for name, values in report.baselines.items():
        if "tokens_per_s" in values and name != "DynamicCache":  # which is the row of full precision
            result.add_row(name, "", "", "", *(f"{speed:.1f}" for speed in values["tokens_per_s"].values()))
    return result


def plot(report: Report, path: Path) -> None:
    """KL and perplexity against measured bits an element."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    full, formats = report.rows[0], report.rows[1:]
    markers = "osD^vP*Xhp"
    for axis, column in zip(axes, ("kl", "perplexity"), strict=True):
        for row, marker in zip(formats, itertools.cycle(markers)):
            value = getattr(row, column)
            if column == "kl" and value <= 0:  # no place on a logarithmic axis
                continue
            axis.plot(row.bits_per_element, value, marker, markersize=8, alpha=0.8, label=row.format)
        axis.set_xlabel("measured bits an element, window and all that was ever written to included")
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("KL to full precision, nats")
    axes[1].axhline(full.perplexity, linestyle="--", color="gray", label=f"full precision {full.perplexity:.2f}")
    axes[1].legend(loc="upper right", fontsize=8)
    axes[1].set_ylabel("perplexity")
    figure.suptitle(f"{report.machine['model']}, {report.machine['text']}")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
