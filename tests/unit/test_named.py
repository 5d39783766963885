# SPDX-License-Identifier: LGPL-2.1-or-later
"""Named tuples as typing makes them."""

from __future__ import annotations

import typing

import pytest

from pyxsd import named


class Ours(named.NamedTuple):
    """A place."""

    path: bytes
    depth: int | None = None
    names: tuple[str, ...] = ("a",)

    @property
    def is_deep(self) -> bool:
        """Has it a depth?"""
        return self.depth is not None

    @classmethod
    def root(cls) -> Ours:
        """The first one."""
        return cls(b"/")


class Theirs(typing.NamedTuple):
    """A place."""

    path: bytes
    depth: typing.Optional[int] = None
    names: tuple[str, ...] = ("a",)


def test_it_has_what_that_of_typing_has() -> None:
    for attribute in ("_fields", "_field_defaults", "__doc__", "__module__", "__bases__"):
        assert getattr(Ours, attribute) == getattr(Theirs, attribute)
    assert list(Ours.__annotations__) == list(Ours._fields)
    assert Ours.__annotations__["depth"] == "int | None"
    assert Ours.__name__ == Ours.__qualname__ == "Ours"


@pytest.mark.parametrize(
    ("given", "named_ones"),
    [((b"/a",), {}), ((b"/a", 3), {}), ((), {"path": b"/a", "names": ()}), ((b"/a", 1, ()), {})],
)
def test_values_are_those_of_typing(given: tuple[typing.Any, ...], named_ones: typing.Any) -> None:
    ours, theirs = Ours(*given, **named_ones), Theirs(*given, **named_ones)
    assert tuple(ours) == tuple(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours._replace(depth=9)._asdict() == theirs._replace(depth=9)._asdict()


@pytest.mark.parametrize("named_ones", [{}, {"depth": 3}, {"path": b"/", "other": 1}])
def test_a_field_that_is_missing_or_unknown_is_an_error(named_ones: typing.Any) -> None:
    with pytest.raises(TypeError):
        Ours(**named_ones)


def test_methods_stay() -> None:
    assert not Ours.root().is_deep
    assert Ours(b"/", 0).is_deep
    with pytest.raises(AttributeError):
        Ours.root().path = b""  # type: ignore[misc]
