# SPDX-License-Identifier: LGPL-2.1-or-later
from collections.abc import Iterable

from pyxsd._hub import Connection, Hub
from pyxsd.store.tree import Tree

class Delivery(Hub):
    max_events: int
    @property
    def tree(self) -> Tree: ...
    @property
    def events(self) -> int: ...
    @property
    def merged(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def watch_total(self) -> int: ...
    def fire_special(self, name: bytes, domids: Iterable[int],
                     cause: Connection | None = None) -> None: ...
