# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files in memory that travel between the two processes of a live update."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from pyxsd.update import channel
from pyxsd.update.channel import MemoryFile, read_memory_file


def test_written_and_read() -> None:
    file = MemoryFile()
    file.put(b"one ")
    file.put(memoryview(b"two"))
    assert file.size() == 7
    assert bytes(read_memory_file(file.detach(), 7)) == b"one two"
    assert bytes(read_memory_file(MemoryFile().detach(), 0)) == b""


def test_nobody_changes_it_any_more() -> None:
    file = MemoryFile()
    file.put(b"state")
    fd = file.detach()
    for change in (
        lambda: os.ftruncate(fd, 2),
        lambda: os.ftruncate(fd, 99),
        lambda: os.pwrite(fd, b"x", 0),
    ):
        with pytest.raises(OSError):
            change()
    os.close(fd)


@pytest.mark.parametrize("sealed", [False, True])
def test_refused(sealed: bool) -> None:
    """One that is too long, and one that could still be cut: reading it would kill the reader."""
    file = MemoryFile()
    file.put(b"state")
    fd = file.detach() if sealed else os.memfd_create("state", os.MFD_ALLOW_SEALING)
    with pytest.raises(ValueError, match="5 bytes of state" if sealed else "not sealed"):
        read_memory_file(fd, 4)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_an_end_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no time is left it is not waited for, and nobody says that it has come."""
    instants = [0.0, 5.0]
    monkeypatch.setattr(channel, "time", SimpleNamespace(monotonic=lambda: instants.pop(0)))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        end = channel.Channel(ours.detach())
        assert end.wait_for_end(5.0) == (False, [])
        end.close()
