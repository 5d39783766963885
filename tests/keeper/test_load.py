# SPDX-License-Identifier: LGPL-2.1-or-later
"""Deaths of both processes, updates and signals at random moments under load, from outside.

Own clients check each reply and event; Debian's programs must end well and say nothing on standard
error.  PYXSD_KILLS: how many things happen (default 60); PYXSD_SEED: which.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from tests.clients.conftest import TOOLS, require
from tests.clients.daemon import wait_for
from tests.keeper.test_daemon import RECOVERED, KeptDaemon
from tests.update.kit import OK, control, is_gone

KILLS = int(os.environ.get("PYXSD_KILLS", "60"))
SEED = int(os.environ.get("PYXSD_SEED", "0")) or random.randrange(1, 1 << 32)
CLIENTS = 3


class Load:
    """What goes on meanwhile."""

    def __init__(self, daemon: KeptDaemon) -> None:
        self.daemon = daemon
        self.over = threading.Event()
        self.faults: list[str] = []
        self.rounds: dict[str, int] = {}
        self.watching = subprocess.Popen(
            [tool("xenstore-watch"), "/tool"],
            env=daemon.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen: list[str] = []
        self.threads = [threading.Thread(target=self.watch)]
        for number in range(CLIENTS):
            self.add(f"client {number}", functools.partial(self.one, number))
        self.add("tools", self.tools)
        self.clients = [daemon.client() for _ in range(CLIENTS)]
        for number, client in enumerate(self.clients):
            assert client.ask("WATCH", b"/l/%d\0t\0" % number)[1] == OK
            client.event()

    def add(self, name: str, round_: Callable[[int], None]) -> None:
        """Rounds until all is over, or until one fails."""

        def run() -> None:
            try:
                while not self.over.is_set():
                    self.rounds[name] = self.rounds.get(name, 0) + 1
                    round_(self.rounds[name])
            except BaseException as error:
                self.faults.append(f"{name}, round {self.rounds[name]}: {error!r}")

        self.threads.append(threading.Thread(target=run))

    def one(self, number: int, n: int) -> None:
        """A client's round: a value with its event, a transaction, requests sent all at once."""
        client, path = self.clients[number], b"/l/%d" % number
        assert client.ask("WRITE", path + b"\0%d" % n) == (11, OK)
        assert client.ask("READ", path + b"\0") == (2, b"%d" % n)
        assert client.event() == path + b"\0t\0" and not client.events
        transaction = int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
        assert client.ask("WRITE", b"/t/%d\0%d" % (number, n), transaction) == (11, OK)
        end = client.ask("TRANSACTION_END", b"T\0", transaction)
        assert end in ((7, OK), (16, b"EAGAIN\0")), end
        value = client.ask("READ", b"/t/%d\0" % number)
        assert end[0] == 16 or value == (2, b"%d" % n), value
        for serial in range(8):
            client.send("WRITE", b"/p/%d/%d\0%d" % (number, serial, n))
        for _ in range(8):
            assert client.answer() == (11, OK)
        with self.daemon.client() as new:
            assert new.ask("READ", b"/p/%d/7\0" % number) == (2, b"%d" % n)

    def tools(self, n: int) -> None:
        """Debian's programs, which each connect anew."""
        for words, printed in (
            (("xenstore-write", "/tool/x", str(n)), ""),
            (("xenstore-read", "/tool/x"), f"{n}\n"),
            (("xenstore-ls", "-f", "/tool"), f'/tool/x = "{n}"\n'),
            (("xenstore-rm", "/tool/x"), ""),
        ):
            done = subprocess.run(
                [tool(words[0]), *words[1:]],
                env=self.daemon.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            found = done.stdout
            if words[0] == "xenstore-ls":  # xenstored's own node is there, too
                found = "".join(
                    line for line in found.splitlines(True) if not line.startswith("/tool/xen")
                )
            assert (done.returncode, found) == (0, printed), (words, done)

    def watch(self) -> None:
        """What xenstore-watch prints."""
        assert self.watching.stdout is not None
        for line in self.watching.stdout:
            self.seen.append(line.rstrip())

    def end(self) -> None:
        """All is well up to here."""
        self.over.set()
        for thread in self.threads[1:]:
            thread.join()
        assert not self.faults, self.faults
        assert self.watching.poll() is None, "xenstore-watch has ended"
        # Each round writes and removes; the last thing that is told is another node.
        subprocess.run([tool("xenstore-write"), "/tool/last", "x"], env=self.daemon.env, check=True)
        wait_for(lambda: "/tool/last" in self.seen, "the last event is not told")
        self.watching.kill()
        self.threads[0].join()
        # None twice; one that is equal to another that it has not fetched yet is dropped.  (That
        # each event comes the clients see, which fetch theirs.)
        assert 0 < self.seen.count("/tool/x") <= 2 * self.rounds["tools"], self.seen[-5:]
        for client in self.clients:
            client.close()


def tool(name: str) -> str:
    """Debian's client; skips where it is not installed."""
    for folder in (TOOLS, "/usr/bin"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    require(f"{name} is not installed")
    raise FileNotFoundError(name)


def kill(pid: int, number: int) -> None:
    """A signal for a process that may have gone by now."""
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def test_deaths_under_load() -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    daemon = KeptDaemon()
    try:
        load = Load(daemon)
        for thread in load.threads:
            thread.start()
        deaths = 0
        with daemon.client() as client:
            for _ in range(KILLS):
                if load.faults:
                    break
                time.sleep(chance.uniform(0, 0.05))  # the moments are random
                what = chance.random()
                if what < 0.80:
                    deaths += daemon.child != 0
                    kill(daemon.child, signal.SIGKILL)
                elif what < 0.88:
                    # Not both together: the child is back when it answers.
                    control(client)
                    keeper = daemon.pid
                    kill(keeper, signal.SIGKILL)
                    wait_for(
                        lambda: daemon.pid != keeper and b"by process" in control(client),  # noqa: B023
                        "no other keeper",
                    )
                elif what < 0.94:
                    control(client, "-s")
                else:
                    kill(daemon.pid, signal.SIGUSR1)
                    kill(daemon.pid, signal.SIGHUP)
            wait_for(lambda: b"by process" in control(client), "no keeper in the end")
        load.end()
        assert deaths
        for line in daemon.log():
            assert "Traceback" not in line, line
        assert daemon.logged(RECOVERED)
        keeper = daemon.pid
        daemon.kill_child()
        os.kill(keeper, signal.SIGTERM)
        wait_for(lambda: is_gone(keeper), "it does not end")
    except BaseException:
        print("\n".join(daemon.log()[-30:]))
        raise
    finally:
        daemon.stop()
