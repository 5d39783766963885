# SPDX-License-Identifier: LGPL-2.1-or-later
"""The load generator's Python face: an engine, its connections, and what it measured.

The engine runs in slices of at most 50 ms, so that Ctrl-C and a dying daemon are noticed.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Callable, NamedTuple

from ._load import ffi, lib
from .program import Program

if TYPE_CHECKING:
    from typing_extensions import Self

SLICE_S = 0.05


class LoadError(Exception):
    """A reply that was not what the program expects, a broken connection, or silence."""


class Counts(NamedTuple):
    """The generator's counters since the last reset; the fields of `struct xb_stats`."""

    requests: int
    events: int
    retries: int
    conflicts: int
    loops: int
    connects: int
    bytes_out: int
    bytes_in: int
    sends: int
    recvs: int
    waits: int
    cpu_ns: int
    wall_ns: int


class Histogram(NamedTuple):
    """Durations in nanoseconds: (lower bound of the bucket, count), ascending; empty ones left out.

    A bucket is at most 1/64 of its value wide.
    """

    buckets: list[tuple[int, int]]
    total: int
    max_ns: int
    sum_ns: int

    def quantile(self, q: float) -> int:
        """The duration that a share `q` of all does not exceed; 0 where there is none."""
        wanted, seen = q * self.total, 0
        for value, count in self.buckets:
            seen += count
            if seen >= wanted:
                return min(value, self.max_ns)
        return self.max_ns


class Load:
    """One engine.  A context manager: leaving it closes all its connections.

    `stall_s`: silence of so many seconds while something is awaited is a `LoadError`.
    """

    def __init__(self, stall_s: float = 10.0, spin_us: float = 0.0, echo: bool = False) -> None:
        self._engine = lib.xb_new()
        if self._engine == ffi.NULL:
            raise MemoryError("no memory for the load generator")
        lib.xb_stall_after(self._engine, int(stall_s * 1e9))
        lib.xb_spin(self._engine, int(spin_us * 1e3))
        lib.xb_echo(self._engine, int(echo))
        self.stall_s = stall_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._engine != ffi.NULL:
            lib.xb_free(self._engine)
            self._engine = ffi.NULL

    def program(self, program: Program) -> int:
        """Loads a program; the number it is known by here."""
        steps = ffi.new("struct xb_step[]", [tuple(step) for step in program.steps])
        return _checked(
            lib.xb_program(
                self._engine,
                ffi.from_buffer(program.blob),
                len(program.blob),
                ffi.from_buffer(program.expected),
                len(program.expected),
                steps,
                len(program.steps),
            )
        )

    def connect(self, socket: str, program: int | Program, window: int = 1, loops: int = 0) -> int:
        """A connection that runs `program` `loops` times (0: until drained); its number."""
        if isinstance(program, Program):
            program = self.program(program)
        return _checked(lib.xb_socket_conn(self._engine, socket.encode(), program, window, loops))

    def adopt(self, fd: int, program: int | Program, window: int = 1, loops: int = 0) -> int:
        """Like `connect`, for a descriptor that is connected; it is the engine's from now on."""
        if isinstance(program, Program):
            program = self.program(program)
        return _checked(lib.xb_fd_conn(self._engine, fd, program, window, loops))

    def rings(self, library: str, host: str) -> None:
        """Makes the domains of the stand-in Xen at `host` reachable."""
        _checked(lib.xb_rings_open(self._engine, library.encode(), host.encode()))

    def create_domain(self, domid: int) -> int:
        """A running domain; the port to introduce it with."""
        return _checked(lib.xb_domain_create(self._engine, domid))

    def set_domain(self, domid: int, state: int, code: int = 0) -> None:
        """state: 0 gone, 1 running, 2 shut down (with `code`), 3 dying."""
        _checked(lib.xb_domain_set(self._engine, domid, state, code))

    def ring(
        self, domid: int, port: int, program: int | Program, window: int = 1, loops: int = 0
    ) -> int:
        """Like `connect`, over the ring of a domain."""
        if isinstance(program, Program):
            program = self.program(program)
        return _checked(lib.xb_ring_conn(self._engine, domid, port, program, window, loops))

    def deaf(self, conn: int) -> None:
        """This connection sends its program again and again and never reads."""
        _checked(lib.xb_deaf(self._engine, conn))

    def restart(self, conn: int, program: int | Program, window: int = 1, loops: int = 1) -> None:
        """Gives a connection whose program ended another one."""
        if isinstance(program, Program):
            program = self.program(program)
        _checked(lib.xb_restart(self._engine, conn, program, window, loops))

    def finish(self, alive: Callable[[], None] | None = None) -> None:
        """Runs until every program has ended.  `alive` is called between slices and may raise."""
        while self._slice(SLICE_S):
            if alive:
                alive()

    def run(self, seconds: float, alive: Callable[[], None] | None = None) -> bool:
        """Runs for `seconds`, or until every program ended (then the result is False)."""
        end = lib.xb_now() + int(seconds * 1e9)
        while True:
            left = (end - lib.xb_now()) / 1e9
            if left <= 0:
                return True
            if not self._slice(min(left, SLICE_S)):
                return False
            if alive:
                alive()

    def drain(self) -> None:
        """Lets every program run to its end and not start again."""
        lib.xb_drain(self._engine)
        self.finish()

    def settle(self, quiet_s: float, alive: Callable[[], None] | None = None) -> None:
        """Goes on until nothing came for `quiet_s`."""
        lib.xb_quiet(self._engine, int(quiet_s * 1e9))
        self.finish(alive)
        lib.xb_quiet(self._engine, 0)

    @staticmethod
    def now() -> int:
        """The engine's clock in nanoseconds."""
        return int(lib.xb_now())

    def last_ns(self) -> int:
        """When something came last."""
        return int(lib.xb_last(self._engine))

    def reset(self) -> None:
        """Sets all counters and histograms to zero."""
        lib.xb_reset(self._engine)

    def counts(self) -> Counts:
        stats = ffi.new("struct xb_stats *")
        lib.xb_read_stats(self._engine, stats)
        return Counts(*(getattr(stats, name) for name in Counts._fields))

    def histogram(self, hist: int) -> Histogram:
        n = lib.xb_hist_buckets()
        buckets = ffi.new("uint64_t[]", n)
        extra = ffi.new("uint64_t[2]")
        count = lib.xb_hist_read(self._engine, hist, buckets, extra, extra + 1)
        filled = [(lib.xb_hist_value(i), b) for i, b in enumerate(ffi.unpack(buckets, n)) if b]
        return Histogram(filled, count, extra[0], extra[1])

    def _slice(self, seconds: float) -> bool:
        status = lib.xb_run(self._engine, int(seconds * 1e9))
        if status in (lib.XB_FAILED, lib.XB_STALLED):
            text = ffi.string(lib.xb_error(self._engine)).decode("ascii", "replace")
            silent = status == lib.XB_STALLED
            raise LoadError(f"nothing came for {self.stall_s:g} s: {text}" if silent else text)
        return bool(status == lib.XB_MORE)


def _checked(status: int) -> int:
    if status < 0:
        raise OSError(-status, f"load generator: {os.strerror(-status)}")
    return status
