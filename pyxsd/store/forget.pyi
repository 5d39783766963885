# SPDX-License-Identifier: LGPL-2.1-or-later
from collections.abc import Iterable
from typing import final

from pyxsd.store.tree import Tree

@final
class Forgetting:
    def __new__(cls, tree: Tree, domids: Iterable[int]) -> Forgetting: ...
    @property
    def steps(self) -> int: ...
    def clean(self) -> None: ...
