# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL `crash` is there in a build for debugging alone, of which debug_build.py is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd import _debug, control
from tests.keeper.test_daemon import KeptDaemon
from tests.world import TYPES

CONTROL = TYPES["CONTROL"]


def test_other_builds_do_not_know_it() -> None:
    """It is answered as every unknown command is, and nothing happens."""
    assert not _debug.IS_DEBUG
    daemon = KeptDaemon()
    try:
        child = daemon.child
        with daemon.client() as client:
            for word in (b"", b"segv\0", b"abort\0", b"exit\0", b"kill\0"):
                assert client.ask("CONTROL", b"crash\0" + word) == (CONTROL, b"OK\0")
            assert b"crash" not in client.ask("CONTROL", b"help\0")[1]
        assert daemon.child == child
        assert daemon.logged("has ended a process") == []
        # Not even to whoever calls it: this process goes on.
        for name in (b"segv", b"abort", b"exit", b"kill"):
            _debug.crash(name)
        with pytest.raises(ValueError, match="segv, abort, exit or kill"):
            _debug.crash(b"other")
    finally:
        daemon.stop()


@pytest.mark.parametrize("words", [[], [b"abort"]])
def test_what_it_is_asked_for(words: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first word, or a fault of the memory where there is none."""
    asked: list[bytes] = []
    monkeypatch.setattr(control, "_debug", SimpleNamespace(crash=asked.append))
    host: Any = None
    assert control.Control(host, host).crash(None, words) == control.OK
    assert asked == (words or [b"segv"])
