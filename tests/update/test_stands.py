# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each daemon that a test has started ends with the test, whichever process it is by then."""

from __future__ import annotations

from pathlib import Path

from tests.clients.daemon import wait_for
from tests.switch.kit import SwitchedStand, switch
from tests.update.kit import UpdatedDaemon, control, is_gone, program, update


def test_a_daemon_that_no_pid_file_names() -> None:
    daemon = UpdatedDaemon()
    try:
        with daemon.client() as client:
            update(client, program(daemon.root))
        pid = daemon.pid
        assert pid != daemon.process.pid
        daemon.pid_file.unlink()
    finally:
        daemon.stop()
    assert is_gone(pid)


def test_a_daemon_and_a_program_that_is_about_to_take_over() -> None:
    """The test fails in the middle: there are two then."""
    daemon = UpdatedDaemon()
    try:
        with daemon.client() as client:
            assert control(client, "-f", program(daemon.root, "take", "hangs")) == b"OK\0"
            control(client, "-s")
            path = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
            (child,) = wait_for(lambda: path.read_text().split(), "no program is started")
    finally:
        daemon.stop()
    assert is_gone(int(child)) and is_gone(daemon.process.pid)


def test_a_host_whose_daemon_is_another_process() -> None:
    stand = SwitchedStand("pyxsd")
    try:
        stand.start_pyxsd()
        with stand.client() as client:
            assert switch(client, stand.pyxsd()) == b"OK"
        pid = int((stand.root / "run/pid").read_text())
        assert pid != stand.pid
    finally:
        stand.close(True)
    assert is_gone(pid)
