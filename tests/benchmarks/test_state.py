# SPDX-License-Identifier: LGPL-2.1-or-later
"""The group of scenarios `state`: its dialogue, what it measures, and what it leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyxsd_bench import cli, daemons, proc, results, target, wire
from pyxsd_bench.dialogue import Dialogue
from pyxsd_bench.scenarios import Context, state

from .conftest import Server, missing, need_pyxsd, packet

FILE, START = b"live-update\0-f\0/new\0", b"live-update\0-s\0-t\00030\0"

#: What the daemon answers to one request after the other, and the outcome.
DIALOGUES: dict[str, tuple[list[bytes | None], str]] = {
    "C xenstored": ([b"OK\0", b"OK\0"], "OK"),
    "oxenstored": ([b"OK", b"BUSY", b"BUSY", b"OK"], "OK"),
    "no such program": ([b"no such file\0"], "live-update: no such file"),
    "busy too soon": ([b"BUSY"], "live-update: BUSY"),
    "an obstacle": ([b"OK\0", b"BUSY", b"D1: 1 tx\0"], "live-update: D1: 1 tx"),
    "an error": ([b"OK\0", None], "live-update: EINVAL"),
}


def held(dialogue: Dialogue) -> str:
    """To its end."""
    end = time.monotonic() + 20
    with dialogue:
        while not dialogue.outcome and time.monotonic() < end:
            dialogue.go_on()
    return dialogue.outcome


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_a_dialogue(name: str, piece: int, serve: Callable[..., Server]) -> None:
    answers, outcome = DIALOGUES[name]
    left = list(answers)

    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
        text = left.pop(0)
        if text is None:
            return packet(wire.ERROR, req_id, tx_id, b"EINVAL\0")
        return packet(kind, req_id, tx_id, text)

    server = serve(answer, piece=piece)
    assert held(Dialogue(server.path, "/new")) == outcome
    assert left == []
    wanted = [FILE] + [START] * (len(answers) - 1)
    assert server.requests == [(wire.CONTROL, 0, payload) for payload in wanted]


def test_a_daemon_that_closes(serve: Callable[..., Server]) -> None:
    server = serve(lambda *_: None)
    assert (
        held(Dialogue(server.path, "/new")) == "live-update: the daemon has closed the connection"
    )


def started(name: str) -> target.Target:
    try:
        return target.start(daemons.built_in(name))
    except target.NotStarted as error:
        missing(str(error))
        raise


def test_an_updated_daemon_is_ended() -> None:
    """Another process serves after each sample, and none is left in the end."""
    need_pyxsd()
    daemon = started("pyxsd")
    pids = [daemon.pid]
    try:
        state.prepare(daemon, 1000, Context(0.01))
        update = state.SCENARIOS[0]
        for _ in range(2):
            found = update.run(daemon, 1000, Context(0.01))["live update"]
            assert 0 < found["p50_us"] <= found["max_us"] <= found["seconds"] * 2e6
            assert found["requests"] > 0
            pids.append(daemon.pid)
        assert update.run(daemon, 1000, Context(0.01, syscalls=True)) == {}
    finally:
        daemon.close()
    assert len(set(pids)) == 3
    assert not any(proc.alive(pid) for pid in pids)


@pytest.mark.parametrize("name", ["oxenstored", "xenstored"])
def test_a_switch_there_and_back(name: str) -> None:
    need_pyxsd()
    daemon = started(name)
    program = os.path.basename(os.readlink(f"/proc/{daemon.pid}/exe"))
    try:
        state.prepare(daemon, 1000, Context(0.01))
        found = state.SCENARIOS[1].run(daemon, 1000, Context(0.01))
        assert set(found) == {"to pyxsd", "back from pyxsd"}
        assert os.path.basename(os.readlink(f"/proc/{daemon.pid}/exe")) == program
    finally:
        daemon.close()


def test_who_takes_part(tmp_path: Path) -> None:
    """The floor does not, nor does a daemon of whose kind nothing is known."""
    need_pyxsd()
    out = str(tmp_path / "result.json")
    assert cli.main(["run", "pyxsd", "floor", "--only", "state", "--smoke", "-q", "-o", out]) == 0
    rows = results.load(out)["samples"]
    assert {(row["scenario"], row["daemon"]) for row in rows} == {
        ("state-update", "pyxsd"),
        ("state-images", "pyxsd"),
    }
