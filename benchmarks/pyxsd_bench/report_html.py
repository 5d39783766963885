# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as one HTML page that needs nothing else: readable on a phone and on paper."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from . import report_markdown as md
from . import svg
from .summary import Summary, number

STYLE = """
:root{color-scheme:light}
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:0 1rem 3rem;
color:#111;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid #ccc}
h3{font-size:1rem;margin-bottom:.3rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left;white-space:normal;min-width:9rem}
.left{text-align:left}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
figure{margin:.5rem 0;max-width:36rem;break-inside:avoid}figcaption{font-weight:600;font-size:.9rem}
svg{width:100%;height:auto}
.warn{background:#fff3cd;padding:.5rem .8rem;border:1px solid #e0c060}
ul{padding-left:1.2rem}
nav{font-size:.9rem;columns:14rem}
@media print{body{max-width:none;font-size:10pt}.scroll{overflow:visible}
table{font-size:7pt}td,th{padding:.1rem .3rem;white-space:normal}nav{display:none}
tr{break-inside:avoid}h2,h3{break-after:avoid}}
"""
FIGURES = (
    ("rate", "{unit}s/s"),
    ("cpu_us", "CPU µs/{unit}"),
    ("p50_us", "p50 µs"),
    ("p90_us", "p90 µs"),
    ("p99_us", "p99 µs"),
    ("p999_us", "p99.9 µs"),
    ("max_us", "max µs"),
)
NAMES = {"cpu_us": "daemon CPU, µs per {unit}", "p50_us": "median latency, µs", "p99_us": "p99, µs"}


class Plot(NamedTuple):
    """A caption and an <svg> element."""

    title: str
    drawing: str


def page(summary: Summary) -> str:
    """The whole document."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>xenstored benchmark</title><style>{STYLE}{svg.STYLE}</style></head><body>",
        "<h1>xenstored benchmark</h1>",
        _list(md.header(summary)),
        _warnings(summary),
        "<nav><ul>",
        *(
            f'<li><a href="#{html.escape(name)}">{html.escape(about["title"])}</a></li>'
            for name, about in summary.scenarios.items()
            if summary.measures(name)
        ),
        "</ul></nav><h2>Summary</h2>",
        "<p>Each row at its largest size. Smaller is better; medians over all samples.</p>",
        _from_markdown(md.overview(summary)),
    ]
    parts += [_scenario(summary, name) for name in summary.scenarios if summary.measures(name)]
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _list(lines: Sequence[str]) -> str:
    plain = [line[2:].replace("**", "").replace("`", "") for line in lines]
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in plain) + "</ul>"


def _warnings(summary: Summary) -> str:
    """What is not there, before any figure."""
    out = [f"{path}: the run was not finished." for path, r in summary.files if not r["complete"]]
    for row in summary.missing:
        out.append(f"{row['scenario']}, size {row['size']}, {row['daemon']}: {row['reason']}")
    if not out:
        return ""
    return f'<div class="warn">Missing:{_list(["- " + line for line in out])}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    inner = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def _from_markdown(lines: Sequence[str]) -> str:
    cells = [[text.strip() for text in line.strip("| ").split("|")] for line in lines]
    return _table(cells[0], cells[2:])


def _scenario(summary: Summary, name: str) -> str:
    about = summary.scenarios[name]
    out = [
        f'<section><h2 id="{html.escape(name)}">{html.escape(about["title"])}</h2>',
        f"<p>{html.escape(about['why'])}</p>",
        '<div class="plots">',
    ]
    for measure in summary.measures(name):
        for figure in (size_plot(summary, name, measure), latency_plot(summary, name, measure)):
            if figure:
                caption = f"<figcaption>{html.escape(figure.title)}</figcaption>"
                out.append(f"<figure>{caption}{figure.drawing}</figure>")
    out.append("</div>")
    lines = md.growth(summary, name) if about.get("axis") else []
    if lines:
        out.append(f"<h3>Growth with the number of {html.escape(about['axis'])}</h3>{_list(lines)}")
    out.append(_figures(summary, name))
    return "".join(out) + "</section>"


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
    return _figure(f"{measure}: cost against size", about["axis"], y_name, series)


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
    return _figure(title, "µs", "share that took at least so long", series)


def _figure(title: str, x_name: str, y_name: str, series: Sequence[svg.Series]) -> Plot:
    return Plot(title, svg.plot(title, x_name, y_name, series))


def _figures(summary: Summary, name: str) -> str:
    about, rows = summary.scenarios[name], []
    unit = about.get("unit", "request")
    for measure in summary.measures(name):
        for size in summary.sizes(name, measure):
            for daemon, cell in summary.cells[name, measure, size].items():
                where = f"{measure}, {size:,}" if about.get("axis") else measure
                row = [where, daemon]
                row += [md.value(cell, figure) for figure, _ in FIGURES]
                share, rss = cell.figure("user_share"), cell.figure("rss")
                own, conflicts = cell.figure("gen_us"), cell.figure("conflicts")
                row.append(f"{share.median:.0%}" if share else "–")
                row.append(number(cell.syscalls) if cell.syscalls is not None else "–")
                row.append(number(own.median) if own else "–")
                row.append(number(rss.median / 1e6) if rss else "–")
                row.append(number(conflicts.median) if conflicts else "–")
                rows.append(row)
    head = [f"measure{', ' + about['axis'] if about.get('axis') else ''}", "daemon"]
    head += [text.format(unit=unit) for _, text in FIGURES]
    head += ["user", "system calls", "generator CPU µs", "resident MB", "conflicts"]
    return _table(head, rows)
