# SPDX-License-Identifier: LGPL-2.1-or-later
"""A request for which memory runs out changes nothing, or all that it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.no_memory import places
from tests.unit import events_without_memory
from tests.unit.without_memory import CASES


@pytest.mark.parametrize("case", CASES)
def test_wherever_memory_runs_out_the_counts_stay_right(no_memory: Path, case: str) -> None:
    (tried,) = places(no_memory, "tests.unit.without_memory", case)
    assert tried >= 3


@pytest.mark.parametrize("case", events_without_memory.CASES)
def test_wherever_memory_runs_out_everybody_is_served_in_the_end(
    no_memory: Path, case: str
) -> None:
    (tried,) = places(no_memory, "tests.unit.events_without_memory", case, PYTHONMALLOC="malloc")
    assert tried >= 5
