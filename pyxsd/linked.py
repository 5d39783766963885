# SPDX-License-Identifier: LGPL-2.1-or-later
"""Extension modules that are linked into one shared object, `_linked.*.so`.

A release is built so: to load forty small shared objects takes a start 3 ms more than to load a
large one.  Python finds a module by a file of its name; `Linked` finds these by the list in
`_linked`.  Each is a module as ever, with its own name, and runs when it is first imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Linked:
    """Finds modules, for sys.meta_path, in the shared object of a module that has their NAMES."""

    def __init__(self, module: Any) -> None:
        self._names = frozenset(module.NAMES)
        self._spec = module.__spec__

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """How to load the module of that name, as the other one was; None where it is not there."""
        if name not in self._names:
            return None
        # The types are those of importlib.machinery, which a start does not import.
        spec, loader, file = type(self._spec), type(self._spec.loader), self._spec.origin
        found: ModuleSpec = spec(name, loader(name, file), origin=file)
        return found
