# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd becomes C xenstored or oxenstored: what travels, what it waits for, what it refuses;
whatever comes between, it goes on."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.daemon import Client, wait_for
from tests.domains.standin import GONE, home, introduce, works
from tests.switch.kit import (
    OK,
    OX,
    C,
    SwitchedStand,
    a_stand,
    all_goes_on,
    control,
    must_switch,
    real,
    switch,
)
from tests.world import EVENT, TYPES, packet

READ, WATCH, WRITE = TYPES["READ"], TYPES["WATCH"], TYPES["WRITE"]
#: What C xenstored says to --help.
C_HELP = "echo 'Usage: xenstored <options>' >&2; exit 0"


@pytest.fixture(name="stand")
def started() -> Iterator[SwitchedStand]:
    with a_stand(SwitchedStand) as stand:
        yield stand.start_pyxsd()


def goes_on(stand: SwitchedStand, client: Client, domain: Any = None) -> None:
    """pyxsd serves as before: sockets, a new one, a ring, the interrupt."""
    assert stand.what_runs() == "pyxsd"
    with stand.client() as other:
        assert other.ask("WRITE", b"/tool/alive\0yes")[1] == OK
        assert client.ask("READ", b"/tool/alive\0")[1] == b"yes"
    if domain is not None:
        works(domain, client)
        client.ask("WATCH", b"@releaseDomain\0gone\0")
        client.event()
        stand.host.set_state(domain.domid, GONE)
        assert client.event() == b"@releaseDomain\0gone\0"
    files = os.listdir(stand.root / "run")
    assert not [name for name in files if name.startswith("state_dump") or "#" in name]


def guest(stand: SwitchedStand, client: Client, domid: int) -> Any:
    """An introduced domain with a home."""
    domain = stand.host.create(domid)
    assert introduce(client, domain) == OK
    home(client, domid)
    return domain


# -- what travels -------------------------------------------------------------


@pytest.mark.parametrize("name", [C, OX])
def test_it_becomes_another(stand: SwitchedStand, name: str) -> None:
    kernel = stand.host.guest(0)
    with stand.client() as client, stand.client() as watcher:
        domains = [guest(stand, client, domid) for domid in (1, 3)]
        client.ask("WRITE", b"/a\0\x00binary\xff")
        client.ask("SET_PERMS", b"/a\0b0\0r3\0")
        for path in (b"/a", b"rel/ative", b"@releaseDomain"):
            watcher.ask("WATCH", path + b"\0token\0")
            assert watcher.event() == path + b"\0token\0"
        assert domains[1].request(WATCH, b"in\0tok\0").payload == OK
        assert domains[1].packet().payload == b"in\0tok\0"
        assert kernel.request(WATCH, b"/k\0kernel\0").payload == OK
        assert kernel.packet().payload == b"/k\0kernel\0"

        must_switch(stand, client, real(name), name)

        assert watcher.events == [] and client.events == []
        all_goes_on(client, watcher, kernel, domains)
        stand.host.set_state(3, GONE)
        assert watcher.event() == b"@releaseDomain\0token\0"
        stand.settles((3, 2))
        with stand.client() as other:
            assert other.ask("READ", b"/a\0")[1] == b"\x00binary\xff"


def test_c_gets_what_is_under_way(stand: SwitchedStand) -> None:
    """Half requests of a socket and of a ring, replies and events that nobody takes."""
    with (
        stand.client() as client,
        stand.client() as half,
        stand.client() as slow,
        stand.client() as deaf,
    ):
        domain = guest(stand, client, 5)
        works(domain, client)
        half.sock.sendall(packet("READ", b"/tool\0", 0, 5)[:9])
        request = packet("READ", b"alive\0", 0, 9)
        domain.write(request[:18])
        domain.kick()
        deaf.ask("WATCH", b"/many\0t\0")
        deaf.event()
        for n in range(2000):
            assert client.ask("WRITE", b"/many/%d\0" % n)[1] == OK
        for _ in range(1000):
            slow.send("DIRECTORY", b"/many\0" if _ % 2 else b"/\0")
        wait_for(lambda: domain.get("req_cons") == domain.get("req_prod"), "it is not taken")
        must_switch(stand, client, real(C), C)
        half.sock.sendall(packet("READ", b"/tool\0", 0, 5)[9:])
        assert half.packet() == (READ, 5, 0, b"")
        domain.write(request[18:])
        domain.kick()
        answer = domain.packet()
        assert (answer.type, answer.req_id, answer.payload) == (READ, 9, b"enif")
        for n in range(1000):
            assert slow.packet()[1] == n + 1
        assert [deaf.packet()[::3] for _ in range(2000)] == [
            (EVENT, b"/many/%d\0t\0" % n) for n in range(2000)
        ]


def test_targets_go_to_c(stand: SwitchedStand) -> None:
    with stand.client() as client:
        one, two = guest(stand, client, 1), guest(stand, client, 2)
        assert client.ask("SET_TARGET", b"2\x001\0")[1] == OK
        must_switch(stand, client, real(C), C)
        assert two.request(WRITE, b"/local/domain/1/in\0x").payload == OK
        assert one.request(WRITE, b"/local/domain/2/in\0x").payload == b"EACCES\0"


def test_watches_that_another_cannot_have(stand: SwitchedStand) -> None:
    """A depth is lost, with a word; a path that C refuses too; the others stay."""
    with stand.client() as client:
        assert control_quota(client, "path-max", 4000) == 4000
        for path in (b"/a\0t\x001\0", b"/" + b"b" * 3072 + b"\0t\0", b"/d\0t\0"):
            assert client.ask("WATCH", path)[1] == OK
            client.event()
        must_switch(stand, client, real(C), C)
        log = stand.log()
        assert "the watch on b'/a' loses its depth" in log
        assert "1 watches on paths that C xenstored refuses" in log
        for path in (b"/a/x/y", b"/d"):
            client.ask("WRITE", path + b"\0")
            assert client.event() == path + b"\0t\0"


# -- what is waited for -------------------------------------------------------


def begun(client: Client) -> int:
    """A new transaction's number."""
    return int(client.ask("TRANSACTION_START", b"\0")[1][:-1])


def held(stand: SwitchedStand, one: Client, asking: Client, *words: str) -> Client:
    """While pyxsd waits for a transaction of `one`: a client that has asked for a transaction, and
    something behind it, and has no answer, though all others have."""
    begins = "".join(f"{word}\0" for word in ("live-update", "-s", *words)).encode()
    asking.send("CONTROL", begins)
    waiting = stand.client()
    with stand.client() as other:
        wait_for(lambda: "live switch: asked for, to" in stand.log(), "it does not begin")
        for n in range(5):
            other.ask("WRITE", b"/turn/%d\0" % n)
        waiting.send("TRANSACTION_START", b"\0")
        waiting.send("READ", b"/turn/0\0")
        for n in range(5):
            assert other.ask("WRITE", b"/turn/%d\0" % n)[1] == OK
        # Whoever has one open may begin another, or it might never end.
        second = begun(one)
        assert one.ask("TRANSACTION_END", b"T\0", second)[1] == OK
        assert select.select([waiting.sock], [], [], 0)[0] == []
    return waiting


def served(waiting: Client) -> None:
    """What was held back is answered in its order, and the transaction is a good one."""
    type_, number = waiting.answer()
    assert type_ == TYPES["TRANSACTION_START"] and waiting.answer() == (READ, b"")
    assert waiting.ask("WRITE", b"/turn/0\0x", int(number[:-1]))[1] == OK
    assert waiting.ask("TRANSACTION_END", b"T\0", int(number[:-1]))[1] == OK
    assert waiting.ask("READ", b"/turn/0\0")[1] == b"x"


def test_new_transactions_wait_for_the_switch_to_c(stand: SwitchedStand) -> None:
    with stand.client() as client, stand.client() as one:
        assert control(client, "-f", real(C)) == OK
        tx_id = begun(one)
        waiting = held(stand, one, client, "-t", "30")
        assert one.ask("TRANSACTION_END", b"T\0", tx_id)[1] == OK
        assert client.answer()[1].rstrip(b"\0") == b"OK"
        assert stand.what_runs() == C
        served(waiting)
        waiting.close()


@pytest.mark.parametrize("how", ["its time is over", "it is called off", "its client goes"])
def test_no_switch_comes_of_it(stand: SwitchedStand, how: str) -> None:
    """What was held back is served by pyxsd then."""
    with stand.client() as client, stand.client() as one, stand.client() as other:
        assert control(client, "-f", real(C)) == OK
        tx_id = begun(one)
        waiting = held(stand, one, client, "-t", "1" if how == "its time is over" else "60")
        if how == "its client goes":
            client.close()
        elif how == "it is called off":
            assert control(other, "-a") == OK
        else:
            told = client.answer()[1]
            assert b"1 open transaction" in told and told.count(b"\n") <= 1, told
        served(waiting)
        assert stand.what_runs() == "pyxsd"
        assert one.ask("TRANSACTION_END", b"T\0", tx_id)[1] == OK
        waiting.close()


@pytest.mark.parametrize("name", [C, OX])
def test_an_open_transaction(stand: SwitchedStand, name: str) -> None:
    """It is waited for; who has it is told; by force it is dropped."""
    with stand.client() as client, stand.client() as other:
        domain = guest(stand, client, 5)
        tx_id = int(other.ask("TRANSACTION_START", b"\0")[1][:-1])
        told = switch(client, real(name), seconds=0)
        assert re.fullmatch(
            rb"A\d+ \(a program of domain 0, process %d\): 1 open transaction" % os.getpid(), told
        ), told
        goes_on(stand, client)
        assert other.ask("WRITE", b"/tool/tx\0x", tx_id)[1] == OK
        told = switch(client, real(name), "-F", seconds=0)
        assert told.rstrip(b"\0") == b"OK" and stand.what_runs() == name
        assert other.ask("WRITE", b"/tool/tx\0x", tx_id)[0] == TYPES["ERROR"]
        assert client.ask("READ", b"/tool/tx\0")[0] == TYPES["ERROR"]
        works(domain, client)


def test_a_transaction_that_ends_in_time(stand: SwitchedStand) -> None:
    with stand.client() as client, stand.client() as other:
        tx_id = int(other.ask("TRANSACTION_START", b"\0")[1][:-1])
        assert control(client, "-f", real(C)) == OK
        client.send("CONTROL", b"live-update\0-s\0-t\00030\0")
        wait_for(lambda: b"update: under way" in control(other), "it does not begin")
        assert control(other, "-s") == b"a live update is under way"
        assert other.ask("WRITE", b"/tool/tx\0x", tx_id)[1] == OK
        assert stand.what_runs() == "pyxsd"
        other.ask("TRANSACTION_END", b"T\0", tx_id)
        assert client.answer() == (0, OK)
        assert stand.what_runs() == C
        assert other.ask("READ", b"/tool/tx\0")[1] == b"x"


def test_called_off_and_left(stand: SwitchedStand) -> None:
    """-a from any connection; and the client that asked goes away."""
    with stand.client() as client, stand.client() as other, stand.client() as holder:
        domain = guest(stand, client, 5)
        holder.ask("TRANSACTION_START", b"\0")
        assert control(client, "-f", real(C)) == OK
        client.send("CONTROL", b"live-update\0-s\0-t\00030\0")
        wait_for(lambda: b"update: under way" in control(other), "it does not begin")
        assert control(other, "-s") == b"a live update is under way"
        assert control(other, "-a") == OK
        assert client.answer() == (0, b"live update was called off")
        asking = stand.client()
        assert control(asking, "-f", real(C)) == OK
        asking.send("CONTROL", b"live-update\0-s\0-t\00030\0")
        wait_for(lambda: b"update: under way" in control(other), "it does not begin")
        assert control(other, "-s") == b"a live update is under way"
        asking.close()
        wait_for(lambda: "the client that asked has gone" in stand.log(), "it goes on waiting")
        goes_on(stand, client, domain)


@pytest.mark.parametrize("lives", [True, False])
def test_an_owner_that_is_not_introduced(stand: SwitchedStand, lives: bool) -> None:
    """A domain that is being built is waited for, or its nodes become domain 0's by force; those of
    a domain that is gone become domain 0's.  C ends at a node without such an owner."""
    with stand.client() as client:
        if lives:
            stand.host.create(7)
        home(client, 7)
        client.ask("WRITE", b"/b\0")
        client.ask("SET_PERMS", b"/b\0n0\0r7\0")
        if lives:
            assert (
                switch(client, real(C), seconds=0)
                == b"domain 7 owns nodes and is not introduced yet"
            )
            goes_on(stand, client)
            assert client.ask("GET_PERMS", b"/local/domain/7\0")[1] == b"n7\0"
            told = switch(client, real(C), "-F", seconds=0)
            assert told == OK
        else:
            must_switch(stand, client, real(C), C)
        assert stand.what_runs() == C
        assert client.ask("GET_PERMS", b"/local/domain/7\0")[1] == b"n0\0"


def test_a_target_and_half_a_request_for_oxenstored(stand: SwitchedStand) -> None:
    """It cannot have them: the one is dropped by force, the other one never."""
    with stand.client() as client, stand.client() as half:
        guest(stand, client, 1)
        domain = guest(stand, client, 2)
        assert client.ask("SET_TARGET", b"2\x001\0")[1] == OK
        assert switch(client, real(OX), seconds=0) == b"D2: it acts for domain 1"
        request = packet("READ", b"/tool\0", 0, 5)
        half.sock.sendall(request[:20])
        told = b""
        while b"half a packet" not in told:
            assert told == b"" or b"D2: " in told
            told = switch(client, real(OX), "-F", seconds=0)
        assert b": a part of a request" in told
        half.sock.sendall(request[20:])
        assert half.packet() == (READ, 5, 0, b"")
        assert switch(client, real(OX), "-F", seconds=0) == b"OK"
        assert stand.what_runs() == OX
        works(domain, client)
        assert domain.request(WRITE, b"/local/domain/1/in\0x").payload == b"EACCES\0"


# -- what is refused ----------------------------------------------------------


def test_what_oxenstored_would_drop(stand: SwitchedStand) -> None:
    """A value and watches beyond its limits, which its configuration can raise."""
    with stand.client() as client:
        domain = guest(stand, client, 5)
        assert control_quota(client, "node-size", 4000) == 4000
        assert client.ask("WRITE", b"/long\0" + b"x" * 3000)[1] == OK
        assert control_quota(client, "watches", 200) == 200
        for n in range(150):
            assert domain.request(WATCH, b"w%d\0t\0" % n).payload == OK
            assert domain.packet().payload == b"w%d\0t\0" % n
        told = switch(client, real(OX)).decode()
        assert told.splitlines() == [
            "the value of b'/long' has 3000 bytes, quota-maxsize allows 2048",
            "the ring of domain 5 has 150 watches, quota-maxwatch allows 100",
        ]
        goes_on(stand, client)
        other = stand.root / "other.conf"
        other.write_text(
            (stand.root / "pyxsd.conf").read_text() + "quota-maxsize = 4000\nquota-maxwatch = 200\n"
        )
        assert control(client, "-f", real(OX)) == OK
        assert control(client, "-c", "--config-file", str(other)) == OK
        assert wait_for(lambda: (told := control(client, "-s")) != b"BUSY" and told, "") == b"OK"
        assert stand.what_runs() == OX
        assert len(client.ask("READ", b"/long\0")[1]) == 3000
        client.ask("WRITE", b"/local/domain/5/w149\0")
        assert domain.packet().payload == b"w149\0t\0"


def control_quota(client: Client, name: str, value: int) -> int:
    """Sets a limit; the one that holds then."""
    client.ask("CONTROL", f"quota\0set\0{name}\0{value}\0".encode())
    told = client.ask("CONTROL", b"quota\0")[1].decode()
    return int(next(line.split(":")[1] for line in told.split("\n") if line.startswith(name + " ")))


def test_a_domain_whose_page_is_not_known(stand: SwitchedStand) -> None:
    """From C, which does not say it, and nobody else does: oxenstored would map another page."""
    with stand.client() as client:
        guest(stand, client, 5)
        must_switch(stand, client, real(C), C)
        stand.host.set_faults("param * EINVAL")
        must_switch(stand, client, stand.pyxsd(), "pyxsd")
        assert b"the ring of domain 5: the page or the port" in switch(client, real(OX))
        goes_on(stand, client)
        # To be introduced anew with its page is enough.
        domain = stand.host.guests[0]
        assert introduce(client, domain, port=stand.host.reset_port(5)) == OK
        must_switch(stand, client, real(OX), OX)
        works(domain, client)


def test_without_a_ring_of_domain_0() -> None:
    """C ends at such a state."""
    with a_stand(SwitchedStand) as stand:
        stand.start_pyxsd("--no-domain-init")
        with stand.client() as client:
            assert b"domain 0 has no ring" in switch(client, real(C))
            goes_on(stand, client)


#: Name; what it does; what the answer says.
PROGRAMS = [
    ("true", "exit 0", "is no xenstored"),
    ("fails", "exit 3", "exited with code 3"),
    ("tells", "echo no; echo limit >&2; exit 3", "exited with code 3: limit"),
    ("killed", "kill -9 $$", "was killed by signal 9"),
    ("talks", "echo hello; echo hello >&2", "is no xenstored"),
    ("hangs", "exec sleep 60", "did not end within 15 seconds"),
    (
        "ox",
        "[ $# = 1 ] && echo 'usage : xenstored [--config-file' && exit; exit 2",
        "exited with code 2",
    ),
    (
        "ox-hangs",
        "[ $# = 1 ] && echo 'usage : xenstored [--config-file' && exit; exec sleep 60",
        "did not end within 5 seconds",
    ),
]


@pytest.mark.parametrize("name,line,words", PROGRAMS, ids=lambda text: str(text)[:9])
def test_a_program_that_is_none(stand: SwitchedStand, name: str, line: str, words: str) -> None:
    with stand.client() as client:
        assert words in switch(client, stand.script(name, line)).decode()
        assert control(client, "-f", "/nonexistent").startswith(b"/nonexistent: ")
        goes_on(stand, client)


@pytest.mark.parametrize("name", [C, OX])
def test_the_program_cannot_be_executed(stand: SwitchedStand, name: str) -> None:
    """It was there when it was looked at; everything that was given up is taken back."""
    with stand.client() as client:
        domain = guest(stand, client, 5)
        words = C_HELP if name == C else "echo 'usage : xenstored [--config-file'; exit 0"
        program = stand.script("program", words)
        before = at_rest(stand)
        assert control(client, "-f", program) == OK
        Path(program).write_text("#!/nonexistent/interpreter\n")
        told = control(client, "-s")
        while told == b"BUSY":
            told = control(client, "-s")
        assert told == f"{program}: No such file or directory".encode()
        assert at_rest(stand) == before
        goes_on(stand, client, domain)


def at_rest(stand: SwitchedStand) -> tuple[int, dict[int, int]]:
    """Event channels and descriptors, behind whatever the daemon opens for a moment, such as what
    it loads in its first second."""
    seen = (stand.host.ports_in_use(), flags(stand))
    while True:
        time.sleep(0.1)
        before, seen = seen, (stand.host.ports_in_use(), flags(stand))
        if seen == before:
            return seen


def flags(stand: SwitchedStand) -> dict[int, int]:
    """The flags of all descriptors."""
    found = {}
    for fd in os.listdir(f"/proc/{stand.pid}/fd"):
        try:
            text = Path(f"/proc/{stand.pid}/fdinfo/{fd}").read_text()
        except FileNotFoundError:
            continue  # closed since
        found[int(fd)] = int(text.split("flags:")[1].split()[0], 8)
    return found


def test_the_file_cannot_be_written(stand: SwitchedStand) -> None:
    with stand.client() as client:
        domain = guest(stand, client, 5)
        (stand.root / "run/state_dump").mkdir()
        assert b"Is a directory" in switch(client, real(C))
        (stand.root / "run/state_dump").rmdir()
        goes_on(stand, client, domain)


# -- how the program is executed ----------------------------------------------


def executed(stand: SwitchedStand, client: Client, *words: str) -> list[str]:
    """The words with which C xenstored is executed, which goes on."""
    program = stand.script(
        "program",
        f'if [ "$1" = --help ]; then {C_HELP}; fi',
        f'for word; do echo "$word"; done > {stand.root}/words',
        f"ls $XENSTORED_ROOTDIR > {stand.root}/files",
        f'exec {real(C)} "$@"',
    )
    assert control(client, "-f", program) == OK
    if words:
        assert control(client, "-c", *words) == OK
    assert control(client, "-s") == OK
    return (stand.root / "words").read_text().split()


def test_our_arguments_in_c_s_way() -> None:
    """Translated where they came from us; those of -c replace them."""
    with a_stand(SwitchedStand) as stand:
        pid_file = f"{stand.root}/run/pid2"
        (stand.root / "old").mkdir()
        stand.start_pyxsd("--pid-file", pid_file, XENSTORED_ROOTDIR=f"{stand.root}/old")
        with stand.client() as client:
            assert executed(stand, client) == ["--no-fork", "--pid-file", pid_file, "-U"]
            # Older ones look for the state there.
            assert (stand.root / "files").read_text() == "state_dump\n"
            must_switch(stand, client, stand.pyxsd(), "pyxsd")
            assert executed(stand, client, "-N -E 50", "-U") == ["-N", "-E", "50", "-U"]
            must_switch(stand, client, stand.pyxsd(), "pyxsd")
            assert executed(stand, client) == ["--no-fork", "--entry-nb=50", "-U"]


def unread(sock: socket.socket) -> int:
    """How many bytes that were sent the other end has not read."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4), "little")


def test_c_s_sockets_block(stand: SwitchedStand) -> None:
    """C drops a client whose header and payload come apart where they do not."""
    with stand.client() as client, socket.socket(socket.AF_UNIX) as other:
        other.connect(str(stand.root / "run/socket"))
        other.settimeout(30)
        client.ask("READ", b"/tool\0")
        must_switch(stand, client, real(C), C)
        request = packet("READ", b"/tool\0", 0, 5)
        other.sendall(request[:16])
        wait_for(lambda: not unread(other), "nobody reads it")
        other.sendall(request[16:])
        assert other.recv(16) == packet("READ", b"", 0, 5)
        sockets = [
            fd
            for fd, each in flags(stand).items()
            if os.readlink(f"/proc/{stand.pid}/fd/{fd}").startswith("socket:")
            and each & os.O_NONBLOCK
        ]
        assert not sockets


def test_what_one_client_has_chosen_is_not_what_another_one_asks_for(stand: SwitchedStand) -> None:
    """-s of somebody else lets this program take over, as `pyxsd-setup update` means it."""
    with stand.client() as client, stand.client() as other:
        assert control(client, "-f", real(C)) == OK
        assert control(other, "-s") == b"BUSY"
        told = wait_for(lambda: (told := control(other, "-s")) != b"BUSY" and told, "")
        assert told == b"OK"
        pid = (
            int((stand.root / "run/pyxsd.pid").read_text())
            if (stand.root / "run/pyxsd.pid").exists()
            else int((stand.root / "run/pid").read_text())
        )
        assert pid != stand.pid
        os.kill(pid, 9)
