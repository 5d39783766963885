# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plots as SVG text: lines over logarithmic axes.  No script, no fonts to load.

By hand, because a page holds about a hundred of them and the repository keeps some as files: 3 KB
each, and the same samples give the same text.  matplotlib needs eight times that and 80 MB of
packages; pygal has no logarithmic axis of x.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 48
# Distinguishable for most colour-blind readers (Okabe and Ito) and, by marker, in grey print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
DASHES = ("", "7 3", "2 3", "7 2 2 2")
MARKERS = ("circle", "square", "triangle", "diamond")


STYLE = (
    "svg{font:13px system-ui,sans-serif}.frame{fill:none;stroke:#888}.grid{stroke:#e4e4e4}"
    ".line{fill:none;stroke-width:2}"
)


class Series(NamedTuple):
    """One line.  `low` and `high` (parallel to `points`, or empty) draw the spread."""

    name: str
    points: Sequence[tuple[float, float]]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    markers: bool = True
    style: int = 0  # chooses colour, dashes and marker: the same for a daemon in all plots


class Axis(NamedTuple):
    """Logarithmic; a value of 0 is drawn at `zero`, left of all others, where there is one."""

    low: float
    high: float
    zero: bool

    def place(self, value: float) -> float:
        """0 to 1."""
        inner = 0.08 if self.zero else 0.0
        if value <= 0:
            return 0.0
        span = math.log(self.high / self.low) or 1.0
        return inner + (1 - inner) * math.log(max(value, self.low) / self.low) / span


def axis(values: Sequence[float]) -> Axis:
    """An axis from one power of ten (or 2 or 5 times it) to another that holds all values."""
    positive = [v for v in values if v > 0] or [1.0]
    low, high = _step(min(positive), False), _step(max(positive), True)
    return Axis(low, high if high > low else low * 10, any(v <= 0 for v in values))


def _step(value: float, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    steps = [power * s for s in (1, 2, 5, 10)]
    if up:
        return next(s for s in steps if s >= value * 0.999999)
    return max(s for s in steps if s <= value * 1.000001)


def ticks(scale: Axis) -> list[float]:
    """Powers of ten; also 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    found = [f * 10.0**p for p in range(first, last + 1) for f in factors]
    return [t for t in found if scale.low * 0.999 <= t <= scale.high * 1.001]


def label(value: float) -> str:
    """10k instead of 10000."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:g}{letter}"
    return f"{value:g}"


def alone(drawing: str) -> str:
    """A drawing as a file of its own: with its style and a white ground."""
    head, _, rest = drawing.partition(">")
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f"{head}><style>{STYLE}</style>{ground}{rest}"


def _marker(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    shape = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
        "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
    }[kind]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shape)
    return f'<polygon points="{points}" fill="{colour}"/>'


def plot(title: str, x_name: str, y_name: str, series: Sequence[Series]) -> str:
    """An <svg> element with axes, grid, lines and legend."""
    xs = axis([x for s in series for x, _ in s.points])
    ys = axis([v for s in series for v in [*(y for _, y in s.points), *s.low, *s.high] if v > 0])
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    rows = (len(series) + 2) // 3
    height = HEIGHT + 20 * rows

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * xs.place(x), TOP + tall * (1 - ys.place(y))

    out = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{html.escape(title)}</title>",
        f'<rect x="{LEFT}" y="{TOP}" width="{wide}" height="{tall}" class="frame"/>',
    ]
    for tick in ([0.0] if xs.zero else []) + ticks(xs):
        x = at(tick, ys.low)[0]
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + tall}" class="grid"/>')
        out.append(
            f'<text x="{x:.1f}" y="{TOP + tall + 18}" text-anchor="middle">{label(tick)}</text>'
        )
    for tick in ticks(ys):
        y = at(xs.low, tick)[1]
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label(tick)}</text>')
    middle, down = LEFT + wide / 2, TOP + tall / 2
    out.append(
        f'<text x="{middle:.0f}" y="{TOP + tall + 38}" text-anchor="middle">'
        f"{html.escape(x_name)}</text>"
        f'<text x="14" y="{down:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {down:.0f})">{html.escape(y_name)}</text>'
    )
    for i, one in enumerate(series):
        colour, marker = COLOURS[one.style % len(COLOURS)], MARKERS[one.style % len(MARKERS)]
        places = [at(x, y) for x, y in one.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dashes = DASHES[one.style % len(DASHES)]
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        out.append(f'<polyline points="{line}" stroke="{colour}" class="line"{dash}/>')
        for (x, _), low, high in zip(one.points, one.low, one.high):
            px, top = at(x, high)
            bottom = at(x, low)[1]
            out.append(
                f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" '
                f'stroke="{colour}"/>'
            )
        if one.markers:
            out.extend(_marker(marker, x, y, colour) for x, y in places)
        lx, ly = LEFT + (i % 3) * wide / 3, HEIGHT + 4 + 20 * (i // 3)
        out.append(
            f'<line x1="{lx:.0f}" x2="{lx + 24:.0f}" y1="{ly}" y2="{ly}" stroke="{colour}" '
            f'class="line"{dash}/>'
        )
        if one.markers:
            out.append(_marker(marker, lx + 12, ly, colour))
        out.append(f'<text x="{lx + 30:.0f}" y="{ly + 4}">{html.escape(one.name)}</text>')
    return "".join(out) + "</svg>"
