# SPDX-License-Identifier: LGPL-2.1-or-later
"""Client libraries against the running daemon: libxenstore with threads, and pyxs."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import require
from tests.clients.daemon import DEADLINE, Daemon

THREADS, ROUNDS = 4, 50


@pytest.fixture
def libxenstore(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """libxenstore by ctypes, whose xs_open reaches the test's daemon."""
    name = ctypes.util.find_library("xenstore")
    if name is None:
        require("libxenstore is not installed (Debian package libxenstore4)")
    library = ctypes.CDLL(name, use_errno=True)
    library.xs_open.restype = ctypes.c_void_p
    library.xs_open.argtypes = [ctypes.c_ulong]
    library.xs_close.argtypes = [ctypes.c_void_p]
    library.xs_read.restype = ctypes.c_void_p
    library.xs_read.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_uint),
    ]
    library.xs_write.restype = ctypes.c_bool
    library.xs_write.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    library.xs_transaction_start.argtypes = [ctypes.c_void_p]
    library.xs_transaction_start.restype = ctypes.c_uint32
    library.xs_transaction_end.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_bool]
    library.xs_transaction_end.restype = ctypes.c_bool
    library.xs_watch.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    library.xs_watch.restype = ctypes.c_bool
    library.xs_unwatch.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    library.xs_unwatch.restype = ctypes.c_bool
    library.xs_read_watch.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint)]
    library.xs_read_watch.restype = ctypes.POINTER(ctypes.c_char_p)
    # The C library reads the environment of the process, not Python's copy of it.
    monkeypatch.setenv("XENSTORED_RUNDIR", str(daemon.run))
    monkeypatch.delenv("XENSTORED_PATH", raising=False)
    yield library


class Library:
    """One handle, used by many threads."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]
        self.handle = library.xs_open(0)
        assert self.handle, os.strerror(ctypes.get_errno())

    def read(self, path: bytes, transaction: int = 0) -> bytes | None:
        """The value, None for an error."""
        n = ctypes.c_uint()
        found = self.library.xs_read(self.handle, transaction, path, ctypes.byref(n))
        if not found:
            return None
        value = ctypes.string_at(found, n.value)
        self.free(found)
        return value

    def write(self, path: bytes, value: bytes, transaction: int = 0) -> None:
        """Writes, or AssertionError."""
        assert self.library.xs_write(self.handle, transaction, path, value, len(value)), (
            os.strerror(ctypes.get_errno())
        )

    def increment(self, path: bytes) -> int:
        """Adds 1 in a transaction; how many attempts it took."""
        attempts = 0
        while True:
            attempts += 1
            transaction = self.library.xs_transaction_start(self.handle)
            assert transaction
            value = self.read(path, transaction)
            assert value is not None
            self.write(path, b"%d" % (int(value) + 1), transaction)
            if self.library.xs_transaction_end(self.handle, transaction, False):
                return attempts
            assert ctypes.get_errno() == 11, os.strerror(ctypes.get_errno())  # EAGAIN


def test_libxenstore_with_threads(libxenstore: Any) -> None:
    """Threads share handles: transactions on one counter lose no step, and no event is lost."""
    shared, other = Library(libxenstore), Library(libxenstore)
    shared.write(b"/count", b"0")
    assert libxenstore.xs_watch(shared.handle, b"/own", b"token")
    failures: list[BaseException] = []
    seen: list[bytes] = []

    def work(number: int) -> None:
        try:
            client = other if number % 2 else shared
            for k in range(ROUNDS):
                client.increment(b"/count")
                path = b"/own/%d" % number
                client.write(path, b"%d" % k)
                assert client.read(path) == b"%d" % k
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            failures.append(error)

    def watch() -> None:
        try:
            n = ctypes.c_uint()
            while b"/own/end" not in seen:
                found = libxenstore.xs_read_watch(shared.handle, ctypes.byref(n))
                assert found and found[1] == b"token"
                seen.append(found[0] or b"")
                shared.free(found)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(THREADS)]
    watcher = threading.Thread(target=watch, daemon=True)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    shared.write(b"/own/end", b"")
    watcher.join(DEADLINE)
    assert not watcher.is_alive()
    assert not failures, failures
    assert shared.read(b"/count") == b"%d" % (THREADS * ROUNDS)
    # Identical events may be merged while they wait; each path was told at least once.
    assert {b"/own/%d" % k for k in range(THREADS)} <= set(seen)
    assert libxenstore.xs_unwatch(shared.handle, b"/own", b"token")
    for library in (shared, other):
        libxenstore.xs_close(library.handle)


def test_pyxs(daemon: Daemon) -> None:
    """The Python client: nodes, permissions, a transaction, a monitor."""
    try:
        import pyxs  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        require("pyxs is not installed (PyPI)")
    with pyxs.Client(unix_socket_path=str(daemon.socket)) as client:
        client[b"/p/a"] = b"1"
        client.mkdir(b"/p/b")
        assert client[b"/p/a"] == b"1"
        assert client.list(b"/p") == [b"a", b"b"]
        assert client.exists(b"/p/b") and not client.exists(b"/p/c")
        client.set_perms(b"/p/a", [b"n0", b"r7"])
        assert client.get_perms(b"/p/a") == [b"n0", b"r7"]
        assert client.get_domain_path(7) == b"/local/domain/7"
        assert client.is_domain_introduced(0) in (True, False)
        client.transaction()
        client[b"/p/a"] = b"2"
        assert client.commit()
        assert client[b"/p/a"] == b"2"
        with client.monitor() as monitor:
            monitor.watch(b"/p", b"token")
            assert next(monitor.wait()) == (b"/p", b"token")
            client[b"/p/d"] = b"3"
            assert next(monitor.wait()) == (b"/p/d", b"token")
            monitor.unwatch(b"/p", b"token")
        client.delete(b"/p")
        with pytest.raises(pyxs.PyXSError):
            client[b"/p/a"]
