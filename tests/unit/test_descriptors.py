# SPDX-License-Identifier: LGPL-2.1-or-later
"""The limit on open file descriptors, and the reserve for when it is reached."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from pyxsd.system import descriptors
from tests.unit.processes import line_of, start

# soft and hard limit before, text of nr_open (None: no file), limit after, begin of the warning
LIMITS = [
    (100, 1000, "500\n", 500, ""),
    (100, 1000, "1000\n", 1000, ""),
    (100, 1000, None, 1000, ""),
    (100, 1000, "rubbish", 1000, ""),
    (1000, 1000, "1000\n", 1000, ""),
    # The kernel itself refuses more than its own nr_open, whoever asks.
    (100, 1000, "2147483647\n", 1000, "file limit: 1000 descriptors; 2147483647, as "),
]


@pytest.mark.parametrize(("soft", "hard", "text", "expected", "warning"), LIMITS)
def test_raise_file_limit(
    tmp_path: Path, soft: int, hard: int, text: str | None, expected: int, warning: str
) -> None:
    nr_open = tmp_path / "nr_open"
    if text is not None:
        nr_open.write_text(text)
    code = """
import resource
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(*descriptors.raise_file_limit(sys.argv[3]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    process = start(code, soft, hard, nr_open)
    told, _, said = line_of(process).partition(" ")
    assert (int(told), int(line_of(process))) == (expected, expected)
    assert said.startswith(warning)
    assert bool(said) == bool(warning)
    process.communicate()


#: (soft, hard) limit, what the kernel allows, and what is asked for until it is permitted.
ASKED = [
    ((100, 500), 1000, [(1000, 1000), (1000, 1000), (500, 500)]),
    ((100, 5000), 1000, [(1000, 5000), (1000, 1000), (5000, 5000)]),
    ((100, 1000), 1000, [(1000, 1000), (1000, 1000), (1000, 1000)]),
    (
        (100, resource.RLIM_INFINITY),
        1000,
        [(1000, resource.RLIM_INFINITY), (1000, 1000), (resource.RLIM_INFINITY,) * 2],
    ),
]


@pytest.mark.parametrize(("limits", "allowed", "asked"), ASKED)
@pytest.mark.parametrize("permitted", [1, 2, 3, 4])
def test_the_hard_limit_is_never_lowered_without_need(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    allowed: int,
    asked: list[tuple[int, int]],
    permitted: int,
) -> None:
    """Where the first is refused, less is asked for; 4: all of it is refused."""
    (tmp_path / "nr_open").write_text(f"{allowed}\n")
    calls = []

    def setrlimit(which: int, pair: tuple[int, int]) -> None:
        calls.append(pair)
        if len(calls) < permitted:
            raise ValueError("not permitted")

    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    soft, warning = descriptors.raise_file_limit(str(tmp_path / "nr_open"))
    assert calls == asked[:permitted]
    assert soft == (limits[0] if permitted == 4 else asked[permitted - 1][0])
    assert bool(warning) == (0 <= soft < allowed)


def test_raise_file_limit_of_this_host() -> None:
    """Everything that is permitted: with the privilege nr_open, without it the hard limit."""
    wanted = int(Path("/proc/sys/fs/nr_open").read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    process = start("print(*descriptors.raise_file_limit())")
    told, _, said = line_of(process).partition(" ")
    assert int(told) in (wanted, hard)
    assert bool(said) == (int(told) < wanted)
    process.communicate()


# --- the reserve ---

EXHAUSTED = """
import errno, os, resource

def exhausted():
    'Take every descriptor that is free.'
    opened = []
    try:
        while True:
            opened.append(os.open('/dev/null', os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    return opened
"""

RESERVE = (
    EXHAUSTED
    + """
reserve = descriptors.Reserve()
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
taken = exhausted()
for _ in range(3):
    with reserve:
        free = exhausted()
        print(len(free))
        for fd in free:
            os.close(fd)
    assert not exhausted()
with reserve:
    taken += exhausted()  # somebody takes them meanwhile
with reserve:
    assert not exhausted()
os.close(taken.pop())
with reserve:
    pass
assert not exhausted()  # what became free is held
reserve.close()
print(len(exhausted()))
"""
)


def test_the_reserve() -> None:
    process = start(RESERVE)
    assert [line_of(process) for _ in range(4)] == [str(descriptors.RESERVED)] * 3 + ["1"]
    process.communicate()
    assert process.returncode == 0


STATISTICS = (
    EXHAUSTED
    + """
from pyxsd.daemon import Daemon
from pyxsd.system.configuration import Config
from pyxsd.system.daemon_log import DaemonLog
from pyxsd.system.log import Log
from tests.world import World

world = World()
log = DaemonLog(sys.argv[1], 'info', 2, 1000)
daemon = Daemon(Config(), world.server, None, log, Log(), os.path.dirname(sys.argv[1]), -1)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
exhausted()
daemon._log_statistics(120.0)
daemon.close()
print('done')
"""
)


def test_statistics_without_a_free_descriptor(tmp_path: Path) -> None:
    process = start(STATISTICS, tmp_path / "log")
    assert line_of(process) == "done"
    assert "mem stat: resident(" in (tmp_path / "log").read_text()
    process.communicate()


# soft limit, and how far it is lowered
LEFT = [(100_000, 100_000 - descriptors.SUCCESSORS), (64, 32), (7, 4), (-1, None)]


@pytest.mark.parametrize(("soft", "after"), LEFT)
def test_leave_some(monkeypatch: pytest.MonkeyPatch, soft: int, after: int | None) -> None:
    """Half of a small one, nothing of none."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, 200_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: limits.append(pair))
    descriptors.leave_some()
    assert limits == ([] if after is None else [(after, 200_000)])


@pytest.mark.parametrize("error", [OSError(1, "Operation not permitted"), ValueError("more")])
def test_to_leave_some_may_be_refused(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As by a filter of system calls: the process serves all the same."""

    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "setrlimit", refused)
    descriptors.leave_some()
