#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Talks to the daemon of `make run`: ask.py COMMAND...

read PATH | write PATH VALUE | mkdir PATH | rm PATH | perms PATH | ls PATH
domain DOMID    boots a domain on the stand-in Xen (a domain of that number
                that is there is destroyed first), introduces it, and lets it
                write and read "name" through its own ring

Several commands may follow each other: ask.py write /a b ls /
Needs nothing but Python and the socket under ./run/.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "run"
HEADER = struct.Struct("=IIII")
DIRECTORY, READ, GET_PERMS, INTRODUCE, RELEASE = 1, 2, 3, 8, 9
WRITE, MKDIR, RM, SET_PERMS = 11, 12, 13, 14
ERROR = 16
PAYLOAD_MAX = 4096
DOMID_MAX = 0x7FEF


class Refused(Exception):
    """What cannot be done, in words for whoever asked."""


class Client:
    """A connection to the socket."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(RUN / "socket"))
        except OSError as error:
            raise Refused(f"{RUN}/socket: {error.strerror}: is `make run` running?") from error

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise Refused("the daemon closed the connection")
            data += more
        return data

    def request(self, type_: int, *fields: bytes, ended: bool = True) -> bytes:
        """One request of NUL-separated fields; the payload of its reply."""
        payload = b"\0".join(fields) + (b"\0" if ended else b"")
        if len(payload) > PAYLOAD_MAX:
            raise Refused(f"more than the {PAYLOAD_MAX} bytes that a request may have")
        try:
            self.socket.sendall(HEADER.pack(type_, 1, 0, len(payload)) + payload)
            got, _, _, length = HEADER.unpack(self._read(HEADER.size))
            body = self._read(length)
        except OSError as error:
            raise Refused(f"the daemon is gone: {error.strerror}") from error
        if got == ERROR:
            raise Refused(body.rstrip(b"\0").decode())
        return body


def encoded(word: str) -> bytes:
    """A word of the command line as the bytes that it was."""
    return word.encode(errors="surrogateescape")


def shown(data: bytes) -> str:
    """Bytes of the store as text."""
    return data.decode(errors="backslashreplace")


def short(text: str) -> str:
    """At most 200 characters of a text."""
    return text if len(text) <= 200 else text[:200] + ".."


def show(client: Client, path: bytes) -> None:
    """The tree below a path."""
    todo = [(path, b"", -1)]  # path, name, indent; a tree may be deeper than calls can be
    while todo:
        path, name, indent = todo.pop()
        if indent >= 0:
            print(" " * indent + f"{shown(name)} = {shown(client.request(READ, path))!r}")
        names = client.request(DIRECTORY, path).split(b"\0")[:-1]
        todo += [(path.rstrip(b"/") + b"/" + below, below, indent + 1) for below in names[::-1]]


def destroy(client: Client, host: Any, domid: int) -> None:
    """What a toolstack does about a domain that ends."""
    print(f"domain {domid} is destroyed")
    host.set_state(domid, 0)
    for type_, field in ((RELEASE, b"%d" % domid), (RM, b"/local/domain/%d" % domid)):
        try:
            client.request(type_, field)
        except Refused:
            pass  # the daemon saw its end already; somebody removed its home


def domain(client: Client, word: bytes) -> None:
    """A domain with a home, and a word through its ring."""
    sys.path.insert(0, str(ROOT / "glue" / "standin"))
    import guest

    if not word.isdigit() or not 1 <= int(word[:9]) <= DOMID_MAX:
        raise Refused(f"a domid is a number from 1 to {DOMID_MAX}")
    domid = int(word)
    with guest.Host(RUN / "host") as host:
        try:
            new = host.create(domid)
        except FileExistsError:
            destroy(client, host, domid)
            new = host.create(domid)
        number = b"%d" % domid
        client.request(INTRODUCE, number, b"1", b"%d" % new.port)
        home = b"/local/domain/" + number
        client.request(MKDIR, home)
        client.request(SET_PERMS, home, b"n" + number)
        print(f"domain {domid} writes:", shown(new.request(WRITE, b"name\0guest").payload[:-1]))
        print(f"domain {domid} reads:", shown(new.request(READ, b"name\0").payload))
        new.close()


def read(client: Client, path: bytes) -> None:
    """Shows a value."""
    print(shown(client.request(READ, path)))


def write(client: Client, path: bytes, value: bytes) -> None:
    """Sets a value."""
    client.request(WRITE, path, value, ended=False)


def perms(client: Client, path: bytes) -> None:
    """Shows who may do what."""
    print(" ".join(shown(entry) for entry in client.request(GET_PERMS, path).split(b"\0")[:-1]))


# command: how many arguments, what it does with them
COMMANDS: dict[str, tuple[int, Callable[..., object]]] = {
    "read": (1, read),
    "write": (2, write),
    "mkdir": (1, lambda client, path: client.request(MKDIR, path)),
    "rm": (1, lambda client, path: client.request(RM, path)),
    "perms": (1, perms),
    "ls": (1, show),
    "domain": (1, domain),
}


def main(words: list[str]) -> None:
    """Runs the commands in turn, until one fails."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.strip())
        sys.exit(0 if words else 2)
    client: Client | None = None
    rest = iter(words)
    for word in rest:
        if word not in COMMANDS:
            sys.exit(f"unknown command {word!r}\n{__doc__}")
        count, run = COMMANDS[word]
        arguments = [encoded(argument) for argument in islice(rest, count)]
        if len(arguments) < count:
            sys.exit(f"{word}: an argument is missing\n{__doc__}")
        try:
            client = client or Client()
            run(client, *arguments)
        except BrokenPipeError:  # `ask.py ls / | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)
        except (Refused, OSError) as error:  # OSError: of the stand-in Xen
            sys.exit(f"{word} {short(shown(arguments[0]))}: {error}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
