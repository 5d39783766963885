# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image loaded into a server of its own, which nobody connects to."""

from __future__ import annotations

from pyxsd._core import Server
from pyxsd._wire import Transport
from pyxsd.state import image
from pyxsd.system.configuration import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyxsd.state.records import Record


class _Nobody:
    """The host of a server that serves nobody."""

    def log(self, level: str, facility: str, text: str) -> None:
        """Goes nowhere."""

    def complain(self, kind: str, text: str) -> None:
        """Goes nowhere."""


def loaded(records: list[Record], any_key: bool = False) -> Server:
    """A server made of an image; StateError.  Whoever gets it closes it."""
    server = Server(Config(), _Nobody())
    try:
        image.load(records, server, None, lambda _number, _domid: Transport(), any_key)
    except BaseException:
        server.close()
        raise
    return server
