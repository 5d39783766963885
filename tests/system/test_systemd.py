# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real systemd starts pyxsd, and does not lose it when it is updated."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import systemd_machine
from realxen import checks
from realxen.packages import MissingError

WAYS = ("launch", "dropin")
SCENARIO = Path(__file__).resolve().parent / "systemd" / "scenario.py"


def planned() -> set[str]:
    """The names of the checks: each step of the scenario, in each way of starting."""
    found = set()
    for table, ways in (("STEPS", WAYS), ("KEPT_STEPS", [f"{way}-kept" for way in WAYS])):
        steps = re.search(rf"^{table} = \(([^)]*)\)", SCENARIO.read_text(), re.MULTILINE)
        assert steps is not None
        names = [word.strip().replace("_", "-") for word in steps[1].split(",") if word.strip()]
        found |= {f"{way}.{name}" for way in ways for name in names}
    return found


@pytest.mark.system
def test_systemd(tmp_path: Path) -> None:
    """Xen's unit with its script, and with the drop-in of the packages; both also with a daemon
    that may be killed."""
    try:
        log = systemd_machine.run(tmp_path)
    except MissingError as error:
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(f"the machine with systemd cannot run: {error}")
        pytest.skip(f"the machine with systemd cannot run: {error}")
    results = checks.results(log)
    wrong = [f"{result.name}: {result.detail}" for result in results if not result.passed]
    missing = sorted(planned() - {result.name for result in results})
    if missing:
        wrong.append("missing: " + ", ".join(missing))
    if wrong:
        end = "\n".join(log.splitlines()[-60:])
        pytest.fail("\n".join(wrong) + f"\n{end}", pytrace=False)
