# SPDX-License-Identifier: LGPL-2.1-or-later
"""The load generator: it counts what is right, and stops at the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyxsd_bench.load import Histogram, Load, LoadError
from pyxsd_bench.program import PUBLISH, Program

from .conftest import Server, ok, packet

Serve = Callable[..., Server]


def run(path: str, program: Program, window: int = 1, loops: int = 1, **options: Any) -> Load:
    load = Load(**options)
    load.connect(path, program, window=window, loops=loops)
    try:
        load.finish()
    except BaseException:
        load.close()
        raise
    return load


@pytest.mark.parametrize("window", [1, 2, 3, 32])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_every_reply_is_counted(serve: Serve, window: int, piece: int) -> None:
    program = Program()
    for i in range(10):
        program.write(f"/a/{i}", b"v" * i)
    server = serve(ok, piece)
    with run(server.path, program, window, loops=3) as load:
        counts, histogram = load.counts(), load.histogram(0)
    assert (counts.requests, counts.loops, histogram.total) == (30, 3, 30)
    assert [p for _, _, p in server.requests[:2]] == [b"/a/0\0", b"/a/1\0v"]


WRONG = {
    "an error": lambda k, r, t, p: packet(16, r, t, b"ENOENT\0"),
    "another type": lambda k, r, t, p: packet(k + 1, r, t, b"OK\0"),
    "another request": lambda k, r, t, p: packet(k, r + 1, t, b"OK\0"),
    "another transaction": lambda k, r, t, p: packet(k, r, t + 1, b"OK\0"),
    "another payload": lambda k, r, t, p: packet(k, r, t, b"KO\0"),
    "too short": lambda k, r, t, p: packet(k, r, t, b"OK"),
    "too long": lambda k, r, t, p: packet(k, r, t, b"OK\0\0"),
    "no packet": lambda k, r, t, p: b"\xff" * 16,
    "two replies": lambda k, r, t, p: packet(k, r, t, b"OK\0") * 2,
    "an end": lambda k, r, t, p: None,
    "half an event": lambda k, r, t, p: packet(15, 0, 0, b"/a\0token"),
    "an event with a tail": lambda k, r, t, p: packet(15, 0, 0, b"/a\0token\0x"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_reply_fails_loudly(serve: Serve, fault: str) -> None:
    program = Program().write("/a", b"1").write("/a", b"2")
    with pytest.raises(LoadError) as caught:
        run(serve(WRONG[fault]).path, program)
    assert "connection 0" in str(caught.value)


def test_expectations_beside_ok(serve: Serve) -> None:
    """Exact values, lengths, errors: met, then not met."""
    server = serve(
        lambda k, r, t, p: (
            packet(2, r, t, b"abc") if p == b"/a\0" else packet(16, r, t, b"ENOENT\0")
        )
    )
    good = Program().read("/a", b"abc").read("/a").read_missing("/b")
    good.send(2, b"/a\0", 3, 3).send(2, b"/b\0", 7)
    run(server.path, good).close()
    for bad in (
        Program().read("/a", b"abd"),
        Program().read_missing("/a"),
        Program().read("/b"),
        Program().send(2, b"/a\0", 3, 4),
    ):
        with pytest.raises(LoadError):
            run(server.path, bad)


def test_silence_is_an_error_that_says_who_waits(serve: Serve) -> None:
    server = serve(lambda k, r, t, p: b"")
    with pytest.raises(LoadError, match="connection 0 .* with 1 requests unanswered"):
        run(server.path, Program().write("/a", b""), stall_s=0.2)


def test_nobody_listens(tmp_path: Any) -> None:
    with pytest.raises(LoadError, match="connect: No such file"):
        run(str(tmp_path / "none"), Program().write("/a", b""))


def test_a_conflicting_transaction_runs_again(serve: Serve) -> None:
    commits: list[bytes] = []

    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
        if kind == 7:
            commits.append(payload)
            if len(commits) < 3:
                return packet(16, req_id, tx_id, b"EAGAIN\0")
        return ok(kind, req_id, tx_id, payload)

    server = serve(answer)
    program = Program().mark().start().write("/a", b"1").write("/b", b"2").commit().lap(1)
    with run(server.path, program, window=8) as load:
        counts, lap = load.counts(), load.histogram(1)
    assert (counts.conflicts, counts.requests, lap.total) == (2, 12, 1)
    ids = [(kind, tx_id) for kind, tx_id, _ in server.requests]
    assert ids == [(6, 0), (11, 7), (11, 7), (7, 7)] * 3


def test_read_until_waits_for_an_event_between_tries(serve: Serve) -> None:
    reads: list[int] = []

    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
        if kind != 2:
            return ok(kind, req_id, tx_id, payload)
        reads.append(req_id)
        if len(reads) == 1:
            event = packet(15, 0, 0, b"/a\0005\0")
            return packet(16, req_id, tx_id, b"ENOENT\0") + event
        return packet(2, req_id, tx_id, b"4")

    with run(serve(answer).path, Program().read_until("/a", b"4", 5)) as load:
        assert (load.counts().retries, load.counts().events) == (1, 1)
    assert len(reads) == 2


def test_events_are_counted_and_timed(serve: Serve) -> None:
    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
        events = packet(15, 0, 0, b"/a\0001\0") * 2
        return ok(kind, req_id, tx_id, payload) + events

    program = Program().write("/a", b"", flags=PUBLISH).await_all_events(2)
    with run(serve(answer).path, program, loops=4) as load:
        assert load.counts().events == 8
        assert load.histogram(15).total == 8


def test_reactions_do_not_keep_the_run_going(serve: Serve) -> None:
    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
        reply = ok(kind, req_id, tx_id, payload)
        return reply + packet(15, 0, 0, b"/a\0001\0") * 3 if kind == 4 else reply

    server = serve(answer)
    with Load() as load:
        load.connect(server.path, Program().watch("/a", 1).react(1, 1, b"/b\0"))
        load.settle(0.1)
        assert load.counts().requests == 3  # the watch and what two more events caused


def test_gates_order_connections(serve: Serve) -> None:
    server = serve()
    with Load() as load:
        load.connect(server.path, Program().gate(5).write("/second", b""), loops=1)
        load.connect(server.path, Program().write("/first", b"").open_gate(5), loops=1)
        load.finish()
    assert [p for _, _, p in server.requests] == [b"/first\0", b"/second\0"]


def test_churn_opens_a_connection_each_time(serve: Serve) -> None:
    program = Program().connect().write("/a", b"").close()
    with run(serve().path, program, loops=5) as load:
        assert load.counts().connects == 5


def test_a_deaf_connection_beside_a_working_one(serve: Serve) -> None:
    server = serve()
    with Load() as load:
        load.deaf(load.connect(server.path, Program().write("/deaf", b"x" * 1000)))
        load.connect(server.path, Program().write("/a", b""), loops=200)
        load.finish()
        assert load.counts().requests == 200


def test_run_stops_in_time_and_drains(serve: Serve) -> None:
    with Load() as load:
        load.connect(serve().path, Program().write("/a", b"").write("/b", b""), window=4)
        assert load.run(0.05)
        load.drain()
        counts = load.counts()
        assert counts.requests == 2 * counts.loops > 0


@pytest.mark.parametrize(
    "program",
    [
        Program().mark(),  # without a request it would spin; the step is sound, the run ends
        Program(),
    ],
)
def test_programs_without_requests_end(serve: Serve, program: Program) -> None:
    with run(serve().path, program, loops=3) as load:
        counts = load.counts()
    assert (counts.requests, counts.loops) == (0, 3)


@pytest.mark.parametrize(
    "step",
    [
        {"op": 0, "length": 8},
        {"op": 0, "off": 999, "length": 16},
        {"op": 9, "arg": 5},
        {"op": 1, "slot": 64},
        {"op": 10, "arg": 1 << 20},
        {"op": 0, "length": 16, "hist": 16},
    ],
)
def test_unsound_programs_are_refused(step: dict[str, int]) -> None:
    from pyxsd_bench.program import Step

    program = Program().write("/a", b"")
    program.steps.append(Step(**step))
    with Load() as load, pytest.raises(OSError, match="Invalid argument"):
        load.program(program)


def test_quantiles() -> None:
    histogram = Histogram([(10, 50), (20, 49), (4000, 1)], 100, 4100, 0)
    assert [histogram.quantile(q) for q in (0.1, 0.5, 0.9, 0.99, 0.999)] == [10, 10, 20, 20, 4000]
    assert Histogram([], 0, 0, 0).quantile(0.5) == 0


def test_buckets_are_narrow_and_ascend() -> None:
    from pyxsd_bench._load import lib

    values = [lib.xb_hist_value(i) for i in range(lib.xb_hist_buckets())]
    assert values == sorted(set(values))
    assert all(b - a <= max(1, a // 64) for a, b in zip(values, values[1:]))
