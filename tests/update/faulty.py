# SPDX-License-Identifier: LGPL-2.1-or-later
"""A new program that is pyxsd up to some point, and fails there.

    python -m tests.update.faulty POINT FAULT [option]...

POINT: `help` (asked whether it can take over), `start` (before it says that it is ready), `try`
(given a state to write out again), `take` (given the state and the descriptors), `go` (told to
serve), `taken` (it serves, and has not said so).
FAULT: `hangs`, `exits`, `is killed`, `says nonsense`, `closes`, `lies`, `writes nothing`,
`writes what it can cut`, `writes no file`, `writes two`, and at `start` and `take` `gives`: the
expected word, with descriptors that nobody has asked for.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from pyxsd import cli
from pyxsd.daemon import Daemon
from pyxsd.update import arrival, channel


def fail(fault: str, old: Any = None, data: bytes | memoryview = b"") -> None:
    """Does it, and does not come back."""
    if fault == "hangs":
        while True:
            signal.pause()
    if fault == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "says nonsense":
        old.send("nonsense", descriptors=[0, 1])
    if fault == "writes nothing":
        old.send("written")
    if fault == "lies":
        lie = channel.MemoryFile()
        lie.put(bytes(data).replace(b"/fake", b"/lies"))
        old.send("written", descriptors=[lie.detach()])
    if fault == "writes what it can cut":
        old.send("written", descriptors=[os.memfd_create("state", os.MFD_ALLOW_SEALING)])
    if fault == "writes no file":
        old.send("written", descriptors=[0])
    if fault == "writes two":
        old.send("written", descriptors=[0, 1])
    if fault == "gives":
        old.send("built" if data else "ready", descriptors=[0, 1])
    if fault == "closes":
        old.close()
        fail("hangs")
    if fault in ("says nonsense", "lies", "gives") or fault.startswith("writes "):
        try:
            old.receive()
        except EOFError:
            pass
    os._exit(3)


def main(point: str, fault: str, options: list[str]) -> int:
    """Runs pyxsd with the fault in it."""
    sys.argv = [sys.argv[0], *options]
    if point == "help" and "--help" in options:
        fail(fault)
    wait_for_order, agreed = arrival.wait_for_order, arrival.agreed
    if point == "start" and "--help" not in options:
        word = next(each for each in options if each.startswith("--take-over="))
        fail(fault, channel.Channel(int(word.partition("=")[2])))

    def order(old: Any) -> Any:
        given = wait_for_order(old)
        if given is not None and given.word == point:
            fail(fault, old, given.data)
        return given

    def go(old: Any) -> bool:
        told = agreed(old)
        if told and point == "go":
            fail(fault, old)
        return told

    go_on = Daemon.go_on

    def serves(daemon: Daemon) -> None:
        go_on(daemon)
        if point == "taken":
            fail(fault)

    daemon_class: Any = Daemon
    daemon_class.go_on = serves
    arrival.wait_for_order = order
    arrival.agreed = go
    return cli.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
