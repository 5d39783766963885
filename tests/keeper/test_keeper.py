# SPDX-License-Identifier: LGPL-2.1-or-later
"""The keeper with a toy for a child: who is made anew, who is not, and what signals do."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.keeper import clone, ward
from pyxsd.keeper.keeper import Keeper, Life, fault_of
from pyxsd.keeper.witness import LOST, WRITE_SECONDS, Witness
from tests.clients.daemon import DEADLINE, wait_for
from tests.keeper import toy

PROJECT = Path(__file__).resolve().parents[2]
ENDED, HANDED_OVER = 2, 3


#: What cannot be executed, and why.
NO_PROGRAMS = {
    "/none": "/none: No such file or directory",
    "": ": execv() arg 2 first element cannot be empty",
}


class Kept:
    """A keeper with its toy, and the connection to that."""

    def __init__(self, start: str = "") -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE)
        self.process = subprocess.Popen(
            [sys.executable, "-m", toy.__name__, str(theirs.fileno()), *([start] if start else [])],
            cwd=PROJECT,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        theirs.close()

    def hear(self) -> str:
        """What the toy says next; "" where keeper and toy have gone."""
        return self.socket.recv(200).decode()

    def ask(self, word: str) -> str:
        """The answer to a word."""
        self.socket.send(word.encode())
        return self.hear()

    def end(self) -> tuple[int, list[str]]:
        """Waits for the keeper: its status, and the lines that it and the toy have printed."""
        output = self.process.communicate(timeout=DEADLINE)[0]
        return self.process.returncode, output.splitlines()

    def close(self) -> None:
        """Both end."""
        # The keeper first, which makes no other one then; stopped, so that the list holds.
        self.process.send_signal(signal.SIGSTOP)
        children = self.children()
        self.process.kill()
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()
        self.socket.close()

    def children(self) -> list[int]:
        """The keeper's."""
        pid = self.process.pid
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return []
        return [int(word) for word in text.split()]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """One whose toy has said that it is born."""
    it = Kept()
    try:
        assert it.hear() == "born 0 "
        yield it
    finally:
        it.close()


#: Words, each of which kills the toy; how the next one tells of it.
DEATHS = [
    (f"die {number.value}", f"killed by {number.name}")
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE)
] + [
    (f"die {signal.SIGRTMIN + 3}", f"killed by signal {signal.SIGRTMIN + 3}"),
    ("exit 0", "exited with status 0"),
    ("exit 9", "exited with status 9"),
    ("throw", "exited with status 1"),
]


def test_each_death_is_made_up_for(kept: Kept) -> None:
    """Whatever it dies of; its descriptors stay open, its connection too."""
    assert kept.ask("open") == "opened"
    for number, (word, cause) in enumerate(DEATHS, 1):
        pid, keeper = kept.ask("who").split()
        assert int(keeper) == kept.process.pid != int(pid)
        kept.socket.send(word.encode())
        assert kept.hear() == f"born {number} {cause}"
        assert kept.ask("still") == "still open"
    kept.socket.send(b"end 6")
    status, lines = kept.end()
    assert (status, lines[-1]) == (6, f"{ENDED} 6 ")
    assert [line for line in lines if line in ("begun", "prepared")] == ["begun", "prepared"]


def test_kills_of_one_that_has_not_come_back() -> None:
    """They are nobody's fault, but there is an end to them."""
    it = Kept("is killed before it comes back")
    try:
        assert it.hear() == "born 0 "
        it.socket.send(b"die 9")
        assert it.hear() == ""
        assert it.end()[1][-1] == IN_VAIN.replace(" 3 ", " 5 ") + "killed by SIGKILL"
    finally:
        it.close()


def test_kills_of_an_idle_one_are_no_fault_of_its_own(kept: Kept) -> None:
    """However many they are."""
    for number in range(1, 21):
        os.kill(kept.children()[0], signal.SIGKILL)
        assert kept.hear() == f"born {number} killed by SIGKILL"


IN_VAIN = "4 0 the daemon died 3 times in a row without serving a request: "

#: What the toy is told, the last of which ends all; the number of toys; the keeper's last line.
LAST = (
    ("die 11, die 11, die 11", 3, IN_VAIN + "killed by SIGSEGV"),
    ("die 11, exit 4, exit 3", 3, IN_VAIN + "exited with status 3"),
    # A request, or a kill while it served, and all is counted anew.
    ("die 11, die 11, who, die 11, die 11, die 11, die 11", 6, IN_VAIN + "killed by SIGSEGV"),
    ("die 11, die 11, die 9, die 11, die 11, die 6", 6, IN_VAIN + "killed by SIGABRT"),
    ("end 0", 1, f"{ENDED} 0 "),
    ("die 9, end 3", 2, f"{ENDED} 3 "),
    ("hand-over", 1, f"{HANDED_OVER} 77 "),
)


@pytest.mark.parametrize("words,born,last", LAST, ids=[words for words, *_ in LAST])
def test_the_end(kept: Kept, words: str, born: int, last: str) -> None:
    toys = 1
    for word in words.split(", "):
        kept.socket.send(word.encode())
        toys += kept.hear().startswith("born")
    _, lines = kept.end()
    assert (toys, lines[-1]) == (born, last)


#: How it starts; the keeper's status and the last line.
STARTS = (
    ("dies", 0, "0 0 the daemon died before it served: killed by SIGSEGV"),
    ("raises", 1, f"{ENDED} 1 "),
    ("fails", 5, f"{ENDED} 5 "),
)


@pytest.mark.parametrize("start,status,last", STARTS)
def test_a_start_that_fails_is_not_tried_again(start: str, status: int, last: str) -> None:
    it = Kept(start)
    try:
        assert it.hear() == ""
        found, lines = it.end()
        assert (found, lines[-1]) == (status, last)
        assert ("RuntimeError: a start that fails" in lines) == (start == "raises")
    finally:
        it.close()


def test_one_that_does_not_come_back() -> None:
    """It is tried three times, though its first death was by SIGKILL."""
    it = Kept("does not come back")
    try:
        assert it.hear() == "born 0 "
        it.socket.send(b"die 9")
        assert it.hear() == ""
        assert it.end()[1][-1].endswith("without serving a request: exited with status 7")
    finally:
        it.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_signals_go_on_to_the_child(kept: Kept, number: signal.Signals) -> None:
    """To a later child, too; SIGTERM and SIGINT end both."""
    kept.socket.send(b"die 9")
    assert kept.hear().startswith("born 1")
    kept.process.send_signal(number)
    assert kept.hear() == number.name
    if number in (signal.SIGTERM, signal.SIGINT):
        status, lines = kept.end()
        assert (status, lines[-1]) == (0, f"{ENDED} 0 ")
    else:
        assert kept.ask("who")


def test_a_signal_to_all_of_a_unit(kept: Kept) -> None:
    """It comes to both."""
    for pid in (kept.children()[0], kept.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert kept.hear() == "SIGTERM"
    assert kept.end()[0] == 0


def test_sigterm_while_a_child_is_made_anew() -> None:
    """It comes to the next one when that lets signals in, whoever got it."""
    it = Kept("ends when told")
    try:
        assert it.hear() == "born 0 "
        child = it.children()[0]
        # The child dies with the signal still in its hands, so to speak.
        os.kill(child, signal.SIGSTOP)
        it.process.send_signal(signal.SIGTERM)
        wait_for(lambda: _pending(child, signal.SIGTERM), "SIGTERM does not arrive")
        os.kill(child, signal.SIGKILL)
        assert it.hear() == "born 1 killed by SIGKILL"
        assert it.ask("go on") == "SIGTERM"
        assert it.end()[0] == 0
    finally:
        it.close()


def _pending(pid: int, number: int) -> bool:
    """Waits a signal for this process?"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("ShdPnd:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def test_a_child_outlives_its_keeper(kept: Kept) -> None:
    """It is told by nobody but the kernel, and goes on."""
    pid = kept.children()[0]
    kept.process.kill()
    kept.process.wait(DEADLINE)
    assert kept.ask("who").split()[0] == str(pid)
    kept.socket.send(b"end 0")
    assert kept.hear() == ""


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (0, -1),
        (7, -1),
        (-signal.SIGSEGV, signal.SIGSEGV),
        (-signal.SIGBUS, signal.SIGBUS),
        (-signal.SIGILL, signal.SIGILL),
        (-signal.SIGFPE, signal.SIGFPE),
        (-signal.SIGABRT, signal.SIGABRT),
        (-signal.SIGKILL, 0),
        (-signal.SIGQUIT, 0),
    ],
)
def test_whose_fault_a_death_is(status: int, fault: int) -> None:
    """The request at hand is not run again where it is the child's own."""
    assert fault_of(status) == fault


@pytest.mark.parametrize(
    ("killed_by", "cause"), [(0, -1), (signal.SIGSEGV, signal.SIGSEGV), (signal.SIGKILL, 0)]
)
def test_the_memory_knows_what_a_child_died_of(killed_by: int, cause: int) -> None:
    """Who goes on reads it there."""
    memory = toy.ToyMemory()
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()

        def serve(life: Life) -> int:
            if killed_by:
                os.kill(os.getpid(), killed_by)
            os._exit(7)

        Keeper(memory).run(serve)
        os._exit(0)
    os.waitpid(pid, 0)
    assert memory.words[toy.CAUSE] == cause


@pytest.mark.parametrize("program", NO_PROGRAMS)
def test_why_a_program_cannot_be_executed(program: str) -> None:
    code = (
        "from pyxsd.keeper.keeper import Keeper; "
        f"print(Keeper(None)._execute([{program!r}], set()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, text=True, check=True, capture_output=True
    )
    assert done.stdout == NO_PROGRAMS[program] + "\n"


def test_what_is_told_of_a_recording_has_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer is cut; the next child waits for it longer than it may take."""
    assert ward.WITNESS_SECONDS * ward.WITNESS_LOOKS > WRITE_SECONDS

    def refuse() -> int:
        raise OSError(errno.EAGAIN, "x" * 5000)

    monkeypatch.setattr(clone, "spawn", refuse)
    witness = Witness("/none", lambda: (b"", b""), lambda _left, _cause: "")
    witness.died("killed by SIGSEGV")
    witness.next_is_made()
    text = witness.told()
    assert text == (f"{LOST}no process can be made: " + "x" * 5000)[: len(text)]
    assert 4000 < len(text) < 4096
    assert not witness.is_expected()


def test_a_keeper_that_is_gone_has_no_score() -> None:
    """Its number may be another process's."""
    life: Any = SimpleNamespace(keeper=os.getpid())
    alone = ward.Ward(life, None)
    timers: list[Any] = []
    alone._daemon = SimpleNamespace(after=lambda *arguments: timers.append(arguments))
    alone._copy_score()
    assert len(timers) == 1
    alone.alone_since = 1.0
    alone._copy_score()
    assert len(timers) == 1
