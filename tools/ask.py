#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Talks to the daemon of `make run`: ask.py COMMAND...

read PATH | write PATH VALUE | mkdir PATH | rm PATH | perms PATH | ls PATH
domain DOMID    makes a domain on the stand-in Xen, introduces it, and lets it
                write and read "name" through its own ring

Needs nothing but Python and the socket under ./run/.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "run"
HEADER = struct.Struct("=IIII")
DIRECTORY, READ, GET_PERMS, INTRODUCE, WRITE, MKDIR, RM, SET_PERMS = 1, 2, 3, 8, 11, 12, 13, 14
ERROR = 16


class Client:
    """A connection to the socket."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(RUN / "socket"))
        except OSError as error:
            sys.exit(f"{RUN}/socket: {error.strerror}: is `make run` running?")

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                sys.exit("the daemon closed the connection")
            data += more
        return data

    def request(self, type_: int, *fields: bytes, ended: bool = True) -> bytes:
        """One request of NUL-separated fields; the payload of its reply."""
        payload = b"\0".join(fields) + (b"\0" if ended else b"")
        self.socket.sendall(HEADER.pack(type_, 1, 0, len(payload)) + payload)
        got, _, _, length = HEADER.unpack(self._read(HEADER.size))
        body = self._read(length)
        if got == ERROR:
            raise LookupError(body.rstrip(b"\0").decode())
        return body


def show(client: Client, path: str, indent: int = 0) -> None:
    """The tree below a path."""
    for name in client.request(DIRECTORY, path.encode()).split(b"\0")[:-1]:
        child = path.rstrip("/") + "/" + name.decode()
        value = client.request(READ, child.encode())
        print(" " * indent + f"{name.decode()} = {value.decode(errors='backslashreplace')!r}")
        show(client, child, indent + 1)


def domain(client: Client, domid: int) -> None:
    """A domain with a home, and a word through its ring."""
    sys.path.insert(0, str(ROOT / "glue" / "standin"))
    import guest

    with guest.Host(RUN / "host") as host:
        try:
            new = host.create(domid)
        except FileExistsError:
            sys.exit(f"domain {domid} is there already: choose another domid")
        number = str(domid).encode()
        client.request(INTRODUCE, number, b"1", str(new.port).encode())
        home = b"/local/domain/" + number
        client.request(MKDIR, home)
        client.request(SET_PERMS, home, b"n" + number)
        print(f"domain {domid} writes:", new.request(WRITE, b"name\0guest").payload)
        print(f"domain {domid} reads:", new.request(READ, b"name\0").payload)
        new.close()


def read(client: Client, path: str) -> None:
    """Shows a value."""
    print(client.request(READ, path.encode()).decode(errors="backslashreplace"))


def write(client: Client, path: str, value: str) -> None:
    """Sets a value."""
    client.request(WRITE, path.encode(), value.encode(), ended=False)


def perms(client: Client, path: str) -> None:
    """Shows who may do what."""
    print(client.request(GET_PERMS, path.encode()).rstrip(b"\0").split(b"\0"))


# command: how many arguments, what it does with them
COMMANDS: dict[str, tuple[int, Callable[..., object]]] = {
    "read": (1, read),
    "write": (2, write),
    "mkdir": (1, lambda client, path: client.request(MKDIR, path.encode())),
    "rm": (1, lambda client, path: client.request(RM, path.encode())),
    "perms": (1, perms),
    "ls": (1, show),
    "domain": (1, lambda client, domid: domain(client, int(domid))),
}


def main(words: list[str]) -> None:
    """Runs the commands in turn."""
    if not words:
        sys.exit(__doc__)
    client = Client()
    rest = iter(words)
    for word in rest:
        if word not in COMMANDS:
            sys.exit(f"unknown command {word}\n{__doc__}")
        count, run = COMMANDS[word]
        arguments = list(islice(rest, count))
        if len(arguments) < count:
            sys.exit(f"{word}: an argument is missing\n{__doc__}")
        try:
            run(client, *arguments)
        except LookupError as error:
            sys.exit(f"{word}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
