# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of attacks: one row for each attack, number of guests and daemon."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..summary import Summary
from ..tables import NONE, Table
from .model import PREFIX

MB = 1e6
HEAD = (
    "attack", "attacking", "daemon", "dom0 before", "dom0 during", "dom0 after",
    "guest before", "guest during", "guest after", "worst ms", "floor",
    "memory before", "most", "after", "per attacker", "CPU µs/request", "requests/s", "answers",
)  # fmt: skip
EXPLAINED = (
    "Latencies are p99 in ms of a READ, one at a time, by a socket of dom0 and by another guest: "
    "before, during and after the attack. `worst` is the longest READ from the set-up to the time "
    "when the attackers' domains are dead and cleared up. `floor` is the same probe's p99 during "
    "the attack against a server that only echoes on the generator's CPU: what the measuring "
    "itself adds; it is not subtracted. Memory is resident MB: before the attack, the most, after "
    "the attackers' end, and the most less what was before for each attacker. CPU is the daemon's "
    "per request of the attackers, without what the probes' READs cost."
)


class Row(NamedTuple):
    """All figures of one bout, by measure."""

    scenario: str
    size: int
    daemon: str
    measures: dict[str, dict[str, Any]]

    def latency(self, victim: str, phase: str) -> str:
        """p99 in ms; the longest READ where too few came back for a quantile."""
        found = self.measures.get(f"{victim} {phase}", {})
        if found.get("count", 0) >= 100:
            return _ms(found["p99_us"])
        return f"≥ {_ms(found['max_us'])}" if found.get("max_us") else NONE

    def worst(self) -> str:
        phases = ("set-up", "during", "after", "end")
        found = [
            self.measures.get(f"{victim} {phase}", {}).get("max_us", 0.0)
            for victim in ("dom0", "guest")
            for phase in phases
        ]
        return _ms(max(found))

    def memory_each(self) -> str:
        """What the daemon needs more at most, in MB for each attacking guest."""
        about = self.measures["attackers"]
        if "rss" not in about or not about["attackers"]:
            return NONE
        return _mb((about["rss"] - about["rss_before"]) / about["attackers"])

    def cells(self) -> list[str]:
        about = self.measures["attackers"]
        guests, doing = about.get("guests", self.size), about["attackers"]
        return [
            self.scenario,
            f"{doing:,} of {guests:,}",
            self.daemon,
            *(self.latency(v, p) for v in ("dom0", "guest") for p in ("before", "during", "after")),
            self.worst(),
            self.latency("floor", "during"),
            *(_mb(about.get(name)) for name in ("rss_before", "rss", "rss_after")),
            self.memory_each(),
            _short(about["cpu_us"]) if about["requests"] else NONE,
            f"{about['rate']:,.0f}",
            about.get("failures") or "yes",
        ]


def _ms(us: float) -> str:
    return _short(us / 1e3)


def _mb(size: float | None) -> str:
    return NONE if size is None else f"{size / MB:.1f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.1f}"


def rows(summary: Summary) -> list[Row]:
    """The bouts of all result files, in the order in which they were carried out."""
    found: dict[tuple[str, int, str], dict[str, dict[str, Any]]] = {}
    for (scenario, measure, size), cells in summary.cells.items():
        if scenario.startswith(PREFIX):
            for daemon, cell in cells.items():
                key = (scenario[len(PREFIX) :], size, daemon)
                found.setdefault(key, {})[measure] = cell.samples[0]
    return [Row(*key, measures) for key, measures in found.items() if "attackers" in measures]


def table(summary: Summary) -> Table:
    """One row for each attack, number of guests and daemon; no rows where nobody attacked."""
    return Table(list(HEAD), [row.cells() for row in rows(summary)])
