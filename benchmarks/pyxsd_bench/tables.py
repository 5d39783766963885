# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables of a report as rows of texts; the templates make a page or a document of them."""

from __future__ import annotations

from typing import Callable, NamedTuple

from .summary import FLOORS, Cell, Summary, number

NONE = "–"
SHORT = {
    "rate": "{unit}s/s",
    "cpu_us": "CPU µs",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
    "max_us": "longest µs",
}


class Table(NamedTuple):
    """Each row has one text for each of `head`."""

    head: list[str]
    rows: list[list[str]]


class Column(NamedTuple):
    """One column of a scenario's table; `brief`: the Markdown document has it too."""

    title: str
    text: Callable[[Cell], str]
    brief: bool = False


def spread(name: str) -> Callable[[Cell], str]:
    """The median of a figure and, of three samples and more, its quartiles."""

    def text(cell: Cell) -> str:
        found = cell.figure(name)
        if not found:
            return NONE
        if len(found.values) < 3:
            return number(found.median)
        return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"

    return text


def median(name: str, unit: float = 1.0) -> Callable[[Cell], str]:
    """The median of a figure in units of `unit`."""

    def text(cell: Cell) -> str:
        found = cell.figure(name)
        return number(found.median / unit) if found else NONE

    return text


def _user_share(cell: Cell) -> str:
    found = cell.figure("user_share")
    return f"{found.median:.0%}" if found else NONE


def _syscalls(cell: Cell) -> str:
    return number(cell.syscalls) if cell.syscalls is not None else NONE


COLUMNS = (
    Column("{unit}s/s", spread("rate"), brief=True),
    Column("CPU µs/{unit}", spread("cpu_us"), brief=True),
    Column("p50 µs", spread("p50_us"), brief=True),
    Column("p90 µs", spread("p90_us")),
    Column("p99 µs", spread("p99_us"), brief=True),
    Column("p99.9 µs", spread("p999_us")),
    Column("max µs", spread("max_us")),
    Column("user", _user_share),
    Column("system calls/{unit}", _syscalls, brief=True),
    Column("generator CPU µs", median("gen_us")),
    Column("resident MB", median("rss", 1e6)),
    Column("conflicts", median("conflicts")),
)


def scenario(summary: Summary, name: str, brief: bool = False) -> Table:
    """One row for each measure, size and daemon."""
    about, rows = summary.scenarios[name], []
    longest = about.get("main") in ("p99_us", "max_us")
    columns = [c for c in COLUMNS if c.brief or not brief or (longest and c.title == "max µs")]
    for measure in summary.measures(name):
        for size in summary.sizes(name, measure):
            where = f"{measure}, {size:,}" if about.get("axis") else measure
            for daemon, cell in summary.cells[name, measure, size].items():
                rows.append([where, daemon, *(column.text(cell) for column in columns)])
    unit = about.get("unit", "request")
    first = f"measure, {about['axis']}" if about.get("axis") else "measure"
    return Table([first, "daemon", *(c.title.format(unit=unit) for c in columns)], rows)


def subject(summary: Summary) -> str:
    """The daemon that the others are compared with: pyxsd, else the first that is no floor."""
    names = summary.real_daemons()
    return next((n for n in names if n.startswith("pyxsd")), names[0] if names else "")


def overview(summary: Summary) -> Table:
    """Each measure at the subject's largest size: the subject, the best other one, the floors.

    "alone" stands behind the best other one where no further one got to this size: the best of
    one says less.
    """
    who = subject(summary)
    floors = [name for name in FLOORS if name in summary.daemons]
    rows = []
    for name, about in summary.measured():
        figure = summary.main(name)
        for measure in summary.measures(name):
            sizes = summary.sizes(name, measure)
            mine_at = [n for n in sizes if who in summary.cells[name, measure, n]]
            if not mine_at:
                continue
            key = (name, measure, mine_at[-1])
            cells = summary.cells[key]
            best, alone = summary.best_peer(key, who)
            mine, other = cells[who].cost(figure), cells[best].cost(figure) if best else None
            unit = SHORT.get(figure, figure).format(unit=about.get("unit", "request"))
            text = median(figure)
            where = f", {key[2]:,} {about['axis']}" if about.get("axis") else ""
            rows.append(
                [
                    f"{about['title']}: {measure}{where} ({unit})",
                    text(cells[who]),
                    f"{text(cells[best])} ({best}{' alone' * alone})" if best else NONE,
                    f"{other / mine:.2f}" if mine and other else NONE,
                    *(text(cells[floor]) if floor in cells else NONE for floor in floors),
                ]
            )
    return Table(["scenario", who, "best other", f"cost, other / {who}", *floors], rows)


def side_by_side(summary: Summary, name: str) -> Table:
    """The main figure of a scenario without sizes: rows are measures, columns are daemons."""
    figure, about = summary.main(name), summary.scenarios[name]
    unit = SHORT.get(figure, figure).format(unit=about.get("unit", "request"))
    rows = []
    for measure in summary.measures(name):
        cells = summary.cells[name, measure, summary.sizes(name, measure)[0]]
        texts = [median(figure)(cells[n]) if n in cells else NONE for n in summary.daemons]
        rows.append([measure, *texts])
    return Table([unit, *summary.daemons], rows)


def growth(summary: Summary, name: str) -> list[str]:
    """How cost and memory grow with the size: a sentence for each measure and daemon."""
    lines = []
    axis = summary.scenarios[name].get("axis")
    for measure in summary.measures(name) if axis else ():
        for daemon in summary.daemons:
            fitted = summary.growth(name, measure, daemon)
            if fitted:
                per = number(summary.memory_slope(name, measure, daemon))
                lines.append(
                    f"{measure}, {daemon}: {fitted}; {per} bytes resident for each one of {axis}"
                )
    return lines


def missing(summary: Summary) -> list[str]:
    """What could not be measured, and what a daemon has not, and why: a sentence for each."""
    failed = [
        f"{row['scenario']}, size {row['size']}, {row['daemon']}: {row['reason']}"
        for row in summary.missing
    ]
    absent = [
        f"{name}, {daemon}: not available: {reason}"
        for name, about in summary.scenarios.items()
        for daemon, reason in about.get("not_available", {}).items()
    ]
    return failed + absent
