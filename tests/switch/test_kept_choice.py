# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a keeper's page says of a switch under way, and what is made of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.keeper.report import NOT_LEAVING
from pyxsd.switch import kept
from pyxsd.switch.departure import Departure
from pyxsd.switch.target import OX, C


@pytest.mark.parametrize(
    "departure",
    [
        Departure(OX, "/usr/sbin/oxenstored", ["--no-fork"]),
        Departure(C, "/opt/\udcff/xenstored", ["-N", "--pid-file=\udc80"], ["-t", "ä", ""]),
    ],
)
def test_the_program_that_was_chosen_is_known_to_who_goes_on(departure: Departure) -> None:
    page: list[Any] = [kept.choice(departure, SimpleNamespace(id=7))]
    resumed: list[Any] = []
    report = SimpleNamespace(
        choice=lambda: page[-1],
        stage=lambda: NOT_LEAVING,
        choose=page.append,
        leaving=page.append,
    )
    host = SimpleNamespace(
        dialogue=lambda: SimpleNamespace(resume=lambda *what: resumed.append(what))
    )
    server = SimpleNamespace(connections={7: "the client"}, host=host)
    kept.go_on(
        SimpleNamespace(server=server),
        SimpleNamespace(life=SimpleNamespace(report=report)),  # type: ignore[arg-type]
    )
    assert page[1:] == [NOT_LEAVING]
    [(again, connection, outcome)] = resumed
    assert vars(again) == vars(departure)
    assert (connection, outcome) == ("the client", "")
