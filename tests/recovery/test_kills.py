# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes that are killed at random instants while clients work: nobody notices.

Each reply and each event is compared with the one that is due.  PYXSD_KILLS is how many kills there
are in all, PYXSD_SEED what they begin with; a failure tells its own seed.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from tests.domains.standin import IDLE, Stand, home, introduce
from tests.recovery.killed import PROGRAM, killed
from tests.recovery.traffic import Traffic, Wrong

KILLS = int(os.environ.get("PYXSD_KILLS", "300"))
SEED = int(os.environ.get("PYXSD_SEED", str(random.randrange(1 << 30))))
#: Of a process with a handful of clients; each that has died had some of its own.
DESCRIPTORS_MAX = 40
#: Name: (share of the kills, sockets one at a time, pipelined, bytes of journal between two images,
#: milliseconds that a process lives, instructions that it runs one by one then at most).
CASES = {
    "one at a time": (0.2, 4, 0, 1 << 18, 20, 0),
    "pipelined": (0.2, 0, 4, 1 << 18, 25, 0),
    "many images": (0.1, 2, 2, 4096, 25, 0),
    "also while it recovers": (0.1, 1, 2, 1 << 18, 5, 0),
    "at any instruction": (0.1, 1, 1, 1 << 18, 20, 6000),
    "at any instruction, many images": (0.1, 2, 1, 4096, 20, 6000),
}
RINGS = {
    "rings": (0.05, 1 << 18, 30, 0, False),
    "rings, many images": (0.05, 4096, 30, 0, False),
    "rings, at any instruction": (0.05, 1 << 18, 20, 6000, False),
    "toolstack": (0.05, 1 << 17, 30, 0, True),
    "toolstack, at any instruction": (0.1, 1 << 17, 20, 20000, True),
}


def environment(
    path: Path, kills: int, seed: int, mean: int, full: int, steps: int
) -> dict[str, str]:
    """What tests.recovery.keep wants to know."""
    return {
        "PYXSD_KEEP_PID": str(path / "serving"),
        "PYXSD_KILLS": str(kills),
        "PYXSD_KILL_SEED": str(seed),
        "PYXSD_KILL_MS": str(mean),
        "PYXSD_KILL_STEPS": str(steps),
        "PYXSD_KILLED": str(path / "killed"),
        "PYXSD_FULL_BYTES": str(full),
    }


def check(name: str, seed: int, kills: int, log: str, traffic: Traffic) -> int:
    """How often another process went on; prints what a long run is about."""
    times = sorted(float(found) for found in re.findall(r"gone on after ([\d.]+) ms", log))
    assert times, log
    print(
        f"{name}: seed {seed}, {kills} kills, {len(times)} times another process went on, after "
        f"{times[len(times) // 2]:.1f} ms (median), {times[len(times) * 99 // 100]:.1f} (p99), "
        f"{times[-1]:.1f} at most; "
        f"{traffic.replies} replies, {sum(session.events for session in traffic.sessions)} events, "
        f"{traffic.short} short clients"
    )
    # One of ten has served something, see tests.recovery.keep; few clients leave before the reply.
    assert traffic.replies > kills // 20
    return len(times)


@pytest.mark.parametrize("name", CASES)
def test_nobody_notices_a_kill(name: str, tmp_path: Path) -> None:
    share, singles, pipelined, full, mean, steps = CASES[name]
    seed = SEED + list(CASES).index(name)
    kills = max(1, int(KILLS * share))
    env = environment(tmp_path, kills, seed, mean, full, steps)
    with killed(tmp_path, env) as daemon:
        try:
            traffic = Traffic(daemon.socket, seed, singles, pipelined)
            while not (tmp_path / "killed").exists():
                traffic.turn()
            traffic.finish()
        except Wrong as error:
            pytest.fail(f"PYXSD_SEED={SEED}, seed {seed}: {error}\n{daemon.output()[-2000:]}")
        serving = (tmp_path / "serving").read_text()
        assert len(os.listdir(f"/proc/{serving}/fd")) < DESCRIPTORS_MAX
    recovered = check(name, seed, kills, "\n".join(daemon.log()), traffic)
    daemon.check_logs("has died (it was killed)", "images ")
    images = re.search(r"images (\d+)", daemon.output())
    assert images is not None and int(images[1]) >= (recovered // 20 if full < 1 << 16 else 1)


@pytest.mark.parametrize("name", RINGS)
def test_no_guest_notices_a_kill(name: str, tmp_path: Path) -> None:
    """Rings and sockets, each with what the others write to."""
    share, full, mean, steps, is_toolstack = RINGS[name]
    seed = SEED + 100 + list(RINGS).index(name)
    kills = max(1, int(KILLS * share))
    stand = Stand()
    stand.program = PROGRAM
    try:
        stand.start(**environment(tmp_path, kills, seed, mean, full, steps))
        traffic = Traffic(stand.peer.socket, seed, 1, 1)
        with stand.client() as client:
            for domid, most in ((5, 1), (6, 16)):
                domain = stand.host.create(domid)
                assert introduce(client, domain) == b"OK\0"
                home(client, domid)
                traffic.add_ring(domain, most)
        if is_toolstack:
            traffic.add_toolstack([stand.host.create(domid) for domid in (20, 21)])
        while not (tmp_path / "killed").exists():
            traffic.turn()
        traffic.finish()
        held = stand.host.ports_in_use()
    except Wrong as error:
        pytest.fail(f"PYXSD_SEED={SEED}, seed {seed}: {error}\n{stand.log()[-3000:]}")
    finally:
        stand.peer.process.terminate()
        stand.peer.process.wait(30)
        log = stand.log()
        stand.close(False)
    check(name, seed, kills, log, traffic)
    assert held == IDLE[0] + 2, "ports are bound that nobody knows"
    assert " error|" not in log and "Traceback" not in log, log
