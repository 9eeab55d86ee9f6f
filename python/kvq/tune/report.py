# SPDX-License-Identifier: Apache-2.0
"""The report of a tuning database: one HTML page that needs nothing but itself, for a telephone and for a wall."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from html import escape

from kvq.tune import charts
from kvq.tune.charts import BLUE, GREEN, GREY, ORANGE, Bar, Point
from kvq.tune.estimator import LEAST_ROUNDS
from kvq.tune.findings import Configuration, Failure, Findings, Front, Pair, spread_of
from kvq.tune.rows import Trial

_STYLE = """
body { margin: 0 auto; max-width: 1560px; padding: 0 12px 40px; font: 15px/1.4 system-ui, sans-serif; color: #111;
  background: #fff }
h1 { font-size: 24px } h2 { font-size: 19px; margin: 32px 0 8px } h3 { font-size: 13px; margin: 0 0 2px }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px }
.card { border: 1px solid #ccc; border-radius: 6px; padding: 10px; min-width: 0 }
p, h3, td, code { overflow-wrap: anywhere }
.text { font-size: 12px; color: #444; margin: 0 0 6px }
svg { width: 100%; max-width: 480px; height: auto; display: block }
svg text { font: 11px system-ui, sans-serif; fill: #111 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 13px }
td, th { text-align: left; vertical-align: top; padding: 3px 10px 3px 0; border-bottom: 1px solid #ddd }
summary { cursor: pointer }
"""


def render(findings: Findings, title: str) -> str:
    parts = [f"<h1>{escape(title)}</h1>", _summary(findings)]
    if findings.configurations:
        parts += ["<h2>Tuned against default</h2>", _legend(), '<div class="cards">',
                  *map(_card, findings.configurations), "</div>"]  # fmt: skip
    if findings.fronts:
        parts += ["<h2>Bytes and speed</h2>", _front_words(), '<div class="cards">']
        parts += [_front(front, findings) for front in findings.fronts] + ["</div>"]
    if findings.pairs:
        parts += ["<h2>Predicted and measured</h2>", _pairs(findings.pairs)]
    parts += ["<h2>What failed</h2>", _failures(findings)]
    head = ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n")  # fmt: skip
    return head + "\n".join(parts) + "\n</body></html>\n"


def _summary(findings: Findings) -> str:
    measured = [each for each in findings.configurations if not each.entry.predicted]
    speedups = [each.speedup for each in measured if each.speedup is not None]
    changed = sum(each.entry.schedule != each.entry.default for each in measured)
    words = [f"{len(measured)} configurations are measured, {len(findings.configurations) - len(measured)} predicted."]
    if speedups:
        words += [f"The default schedule is not the one that won in {changed} of them.",
                  f"Against it the tuned ones are {statistics.median(speedups):.2f} times as fast in the middle,",
                  f"{max(speedups):.2f} at most."]  # fmt: skip
    shares = [each.roofline / each.seconds for each in measured if each.roofline]
    if shares:
        words.append(f"Of what the memory allows they reach {100 * statistics.median(shares):.0f} % in the middle.")
    return f"<p>{escape(' '.join(words))}</p>"


def _legend() -> str:
    return (
        "<p class=text>Times of one run: the default schedule, the tuned one, and the roofline, what reading the "
        "packed pages takes at the memory's rate, where that is known. A black line is one deviation of noise to "
        "either side. Below are all samples; the box holds the half in the middle, and what lies far off is counted "
        "at the right. Predicted times are a cost model's.</p>"
    )


def _card(each: Configuration) -> str:
    entry = each.entry
    rows = []
    if each.default is not None and each.default.seconds is not None:
        rows.append(Bar("default", each.default.seconds, each.default.noise or 0.0, GREY))
    rows.append(Bar("predicted" if entry.predicted else "tuned", each.seconds, entry.noise or 0.0, BLUE))
    if each.roofline is not None:
        rows.append(Bar("roofline", each.roofline, 0.0, GREEN))
    words = [f"schedule {entry.schedule or '(the one there is)'}"]
    if entry.schedule == entry.default:
        words.append("which is the default")
    elif each.speedup is not None:
        words.append(f"{each.speedup:.2f} times as fast as {entry.default}")
    if each.roofline is not None:
        words.append(f"{100 * each.roofline / each.seconds:.0f} % of the roofline")
    about = f"times of {entry.key.request}"
    return (
        f'<div class="card"><h3>{escape(entry.key.request)}</h3>'
        f'<p class="text">{escape(f"{entry.key.conditions}, {each.machine}")}<br>{escape(", ".join(words))}</p>'
        f"{charts.bars(rows, about)}{_samples(each)}</div>"
    )


def _samples(each: Configuration) -> str:
    named: list[tuple[str, Trial | None, str]] = [("default", each.default, GREY)]
    if each.entry.schedule != each.entry.default:
        named.append(("tuned", each.tuned, BLUE))
    rows = [(name, trial.samples, color) for name, trial, color in named if trial is not None and trial.samples]
    return charts.distributions(rows, f"samples of {each.entry.key.request}") if rows else ""


def _front_words() -> str:
    return (
        "<p class=text>Formats of one shape: bits of the packed pages, an element of K and V, against elements of K "
        "and V attended in a second. The line joins those that no other beats in both.</p>"
    )


def _front(front: Front, findings: Findings) -> str:
    # Neighbours on the axis would write over each other: points have letters, the table below their names.
    letters = {each.format: chr(ord("A") + at % 26) for at, each in enumerate(front.formats)}
    points = [_speed_point(each, letters, ORANGE if each in front.best else GREY) for each in front.formats]
    line = [_speed_point(each, letters, ORANGE) for each in front.best]
    picture = charts.scatter(points, "bits an element", "10⁹ elements/s", f"bits and speed, {front.title}", front=line)
    known = [each for each in front.formats if each.format in findings.perplexity]
    if len(known) > 1:
        points = [
            Point(each.bits or 0.0, findings.perplexity[each.format], letters[each.format], BLUE) for each in known
        ]
        picture += charts.scatter(points, "bits an element", "perplexity", f"bits and perplexity, {front.title}")
    rows = [
        (letters[each.format], each.format, f"{each.bits:.2f}", f"{each.elements_per_second / 1e9:.3g}",
         f"{findings.perplexity[each.format]:.3f}" if each.format in findings.perplexity else "",
         "yes" if each in front.best else "")
        for each in front.formats
    ]  # fmt: skip
    table = _table(("", "format", "bits", "10⁹/s", "perplexity", "front"), rows)
    return f'<div class="card"><p class="text">{escape(front.title)}</p>{picture}{table}</div>'


def _speed_point(each: Configuration, letters: dict[str, str], color: str) -> Point:
    return Point(each.bits or 0.0, each.elements_per_second / 1e9, letters[each.format], color)


def _pairs(pairs: Sequence[Pair]) -> str:
    cards = []
    for machine in dict.fromkeys(pair.machine for pair in pairs):
        own = [pair for pair in pairs if pair.machine == machine]
        middle, factor = spread_of(own)
        points = [Point(pair.predicted * 1e3, pair.measured * 1e3) for pair in own]
        picture = charts.scatter(
            points, "predicted, ms", "measured, ms", f"predictions of {machine}", log=True, diagonal=True
        )
        words = (
            f"{machine}: {len(own)} candidates with at least {LEAST_ROUNDS} samples. Measured times are {middle:.2f} "
            f"times the predicted ones in the middle; half of them are within a factor of {factor:.2f} of that."
        )
        cards.append(f'<div class="card"><p class="text">{escape(words)}</p>{picture}</div>')
    return f'<div class="cards">{"".join(cards)}</div>'


def _failures(findings: Findings) -> str:
    parts = []
    for entry in findings.unusable:
        words = f"No schedule of {entry.key.request} ({entry.key.conditions}) works: {entry.status}: {entry.message}"
        parts.append(f"<p>{escape(words)}</p>")
    counts = Counter(failure.status for failure in findings.failures)
    if not counts:
        return "".join(parts) + "<p>No candidate.</p>"
    words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    parts.append(f"<p>Candidates: {escape(words)}.</p>")
    for status in sorted(counts):
        own = [failure for failure in findings.failures if failure.status == status]
        rows = [(each.schedule, each.message, each.key.request, each.key.conditions) for each in _ordered(own)]
        table = _table(("schedule", "why", "kernel", "conditions"), rows)
        parts.append(f"<details><summary>{escape(f'{status}: {len(own)}')}</summary>{table}</details>")
    return "".join(parts)


def _ordered(failures: Sequence[Failure]) -> list[Failure]:
    return sorted(failures, key=lambda each: (each.key.request, each.key.conditions, each.schedule))


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
