# SPDX-License-Identifier: LGPL-2.1-or-later
"""With which words another xenstored is executed; which paths C xenstored lets a client watch."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.state import dump
from pyxsd.switch import arrival, c_options, inherited, target
from pyxsd.switch.c_paths import is_watchable
from pyxsd.update.program import ProgramError

KEPT = f"--c-arguments={c_options.pack(['--entry-nb=5', '--pid-file=/a b'])}"

#: Our own arguments, those of -c; C xenstored's command, oxenstored's.
COMMANDS = [
    ("", "", "-U", "--live --restart"),
    ("--no-fork", "", "--no-fork -U", "--live --restart --no-fork"),
    (
        "--no-domain-init --pid-file /p -T=/t",
        "",
        "--no-domain-init --pid-file /p -T /t -U",
        "--live --restart --no-domain-init --pid-file /p -T /t",
    ),
    (
        "--config-file /c --no-access-log --disable-socket --reraise-top-level",
        "",
        "-U",
        "--live --restart --config-file /c --reraise-top-level --no-access-log --disable-socket",
    ),
    ("--no-fork", "-N -E|5", "-N -E 5 -U", "--live --restart --no-fork -N -E 5"),
    ("--no-fork", "-U|-N", "-U -N", "--live --restart --no-fork -U -N"),
    ("--no-fork --restart", "", "--no-fork -U", "--live --restart --no-fork"),
]


@pytest.mark.parametrize("own,given,c_words,ox_words", COMMANDS)
def test_commands(own: str, given: str, c_words: str, ox_words: str) -> None:
    words = given.split("|") if given else []
    assert target.c_command("/x", own.split(), words) == ["/x", *c_words.split()]
    assert " ".join(target.ox_command("/x", own.split(), words)) == f"/x {ox_words}"


def test_the_arguments_that_c_had() -> None:
    """As they were, whatever is in them; those of -c replace them; oxenstored does not see them."""
    own = ["--no-fork", KEPT]
    assert target.c_command("/x", own, []) == ["/x", "--entry-nb=5", "--pid-file=/a b", "-U"]
    assert target.c_command("/x", own, ["-N"]) == ["/x", "-N", "-U"]
    assert target.ox_command("/x", own, [], "--help") == [
        "/x",
        "--live",
        "--restart",
        "--no-fork",
        "--help",
    ]


@pytest.mark.parametrize(
    "words,found",
    [
        ("", "/etc/xen/oxenstored.conf"),
        ("--config-file /a", "/a"),
        ("--config-file=/a", "/a"),
        ("--config-file /a --config-file=/b", "/b"),
        ("--config-file", "/etc/xen/oxenstored.conf"),
    ],
)
def test_the_configuration_that_will_be_read(words: str, found: str) -> None:
    assert target.ox_config(words.split()) == found


@pytest.mark.parametrize(
    "out,error,kind",
    [
        ("", "usage:\n\n  xenstored <options>\n", target.C),
        ("usage : xenstored [--config-file f]\n", "", target.OX),
        ("usage: pyxsd [option]...\n", "", target.PYXSD),
        ("usage: pyxsd-launch [option]...\n", "a warning\n", target.PYXSD),
    ],
)
def test_what_it_is(out: str, error: str, kind: str) -> None:
    assert target.kind_of("/x", target.Answer(0, out, error)) == kind


@pytest.mark.parametrize(
    "answer",
    [
        target.Answer(0, "", ""),
        target.Answer(0, "xenstored <options>", ""),
        target.Answer(0, "", "usage : xenstored"),
        target.Answer(1, "", ""),
        target.Answer(-9, "", ""),
    ],
)
def test_what_is_none(answer: target.Answer) -> None:
    with pytest.raises(ProgramError):
        target.kind_of("/x", answer)


@pytest.mark.parametrize(
    "path,watchable",
    [
        (b"/", True),
        (b"/a", True),
        (b"a/b", True),
        (b"/a-b_c@d/0Z", True),
        (b"@releaseDomain", True),
        (b"@releaseDomain/5", True),
        (b"/a/", False),
        (b"a/", False),
        (b"//a", False),
        (b"/a//b", False),
        (b"/a:b", False),
        (b"/a b", False),
        (b"/\xff", False),
        (b"", False),
        (b"/" + b"a" * 3071, True),
        (b"/" + b"a" * 3072, False),
        (b"a" * 2048, True),
        (b"a" * 2049, False),
        (b"@" + b"a" * 2047, True),
        (b"@" + b"a" * 2048, False),
    ],
)
def test_paths(path: bytes, watchable: bool) -> None:
    assert is_watchable(path) == watchable


WRONG = "Fatal exception: Config.Error(_)\nRaised at Stdlib\n"

#: What oxenstored says on standard error in its trial run; may it be executed?
MINDED = [
    ("config: unknown key crash-recovery\n" + WRONG, True),
    ("config: unknown key crash-recovery\nconfig: unknown key poll-time-us\n" + WRONG, True),
    ("config: unknown key crash-recovery\nconfig: unknown key nonsense\n" + WRONG, False),
    ("config: persistent: expect bool arg\nconfig: unknown key crash-recovery\n" + WRONG, False),
    ("config: unknown key crash-recovery\nFatal exception: Sys_error\n", False),
    ("config: unknown key crash-recovery\n", False),
    (WRONG, False),
    ("", False),
]


@pytest.mark.parametrize("error,expected", MINDED)
def test_keys_that_oxenstored_does_not_know(error: str, expected: bool) -> None:
    assert target.minds_our_keys_alone(target.Answer(2, "", error)) == expected


def test_very_many_faults_of_a_file(tmp_path: Path) -> None:
    """Each is told in the log, where nobody is served meanwhile: the first ones, and how many."""
    (tmp_path / "db").write_bytes(dump.FIRST_LINE + b"\nglobal,-1\n" + b"y\n" * 1000)
    found = inherited.take("db", str(tmp_path), {})
    assert len(found.faults) == 101
    assert found.faults[-1] == f"{tmp_path}/db: 900 more faults"


def test_a_program_that_writes_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look takes what a pipe holds, and ends: the daemon serves meanwhile."""
    question = target.Question(["/bin/sleep", "600"], os.environ)
    looks: list[int] = []

    def endless(fd: int, n: int) -> bytes:
        looks.append(fd)
        assert len(looks) <= 4
        return b"x" * n

    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "read", endless)
            assert question.answer() is None and question.answer() is None
    finally:
        question.kill()
    assert len(looks) == 4


def test_a_listener_among_other_descriptors() -> None:
    """Where nothing says which one it is: the only one that listens."""
    before = {int(name) for name in os.listdir("/proc/self/fd")}
    reading, writing = os.pipe()
    one, other = socket.socketpair()
    with one, other, socket.socket(socket.AF_UNIX) as listener:
        assert inherited._own_listener(set(before)) == -1
        listener.bind("")
        listener.listen()
        assert inherited._own_listener(set(before)) == listener.fileno()
    os.close(reading)
    os.close(writing)


def test_a_port_that_nobody_knows() -> None:
    """It is told, and the domain is not served."""
    said: list[str] = []

    def unknown(_domid: int, _port: int) -> int:
        raise OSError(errno.ESRCH, "No such process")

    made: Any = arrival.Arrival.__new__(arrival.Arrival)
    made._warn = said.append
    client: Any = SimpleNamespace(name="dom5", domid=5, local_port=7)
    assert made._remote_port(client, SimpleNamespace(remote_port=unknown)) == 0
    assert said == ["dom5: its port is not known: No such process"]
