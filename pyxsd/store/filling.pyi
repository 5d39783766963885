# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import final

from pyxsd.store.tree import Tree

@final
class Filling:
    def __new__(cls) -> Filling: ...
    @property
    def tree(self) -> Tree: ...
