# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values of the state that a xenstored leaves: their fields, and what makes two of them equal."""

from __future__ import annotations

from typing import Any

import pytest

from pyxsd.state.host_state import Client, Watch

FIELDS_REFUSED: list[tuple[Any, Any, Any]] = [
    ((5, 0, -1, None, None, None, None, None, None, 0, b"", b"", [], [], {}, 1), {}, TypeError),
    ((5,), {"wathces": []}, TypeError),
    ((), {}, AttributeError),
]


@pytest.mark.parametrize("given, named, error", FIELDS_REFUSED)
def test_a_field_that_there_is_not(given: Any, named: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Client(*given, **named)


def test_values_with_the_same_fields_are_equal_and_share_no_list() -> None:
    one, other = Client(5, number=3), Client(5, 3)
    assert one == other and one != Client(6, 3)
    one.watches.append(Watch(b"/a", b"t"))
    assert not other.watches and not Client(5).watches
    changed = one.replaced(number=4)
    assert (changed.number, one.number, changed.watches) == (4, 3, one.watches)
