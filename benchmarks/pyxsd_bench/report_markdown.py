# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import FLOORS, Cell, Summary, number

UNITS = {"cpu_us": "CPU µs", "p50_us": "p50 µs", "p99_us": "p99 µs"}


def document(summary: Summary) -> str:
    """The summary table and a table for each scenario."""
    out = ["# Benchmark results", ""]
    out += header(summary)
    out += ["", "## Summary", "", *overview(summary), ""]
    for name, about in summary.scenarios.items():
        if not summary.measures(name):
            continue
        out += [f"## {about['title']}", "", about["why"], "", *scenario(summary, name), ""]
        lines = growth(summary, name) if about.get("axis") else []
        out += [*lines, ""] if lines else []
    if summary.missing:
        out += ["## Missing", ""]
        for row in summary.missing:
            out.append(f"- {row['scenario']}, size {row['size']}, {row['daemon']}: {row['reason']}")
    return "\n".join(out) + "\n"


def header(summary: Summary) -> list[str]:
    """Machine, settings and daemons of each file."""
    out = []
    for path, result in summary.files:
        m, s = result["machine"], result["settings"]
        state = "" if result["complete"] else " **The run was not finished.**"
        out.append(
            f"- {path}: {result['created']}, {m.get('cpu')} with {m.get('cpus')} CPUs, "
            f"{m.get('memory_mib')} MiB, Linux {m.get('kernel')}, {m.get('system')}; "
            f"{s.get('repeat')} samples of {s.get('seconds')} s.{state}"
        )
    for name, about in summary.daemons.items():
        version = about.get("version") or "version unknown"
        out.append(f"- {name}: {version}; `{about.get('command', '')}`")
    return out


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def value(cell: Cell | None, figure: str) -> str:
    """Median and quartiles, or a dash."""
    found = cell.figure(figure) if cell else None
    if not found:
        return "–"
    if len(found.values) < 3:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def subject(summary: Summary) -> str:
    """The daemon that the others are compared with: pyxsd, else the first that is no floor."""
    names = [n for n in summary.daemons if n.split(" ")[0] not in FLOORS]
    return next((n for n in names if n.startswith("pyxsd")), names[0] if names else "")


def overview(summary: Summary) -> list[str]:
    """For each measure at its largest size: the subject, the best other one, the floor, ratios."""
    who = subject(summary)
    rows = []
    for name, about in summary.scenarios.items():
        figure = summary.main(name)
        for measure in summary.measures(name):
            sizes = [
                n for n in summary.sizes(name, measure) if who in summary.cells[name, measure, n]
            ]
            if not sizes:
                continue
            key = (name, measure, sizes[-1])
            cells = summary.cells[key]
            best = summary.best_peer(key, who)
            floor = next((n for n in FLOORS if n in cells), "")
            mine = cells[who].figure(figure)
            other = cells[best].figure(figure) if best else None
            ratio = f"{other.median / mine.median:.2f}" if mine and other and mine.median else "–"
            where = f", {sizes[-1]:,} {about['axis']}" if about.get("axis") else ""
            rows.append(
                [
                    f"{about['title']}: {measure}{where} ({UNITS.get(figure, figure)})",
                    number(mine.median) if mine else "–",
                    f"{number(other.median)} ({best})" if other else "–",
                    ratio,
                    value(cells.get(floor), figure).split(" ")[0] if floor else "–",
                ]
            )
    return table(["scenario", who, "best other", "other / " + who, "floor"], rows)


def scenario(summary: Summary, name: str) -> list[str]:
    """One row for each measure, size and daemon."""
    about, rows = summary.scenarios[name], []
    for measure in summary.measures(name):
        for size in summary.sizes(name, measure):
            for daemon, cell in summary.cells[name, measure, size].items():
                rate = cell.figure("rate")
                rows.append(
                    [
                        f"{measure}{f', {size:,}' if about.get('axis') else ''}",
                        daemon,
                        number(rate.median) if rate else "–",
                        value(cell, "cpu_us"),
                        value(cell, "p50_us"),
                        value(cell, "p99_us"),
                        number(cell.syscalls) if cell.syscalls is not None else "–",
                    ]
                )
    unit = about.get("unit", "request")
    head = [f"measure{', ' + about['axis'] if about.get('axis') else ''}", "daemon"]
    return table([*head, f"{unit}s/s", f"CPU µs/{unit}", "p50 µs", "p99 µs", "system calls"], rows)


def growth(summary: Summary, name: str) -> list[str]:
    """How cost and memory grow, for each measure and daemon."""
    lines = []
    for measure in summary.measures(name):
        for daemon in summary.daemons:
            fitted = summary.growth(name, measure, daemon)
            if fitted:
                lines.append(
                    f"- {measure}, {daemon}: {fitted}; {memory(summary, name, measure, daemon)}"
                )
    return lines


def memory(summary: Summary, name: str, measure: str, daemon: str) -> str:
    """Resident memory per one more of the axis."""
    per = summary.memory_slope(name, measure, daemon)
    return f"{number(per)} bytes resident for each one of {summary.scenarios[name]['axis']}"
