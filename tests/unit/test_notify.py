# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service manager is told."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from pyxsd.system.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, abstract: bool) -> None:
    name = f"@pyxsd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind("\0" + name[1:] if abstract else name)
    manager.settimeout(10)
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.ready()
    assert manager.recv(4096) == b"READY=1"
    assert notifier.ready(1234)
    assert manager.recv(4096) == b"READY=1\nMAINPID=1234"
    assert notifier.stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    manager.close()
    assert not notifier.ready()
    notifier.close()
    notifier.close()
    assert not notifier.ready()


def test_another_process_is_the_service(tmp_path: Path) -> None:
    """The manager is told, and has closed its end of the barrier when the call returns."""
    name = str(tmp_path / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(name)
    manager.settimeout(10)
    seen: list[bytes] = []

    def read() -> None:
        seen.append(manager.recv(4096))
        data, fds, _, _ = socket.recv_fds(manager, 4096, 4)
        seen.append(data)
        for fd in fds:
            os.close(fd)

    reader = threading.Thread(target=read)
    reader.start()
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.moved(4321)
    reader.join()
    assert seen == [b"MAINPID=4321", b"BARRIER=1"]
    notifier.close()
    manager.close()
    assert not notifier.moved(1)


def test_no_descriptor_is_left_for_the_barrier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is sent, and whoever leaves goes on leaving."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})

        def refused() -> tuple[int, int]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patched:
            patched.setattr(os, "pipe", refused)
            assert not notifier.moved(4321)
        assert manager.recv(100) == b"MAINPID=4321"
        notifier.close()


def test_messages_of_another_process(tmp_path: Path) -> None:
    """A child speaks for its parent, as far as it may."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(10)
        for sender in (0, os.getppid()):
            notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, sender)
            assert notifier.ready()
            data, rights, _, _ = manager.recvmsg(100, 100)
            assert data == b"READY=1"
            wanted = sender if os.getuid() == 0 and sender else os.getpid()
            assert int.from_bytes(rights[0][2][:4], sys.byteorder) == wanted
            notifier.close()


def test_notify_without_a_manager(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": ""}).stopping()
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()


def test_a_manager_that_does_not_read(tmp_path: Path) -> None:
    """Its queue is full: the daemon is not held up by it for ever."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        sent = 0
        while notifier.ready():
            sent += 1
        assert sent > 0
        for _ in range(sent):
            assert manager.recv(100) == b"READY=1"
        assert notifier.stopping()
        notifier.close()
        assert not notifier.ready()
