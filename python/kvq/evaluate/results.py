# SPDX-License-Identifier: Apache-2.0
"""What the records of an evaluation say about each cache: the summary that tables, JSON and the picture are made of.

Imports neither torch nor transformers. The schema is written down in docs/evaluation.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

from kvq.evaluate.caches import CacheKind, Packed
from kvq.evaluate.records import Record

SCHEMA = "kvq-eval/1"

Summary = dict[str, Any]
Styles = dict[str, dict[str, str]]  # by cache, so that it looks the same in both panels

MARKERS = "osD^vP*Xhp"


def spread(samples: Sequence[float]) -> float:
    """Half the interquartile range."""
    if len(samples) < 2:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / 2


def _quality(records: list[Record]) -> dict[str, Any] | None:
    if not records:
        return None
    total = {name: sum(record["result"][name] for record in records) for name in ("nll", "kl", "same", "tokens")}
    parts = [{"start": record["key"]["setting"]["start"], **_means(record["result"])} for record in records]
    return {**_means(total), "tokens": total["tokens"], "windows": parts}


def _means(sums: dict[str, Any]) -> dict[str, float]:
    tokens = sums["tokens"]
    return {
        "perplexity": math.exp(sums["nll"] / tokens),
        "kl": sums["kl"] / tokens,
        "top1": sums["same"] / tokens,
    }


def _passkey(records: list[Record]) -> list[dict[str, Any]]:
    return [
        {
            "context": record["key"]["setting"]["context"],
            "depth": record["key"]["setting"]["depth"],
            "right": sum(task["right"] for task in record["result"]["tasks"]),
            "trials": len(record["result"]["tasks"]),
        }
        for record in records
    ]


def _memory(records: list[Record]) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        setting, result = record["key"]["setting"], record["result"]
        tokens = setting["context"] * setting["batch"]
        rows.append(
            {
                "context": setting["context"],
                "batch": setting["batch"],
                "bytes_held": result["bytes_held"],
                "bytes_used": result["bytes_used"],
                "bytes_per_token": result["bytes_held"] / tokens,
                "bits_per_element": 8 * result["bytes_held"] / result["elements"],
                "bits_per_element_used": 8 * result["bytes_used"] / result["elements"],
            }
        )
    return rows


def _speed(records: list[Record], identity: str, tokens_of: str | None) -> list[dict[str, Any]]:
    """`tokens_of`: the setting that says how many tokens a sample made for each row; None for one."""
    rows = []
    for record in records:
        setting, samples = record["key"]["setting"], record["result"]["seconds"][identity]
        median = statistics.median(samples)
        tokens = setting["batch"] * (setting[tokens_of] if tokens_of else 1)
        rows.append(
            {
                "context": setting["context"],
                "batch": setting["batch"],
                "tokens_per_s": tokens / median,
                "ms": 1e3 * median,
                "ms_spread": 1e3 * spread(samples),
                "samples_ms": [1e3 * sample for sample in samples],
            }
        )
    return rows


def summarize(records: Iterable[Record], kinds: Sequence[CacheKind]) -> list[Summary]:
    """One summary for each cache; "full precision" goes before them where quality was measured."""
    records = list(records)

    def of(metric: str, identity: str | None) -> list[Record]:
        return [r for r in records if r["key"]["metric"] == metric and r["key"]["cache"] == identity]

    def together(metric: str) -> list[Record]:
        return [r for r in records if r["key"]["metric"] == metric]

    summaries = []
    reference = _quality(of("reference", None))
    if reference is not None:
        others = {name: [] for name in ("passkey", "memory", "decode", "prefill")}
        names = {"cache": "full precision", "identity": None, "format": None, "accuracy": None}
        summaries.append({**names, "quality": reference, **others})
    for kind in kinds:
        identity = kind.identity
        summaries.append(
            {
                "cache": kind.text,
                "identity": identity,
                "format": kind.format if isinstance(kind, Packed) else None,
                "accuracy": kind.accuracy,
                "quality": _quality(of("quality", identity)),
                "passkey": _passkey(of("passkey", identity)),
                "memory": _memory(of("memory", identity)),
                "decode": _speed(together("decode"), identity, None),
                "prefill": _speed(together("prefill"), identity, "context"),
            }
        )
    return _against_exact(summaries)


def _against_exact(summaries: list[Summary]) -> list[Summary]:
    """Adds to each quality what its KL has more than that of the same format in class `exact`, as a part of the
    latter; None where that was not measured."""
    exact = {row["format"]: row["quality"]["kl"] for row in summaries if row["accuracy"] == "exact" and row["quality"]}
    for row in summaries:
        if row["quality"]:
            kl = exact.get(row["format"]) if row["format"] else None
            row["quality"]["kl_over_exact"] = row["quality"]["kl"] / kl - 1 if kl else None
    return summaries


def draw(title: str, summaries: Sequence[Summary]) -> bytes:
    """A PNG: what a cache costs in KL against its measured bits, and decode speed against context; each panel where its
    figures were measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    costs = [row for row in summaries if row["quality"] and row["memory"] and row["quality"]["kl"] > 0]
    speeds = [row for row in summaries if row["decode"]]
    panels = [(_draw_costs, costs)] * bool(costs) + [(_draw_speeds, speeds)] * bool(speeds)
    figure, axes = pyplot.subplots(1, max(len(panels), 1), figsize=(6.5 * max(len(panels), 1), 5), layout="constrained",
                                   squeeze=False)
    names = [row["cache"] for row in summaries if row["identity"]]
    styles = {name: {"color": f"C{i % 10}", "marker": MARKERS[i % len(MARKERS)]} for i, name in enumerate(names)}
    for axis, (panel, rows) in zip(axes[0], panels):
        panel(axis, rows, styles)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    if not panels:
        axes[0][0].text(0.5, 0.5, "neither quality with memory nor decoding was measured", ha="center")
        axes[0][0].set_axis_off()
    figure.suptitle(title)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=130)
    pyplot.close(figure)
    return content.getvalue()


def _draw_costs(axis: Any, rows: Sequence[Summary], styles: Styles) -> None:
    for row in rows:
        bits = row["memory"][-1]["bits_per_element"]
        style = styles[row["cache"]]
        axis.plot(bits, row["quality"]["kl"], linestyle="", markersize=8, alpha=0.8, label=row["cache"], **style)
    axis.set_yscale("log")
    axis.set_ylabel("KL to full precision, nats")
    length = rows[0]["memory"][-1]["context"]
    axis.set_xlabel(f"measured bits an element at {length} tokens, all memory that it holds included")


def _draw_speeds(axis: Any, rows: Sequence[Summary], styles: Styles) -> None:
    for row in rows:
        lengths = [point["context"] for point in row["decode"]]
        rates = [point["tokens_per_s"] for point in row["decode"]]
        axis.plot(lengths, rates, alpha=0.8, label=row["cache"], **styles[row["cache"]])
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [str(length) for length in lengths])
    axis.set_ylim(bottom=0)
    axis.set_ylabel("tokens/s of decoding, all rows together")
    axis.set_xlabel("tokens of context")
