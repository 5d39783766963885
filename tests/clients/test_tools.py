# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's xenstore-* tools, xenstore-control and test-xenstore against the running daemon."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest

from tests.clients.daemon import DEADLINE, Daemon, wait_for
from tests.world import ERROR

Program = Callable[[str], str]


def run(daemon: Daemon, command: list[str]) -> tuple[int, str]:
    """(status, stdout and stderr) of a tool."""
    done = subprocess.run(
        command,
        env=daemon.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


#: Command lines in order, each with status and output (a pattern for the whole).
STEPS = (
    ("xenstore-write /a b /a/c d", 0, ""),
    ("xenstore-write -s /a/e 3", 0, ""),
    ("xenstore-read /a", 0, "b\n"),
    ("xenstore-read -s /a", 0, "b\n"),
    ("xenstore-read -p /a/c /a/e", 0, "/a/c: d\n/a/e: 3\n"),
    ("xenstore-read /none", 1, "xenstore-read: couldn't read path /none\n"),
    ("xenstore-exists /a/c", 0, ""),
    ("xenstore-exists /none", 1, ""),
    ("xenstore-list /a", 0, "c\ne\n"),
    ("xenstore-list -p /a", 0, "/a/c\n/a/e\n"),
    ("xenstore-list /none", 1, r"xenstore-list: could not list path /none\n"),
    ("xenstore-chmod /a/c n5 r6", 0, ""),
    ("xenstore-ls -p /a", 0, r'c = "d"[ .]+\(n5,r6\)\ne = "3"[ .]+\(n0\)\n'),
    ("xenstore-chmod -r /a n7", 0, ""),
    ("xenstore-ls -fp /a", 0, r'/a/c = "d"[ .]+\(n7\)\n/a/e = "3"[ .]+\(n7\)\n'),
    ("xenstore-ls -s /a", 0, 'c = "d"\ne = "3"\n'),
    ("xenstore-chmod -u /a/c b1", 0, ""),
    ("xenstore-ls", 0, r'(?s).*tool = ""\n xenstored = ".+"\n.*'),
    ("xenstore-write /t/u/v w", 0, ""),
    ("xenstore-rm /a/c", 0, ""),
    ("xenstore-rm -t /t/u/v", 0, ""),
    ("xenstore-exists /t", 1, ""),
    ("xenstore-ls -f /a", 0, '/a/e = "3"\n'),
    ("xenstore-rm /none/none", 1, r"(?s)xenstore-rm: could not remove path /none/none\n"),
    ("xenstore-write /big " + "x" * 2049, 1, r"xenstore-write: could not write path /big\n"),
)


def test_tools(daemon: Daemon, program: Program) -> None:
    for line, status, output in STEPS:
        name, *arguments = line.split(" ")
        got = run(daemon, [program(name), *arguments])
        assert got[0] == status and re.fullmatch(output, got[1]), (line[:80], got)


def test_ls_falls_back_to_parts(daemon: Daemon, program: Program) -> None:
    """A directory of more than 4096 bytes is read in parts by libxenstore."""
    names = [f"node-with-a-long-name-{k:04}" for k in range(700)]
    with daemon.client() as client:
        for name in names:
            assert client.ask("WRITE", f"/wide/{name}\0v".encode())[0] != ERROR
        assert client.ask("DIRECTORY", b"/wide\0") == (ERROR, b"E2BIG\0")
    status, output = run(daemon, [program("xenstore-list"), "/wide"])
    assert (status, output.split()) == (0, names)


def test_watch(daemon: Daemon, program: Program) -> None:
    """xenstore-watch gets its first event and those of changes below."""
    watch = subprocess.Popen(
        [program("xenstore-watch"), "-n", "3", "/w"],
        env=daemon.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with daemon.client() as client:
            wait_for(lambda: b" /w " in client.ask("CONTROL", b"watches\0")[1], "no watch")
            client.ask("WRITE", b"/w/x\0v")
            client.ask("RM", b"/w\0")
        output, _ = watch.communicate(timeout=DEADLINE)
    finally:
        if watch.poll() is None:
            watch.kill()
            watch.wait()
    assert (watch.returncode, output) == (0, "/w\n/w/x\n/w\n")


#: xenstore-control: arguments, and a pattern of what it prints.
COMMANDS = (
    ("check", r"OK\n?"),
    ("print hello", r"OK\n?"),
    ("quota", r"(?s)nodes +: 1000\n.*"),
    ("quota 5", r"dom5 quota: not set\n?"),
    ("quota set watches 128", r"OK\n?"),
    ("quota max", r"(?s)nodes +: \d+\n.*"),
    ("log", r"Log is on\n+"),
    ("log off", r"OK\n?"),
    ("log", r"Log is off\n+"),
    ("log on", r"OK\n?"),
    ("memreport", r"OK\n?"),
    ("help", r"(?s).*live-update.*"),
    ("nonsense", r"OK\n?"),
)


def test_control(program: Program) -> None:
    tool = program("xenstore-control")
    with Daemon({"access-log-special-ops": "true"}) as daemon:
        for line, output in COMMANDS:
            got = run(daemon, [tool, *line.split(" ")])
            assert got[0] == 0 and re.fullmatch(output, got[1]), (line, got)
        daemon.check("memreport")
        # "print" goes into the access log, which is written soon after.
        wait_for(lambda: " hello" in daemon.access_log_file.read_text(), "print is not logged")
        assert daemon.end() == 0
        daemon.check_logs("memreport")
        daemon.log_file.unlink()


@pytest.mark.parametrize("arguments", (("-i", "200"), ("-r", "20")), ids=" ".join)
def test_test_xenstore(daemon: Daemon, program: Program, arguments: tuple[str, str]) -> None:
    """Xen's own test program: each of its tests 200 times, then random ones for 20 seconds."""
    status, output = run(daemon, [program("test-xenstore"), *arguments])
    assert status == 0, output
