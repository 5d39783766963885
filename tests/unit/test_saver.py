# SPDX-License-Identifier: LGPL-2.1-or-later
"""The database is written in slices: whole or not at all, and not too often."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pyxsd.state.saver import LEAST_SECONDS, PAUSE_SECONDS, SLICE_SECONDS, Saver


class Clockwork:
    """A clock that each look moves on, and what is to be called later."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.complaints: list[str] = []

    def clock(self) -> float:
        self.now += SLICE_SECONDS / 2
        return self.now

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.later.append((seconds, what))

    def run(self) -> int:
        """Calls what waits until nothing does; how many calls."""
        calls = 0
        while self.later:
            seconds, what = self.later.pop(0)
            self.now += seconds
            what()
            calls += 1
        return calls


def rows(count: int) -> Callable[[], list[bytes]]:
    return lambda: [b"row %d" % n for n in range(count)]


def test_slices(tmp_path: Path) -> None:
    work = Clockwork()
    path = tmp_path / "db"
    path.write_bytes(b"old\n")
    one = Saver(str(path), rows(1000), work.after, work.complaints.append, work.clock)
    one.start()
    one.start()
    assert [seconds for seconds, _ in work.later] == [0.0], "once, and at once"
    assert path.read_bytes() == b"old\n"
    work.later.pop()[1]()
    assert one.under_way and work.later[0][0] == PAUSE_SECONDS
    assert path.read_bytes() == b"old\n"
    assert work.run() > 10
    assert path.read_bytes() == b"".join(b"row %d\n" % n for n in range(1000))
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not one.under_way and os.listdir(tmp_path) == ["db"]
    one.start()
    assert work.later[0][0] > LEAST_SECONDS - 1
    assert work.complaints == []


def test_stopped(tmp_path: Path) -> None:
    work = Clockwork()
    one = Saver(str(tmp_path / "db"), rows(1000), work.after, work.complaints.append, work.clock)
    one.start()
    work.later.pop()[1]()
    one.stop()
    assert os.listdir(tmp_path) == []
    work.run()
    assert os.listdir(tmp_path) == []


def test_a_stopped_one_keeps_nothing(tmp_path: Path) -> None:
    """The rows are a walk that holds a snapshot of the whole store."""
    held = []

    def walk() -> Iterator[bytes]:
        held.append(1)
        try:
            yield from rows(1000)()
        finally:
            held.pop()

    work = Clockwork()
    one = Saver(str(tmp_path / "db"), walk, work.after, work.complaints.append, work.clock)
    one.start()
    work.later.pop()[1]()
    assert held == [1]
    one.stop()
    assert held == []


@pytest.mark.parametrize("where", ["missing", "in the way"])
def test_failures(tmp_path: Path, where: str) -> None:
    """Told once each; the next try comes later; the old file stays."""
    work = Clockwork()
    path = tmp_path / "no" / "db"
    if where == "in the way":
        path = tmp_path / "db"
        path.mkdir()
    one = Saver(str(path), rows(1000), work.after, work.complaints.append, work.clock)
    one.start()
    work.run()
    assert len(work.complaints) == 1 and str(path) in work.complaints[0]
    assert not one.under_way
    assert os.listdir(tmp_path) == (["db"] if where == "in the way" else [])
    one.start()
    assert work.later[0][0] > LEAST_SECONDS - 1


class NoMemory:
    """Rows of which the tenth cannot be made."""

    def __init__(self) -> None:
        self.left = 10

    def __iter__(self) -> NoMemory:
        return self

    def __next__(self) -> bytes:
        self.left -= 1
        if self.left:
            return b"row"
        raise MemoryError


def test_memory_runs_out(tmp_path: Path) -> None:
    """Told once, nothing is left, and the next writing is one."""
    work = Clockwork()
    made: Iterator[Iterable[bytes]] = iter([NoMemory(), [b"row"]])
    one = Saver(
        str(tmp_path / "db"), lambda: next(made), work.after, work.complaints.append, work.clock
    )
    one.start()
    work.run()
    assert work.complaints == [f"cannot write {tmp_path}/db: MemoryError"]
    assert not one.under_way and os.listdir(tmp_path) == []
    one.start()
    work.run()
    assert (tmp_path / "db").read_bytes() == b"row\n"


def test_stopped_where_the_disk_is_full(tmp_path: Path) -> None:
    """What is buffered then cannot be written, and nobody wants it any more."""
    work = Clockwork()
    one = Saver(str(tmp_path / "db"), rows(1000), work.after, work.complaints.append, work.clock)
    one.start()
    work.later.pop()[1]()
    assert one._file is not None
    fd = os.open("/dev/full", os.O_WRONLY)
    os.dup2(fd, one._file.fileno())
    os.close(fd)
    one.stop()
    assert not one.under_way and os.listdir(tmp_path) == []


def test_asked_while_it_is_written(tmp_path: Path) -> None:
    """What was asked for meanwhile is of a later moment: it is written again, no sooner than it
    may be."""
    work = Clockwork()
    content = [b"row"] * 1000
    one = Saver(
        str(tmp_path / "db"),
        lambda: list(content),
        work.after,
        work.complaints.append,
        work.clock,
        least=3.0,
    )
    one.start()
    work.later.pop(0)[1]()
    assert one.under_way
    content.append(b"late")
    one.start()
    one.start()
    calls: list[float] = []
    while work.later:
        seconds, what = work.later.pop(0)
        calls.append(seconds)
        work.now += seconds
        what()
    assert (tmp_path / "db").read_bytes().endswith(b"row\nlate\n")
    assert 2.0 < max(calls) <= 3.0
