# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import final

@final
class AccessLog:
    read_ops: bool
    txn_ops: bool
    special_ops: bool
    @property
    def lines(self) -> int: ...
    @property
    def active(self) -> bool: ...
    @property
    def size(self) -> int: ...
    def __new__(
        cls,
        active: bool = False,
        nb_chars: int = -1,
        read_ops: bool = False,
        txn_ops: bool = False,
        special_ops: bool = False,
    ) -> AccessLog: ...
    def note(self, who: bytes, label: bytes, data: bytes) -> None: ...
    def switch(self, on: bool) -> None: ...
    def take(self) -> tuple[bytes, int]: ...
