# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd with crash recovery becomes C xenstored or oxenstored: the keeper's process stays, and
whoever is killed on the way, nobody loses anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyxsd.keeper.report import Report
from pyxsd.switch import kept
from pyxsd.switch.departure import Departure
from tests.clients.daemon import Client, wait_for
from tests.domains.standin import GONE, works
from tests.switch.dies import STEPS
from tests.switch.kit import (
    OK,
    OX,
    C,
    KeptStand,
    SwitchedStand,
    a_stand,
    begin_to_leave,
    children,
    control,
    must_switch,
    real,
    switch,
)
from tests.switch.test_give_back import C_HELP, READ, goes_on, guest
from tests.switch.test_traps import status
from tests.update.kit import is_gone
from tests.world import TYPES, packet

DIED = b"the process that was asked has died"
OX_HELP = "echo 'usage : xenstored [--config-file'; exit 0"


@pytest.fixture(name="stand")
def started() -> Iterator[KeptStand]:
    with a_stand(KeptStand) as stand:
        stand.start_pyxsd()
        yield stand


def kinds(pid: int) -> Counter[str]:
    """What a process has open: sockets, files by their names."""
    found = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert "anon_inode:[eventpoll]" not in found
    # The pretended host opens more for event channels than Xen does, when they are used.
    return Counter(link.partition("[")[0] for link in found if "/host/evt/" not in link)


@pytest.mark.parametrize("name", [C, OX])
def test_the_process_stays(stand: KeptStand, name: str) -> None:
    """The pid file's number is right, no child stays, nor a descriptor of pyxsd's."""
    with stand.client() as client:
        domain = guest(stand, client, 5)
        rounds, pid_file = [], "pid"
        for _ in range(3):
            child = stand.child
            assert child and (stand.root / "run" / pid_file).read_text() == f"{stand.pid}\n"
            must_switch(stand, client, real(name), name)
            assert children(stand.pid) == [] and is_gone(child)
            works(domain, client)
            assert int(status(stand.pid, "SigBlk"), 16) == 0, "signals are blocked"
            rounds.append(kinds(stand.pid))
            must_switch(stand, client, stand.pyxsd(), "pyxsd")
            wait_for(lambda: stand.child, "no child serves")
            pid_file = "pyxsd.pid"
        assert rounds[0] == rounds[1] == rounds[2], rounds
        assert not [link for link in rounds[0] if "memfd" in link]
        # It is protected again.
        os.kill(stand.child, signal.SIGKILL)
        works(domain, client)


def begin_load(stand: KeptStand, client: Client) -> dict[str, Any]:
    """A guest, a watcher and some others."""
    domain = guest(stand, client, 5)
    watcher = stand.client()
    watcher.ask("WATCH", b"/w\0t\0")
    assert watcher.event() == b"/w\0t\0"
    others = [stand.client() for _ in range(3)]
    for other in others:
        assert other.ask("READ", b"/tool\0")[0] == READ
    return {"domain": domain, "watcher": watcher, "others": others}


def is_well(stand: KeptStand, client: Client, load: dict[str, Any]) -> None:
    """All of them are served, and have got nothing twice."""
    assert client.ask("WRITE", b"/w\0x")[1] == OK
    assert load["watcher"].event() == b"/w\0t\0" and not load["watcher"].events
    for n, other in enumerate(load["others"]):
        tx_id = int(other.ask("TRANSACTION_START", b"\0")[1][:-1])
        assert other.ask("WRITE", b"/tool/%d\0v" % n, tx_id)[1] == OK
        assert other.ask("TRANSACTION_END", b"T\0", tx_id)[1] == OK
        assert other.ask("READ", b"/tool/%d\0" % n)[1] == b"v"
        assert not other.events
    works(load["domain"], client)


#: Steps of only one of them.
NOT_OF = {C: ("looked-ox",), OX: ("looked-c", "read-behind", "interrupt")}
CASES = [(name, step) for name in (C, OX) for step in STEPS if step not in NOT_OF[name]]


@pytest.mark.parametrize("name,step", CASES)
def test_the_daemon_is_killed(name: str, step: str) -> None:
    """It goes on, with nothing of the switch left, and whoever asked is told; the second time all
    is well.  Where it had said what is to be executed, that goes on."""
    with a_stand(KeptStand) as stand:
        stand.program = ("-m", "tests.switch.dies", step, "itself", str(stand.root / "marker"))
        stand.start_pyxsd()
        with stand.client() as client:
            load = begin_load(stand, client)
            before, open_before = stand.host.ports_in_use(), open_mode(stand)
            told = switch(client, real(name))
            assert (stand.root / "marker").exists()
            if step == "said":
                assert told.rstrip(b"\0") == b"OK" and stand.what_runs() == name
                is_well(stand, client, load)
                return
            assert told.rstrip(b"\0") == DIED
            assert stand.what_runs() == "pyxsd"
            assert len(logged(stand, "crash recovery: the daemon was killed by SIGKILL")) == 1
            wait_for(lambda: open_mode(stand) == open_before, "descriptors are not as before")
            assert stand.host.ports_in_use() == before
            assert not (stand.root / "run/state_dump").exists()
            is_well(stand, client, load)
            # The program is still chosen, but where the process died before it was.
            told = switch(client, real(name)) if step == "chosen" else outcome(client)
            assert told.rstrip(b"\0") == b"OK", told
            assert stand.what_runs() == name, stand.log()
            is_well(stand, client, load)
            load["watcher"].ask("WATCH", b"@releaseDomain\0t\0")
            load["watcher"].event()
            stand.host.set_state(5, GONE)
            assert load["watcher"].event() == b"@releaseDomain\0t\0"


def outcome(client: Client) -> bytes:
    """-s until it is over."""
    return bytes(
        wait_for(lambda: (told := control(client, "-s")) != b"BUSY" and told, "it is never over")
    )


def logged(stand: SwitchedStand, text: str) -> list[str]:
    """The lines of the log with that text."""
    return [line for line in stand.log().splitlines() if text in line]


def open_mode(stand: SwitchedStand) -> tuple[Counter[str], set[str]]:
    """The flags of sockets, and those of the event channels, of which the pretended host opens more
    when they are used."""
    sockets: Counter[str] = Counter()
    channels = set()
    folder = Path(f"/proc/{stand.pid}/fd")
    for fd in os.listdir(folder):
        try:
            link = os.readlink(folder / fd)
            mode = Path(f"/proc/{stand.pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
        except FileNotFoundError:
            continue  # it was open for a moment
        if link.startswith("socket:"):
            sockets[mode] += 1
        elif "/host/evt/" in link:
            channels.add(mode)
    return sockets, channels


@pytest.mark.parametrize("name,step", [case for case in CASES if case[1] not in ("said", "chosen")])
def test_the_keeper_is_killed(name: str, step: str) -> None:
    """The daemon, which is alone then, becomes the program itself, with its own number."""
    with a_stand(KeptStand) as stand:
        stand.program = ("-m", "tests.switch.dies", step, "keeper", str(stand.root / "marker"))
        stand.start_pyxsd()
        with stand.client() as client:
            load = begin_load(stand, client)
            child = stand.child
            told = switch(client, real(name))
            assert told.rstrip(b"\0") == b"OK"
            assert (stand.root / "marker").exists()
            assert os.path.basename(os.readlink(f"/proc/{child}/exe")) == name
            assert (stand.root / "run/pid").read_text() == f"{child}\n"
            is_well(stand, client, load)


@pytest.mark.parametrize("name", [C, OX])
def test_the_program_cannot_be_executed(stand: KeptStand, name: str) -> None:
    """The keeper lets another child go on, which takes everything back and says why; it is no
    death.  Another attempt succeeds."""
    with stand.client() as client:
        load = begin_load(stand, client)
        program = stand.script("program", C_HELP if name == C else OX_HELP)
        before, open_before = stand.host.ports_in_use(), open_mode(stand)
        for n in range(4):
            child = stand.child
            assert control(client, "-f", program) == OK
            text = Path(program).read_text()
            Path(program).write_text("#!/nonexistent/interpreter\n")
            assert outcome(client) == f"{program}: No such file or directory".encode()
            assert stand.child not in (0, child)
            assert stand.host.ports_in_use() == before
            wait_for(lambda: open_mode(stand) == open_before, "descriptors are not as before")
            assert not (stand.root / "run/state_dump").exists()
            Path(program).write_text(text)
            assert len(logged(stand, f"live switch: {program}: No such file")) == n + 1
            is_well(stand, client, load)
        assert b"0 deaths made up for" in control(client)
        assert not logged(stand, "crash recovery")
        must_switch(stand, client, real(name), name)
        is_well(stand, client, load)


@pytest.mark.parametrize("kind", [SwitchedStand, KeptStand])
@pytest.mark.parametrize("name", [C, OX])
def test_a_program_that_ends(kind: type[SwitchedStand], name: str) -> None:
    """Nobody can tell before: with a keeper as without one the process ends with the program's
    status, and nothing is left of pyxsd but the file."""
    with a_stand(kind) as stand:
        stand.start_pyxsd()
        words = C_HELP if name == C else OX_HELP
        program = stand.script(
            "program", f'for word; do [ "$word" = --help ] && {{ {words}; }}; done', "exit 7"
        )
        with stand.client() as client:
            assert control(client, "-f", program) == OK
            child = children(stand.pid)
            client.send("CONTROL", b"live-update\0-s\0")
            assert stand.peer.process.wait(30) == 7
            assert all(is_gone(pid) for pid in child)
        assert (stand.root / "run" / ("state_dump" if name == C else "db")).exists()
        stand.peer.process.returncode = 0  # which is asked for at the end


@pytest.mark.parametrize("kind", [SwitchedStand, KeptStand])
def test_a_program_that_hangs(kind: type[SwitchedStand]) -> None:
    """The same: it has the descriptors, and the clients wait for it."""
    with a_stand(kind) as stand:
        stand.start_pyxsd()
        program = stand.script(
            "program", f'if [ "$1" = --help ]; then {C_HELP}; fi', "exec sleep 60"
        )
        with stand.client() as client:
            assert control(client, "-f", program) == OK
            client.send("CONTROL", b"live-update\0-s\0")
            wait_for(lambda: stand.what_runs() == "sleep", "it is not executed")
            assert children(stand.pid) == []


@pytest.mark.parametrize("name", [C, OX])
def test_sigterm_on_the_way(stand: KeptStand, name: str) -> None:
    """It comes to the process that stands behind the last step: the daemon ends with its state."""
    with stand.client() as client:
        program = stand.script("program", C_HELP if name == C else OX_HELP)
        assert control(client, "-f", program) == OK
        client.ask("WRITE", b"/kept\0v")
        # The keeper hears of both at once.
        os.kill(stand.pid, signal.SIGSTOP)
        child = stand.child
        client.send("CONTROL", b"live-update\0-s\0")
        wait_for(lambda: is_gone(child), "it does not end")
        os.kill(stand.pid, signal.SIGTERM)
        os.kill(stand.pid, signal.SIGCONT)
        assert stand.peer.process.wait(30) == 0
        assert b"/kept" in (stand.root / "run/db").read_bytes() or (
            b"/kept".hex().encode() in (stand.root / "run/db").read_bytes()
        )
        assert not (stand.root / "run/pid").exists()


def test_a_death_while_starts_are_held_back(stand: KeptStand) -> None:
    """Who was held back is served, what was read behind it too, by whoever goes on."""
    with stand.client() as client, stand.client() as one, stand.client() as held:
        tx_id = begin_to_leave(client, one, real(C))
        held.send("TRANSACTION_START", b"\0")
        held.send("READ", b"/tool\0")
        for _ in range(3):
            one.ask("WRITE", b"/tool/x\0y")
        os.kill(stand.child, signal.SIGKILL)
        assert client.answer()[1].rstrip(b"\0") == DIED
        assert held.answer()[0] == TYPES["TRANSACTION_START"]
        assert held.answer() == (READ, b"")
        assert one.ask("TRANSACTION_END", b"T\0", tx_id)[1] == OK
        os.kill(stand.child, signal.SIGKILL)
        goes_on(stand, client)


def test_a_death_behind_what_was_read() -> None:
    """What C xenstored was to be given of a client that is held back, pyxsd has not lost."""
    with a_stand(KeptStand) as stand:
        stand.program = ("-m", "tests.switch.dies", "read-behind", "itself", f"{stand.root}/marker")
        stand.start_pyxsd()
        with stand.client() as client, stand.client() as one, stand.client() as held:
            tx_id = begin_to_leave(client, one, real(C))
            held.send("TRANSACTION_START", b"\0")
            # In one piece: the kernel keeps some 90 for somebody who does not read.
            writes = [packet("WRITE", b"/tool/held\0%d" % n) for n in range(100)]
            held.sock.sendall(b"".join(writes))
            one.ask("WRITE", b"/tool/x\0y")
            assert one.ask("TRANSACTION_END", b"T\0", tx_id)[1] == OK
            assert client.answer()[1].rstrip(b"\0") == DIED
            assert held.answer()[0] == TYPES["TRANSACTION_START"]
            for _ in range(100):
                assert held.answer()[1] == OK
            assert one.ask("READ", b"/tool/held\0")[1] == b"99"
            goes_on(stand, client)


def test_a_request_that_came_in_half(stand: KeptStand) -> None:
    """It is whole for C xenstored, though the daemon died when it had read the first half."""
    with stand.client() as client, stand.client() as half:
        request = packet("READ", b"/tool\0", 0, 5)
        half.sock.sendall(request[:9])
        client.ask("READ", b"/tool\0")
        os.kill(stand.child, signal.SIGKILL)
        must_switch(stand, client, real(C), C)
        half.sock.sendall(request[9:])
        assert half.packet()[0] == READ


def test_without_room_it_is_refused() -> None:
    """Nobody could go on where the program cannot be executed."""
    with a_stand(KeptStand) as stand:
        stand.settings["recovery-size"] = "1"
        stand.start_pyxsd()
        with stand.client() as client:
            for n in range(2000):
                client.ask("WRITE", b"/n/%d\0" % n + b"v" * 2000)
            wait_for(lambda: logged(stand, "cannot be recovered from for now"), "there is room")
            assert b"nobody could take the switch back" in switch(client, real(C))
            goes_on(stand, client)


def test_a_daemon_that_is_recorded() -> None:
    """The recording ends in time, and is whole."""
    with a_stand(KeptStand) as stand:
        folder = stand.root / "recordings"
        stand.settings["record-directory"] = str(folder)
        stand.start_pyxsd()
        with stand.client() as client:
            load = begin_load(stand, client)
            must_switch(stand, client, real(C), C)
            is_well(stand, client, load)
        recordings = [path for path in folder.iterdir() if path.is_file()]
        assert len(recordings) == 1
        done = subprocess.run(
            [sys.executable, "-m", "pyxsd", "--replay", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "WATCH" in done.stdout or "watch" in done.stdout


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_program_stays_chosen_while_its_client_is_there(is_connected: bool) -> None:
    report = Report()
    client: Any = SimpleNamespace(id=5)
    report.choose(kept.choice(Departure(OX, "/ox", []), client))
    resumed: list[Any] = []
    server = SimpleNamespace(
        connections={5: client} if is_connected else {},
        host=SimpleNamespace(
            dialogue=lambda: SimpleNamespace(resume=lambda *words: resumed.append(words[1:]))
        ),
    )
    ward: Any = SimpleNamespace(life=SimpleNamespace(report=report))
    kept.go_on(SimpleNamespace(server=server), ward)
    assert bool(report.choice()) is is_connected
    assert resumed == [(client if is_connected else None, "")]
