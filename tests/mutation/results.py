# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of each mutant, and the score by module.

Results are kept in build/mutation/results.json under the mutants' keys, so that a run goes on
where the last one ended.  Mutants that mean the same as the original are listed in equivalent.json
here, each with the reason why no test can tell them apart; they do not count.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from tests.mutation.schema import Mutant

EQUIVALENT = Path(__file__).with_name("equivalent.json")

NOTICED = "noticed"
HUNG = "hung"  # and so noticed: a test run that does not end is no pass
SURVIVED = "survived"
BROKEN = "does not compile"


class Results:
    """The file of results: key -> [what became of it, the test that noticed]."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.known: dict[str, list[str]] = {}
        if path.exists():
            self.known = json.loads(path.read_text(encoding="utf-8"))
        self.equivalent: dict[str, str] = json.loads(EQUIVALENT.read_text(encoding="utf-8"))

    def set(self, mutant: Mutant, result: str, by: str = "") -> None:
        """Notes a result, in the file as well."""
        with self.lock:
            self.known[mutant.key] = [result, by]
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps(self.known, indent=0, sort_keys=True), encoding="utf-8")
            temporary.replace(self.path)

    def of(self, mutant: Mutant) -> str:
        """What became of it; "" where that is not known."""
        return self.known.get(mutant.key, [""])[0]

    def counts(self, mutants: Iterable[Mutant]) -> tuple[int, int]:
        """(noticed, tried) without those that are equivalent or do not compile."""
        results = [self.of(m) for m in mutants if m.key not in self.equivalent]
        tried = [result for result in results if result in (NOTICED, HUNG, SURVIVED)]
        return len(tried) - tried.count(SURVIVED), len(tried)

    def survivors(self, mutants: Iterable[Mutant]) -> list[Mutant]:
        """Those that no test noticed and that are not equivalent."""
        return [m for m in mutants if self.of(m) == SURVIVED and m.key not in self.equivalent]

    def table(self, mutants: list[Mutant]) -> str:
        """The score by module as text, with the survivors below."""
        lines = ["module                           noticed  of    score  equivalent"]
        by_module: dict[str, list[Mutant]] = {}
        for mutant in mutants:
            by_module.setdefault(mutant.path, []).append(mutant)
        for path, group in [*sorted(by_module.items()), ("all", mutants)]:
            noticed, tried = self.counts(group)
            same = sum(mutant.key in self.equivalent for mutant in group)
            score = f"{100 * noticed / tried:.0f} %" if tried else "-"
            lines.append(f"{path:<32} {noticed:>7} {tried:>4} {score:>7} {same:>10}")
        for mutant in self.survivors(mutants):
            lines.append(
                f"survived: {mutant.path}:{mutant.line}: {mutant.operator}\n"
                f"    {mutant.before}\n    {mutant.after}"
            )
        return "\n".join(lines)
