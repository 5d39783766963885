# SPDX-License-Identifier: LGPL-2.1-or-later
"""The seam between domains, commands and their host: what Xen and the system answer goes into the
journal, or comes out of it.

Recorded stands before a Xen or a control.ControlHost and notes the outcome of the methods that
CALLS names; everything else goes through.  Replayed stands in for them: it does nothing, and has
the outcomes from the journal.

A record HOST has the number of the call as its subject, and as its payload (see state.values)
[True, result], or [False, errno, text] where the call raised an OSError.  Results that mean
something only in the process that got them (where a page is mapped) are not in it.
"""

from __future__ import annotations

from pyxsd._journal import ANSWER, HOST
from pyxsd._ring import EventChannels
from pyxsd.state import values
from pyxsd.xen import XenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd._journal import Journal

#: The numbers of the calls of Xen are below this one.
FIRST_OF_COMMANDS = 32
#: By name: the number of a call, and whether its result is kept.  Numbers are never used again.
CALLS: dict[str, tuple[int, bool]] = {
    # Of Xen
    "map_page": (1, False),
    "map_file": (2, False),
    "unmap": (3, False),
    "bind": (4, True),
    "bind_virq": (5, True),
    "unbind": (6, False),
    "unmask": (7, False),
    "discard_events": (8, False),
    "state": (9, True),
    "changed": (10, True),
    "indices": (11, True),
    "has_work": (12, True),
    # Of the commands' host
    "log_file": (32, False),
    "replace": (33, False),
    "memory": (34, True),
    "live_update": (35, True),
    "record": (36, True),
}
PAGES = ("map_page", "map_file")
TUPLES = ("state", "indices")
#: What the results that are kept may be; beside these, lists of whole numbers.
_RESULTS: dict[str, tuple[type, ...]] = {
    "bind": (int,),
    "bind_virq": (int,),
    "has_work": (bool,),
    "memory": (str,),
    "live_update": (bytes, type(None)),
    "record": (bytes,),
    "changed": (list, type(None)),
    "state": (list,),
    "indices": (list, type(None)),
}
PAGE_BYTES = 4096


class Recorded:
    """What stands before `inner` while the journal is recorded."""

    def __init__(self, inner: Any, journal: Journal) -> None:
        self.inner = inner
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in CALLS:
            return found

        def call(*arguments: Any) -> Any:
            return noted(self._journal, name, found, arguments)

        # Found without this method from now on.
        self.__dict__[name] = call
        return call


class Replayed:
    """What stands before `inner` while the journal is replayed, or stands in for a Xen.

    server: who gets late answers that were given within a call.
    """

    def __init__(self, journal: Journal, server: Any, inner: Any = None) -> None:
        self.inner = inner
        self._journal = journal
        self._server = server
        self.channels = EventChannels()  # bound to nothing

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            return getattr(self.inner, name)

        def call(*_arguments: Any) -> Any:
            late_answers(self._journal, self._server)
            result = told(self._journal, name)
            # Nobody reads a page: what a ring says is in the journal.
            return bytearray(PAGE_BYTES) if name in PAGES else result

        self.__dict__[name] = call
        return call


def noted(journal: Journal, name: str, ask: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What ask() answers, or the OSError that it raises; a record says which."""
    number, is_kept = CALLS[name]
    try:
        result = ask(*arguments)
    except OSError as error:
        outcome = [False, error.errno or 0, error.strerror or str(error)]
        journal.note(HOST, number, 0, values.encode(outcome))
        raise
    journal.note(HOST, number, 0, values.encode([True, result if is_kept else None]))
    return result


def told(journal: Journal, name: str) -> Any:
    """What the next record says that this call has answered, as far as that is kept, or raised;
    XenError also where it is not of this call."""
    answer = journal.answer(HOST, CALLS[name][0])
    if answer is None:
        # The journal has said so; whoever asked gives up.
        raise XenError(0, "the journal has no answer")
    try:
        went_well, result, *text = values.decode(answer[1])
        _check(name, went_well, result, text)
    except (TypeError, ValueError) as error:
        journal.differs(f"the answer to {name} makes no sense: {error}")
        raise XenError(0, "the journal has no answer") from None
    if not went_well:
        raise XenError(result, *text)
    return tuple(result) if name in TUPLES and result is not None else result


def _check(name: str, went_well: Any, result: Any, text: list[Any]) -> None:
    """ValueError where that is no outcome of the call."""
    kinds = _RESULTS.get(name, (type(None),)) if went_well is True else (int,)
    if type(went_well) is not bool or [type(word) for word in text] != [str] * (not went_well):
        raise ValueError("it is no outcome")
    if type(result) not in kinds or (
        type(result) is list
        and (
            any(type(number) is not int for number in result)
            or len(result) != {"state": 3, "indices": 2}.get(name, len(result))
        )
    ):
        raise ValueError(f"its result is {result!r}"[:64])


def late_answers(journal: Journal, server: Any) -> None:
    """Gives the answers that come next in the journal."""
    while journal.next_kind == ANSWER:
        late_answer(journal, server)


def late_answer(journal: Journal, server: Any) -> None:
    """Gives the answer of the next record to the connection that waits for it."""
    record = journal.expect(ANSWER)
    if record is not None:
        number, _, payload = record
        connection = server.connections.get(number)
        if connection is None:
            journal.differs(f"there is no connection {number}")
        else:
            server.answer(connection, payload)
