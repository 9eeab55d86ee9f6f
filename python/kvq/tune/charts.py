# SPDX-License-Identifier: Apache-2.0
"""Pictures of a report as inline SVG: bars, distributions, scatters. Each is drawn on a field 360 wide and scales with
the page; nothing is loaded from anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kvq.tune.estimator import quantile

WIDTH = 360
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#767676"  # told apart by colour-blind readers too
LABEL, END = 76, 66  # left and right of bars
ROW = 24
PLOT = (52, 12, 12, 40)  # left, top, right, bottom of a scatter
HEIGHT = 250


@dataclass(frozen=True)
class Bar:
    name: str
    seconds: float
    noise: float = 0.0
    color: str = BLUE


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    name: str = ""
    color: str = BLUE


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:  # of three digits; 999.6 µs would be 1e+03 µs
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def bars(rows: Sequence[Bar], about: str) -> str:
    """Times from zero, with what their noise leaves open."""
    most = max(row.seconds * (1 + row.noise) for row in rows)
    width = WIDTH - LABEL - END
    parts = []
    for at, row in enumerate(rows):
        y, length = at * ROW + 4, width * row.seconds / most
        parts.append(_text(LABEL - 6, y + 12, row.name, "end"))
        parts.append(f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="16" fill="{row.color}"/>')
        low, high = (LABEL + width * row.seconds * factor / most for factor in (max(0, 1 - row.noise), 1 + row.noise))
        if row.noise:
            parts.append(_line(low, y + 8, high, y + 8, "#000"))
        parts.append(_text(max(LABEL + length, high) + 5, y + 12, duration(row.seconds)))
    return _svg(len(rows) * ROW + 4, about, parts)


def distributions(rows: Sequence[tuple[str, Sequence[float], str]], about: str) -> str:
    """Every sample of (name, samples, colour) as a dot, over a box from the lower to the upper quarter. The scale is
    logarithmic and ends where 95 % of all samples are; what lies beyond is counted at its end."""
    every = [value for _, values, _ in rows for value in values]
    low, high = min(every) / 1.02, max(quantile(every, 0.95), min(every) * 1.05) * 1.02
    width = WIDTH - LABEL - 40

    def place(value: float) -> float:
        return LABEL + width * min(1.0, math.log(value / low) / math.log(high / low))

    parts = []
    for at, (name, values, color) in enumerate(rows):
        y = at * ROW + 14
        parts.append(_text(LABEL - 6, y + 4, name, "end"))
        left, middle, right = (place(quantile(values, share)) for share in (0.25, 0.5, 0.75))
        box = f'x="{left:.1f}" y="{y - 8}" width="{max(1.0, right - left):.1f}" height="16"'
        parts.append(f'<rect {box} fill="{color}" fill-opacity="0.2"/>')
        parts.append(_line(middle, y - 8, middle, y + 8, color))
        inside = [value for value in values if value <= high]
        parts += [_dot(place(value), y + _jitter(index), 1.6, color) for index, value in enumerate(inside)]
        if len(inside) < len(values):
            parts.append(_text(LABEL + width + 4, y + 4, f"+{len(values) - len(inside)}"))
    y = len(rows) * ROW + 14
    parts += [_text(LABEL, y, duration(low)), _text(LABEL + width, y, duration(high), "end")]
    return _svg(y + 6, about, parts)


def scatter(points: Sequence[Point], x_name: str, y_name: str, about: str, *, log: bool = False,
            diagonal: bool = False, front: Sequence[Point] = ()) -> str:  # fmt: skip
    """Points, with a line through `front`, and with the diagonal where both axes are the same."""
    xs, ys = _axis([point.x for point in points], log), _axis([point.y for point in points], log)
    if diagonal:
        xs = ys = _axis([value for point in points for value in (point.x, point.y)], log)
    left, top, right, bottom = PLOT

    def place(point: Point) -> tuple[float, float]:
        x, y = _share(point.x, xs, log), _share(point.y, ys, log)
        return left + x * (WIDTH - left - right), HEIGHT - bottom - y * (HEIGHT - top - bottom)

    floor = HEIGHT - bottom
    parts = [_line(left, floor, WIDTH - right, floor, GREY), _line(left, top, left, floor, GREY)]
    for value in _ticks(xs, log):
        x, _ = place(Point(value, ys[0]))
        parts.append(_text(x, HEIGHT - bottom + 14, f"{value:.3g}", "middle"))
    for value in _ticks(ys, log):
        _, y = place(Point(xs[0], value))
        parts.append(_text(left - 4, y + 4, f"{value:.3g}", "end"))
    if diagonal:
        parts.append(_line(*place(Point(xs[0], ys[0])), *place(Point(xs[1], ys[1])), GREY))
    if len(front) > 1:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, front))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{ORANGE}" stroke-width="1.5"/>')
    for point in points:
        x, y = place(point)
        parts.append(_dot(x, y, 3, point.color))
        anchor = "end" if x > WIDTH * 0.6 else "start"
        parts.append(_text(x + (-6 if anchor == "end" else 6), y - 4, point.name, anchor))
    parts += [_text((left + WIDTH - right) / 2, HEIGHT - 8, x_name, "middle"), _turned(12, floor / 2, y_name)]
    return _svg(HEIGHT, about, parts)


def _axis(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _share(value: float, axis: tuple[float, float], log: bool) -> float:
    low, high = axis
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def _ticks(axis: tuple[float, float], log: bool) -> list[float]:
    low, high = axis
    if not log:
        return [low + (high - low) * share for share in (0.1, 0.5, 0.9)]
    return [low * (high / low) ** share for share in (0.1, 0.5, 0.9)]


def _jitter(index: int) -> int:
    return (index * 5) % 13 - 6


def _svg(height: float, about: str, parts: Sequence[str]) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(about, quote=True)}">'
            + "".join(parts) + "</svg>")  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>' if text else ""


def _turned(x: float, y: float, text: str) -> str:
    return f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="middle">{escape(text)}</text>'


def _dot(x: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'
