# SPDX-License-Identifier: LGPL-2.1-or-later
"""NamedTuple as `typing` has it, without `typing`.

To load `typing` takes a start 2.5 ms, and each of its NamedTuples 0.1 to 0.5 ms, since it compiles
the annotations of the fields.  Here they only say which fields there are.  So a module that makes
one begins with `from __future__ import annotations`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    #: What a class has of itself, and a named tuple otherwise.
    _OWN = frozenset(("__annotations__", "__module__", "__qualname__"))

    class _Kind(type):
        """Makes a named tuple of a class that derives from NamedTuple: of its annotations the
        fields, of their values the defaults; whatever else it has stays."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body["__annotations__"]
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            made.__annotations__ = fields
            for attribute in body.keys() - fields.keys() - _OWN:
                setattr(made, attribute, body[attribute])
            return made

    class NamedTuple(metaclass=_Kind):
        """The base of a class whose values are tuples with named fields."""
