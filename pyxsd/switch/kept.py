# SPDX-License-Identifier: LGPL-2.1-or-later
"""A live switch of a daemon whose death another process makes up for: what that one knows of it.

The journal (pyxsd._journal) tells what clients have asked, and that transactions are held back.
Which program a client has chosen, and how far the daemon was on its way, stands in the keeper's
report.  Whoever goes on takes back what was given up, and the switch is over; the program stays
chosen.
"""

from __future__ import annotations

import os

from pyxsd.keeper.report import NOT_LEAVING, PREPARES
from pyxsd.state import values
from pyxsd.switch.departure import Departure
from pyxsd.switch.leaving import take_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.keeper.ward import Ward

HAS_DIED = "the process that was asked has died"


def choice(departure: Departure, connection: Any) -> bytes:
    """What the report says of a program and of the client that has chosen it."""
    words = [[os.fsencode(word) for word in row] for row in (departure.own, departure.given)]
    return values.encode([connection.id, departure.kind, os.fsencode(departure.path), *words])


def go_on(daemon: Any, ward: Ward) -> None:
    """To be called by a process that goes on for another one, before it serves."""
    report = ward.life.report
    text, stage = report.choice(), report.stage()
    if not text:
        return
    number, kind, path, *words = values.decode(text)
    own, given = ([os.fsdecode(word) for word in row] for row in words)
    departure = Departure(kind, os.fsdecode(path), own, given)
    if stage == PREPARES:
        take_back(daemon, departure.kind)
    connection = daemon.server.connections.get(number)
    outcome = ""
    if stage != NOT_LEAVING:
        daemon.server.hold_starts(False)
        if not departure.holds_the_answer:
            outcome = ward.life.refused or HAS_DIED
    if connection is None:
        report.choose(b"")
    daemon.server.host.dialogue().resume(departure, connection, outcome)
    report.leaving(NOT_LEAVING)
