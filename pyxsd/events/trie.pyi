# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import final

@final
class WatchTrie:
    @property
    def count(self) -> int: ...
    @property
    def steps(self) -> int: ...

def live_counts() -> dict[str, int]: ...
