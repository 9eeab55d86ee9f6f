# SPDX-License-Identifier: Apache-2.0
"""The roofline of a run as a picture: elements a second over bits an element, below what the stream rate allows."""
import math

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker  # noqa: E402

COLOURS = {"exact": "tab:blue", "normal": "tab:green", "fast": "tab:red", None: "tab:gray"}
MARKERS = {"attend": "o", "peer": "s", "beside-torch": "D", "cached": "^", "heads": "v", "ratios": "x", "queries": "+",
           "window": "<", "ragged": "*"}
LIMITS, TICKS = (1.9, 42), (2, 3, 4, 5, 6, 8, 12, 16, 24, 32)   # of the axis of bits
RIGHTMOST = 20   # bits from which on a label stands on the left of its mark


def points(records, threads):
    """Records of steps with so many threads, each name once."""
    found = {r["name"]: r for r in records if "ge_s" in r and "bits" in r and r.get("threads") == threads}
    return list(found.values())


def part_of(record):
    return record["name"].split("/")[0]


def stream_rate(records, threads):
    """The highest rate that any read loop of the run showed, in GB/s; None where none was timed."""
    rates = [r["value"] for r in records if part_of(r) == "stream" and r["threads"] == threads]
    return max(rates + [r["stream_gb_s"] for r in points(records, threads) if "stream_gb_s" in r], default=None)


def draw_panel(axes, records, threads):
    shown = points(records, threads)
    rate = stream_rate(records, threads)
    if rate:
        axes.plot(LIMITS, [8 * rate / bits for bits in LIMITS], color="black", linewidth=1,
                  label=f"stream, {rate:.1f} GB/s")
    for part, marker in MARKERS.items():
        for name, colour in COLOURS.items():
            some = [r for r in shown if part_of(r) == part and r.get("accuracy") == name]
            if some:
                sizes = [12 + 7 * max(0, r["tokens"].bit_length() - 12) for r in some]
                filled = {} if marker in "x+" else {"facecolors": "none", "edgecolors": colour}
                axes.scatter([r["bits"] for r in some], [r["ge_s"] for r in some], s=sizes, marker=marker,
                             linewidths=0.9, label=f"{part}, {name}" if name else part,
                             **(filled or {"color": colour}))
    label(axes, shown)
    axes.set(xscale="log", yscale="log", xlabel="bits read per element of K and V", xlim=LIMITS,
             title=f"{threads} thread{'s' if threads > 1 else ''}")
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(True, which="both", alpha=0.25)
    if rate or shown:
        axes.legend(fontsize=7, loc="upper right")


def label(axes, shown):
    """Names of peers, and of each format's fastest step at the longest length, moved apart where they would collide."""
    steps = [r for r in shown if part_of(r) == "attend"]
    longest = max((r["tokens"] for r in steps), default=0)
    fastest = {r["format"]: r for r in sorted(steps, key=lambda r: r["ge_s"]) if r["tokens"] == longest}
    named = [r for r in shown if part_of(r) == "peer"] + list(fastest.values())
    last = {}
    for record in sorted(named, key=lambda r: r["ge_s"]):
        left = record["bits"] > RIGHTMOST
        column = round(4 * math.log2(record["bits"]))
        lift = max(record["ge_s"], 1.13 * max(last.get(near, 0) for near in (column - 1, column, column + 1)))
        last[column] = lift
        axes.annotate(record["name"].split("/")[1], (record["bits"], record["ge_s"]),
                      (record["bits"] * (0.95 if left else 1.05), lift), fontsize=6, color="dimgray", va="center",
                      ha="right" if left else "left")


def draw(file, records, about, threads):
    """Writes the picture, one panel for each number of threads."""
    figure, panels = pyplot.subplots(1, len(threads), figsize=(8 * len(threads), 7), sharey=True, squeeze=False)
    for axes, count in zip(panels[0], threads):
        draw_panel(axes, records, count)
    panels[0][0].set_ylabel("Ge/s: 10^9 elements of K and V a second")
    commit = (about["commit"] or "no commit")[:10] + (" with changes" if about["dirty"] else "")
    figure.suptitle(f"kvq attention, {about['processor']}, level {about['level']}, {commit}; larger marks: more tokens",
                    fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
