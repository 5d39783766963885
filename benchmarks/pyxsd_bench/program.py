# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs: what one connection of the load generator does, step by step.

A `Program` collects steps and the bytes of its requests; `load.Load` runs it.  Every request says
what its reply must be.  Knows the protocol's words, not the engine.
"""

from __future__ import annotations

from typing import NamedTuple

from . import wire
from ._load import lib


def _numbers(prefix: str, *names: str) -> list[int]:
    """The values of the engine's constants; what they mean stands in load/xb_load.h."""
    return [int(getattr(lib, f"{prefix}_{name}")) for name in names]


SEND, AWAIT, AWAIT_ALL, CONNECT, CLOSE, MARK = _numbers(
    "XB", "SEND", "AWAIT", "AWAIT_ALL", "CONNECT", "CLOSE", "MARK"
)
LAP, IDLE, REACT, JUMP, GATE, OPEN = _numbers("XB", "LAP", "IDLE", "REACT", "JUMP", "GATE", "OPEN")
OK, ANY, EXACT, LEN, ERROR, ID, COMMIT, EITHER = _numbers(
    "XB_EXPECT", "OK", "ANY", "EXACT", "LEN", "ERROR", "ID", "COMMIT", "EITHER"
)
BARRIER, IN_TX, PUBLISH, UNTIL = _numbers("XB", "BARRIER", "IN_TX", "PUBLISH", "UNTIL")
EVENT_CLASS: int = lib.XB_EVENT_CLASS  # the class of durations that holds those of events


class Step(NamedTuple):
    """One row, in the order of `struct xb_step`."""

    op: int
    expect: int = OK
    flags: int = 0
    hist: int = 0
    slot: int = 0
    arg: int = 0
    off: int = 0
    length: int = 0
    exp_off: int = 0
    exp_len: int = 0


class Program:
    """Steps in order.  Methods return the program, so that they chain.

    `hist` is the class (0 to 14) that a request's latency is counted in.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.blob = bytearray()
        self.expected = bytearray()
        self._tx_start = -1

    def __len__(self) -> int:
        return len(self.steps)

    def send(
        self,
        kind: int,
        payload: bytes,
        expect: int = OK,
        want: bytes | int = b"",
        *,
        flags: int = 0,
        hist: int = 0,
        slot: int = 0,
        arg: int = 0,
    ) -> Program:
        """A request.  `want`: the payload (EXACT, ERROR, UNTIL) or its length (LEN)."""
        data = wire.packet(kind, len(self.steps) + 1, payload)
        if self._tx_start >= 0 and kind not in (wire.TRANSACTION_START, wire.WATCH, wire.UNWATCH):
            flags |= IN_TX
        exp_off, exp_len = len(self.expected), want if isinstance(want, int) else len(want)
        self.steps.append(
            Step(SEND, expect, flags, hist, slot, arg, len(self.blob), len(data), exp_off, exp_len)
        )
        self.blob += data
        if not isinstance(want, int):
            self.expected += want
        return self

    def read(self, path: str, value: bytes | None = None, hist: int = 0) -> Program:
        expect = ANY if value is None else EXACT
        return self.send(wire.READ, _path(path), expect, value or b"", hist=hist)

    def read_missing(self, path: str, hist: int = 0) -> Program:
        return self.send(wire.READ, _path(path), ERROR, b"ENOENT\0", hist=hist)

    def read_until(self, path: str, value: bytes, slot: int, hist: int = 0) -> Program:
        """Reads, and again after each event of the token `slot`, until the value is there."""
        return self.send(wire.READ, _path(path), EXACT, value, flags=UNTIL, slot=slot, hist=hist)

    def write(self, path: str, value: bytes, hist: int = 0, flags: int = 0) -> Program:
        return self.send(wire.WRITE, _path(path) + value, OK, hist=hist, flags=flags)

    def mkdir(self, path: str, hist: int = 0) -> Program:
        return self.send(wire.MKDIR, _path(path), OK, hist=hist)

    def rm(self, path: str, hist: int = 0) -> Program:
        return self.send(wire.RM, _path(path), OK, hist=hist)

    def directory(self, path: str, want: bytes | None = None, hist: int = 0) -> Program:
        expect = ANY if want is None else EXACT
        return self.send(wire.DIRECTORY, _path(path), expect, want or b"", hist=hist)

    def get_perms(self, path: str, hist: int = 0) -> Program:
        return self.send(wire.GET_PERMS, _path(path), ANY, hist=hist)

    def set_perms(self, path: str, *perms: str, hist: int = 0) -> Program:
        payload = _path(path) + b"".join(_path(entry) for entry in perms)
        return self.send(wire.SET_PERMS, payload, OK, hist=hist)

    def watch(self, path: str, slot: int, hist: int = 0, *, settle: bool = True) -> Program:
        """A watch whose token is `slot`; `settle` also waits for its first event."""
        self.send(wire.WATCH, _path(path) + b"%d\0" % slot, OK, hist=hist)
        return self.await_events(slot, 1) if settle else self

    def unwatch(self, path: str, slot: int, hist: int = 0) -> Program:
        return self.send(wire.UNWATCH, _path(path) + b"%d\0" % slot, OK, hist=hist)

    def start(self, hist: int = 0) -> Program:
        """Starts a transaction; the requests up to `commit` or `abort` belong to it."""
        if self._tx_start >= 0:
            raise ValueError("a transaction is open")
        tx_start = len(self.steps)
        self.send(wire.TRANSACTION_START, b"\0", ID, flags=BARRIER, hist=hist)
        self._tx_start = tx_start
        return self

    def commit(self, hist: int = 0) -> Program:
        """Ends the transaction; where it gives EAGAIN, the whole of it runs again."""
        start = self._tx_start
        self.send(wire.TRANSACTION_END, b"T\0", COMMIT, flags=BARRIER, arg=start, hist=hist)
        self._tx_start = -1
        return self

    def abort(self, hist: int = 0) -> Program:
        self.send(wire.TRANSACTION_END, b"F\0", OK, flags=BARRIER, hist=hist)
        self._tx_start = -1
        return self

    def leave_open(self) -> Program:
        """Forgets the open transaction without ending it."""
        self._tx_start = -1
        return self

    def await_events(self, slot: int, count: int) -> Program:
        return self._add(Step(AWAIT, slot=slot, arg=count))

    def await_all_events(self, count: int) -> Program:
        """Waits for `count` events at any connection of the engine."""
        return self._add(Step(AWAIT_ALL, arg=count))

    def connect(self) -> Program:
        return self._add(Step(CONNECT))

    def close(self) -> Program:
        return self._add(Step(CLOSE))

    def gate(self, number: int) -> Program:
        """Waits until a connection of the same engine passed `open_gate(number)`."""
        return self._add(Step(GATE, arg=number))

    def open_gate(self, number: int) -> Program:
        return self._add(Step(OPEN, arg=number))

    def mark(self) -> Program:
        return self._add(Step(MARK))

    def lap(self, hist: int) -> Program:
        """Counts the time since `mark` in the class `hist`."""
        return self._add(Step(LAP, hist=hist))

    def idle(self) -> Program:
        """The end for a connection that stays to watch."""
        return self._add(Step(IDLE))

    def react(self, slot: int, kind: int, payload: bytes) -> Program:
        """For ever: for each event of the token `slot` one request, whatever its reply.

        The last thing in a program; the connection no longer keeps the run going.
        """
        here = len(self.steps)
        self._add(Step(REACT, slot=slot))
        self.send(kind, payload, EITHER)
        return self._add(Step(JUMP, arg=here))

    def _add(self, step: Step) -> Program:
        self.steps.append(step)
        return self


def _path(text: str) -> bytes:
    return text.encode("ascii") + b"\0"
