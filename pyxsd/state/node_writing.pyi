# SPDX-License-Identifier: LGPL-2.1-or-later
from collections.abc import Callable

from pyxsd.store.tree import Tree

_List = list[tuple[int, int]]

def records(
    tree: Tree,
    encode: Callable[[_List], tuple[bytes, bool]],
    lose: Callable[[_List, bytes], object],
) -> tuple[bytes, list[bytes]]: ...
def lines(tree: Tree, encode: Callable[[_List], bytes]) -> bytes: ...
def longer(tree: Tree, most: int) -> list[tuple[bytes, int]]: ...
