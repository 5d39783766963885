# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages to the service manager, by the protocol of sd_notify(3)."""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """sd_notify(3)'s protocol.  Without NOTIFY_SOCKET every call does nothing and is False.

    Its socket is open from the beginning, so that the end can be told without a free descriptor.

    sender: whose message it is, as sd_pid_notify(3) has it, where that is another process: the
    manager may listen to its main process alone.
    """

    def __init__(self, environ: Mapping[str, str], sender: int = 0) -> None:
        self._sender = sender
        name = environ.get("NOTIFY_SOCKET", "")
        # '@' stands for the NUL that an abstract socket's name begins with.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket: _socket.socket | None = None
        if name:
            try:
                kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC
                self._socket = _socket.socket(_socket.AF_UNIX, kind)
                self._socket.settimeout(1.0)
            except OSError:
                pass  # no descriptor at the start: nothing can be told

    def ready(self, main_pid: int = 0) -> bool:
        """READY=1; after daemonizing with the pid that the service manager shall watch."""
        return self._send(f"READY=1\nMAINPID={main_pid}" if main_pid else "READY=1")

    def stopping(self) -> bool:
        """STOPPING=1."""
        return self._send("STOPPING=1")

    def moved(self, main_pid: int) -> bool:
        """MAINPID=: another process is the service now.

        Waits until the service manager has understood, at most a second: it forgets who a
        message came from where that process has ended.
        """
        if not self._send(f"MAINPID={main_pid}"):
            return False
        try:
            reading, writing = os.pipe()
        except OSError:
            return False  # no descriptor is left: it may have understood, or not
        try:
            assert self._socket is not None
            self._socket.sendmsg(
                [b"BARRIER=1"],
                [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", writing))],
                0,
                self._address,
            )
            os.close(writing)
            writing = -1
            # The manager closes its copy when it has read everything before.
            poller = select.poll()
            poller.register(reading, 0)
            return bool(poller.poll(1000))
        except OSError:
            return False
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def close(self) -> None:
        """Close the socket; what is told later is not sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> bool:
        if self._socket is None:
            return False
        try:
            if not self._sender or not self._send_as_another(text):
                self._socket.sendto(text.encode(), self._address)
        except OSError:
            return False
        return True

    def _send_as_another(self, text: str) -> bool:
        """False where this process may not speak for another one."""
        assert self._socket is not None
        who = struct.pack("iii", self._sender, os.getuid(), os.getgid())
        try:
            self._socket.sendmsg(
                [text.encode()],
                [(_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, who)],
                0,
                self._address,
            )
        except PermissionError:
            return False
        return True
