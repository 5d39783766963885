# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which log is opened by the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyxsd.system.configuration import Config
from pyxsd.system.destinations import open_access_log
from pyxsd.system.log import Log
from pyxsd.system.log_file import LogFile
from pyxsd.system.syslog import SyslogLog

pytestmark = pytest.mark.usefixtures("closed_logs")

# changes of the configuration, type of the access log
ACCESS_LOGS: list[tuple[dict[str, object], type[Log]]] = [
    ({}, LogFile),
    ({"access_log_nb_files": 1}, LogFile),
    ({"access_log_nb_files": 0}, Log),
    ({"access_log_nb_files": -1}, Log),
    ({"access_log_file": "syslog:daemon"}, SyslogLog),
    ({"access_log_file": "syslog:daemon", "access_log_nb_files": 0}, SyslogLog),
]


@pytest.mark.parametrize(("changes", "kind"), ACCESS_LOGS)
def test_open_access_log(log_path: Path, changes: dict[str, Any], kind: type[Log]) -> None:
    told: list[str] = []
    log = open_access_log(Config(**{"access_log_file": str(log_path), **changes}), told.append)
    assert type(log) is kind
    log.close()
    assert told == []


def test_no_log_loses_nothing_and_works_never() -> None:
    """So nobody is told of lines that are not wanted."""
    log = Log()
    log.write(b"line\n", 1)
    log.reopen()
    log.close()
    assert (log.lost, log.working) == (0, False)
