# SPDX-License-Identifier: LGPL-2.1-or-later
"""The new program's side of a live update: it waits to be given a state, and loads it.

The one who gives the state is a daemon that runs this as a child, with the same rights.
"""

from __future__ import annotations

import os

from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._ring import EventChannels
from pyxsd._siphash import use_key
from pyxsd._wire import Transport
from pyxsd.domains import Domains
from pyxsd.state import image, surroundings
from pyxsd.state.errors import StateError
from pyxsd.system.errors import in_words
from pyxsd.update import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd.state.records import Record
    from pyxsd.state.surroundings import Surroundings
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

    descriptors: those that the state speaks of, in its order.  asked: does a client wait for the
    outcome?
    """

    def __init__(
        self, word: str, data: memoryview, descriptors: list[int], asked: bool = True
    ) -> None:
        self.word = word
        self.data = data
        self.descriptors = descriptors
        self.asked = asked


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
        return Order(message.word, data, descriptors, message.text != channel.UNASKED)
    except (OSError, EOFError):
        return None


def opened(data: bytes | memoryview) -> list[Record]:
    """The records of a state; StateError.  From now on this process hashes with its key: no server
    may be there."""
    found = image.read(data)
    use_key(image.hash_key(found))
    return found


def rehearse(data: bytes | memoryview, config: Config, put: Callable[[bytes], object]) -> None:
    """Loads a state without touching anything of the host, and writes it out again; StateError
    where it cannot be loaded."""
    found = opened(data)
    around, rows = surroundings.read(found)
    host = Quiet()
    server = Server(config, host, AccessLog(False))
    domains = Domains(server, NoXen(), host.log)
    load(found, server, domains, rows, around, Transport)
    if host.complaints:
        raise StateError("; ".join(host.complaints[:4]))
    image.Saving(server, put, lambda: surroundings.write(around, domains)).step(float("inf"))
    # The end of the process is faster than server.close().


def load(
    found: list[Record],
    server: Server,
    domains: Domains,
    rows: list[surroundings.Row],
    around: Surroundings,
    socket: Callable[[], Transport],
) -> None:
    """Loads a state into a server that reaches nobody; StateError.  socket: makes what stands for
    the transport of a client."""
    rings = domains.transports(rows)
    image.load(
        found,
        server,
        None,
        lambda _id, domid: socket() if domid is None else ring_of(rings, domid),
    )
    adopt(domains, rows, around)


def ring_of(rings: dict[int, Any], domid: int) -> Any:
    """The transport of a domain; StateError."""
    if domid not in rings:
        raise StateError(f"the ring of domain {domid} is missing")
    return rings[domid]


def adopt(domains: Domains, rows: list[surroundings.Row], around: Surroundings) -> None:
    """Gives the domains their connections; StateError where connections and what is said of the
    daemon around them are not of the same clients."""
    connections = domains.server.connections.values()
    if {number for number, _ in around.sockets} != {c.id for c in connections if c.is_socket}:
        raise StateError("the descriptors are not those of the sockets")
    try:
        domains.adopt(rows, domains.server.domains)
    except ValueError as error:
        raise StateError(str(error)) from None


def refuse(old: channel.Channel, error: BaseException) -> None:
    """Tells the old daemon why it has to go on itself."""
    try:
        old.send("refused", in_words(error))
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


def say_taken(old: channel.Channel) -> None:
    """This process begins to serve."""
    try:
        old.send("taken", seconds=1.0)
    except OSError:
        pass  # it has died meanwhile: all the more must this process serve


class Descriptors:
    """Those that came with a state, by the numbers that they have in it."""

    def __init__(self, found: list[int], around: Surroundings) -> None:
        wanted = around.descriptors()
        if len(found) != len(wanted):
            raise StateError(f"{len(found)} descriptors came, where {len(wanted)} are named")
        for fd in found:
            os.set_inheritable(fd, False)
        self._left = dict(zip(wanted, found))

    def take(self, number: int) -> int:
        """The one of that number, once; StateError."""
        if number not in self._left:
            raise StateError(f"the descriptor {number} is missing")
        return self._left.pop(number)
