# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd against Debian's oxenstored: the same random requests, over sockets and rings.

Every answer is compared, the events of every client after each batch, and the whole tree at the end
of each sequence.  No difference is accepted; the known ones (known.py) are shown one by one.
PYXSD_DIFFERENTIAL_SECONDS (60) is how long, PYXSD_DIFFERENTIAL_SEED the first seed; a failure names
its seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conformance.replay import same_events
from tests.differential import sides
from tests.differential.generator import Change, Generator
from tests.differential.known import KNOWN, Known
from tests.differential.sides import NAMES, Request, Seen, Side
from tests.world import TYPES

SECONDS = float(os.environ.get("PYXSD_DIFFERENTIAL_SECONDS", "60"))
SEED = int(os.environ.get("PYXSD_DIFFERENTIAL_SEED", "1"))
BATCHES = 150
#: Then both daemons are started anew: oxenstored leaks an event channel at each RELEASE.
SEQUENCES = 300

#: Nobody is blamed for conflicts (see known.py); no access log, for speed.
COMMON = {"conflict-max-history-seconds": "0.0", "access-log-nb-files": "0"}
CONFIGS: dict[str, dict[str, str]] = {
    "default": {},
    "small": {
        "quota-maxwatch": "3",
        "quota-transaction": "2",
        "quota-maxrequests": "12",
        "quota-maxsize": "90",
        "quota-path-max": "60",
    },
    "no-merge": {"merge-activate": "false"},
    "no-perms": {"perms-activate": "false", "quota-activate": "false"},
}
Pair = tuple[Side, Side]


@contextmanager
def both(settings: dict[str, str]) -> Iterator[Pair]:
    """(pyxsd, oxenstored) with the same configuration."""
    reason = sides.missing()
    if reason:
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with ExitStack() as stack:
        ours = sides.start_pyxsd(settings)
        stack.callback(ours.stop)
        theirs = sides.start_oxenstored(settings)
        stack.callback(theirs.stop)
        yield ours, theirs


def difference(ours: Seen, theirs: Seen) -> str:
    """What differs, or nothing.  Identical events that waited may have been merged."""
    for number, (left, right) in enumerate(zip(ours.answers, theirs.answers)):
        if left != right:
            return f"answer {number}: {left}, oxenstored {right}"
    for who in NAMES:
        left_events, right_events = ours.events.get(who, []), theirs.events.get(who, [])
        if not same_events(right_events, left_events):
            return f"events of {who}: {left_events}, oxenstored {right_events}"
    return ""


def play(pair: Pair, seed: int, batches: int = BATCHES) -> int:
    """One sequence; how many requests it had.  AssertionError with what led to a difference."""
    for side in pair:
        side.start()
    done: list[object] = []
    count = 0
    for item in Generator(seed).sequence(batches):
        done.append(item)
        if isinstance(item, Change):
            for side in pair:
                if item.what == "connect":
                    side.end_transactions_of_guests()
                getattr(side, item.what)(item.who)
            seen = [side.run([]) for side in pair]
        else:
            seen = [side.run(item) for side in pair]
            count += len(item)
        found = difference(*seen)
        assert not found, f"seed {seed}, batch {len(done)}: {found}\n" + "\n".join(
            map(repr, done[-8:])
        )
    ours, theirs = (side.tree() for side in pair)
    assert ours == theirs, (
        f"seed {seed}: the trees differ: only here "
        f"{[node for node in ours if node not in theirs][:5]}, only in oxenstored "
        f"{[node for node in theirs if node not in ours][:5]}"
    )
    return count


@pytest.mark.parametrize("config", CONFIGS)
def test_random_requests(config: str) -> None:
    seed, requests = SEED, 0
    end = time.monotonic() + SECONDS / len(CONFIGS)
    while time.monotonic() < end:
        with both({**COMMON, **CONFIGS[config]}) as pair:
            for _ in range(SEQUENCES):
                requests += play(pair, seed)
                seed += 1
                if time.monotonic() >= end:
                    break
            for side in pair:
                assert side.peer.process.poll() is None
            log = (pair[0].peer.run / "xenstored.log").read_text()
        errors = [
            line
            for line in log.splitlines()
            if "|error|" in line and "cannot be introduced" not in line
        ]
        assert not errors, errors[:20]
    print(f"seeds {SEED} to {seed - 1}, {requests} requests")
    assert requests > 0


@pytest.fixture(scope="module")
def plain() -> Iterator[Pair]:
    """(pyxsd, oxenstored) with their defaults."""
    with both(COMMON) as pair:
        yield pair


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: str(known.name))
def test_known_difference(plain: Pair, known: Known) -> None:
    """It is there as described: neither more nor less."""
    for side in plain:
        side.start()
    differs = False
    for step in known.steps:
        if step.type in ("disconnect", "connect"):
            for side in plain:
                getattr(side, step.type)(step.who)
            continue
        ours, theirs = (
            side.run([Request(step.who, TYPES[step.type], step.payload, step.tx)]).answers[0]
            for side in plain
        )
        got = (ours[0], ours[2]), (theirs[0], theirs[2])
        if step.ours is None:
            assert got[0] == got[1], step
        else:
            assert got == (step.ours, step.theirs), step
            differs |= step.ours != step.theirs
    assert differs, "nothing differs"


def test_root_of_a_domain_that_goes(plain: Pair) -> None:
    """Nobody owns "/" then; a domain that gets the number later has no rights by it (XSA-322)."""
    for side in plain:
        side.start()
        side.one("s0", "SET_PERMS", b"/\0n1\0r2\0")
        side.disconnect("d1")
        side.connect("d1")
    script = [
        Request("s0", TYPES["GET_PERMS"], b"/\0"),
        Request("d1", TYPES["READ"], b"/\0"),
        Request("d1", TYPES["WRITE"], b"/mine\0v"),
        Request("d2", TYPES["READ"], b"/\0"),
        Request("s0", TYPES["WRITE"], b"/new\0v"),
        Request("s0", TYPES["GET_PERMS"], b"/new\0"),
    ]
    for request in script:
        ours, theirs = (side.run([request]) for side in plain)
        assert not difference(ours, theirs), request
    assert ours.answers[0][2] == b"n9223372036854775807\0r2\0"


class Tampered:
    """A Side of which one thing is changed once it has run some batches."""

    def __init__(self, side: Side, what: str) -> None:
        self.side, self.what, self.batches = side, what, 0

    def run(self, requests: list[Request]) -> Seen:
        """As the side does, with one more event, or one answer changed."""
        seen = self.side.run(requests)
        self.batches += 1
        if self.batches > 20 and self.what == "answer" and seen.answers:
            type_, tx_id, payload = seen.answers[-1]
            seen.answers[-1] = (type_, tx_id, payload + b"x")
        if self.batches > 20 and self.what == "event":
            seen.events.setdefault("s1", []).append(b"/never\0token\0")
        if self.batches > 20 and self.what == "no event":
            seen.events.clear()
        return seen

    def tree(self) -> list[tuple[bytes, bytes, bytes]]:
        """As the side does, or with another owner."""
        (path, _, value), *others = self.side.tree()
        return [(path, b"n5\0", value), *others] if self.what == "tree" else self.side.tree()

    def __getattr__(self, name: str) -> object:
        return getattr(self.side, name)


@pytest.mark.parametrize("what", ("nothing", "answer", "event", "no event", "tree"))
def test_a_difference_is_seen(plain: Pair, what: str) -> None:
    """One answer, event or node that is not the same fails the comparison."""
    tampered = Tampered(plain[0], what)
    if what == "nothing":
        play((tampered, plain[1]), 1)  # type: ignore[arg-type]
        return
    with pytest.raises(AssertionError, match="seed 1"):
        play((tampered, plain[1]), 1)  # type: ignore[arg-type]
