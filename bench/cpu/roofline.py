# SPDX-License-Identifier: Apache-2.0
"""The roofline of a run as a picture: elements a second over bits an element, below what the stream rate allows."""

COLOURS = {"exact": "tab:blue", "normal": "tab:green", "fast": "tab:red", None: "tab:gray"}
MARKERS = "osD^vP*X"
LABELLED = ("peer/",)


def points(records, threads):
    """Records of steps with so many threads, each name once."""
    found = {r["name"]: r for r in records if "ge_s" in r and "bits" in r and r.get("threads") == threads}
    return list(found.values())


def part_of(record):
    return record["name"].split("/")[0]


def draw_panel(axes, records, threads):
    import numpy

    shown = points(records, threads)
    rates = [r["value"] for r in records if r["name"].startswith("stream/") and r["threads"] == threads]
    rates += [r["stream_gb_s"] for r in shown if "stream_gb_s" in r]
    bits = numpy.geomspace(2, 40, 50)
    if rates:
        rate = max(rates)
        axes.plot(bits, 8 * rate / bits, color="black", linewidth=1, label=f"stream, {rate:.1f} GB/s")
    parts = sorted({part_of(r) for r in shown})
    for part, marker in zip(parts, MARKERS):
        for name, colour in COLOURS.items():
            some = [r for r in shown if part_of(r) == part and r.get("accuracy") == name]
            if some:
                sizes = [14 + 5 * max(0, (r.get("tokens") or 1).bit_length() - 10) for r in some]
                axes.scatter([r["bits"] for r in some], [r["ge_s"] for r in some], s=sizes, marker=marker,
                             facecolors="none", edgecolors=colour, linewidths=0.9,
                             label=f"{part}, {name}" if name else part)
    label_peers(axes, [r for r in shown if r["name"].startswith(LABELLED)])
    axes.set(xscale="log", yscale="log", xlabel="bits read per element of K and V",
             title=f"{threads} thread{'s' if threads > 1 else ''}", xlim=(2, 40))
    ticks = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=7, loc="best")


def label_peers(axes, records):
    """Names beside the peers' points, moved apart where they would lie on each other."""
    last = {}
    for record in sorted(records, key=lambda r: r["ge_s"]):
        column = round(record["bits"])
        lift = max(record["ge_s"], last.get(column, 0) * 1.22)
        last[column] = lift
        axes.annotate(record["name"].split("/")[1], (record["bits"], record["ge_s"]), (record["bits"] * 1.06, lift),
                      fontsize=6, color="dimgray", va="center")


def draw(file, records, about, threads):
    """Writes the picture, one panel for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

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
