# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon that serves loads no Python code any more, whatever it is asked.

The package may be upgraded, and Python replaced by its next version, while the daemon runs.  A
module that is imported only then would come from other files than the rest, or would be missing.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from pyxsd.control import COMMANDS
from pyxsd.daemon import LATER
from tests.clients.daemon import Client, wait_for
from tests.domains.standin import MFN, PROJECT, Stand, require
from tests.world import TYPES

#: Loaded by Python at its start.  It writes a line for each import and each opened file of code,
#: and lets a file whose name ends in "unexpected" fail with an error that nobody expects.
#: (None in sys.modules is a module that is refused: nothing is loaded then.)
AUDIT = """
import os
import sys

log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def audit(event, arguments):
    if event == "import" and sys.modules.get(arguments[0], "") is not None:
        os.write(log, f"import {arguments[0]}\\n".encode())
    elif event == "open" and isinstance(arguments[0], str):
        if arguments[0].endswith((".pyc", ".so")):
            os.write(log, f"open {arguments[0]}\\n".encode())
        if arguments[0].endswith("unexpected"):
            raise RuntimeError("nobody expects this")


sys.addaudithook(audit)
"""

#: Arguments with which a CONTROL command does its work; none for those that are not named.
ARGUMENTS = {
    b"print": [b"text"],
    b"txn": [b"5"],
    b"xenbus": [b"5"],
    b"mfn": [b"5"],
    b"log": [b"on"],
    b"live-update": [b"-a"],
}


def requests() -> list[tuple[str | int, bytes]]:
    """Every request, each once with and once without sense, and every CONTROL command."""
    rows: list[tuple[str | int, bytes]] = []
    node = b"/local/domain/5/a\0"
    sense = {
        "WRITE": node + b"value",
        "READ": node,
        "MKDIR": b"/local/domain/5/b\0",
        "DIRECTORY": b"/local/domain\0",
        "DIRECTORY_PART": b"/local/domain\0000\0",
        "GET_PERMS": node,
        "SET_PERMS": node + b"n5\0r0\0",
        "RM": b"/local/domain/5/b\0",
        "WATCH": b"/local\0token\0",
        "UNWATCH": b"/local\0token\0",
        "GET_DOMAIN_PATH": b"5\0",
        "IS_DOMAIN_INTRODUCED": b"5\0",
        "RESUME": b"5\0",
        "SET_TARGET": b"5\0006\0",
        "GET_FEATURE": b"5\0",
        "SET_FEATURE": b"5\0001\0",
        "GET_QUOTA": b"5\0nodes\0",
        "SET_QUOTA": b"5\0nodes\000900\0",
    }
    for name in TYPES:
        if name in ("WATCH_EVENT", "ERROR", "TRANSACTION_START", "TRANSACTION_END"):
            continue
        if name in sense:
            rows.append((name, sense[name]))
        rows += [(name, b""), (name, b"\xff\0\xff"), (name, b"/" * 4000 + b"\0")]
    rows.append((99, b""))
    for command in set(COMMANDS) - {b"logfile"}:
        # An argument of memreport is a file, which it would write where this test runs.
        nonsense = [] if command == b"memreport" else [[b"\xff"], [b"1", b"2", b"3"]]
        for arguments in (ARGUMENTS.get(command, []), *nonsense):
            rows.append(("CONTROL", b"\0".join([command, *arguments]) + b"\0"))
    return rows


def transactions(client: Client) -> None:
    """One that ends well, one that is given up, one that fails by a conflict."""
    for end in (b"T\0", b"F\0"):
        number = int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
        client.ask("WRITE", b"/tool/t\0v", number)
        client.ask("TRANSACTION_END", end, number)
    number = int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
    client.ask("READ", b"/tool/t\0", number)
    client.ask("WRITE", b"/tool/t\0x", number)
    client.ask("WRITE", b"/tool/t\0w")
    client.ask("TRANSACTION_END", b"T\0", number)


@pytest.fixture
def stand() -> Any:
    """A pretended host; skips where the stand-in cannot be built."""
    try:
        made = Stand(
            settings={
                "access-log-nb-lines": "20",
                "xenstored-log-nb-lines": "20",
                "xenstored-log-level": "debug",
                "access-log-read-ops": "true",
                "access-log-transactions-ops": "true",
                "access-log-special-ops": "true",
            }
        )
    except RuntimeError as error:
        require(str(error))
    with made:
        yield made


def test_nothing_is_loaded_after_the_start(stand: Any, tmp_path: Path) -> None:
    """But for the rest, which the daemon loads by itself within the first half second."""
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    audit = tmp_path / "audit"
    stand.start(PYTHONPATH=f"{tmp_path}:{PROJECT}", AUDIT_LOG=str(audit))
    path = stand.peer.socket
    wait_for(lambda: f"import {LATER[-1][-1]}\n" in audit.read_text(), "the rest is never loaded")
    with Client(path) as client:
        client.ask("DIRECTORY", b"/\0")
    loaded = audit.stat().st_size
    assert loaded, "the audit hook was not installed"

    domain = stand.host.create(5)
    with Client(path) as client:
        assert client.ask("INTRODUCE", b"5\0%d\0%d\0" % (MFN, domain.port)) == (8, b"OK\0")
        for type_, payload in requests():
            client.ask(type_, payload)
        transactions(client)
        for type_ in ("READ", "WRITE", "WATCH", "DIRECTORY"):
            domain.request(TYPES[type_], b"a\0value\0")
        client.ask("CONTROL", b"logfile\0" + bytes(tmp_path / "unexpected") + b"\0")
        client.ask("RELEASE", b"5\0")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
        stand.peer.process.send_signal(number)
    logs = "".join(file.read_text() for file in stand.log_file.parent.glob("xenstored.log*"))
    assert "RuntimeError: nobody expects this" in logs
    debug = stand.root / "run" / "db.debug"
    wait_for(debug.exists, "SIGUSR1 writes db.debug")
    stand.host.create(6)
    assert stand.peer.process.poll() is None
    with Client(path) as client:
        client.ask("DIRECTORY", b"/\0")
    stand.peer.process.terminate()
    assert stand.peer.process.wait(30) == 0

    text = audit.read_bytes()[loaded:].decode()
    assert text == "", f"loaded after the start:\n{text}"
