# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls of Xen that were under way when a process died, and those whose outcome is known."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd._journal import HOST, WRITE, Journal
from pyxsd._memory import Memory
from pyxsd.record.host import CALLS, FIRST_OF_COMMANDS, PAGE_BYTES
from pyxsd.recovery.again import Again, store_again
from pyxsd.recovery.host import Kept, NoPage
from pyxsd.xen import XenError
from tests.rings.kit import Rings

LIMIT = 1 << 20


class Xen:
    """Notes what it is asked; fails where `fails` says so."""

    def __init__(self, **fails: int) -> None:
        self.asked: list[Any] = []
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS and name != "unbind_unknown":
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.asked.append((name, *arguments))
            if name in self.fails:
                raise XenError(self.fails[name], "no")
            return ANSWERS.get(name, 17)

        return call


#: By call: what Xen answers, where that is no number.
ANSWERS: dict[str, Any] = {"has_work": True, "changed": [17]}


@pytest.fixture(name="memory")
def a_memory() -> Iterator[Memory]:
    made = Memory.create(LIMIT)
    yield made
    made.close()


def recording(memory: Memory) -> Journal:
    journal = Journal()
    journal.record_in(memory, 1, lambda: None)
    memory.put(1, 0, b"image")
    memory.swap(1, 5)
    return journal


#: Name: (call under way, call that is made, arguments, how Xen fails, what is asked, the result).
AGAIN: dict[str, tuple[str, str, tuple[Any, ...], dict[str, int], list[Any], Any]] = {
    "bind": ("bind", "bind", (5, 7), {}, [("bind", 5, 7)], 17),
    "bind that fails": (
        "bind", "bind", (5, 7), {"bind": errno.ENOSPC},
        [("bind", 5, 7), ("unbind_unknown", {3, 4}, 1), ("bind", 5, 7)], XenError,
    ),
    "bind that is refused": (
        "bind", "bind", (5, 7), {"bind": errno.EINVAL},
        [("bind", 5, 7), ("unbind_unknown", {3, 4}, 1), ("bind", 5, 7)], XenError,
    ),
    "bind of the interrupt": (
        "bind_virq", "bind_virq", (), {"bind_virq": errno.EEXIST},
        [("bind_virq",), ("unbind_unknown", {3, 4}, 1), ("bind_virq",)], XenError,
    ),
    "unbind": ("unbind", "unbind", (3,), {}, [("unbind", 3)], 17),
    "unbind, done": (
        "unbind", "unbind", (3,), {"unbind": errno.EINVAL}, [("unbind", 3)], None,
    ),
    "unbind, refused": (
        "unbind", "unbind", (3,), {"unbind": errno.EPERM}, [("unbind", 3)], XenError,
    ),
    "changed": ("changed", "changed", (), {}, [], None),
    "map": ("map_page", "map_page", (5,), {}, [("map_page", 5)], 17),
    "has_work": ("has_work", "has_work", (5,), {}, [("has_work", 5)], True),
    "another one": ("bind", "changed", (), {}, [("changed",)], [17]),
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
def test_a_call_that_was_under_way(name: str, memory: Memory) -> None:
    doubted, call, arguments, fails, asked, result = AGAIN[name]
    first = recording(memory)
    first.doubts(HOST, CALLS[doubted][0])
    journal = Journal()
    under_way = journal.again(memory, lambda: None, lambda: None, 0)
    assert under_way is not None and under_way[:2] == (HOST, CALLS[doubted][0])
    xen = Xen(**fails)
    kept = Kept(xen, journal, None, lambda: [3, 4])
    kept.doubt(under_way[1])
    if result is XenError:
        with pytest.raises(XenError):
            getattr(kept, call)(*arguments)
    else:
        assert getattr(kept, call)(*arguments) == result
    assert xen.asked == asked
    assert journal.is_recording
    # The next one is like all others, and what it was is in the journal.
    xen.asked.clear()
    xen.fails = {}
    assert kept.bind(6, 8) == 17
    assert xen.asked == [("bind", 6, 8)]
    again = Journal()
    again.again(memory, lambda: None, lambda: None, 0)
    other = Xen()
    replayed = Kept(other, again, None, tuple)
    if result is XenError:
        with pytest.raises(XenError):
            getattr(replayed, call)(*arguments)
    elif call != "map_page":
        assert getattr(replayed, call)(*arguments) == (result if CALLS[call][1] else None)
        assert replayed.bind(6, 8) == 17
        assert other.asked == []
    for made in (first, journal, again):
        made.stop()


def test_pages_are_mapped_while_their_records_are_read(memory: Memory) -> None:
    """The real ones; where the domain has died since, one of this process."""
    first = recording(memory)
    kept = Kept(Xen(), first, None)
    for _ in range(2):
        kept.map_page(5)
    kept.unmap(17)
    kept.unmap(17)
    journal = Journal()
    journal.again(memory, lambda: None, lambda: None, 0)
    xen = Xen()
    replayed = Kept(xen, journal, None)
    assert replayed.map_page(5) == 17
    xen.fails["map_page"] = errno.EINVAL
    page = replayed.map_page(5)
    assert page == bytearray(4096)
    replayed.unmap(page)
    replayed.unmap(17)
    assert xen.asked == [("map_page", 5), ("map_page", 5), ("unmap", 17)]
    for made in (first, journal):
        made.stop()


def test_an_index_is_stored_when_there_is_a_page_again() -> None:
    """That of a ring in which bytes had moved when the process died, and whose page cannot be had
    at once."""
    world = Rings()
    world.works(1)
    domains = world.host.domains
    domain = domains.table[1]
    requests, replies = domain.indices
    page, domain.page = domain.page, NoPage(PAGE_BYTES)
    store_again(world.server, domains, WRITE, 1, replies + 3, 3)
    assert domain.indices == (requests, replies)
    domain.page = page
    domains.shut(domain)
    assert domain.indices is None
    domains.scan()
    assert domain.indices == (requests, replies + 3) and domain.owed is None
    world.close()


def test_an_index_is_stored_at_once_where_there_is_a_page() -> None:
    world = Rings()
    world.works(1)
    domain = world.host.domains.table[1]
    requests, replies = domain.indices
    world.server.journal.record(lambda: None)
    world.server.follow_journal()
    store_again(world.server, world.host.domains, WRITE, 1, replies + 3, 3)
    assert domain.indices == (requests, replies + 3) and domain.owed is None
    world.server.journal.stop()
    world.close()


@pytest.mark.parametrize("number", [FIRST_OF_COMMANDS - 1, FIRST_OF_COMMANDS])
def test_whose_call_was_under_way(number: int) -> None:
    """Xen's, or that of the host of commands."""
    doubted: list[tuple[str, int]] = []
    xen, commands = (
        SimpleNamespace(doubt=lambda which, name=name: doubted.append((name, which)))
        for name in ("xen", "commands")
    )
    made: Any = Again.__new__(Again)
    made._memory = SimpleNamespace(logged=0)
    made._formatted, made._lines = 0, b""
    made._under_way = (HOST, number, 0, 0)
    made.domains = SimpleNamespace(table={}, xen=xen)
    made.server = SimpleNamespace(
        log=SimpleNamespace(take=lambda: (b"", 0)),
        host=SimpleNamespace(commands=SimpleNamespace(host=commands)),
        domains={},
    )
    made.journal = SimpleNamespace(has_refused=False)
    made._close_others = lambda: None
    made._resumed()
    assert doubted == [("xen" if number < FIRST_OF_COMMANDS else "commands", number)]
