# SPDX-License-Identifier: LGPL-2.1-or-later
"""The new program's side of a live update: it waits to be given a state, and loads it.

The one who gives the state is a daemon that runs this as a child, with the same rights.
"""

from __future__ import annotations

import os

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._ring import EventChannels
from pyxsd._wire import Transport
from pyxsd.domains import Domains
from pyxsd.update import carried, channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.system.configuration import Config

# Far more than any host has: a million nodes of 2 KiB.
STATE_MAX = 1 << 32


class Quiet:
    """The host of a server that serves nobody."""

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def log(self, _level: str, _facility: str, text: str) -> None:
        """Keeps the text."""
        self.complaints.append(text)

    def complain(self, _kind: str, text: str) -> None:
        """Keeps the text."""
        self.complaints.append(text)


class NoXen:
    """For domains whose rings nobody opens."""

    def __init__(self) -> None:
        self.channels = EventChannels()


class Order:
    """What the old daemon wants: `try` or `take`, and the state.

    descriptors: those that the state speaks of, in its order.
    """

    def __init__(self, word: str, data: bytes, descriptors: list[int]) -> None:
        self.word = word
        self.data = data
        self.descriptors = descriptors


def wait_for_order(old: channel.Channel) -> Order | None:
    """Says that this program is ready, and waits as long as it takes; None where the old daemon
    has gone or has changed its mind."""
    try:
        old.send("ready")
        message = old.receive()
        if message.word not in ("try", "take") or len(message.descriptors) != 1:
            return None
        data = channel.read_memory_file(message.descriptors[0], STATE_MAX)
        descriptors: list[int] = []
        if message.word == "take":
            while True:
                piece = old.receive()
                descriptors += piece.descriptors
                if piece.word != "descriptors":
                    break
            if piece.word != "end":
                return None
        return Order(message.word, data, descriptors)
    except (OSError, EOFError):
        return None


def rehearse(data: bytes, config: Config) -> bytes:
    """Loads a state without touching anything of the host, and writes it out again; ValueError
    and the like where it cannot be loaded."""
    state = carried.read(data)
    host = Quiet()
    server = Server(config, host, AccessLog(False))
    server.log.switch(False)
    domains = Domains(server, NoXen(), host.log)
    carried.build(state, server, domains, lambda _number: server.connect(Transport()))
    if host.complaints:
        raise carried.StateError("; ".join(host.complaints[:4]))
    written = carried.write(server, domains, state.surroundings)
    server.close()
    return written


def refuse(old: channel.Channel, error: BaseException) -> None:
    """Tells the old daemon why it has to go on itself."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    try:
        old.send("refused", text or type(error).__name__)
    except OSError:
        pass  # it has gone


def agreed(old: channel.Channel) -> bool:
    """Says that everything is built; does the old daemon let this process serve?  Its descriptors
    are closed by the end of this process where it does not."""
    try:
        old.send("built")
        return old.receive().word == "go"
    except (OSError, EOFError):
        return False


class Descriptors:
    """Those that came with a state, each to be taken once."""

    def __init__(self, found: list[int], wanted: int) -> None:
        if len(found) != wanted:
            raise carried.StateError(f"{len(found)} descriptors came, where {wanted} are named")
        self._left: Any = iter(found)

    def take(self) -> int:
        """The next one, close-on-exec."""
        fd: int = next(self._left)
        os.set_inheritable(fd, False)
        return fd


def number_of_descriptors(state: carried.State) -> int:
    """How many the state speaks of."""
    around = state.surroundings
    return (around.listens + around.has_channels + len(around.pid_files)
            + sum(client.domain is None for client in state.clients))
