# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the tests of the logs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.system.log import Log
from pyxsd.system.log_file import LogFile
from pyxsd.system.syslog import SyslogLog
from tests.unit.logkit import Clock


@pytest.fixture
def closed_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes every log that a test made."""
    made: list[Log] = []

    def remember(kind: type[Log]) -> None:
        original = kind.__init__

        def init(self: Log, *arguments: object, **named: object) -> None:
            made.append(self)
            original(self, *arguments, **named)

        monkeypatch.setattr(kind, "__init__", init)

    remember(LogFile)
    remember(SyslogLog)
    before = len(os.listdir("/proc/self/fd"))
    yield
    for log in made:
        log.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "F"
