# SPDX-License-Identifier: LGPL-2.1-or-later
"""The plots of a report: which series a scenario's measure has, drawn by `svg`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from . import svg
from .summary import Summary

NAMES = {
    "rate": "{unit}s/s",
    "cpu_us": "daemon CPU, µs per {unit}",
    "p50_us": "median latency, µs",
    "p99_us": "p99, µs",
}


class Plot(NamedTuple):
    """A title and an <svg> element; `kind` is "size" or "latency"."""

    kind: str
    measure: str
    title: str
    drawing: str


def of(summary: Summary, name: str) -> Iterator[Plot]:
    """All plots of a scenario."""
    for measure in summary.measures(name):
        for plot in (size_plot(summary, name, measure), latency_plot(summary, name, measure)):
            if plot:
                yield plot


def size_plot(summary: Summary, name: str, measure: str) -> Plot | None:
    """The main figure against the size; nothing for a scenario without sizes."""
    about, figure = summary.scenarios[name], summary.main(name)
    if len(summary.sizes(name, measure)) < 2:
        return None
    series = []
    for style, daemon in enumerate(summary.daemons):
        found = []
        for size in summary.sizes(name, measure):
            cell = summary.cells[name, measure, size].get(daemon)
            value = cell.figure(figure) if cell else None
            if value and value.median > 0:
                found.append((float(size), value))
        if found:
            series.append(
                svg.Series(
                    daemon,
                    [(size, value.median) for size, value in found],
                    [value.low for _, value in found],
                    [value.high for _, value in found],
                    style=style,
                )
            )
    if not series:
        return None
    y_name = NAMES.get(figure, figure).format(unit=about.get("unit", "request"))
    title = f"{measure}: cost against size"
    return Plot("size", measure, title, svg.plot(title, about["axis"], y_name, series))


def latency_plot(summary: Summary, name: str, measure: str) -> Plot | None:
    """The share of requests that took longer than x, at the largest size."""
    size = summary.sizes(name, measure)[-1]
    series = []
    for style, daemon in enumerate(summary.daemons):
        cell = summary.cells[name, measure, size].get(daemon)
        spread = cell.distribution() if cell else []
        total = sum(count for _, count in spread)
        points, left = [], total
        for value, count in spread:
            if value > 0:
                points.append((value, left / total))
            left -= count
        if len(points) > 1:
            series.append(svg.Series(daemon, points, markers=False, style=style))
    if not series:
        return None
    axis = summary.scenarios[name].get("axis")
    title = f"{measure}: latency{f', {size:,} {axis}' if axis else ''}"
    drawing = svg.plot(title, "µs", "share that took at least so long", series)
    return Plot("latency", measure, title, drawing)


def write(summary: Summary, folder: str) -> None:
    """One SVG file for each plot, named after scenario and measure."""
    os.makedirs(folder, exist_ok=True)
    for name, _ in summary.measured():
        for plot in of(summary, name):
            stem = re.sub("[^a-z0-9]+", "-", f"{name}-{plot.measure}".lower()).strip("-")
            path = os.path.join(folder, f"{stem}-{plot.kind}.svg")
            with open(path, "w", encoding="utf-8") as out:
                out.write(svg.alone(plot.drawing) + "\n")
