# SPDX-License-Identifier: LGPL-2.1-or-later
"""The descriptors that are found by who goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyxsd.recovery import found


def test_those_that_are_open() -> None:
    """Also the folder of a process that has died while it listed its own; not that of the listing
    which finds them."""
    before = found.opened()
    assert before == found.opened() >= {0, 1, 2}
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    reading, writing = os.pipe()
    folder = os.open(f"/proc/{process.pid}/fd", os.O_RDONLY)
    process.communicate(b"\n")
    try:
        assert found.opened() - before == {reading, writing, folder}
    finally:
        found.close({reading, writing, folder})
    assert found.opened() == before


def test_who_was_accepted(tmp_path: Path) -> None:
    """By the listening socket at that address: neither that one, nor its client, nor others."""
    with ExitStack() as stack:

        def new(kind: int = socket.SOCK_STREAM) -> socket.socket:
            return stack.enter_context(socket.socket(socket.AF_UNIX, kind))

        listeners = [new(), new(), new(socket.SOCK_SEQPACKET)]
        clients = [new(), new(), new(socket.SOCK_SEQPACKET)]
        accepted = []
        for number, (listener, client) in enumerate(zip(listeners, clients)):
            listener.bind(str(tmp_path / str(number)))
            listener.listen()
            client.connect(str(tmp_path / str(number)))
            accepted.append(stack.enter_context(listener.accept()[0]))
        address = found.address_of(listeners[0].fileno())
        assert address == str(tmp_path / "0")
        pair = [stack.enter_context(one) for one in socket.socketpair()]
        file = stack.enter_context(open(tmp_path / "file", "wb"))
        all_of_them: list[Any] = [*listeners, *clients, *accepted, *pair, file]
        assert [one for one in all_of_them if found.is_accepted(one.fileno(), address)] == accepted[
            :1
        ]
        assert not any(found.is_accepted(one.fileno(), None) for one in all_of_them)
        address = found.address_of(listeners[2].fileno())
        assert not any(found.is_accepted(one.fileno(), address) for one in all_of_them)
        assert found.address_of(-1) is found.address_of(file.fileno()) is None


def test_the_other_end_hears_of_it() -> None:
    """Where somebody else has a copy, too."""
    one, other = socket.socketpair()
    with other, one.dup():
        found.close({one.detach()})
        other.setblocking(False)
        assert other.recv(1) == b""
