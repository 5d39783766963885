# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import final

from pyxsd._conn import Connection
from pyxsd._journal import Journal

@final
class Agenda:
    slice_ns: int
    turn_ns: int
    patience: int
    @property
    def served_ns(self) -> int: ...
    @property
    def journal(self) -> Journal: ...
    def drop_closed(self) -> None: ...
    @property
    def changed(self) -> list[Connection]: ...
    @property
    def count(self) -> int: ...
