# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image that SIGTERM leaves beside the database: what survives only with it, and when it is
not used.  What both files bring back is in test_restart.py."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from pyxsd.state import disk, image, values
from pyxsd.state.dump import IMAGE
from tests.clients.daemon import wait_for
from tests.domains.standin import WATCH_EVENT, Stand, home, introduce, works
from tests.state.test_image import put_together
from tests.world import packet

READ, WATCH, START, END, WRITE, ERROR = 2, 4, 6, 7, 11, 16
RING = 1024


def prepare(stand: Stand, domid: int = 5) -> Any:
    """A domain with a home and a watch on `in` in it."""
    with stand.client() as client:
        domain = stand.host.create(domid)
        assert introduce(client, domain) == b"OK\0"
        home(client, domid)
        works(domain, client)
    assert domain.request(WATCH, b"in\0tok\0").payload == b"OK\0"
    assert domain.packet().payload == b"in\0tok\0"
    return domain


def path_of(stand: Stand, name: str = "db.image") -> Path:
    """A file in the run directory."""
    return stand.root / "run" / name


def again(stand: Stand) -> None:
    """SIGTERM, and a start from the image."""
    stand.terminate()
    stand.start("--restart")
    assert "nodes from " + str(path_of(stand)) in stand.log(), stand.log()
    assert "not used" not in stand.log()


def test_the_file(stand: Stand) -> None:
    """For root alone, newer than the database, and never written into what is there."""
    prepare(stand)
    aim = path_of(stand, "aim")
    aim.write_bytes(b"untouched")
    path_of(stand, "db.image#").symlink_to(aim)
    stand.terminate()
    found = path_of(stand).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_mtime_ns >= path_of(stand, "db").stat().st_mtime_ns
    assert aim.read_bytes() == b"untouched"
    assert not os.path.lexists(path_of(stand, "db.image#"))


def test_transactions_of_rings(stand: Stand) -> None:
    """They go on; those of sockets are gone with them."""
    domain = prepare(stand)
    number = int(domain.request(START, b"\0").payload.rstrip(b"\0"))
    assert domain.request(WRITE, b"in/a\0v", tx_id=number).payload == b"OK\0"
    with stand.client() as client:
        assert client.ask("TRANSACTION_START", b"\0")[0] == START
        again(stand)
    assert domain.request(READ, b"in/a\0", tx_id=number).payload == b"v"
    assert domain.request(READ, b"in/a\0").payload == b"ENOENT\0"
    events: list[Any] = []
    assert domain.request(END, b"T\0", tx_id=number, events=events).payload == b"OK\0"
    assert [event.payload for event in events] == [b"in/a\0tok\0"]
    assert domain.request(READ, b"in/a\0").payload == b"v"
    assert int(domain.request(START, b"\0").payload.rstrip(b"\0")) > number


def test_events_that_wait_for_a_ring(stand: Stand) -> None:
    """In the ring, in the output, behind the watch, and on the account of a socket that is gone
    by now, whose events are as if it had gone with the daemon there."""
    domain = prepare(stand)
    many = 2200
    with stand.client() as client:
        client.sock.sendall(
            b"".join(
                packet("WRITE", b"/local/domain/5/in/%05d\0v" % n, req_id=n) for n in range(many)
            )
        )
        for n in range(2049):
            assert client.packet() == (WRITE, n, 0, b"OK\0")
    again(stand)
    seen: list[bytes] = []
    while len(seen) < 2048:
        event = domain.packet()
        assert event.type == WATCH_EVENT
        seen.append(event.payload)
    assert seen == [b"in/%05d\0tok\0" % n for n in range(len(seen))]
    # Whatever comes behind them comes in order, and the ring works.
    while (answer := _next(domain)).type == WATCH_EVENT:
        seen.append(answer.payload)
    assert seen == [b"in/%05d\0tok\0" % n for n in range(len(seen))]
    assert answer.payload == b"enif"


def test_who_does_not_come_back_is_not_told_of(stand: Stand) -> None:
    """In the access log: clients whose sockets are gone ended with the daemon before."""
    prepare(stand)
    with stand.client() as client:
        client.ask("WRITE", b"/before\0")
        stand.terminate()
        log = stand.root / "run" / "access.log"
        before = log.read_bytes()
        stand.start("--restart")
        with stand.client() as other:
            other.ask("WRITE", b"/behind\0")
        stand.terminate()
        told = log.read_bytes()[len(before) :]
    assert b"/before" in before and b"/behind" in told
    begun, ended = (set(re.findall(rb"(#\d+)\) " + word, told)) for word in (b"new", b"end"))
    assert begun and ended <= begun


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    """It is told, and not used."""
    assert disk.find(str(tmp_path)) == (None, [])
    (tmp_path / IMAGE).mkdir()
    assert disk.find(str(tmp_path)) == (None, [f"{tmp_path / IMAGE}: not used: Is a directory"])


def _next(domain: Any) -> Any:
    """The next packet, having asked for something once."""
    if not hasattr(domain, "asked"):
        domain.asked = True
        domain.write(packet("READ", b"alive\0", req_id=77))
        domain.kick()
    return domain.packet()


def test_quotas_and_targets(stand: Stand) -> None:
    """What was set at run time stays."""
    domain = prepare(stand)
    other = prepare(stand, 6)
    with stand.client() as client:
        assert client.ask("CONTROL", b"quota\0set\0watches\x0077\0")[1] == b"OK\0"
        assert client.ask("SET_TARGET", b"5\x006\0")[1] == b"OK\0"
        assert domain.request(WRITE, b"/local/domain/6/by\0me").payload == b"OK\0"
    again(stand)
    with stand.client() as client:
        assert b"77" in client.ask("CONTROL", b"quota\0")[1]
    assert domain.request(WRITE, b"/local/domain/6/by\0again").payload == b"OK\0"
    assert other.request(READ, b"by\0").payload == b"again"


def test_a_broken_ring_stays_parked(stand: Stand) -> None:
    """Until the domain reconnects."""
    domain = prepare(stand)
    domain.write(b"\xff" * 16)
    domain.kick()
    wait_for(lambda: "broken ring" in stand.log(), "it was not noticed")
    again(stand)
    with stand.client() as client:
        client.ask("WRITE", b"/local/domain/5/in/x\0v")
    domain.reconnect()
    assert domain.request(READ, b"alive\0").payload == b"enif"


def test_a_ring_that_was_used_meanwhile(stand: Stand) -> None:
    """Its transactions and waiting events are dropped, too; its watches stay."""
    domain = prepare(stand)
    number = int(domain.request(START, b"\0").payload.rstrip(b"\0"))
    stand.terminate()
    for name in ("req_cons", "req_prod"):
        domain.set(name, 0)
    stand.start("--restart")
    assert "domain 5: its ring was used since" in stand.log()
    answer = domain.request(READ, b"in/a\0", tx_id=number)
    assert (answer.type, answer.payload) == (ERROR, b"EIO\0")
    assert domain.request(WRITE, b"in/a\0v").payload == b"OK\0"
    assert domain.packet().payload == b"in/a\0tok\0"


def test_the_database_is_newer(stand: Stand) -> None:
    """Somebody else has served the host since: the image is not used, and the log says so."""
    prepare(stand)
    stand.terminate()
    db = path_of(stand, "db")
    db.write_bytes(db.read_bytes().replace(b"enif".hex().encode(), b"news".hex().encode()))
    os.utime(db, ns=(path_of(stand).stat().st_mtime_ns + 1,) * 2)
    stand.start("--restart")
    assert "db.image: not used: it is older than db" in stand.log()
    with stand.client() as client:
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"news"


#: How the file is damaged, and what the log says.
DAMAGES = (
    ("cut", lambda data: data[:-9], "ends before DONE|bytes are missing"),
    # Within a record or between two, as long as the paths in it are.
    ("half", lambda data: data[: len(data) // 2], r"record \d+.* at byte \d+: .*(missing|before)"),
    ("empty", lambda data: b"", "0 bytes and no whole header"),
    ("another", lambda data: b"\0" * 99, "does not begin with"),
    ("short", lambda data: data[:9], "9 bytes and no whole header"),
    ("flipped", lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:], "at byte"),
    ("senseless", lambda data: _without(data, b"TURN"), "there is no record TURN"),
)


def _without(data: bytes, type_: bytes) -> bytes:
    return put_together(
        (record.type, record.body) for record in image.read(data) if record.type != type_
    )


@pytest.mark.parametrize(
    ("change", "words"), [each[1:] for each in DAMAGES], ids=[each[0] for each in DAMAGES]
)
def test_a_damaged_image(stand: Stand, change: Any, words: str) -> None:
    """The log says what is wrong with it and where, and the database is used."""
    domain = prepare(stand)
    stand.terminate()
    path_of(stand).write_bytes(change(path_of(stand).read_bytes()))
    stand.start("--restart")
    assert re.search("db.image: not used: .*(" + words + ")", stand.log()), stand.log()
    assert f"nodes from {path_of(stand, 'db')}" in stand.log()
    with stand.client() as client:
        works(domain, client)


def test_no_database(stand: Stand) -> None:
    """The image alone is enough."""
    domain = prepare(stand)
    stand.terminate()
    path_of(stand, "db").unlink()
    stand.start("--restart")
    with stand.client() as client:
        works(domain, client)


def test_another_boot(stand: Stand) -> None:
    """The store alone is taken, without what belonged to domains of then."""
    domain = prepare(stand)
    with stand.client() as client:
        client.ask("WRITE", b"/tool/kept\0v")
    stand.terminate()

    def changed(record: Any) -> bytes:
        if record.type != b"HOST":
            return bytes(record.body)
        return values.encode({**values.decode(bytes(record.body)), "boot": "another"})

    data = path_of(stand).read_bytes()
    path_of(stand).write_bytes(
        put_together((record.type, changed(record)) for record in image.read(data))
    )
    stand.start("--restart")
    assert "the store alone: the machine was booted since" in stand.log()
    with stand.client() as client:
        assert client.ask("READ", b"/tool/kept\0")[1] == b"v"
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"ENOENT\0"
        assert client.ask("IS_DOMAIN_INTRODUCED", b"5\0")[1] == b"F\0"
        assert introduce(client, domain) == b"OK\0"
        home(client, 5)
        works(domain, client)


def test_what_is_persistent_is_read_back() -> None:
    """Without --restart: what was committed a moment before the daemon is killed, and what SIGTERM
    wrote; domains that still live go on."""
    with Stand(settings={"persistent": "true"}).start() as stand:
        domain = prepare(stand)
        with stand.client() as client:
            number = int(client.ask("TRANSACTION_START", b"\0")[1].rstrip(b"\0"))
            client.ask("WRITE", b"/tool/kept\0word", number)
            client.ask("TRANSACTION_END", b"T\0", number)
            db, word = path_of(stand, "db"), b"word".hex().encode()
            wait_for(lambda: db.exists() and word in db.read_bytes(), "not written")
        stand.peer.kill()
        for how in ("killed", "ended"):
            stand.start()
            with stand.client() as client:
                assert client.ask("READ", b"/tool/kept\0")[1] == b"word", how
                works(domain, client)
            stand.terminate()
        assert f"nodes from {path_of(stand)}" in stand.log()


def test_without_a_restart_it_is_left_alone(stand: Stand) -> None:
    prepare(stand)
    stand.terminate()
    stand.start()
    with stand.client() as client:
        assert client.ask("READ", b"/local/domain/5/alive\0")[1] == b"ENOENT\0"


def test_a_large_file_that_is_none(tmp_path: Path) -> None:
    """All of it would take the memory of the host, and a minute of its boot."""
    with (tmp_path / "db.image").open("wb") as file:
        file.truncate(1 << 40)
    found, told = disk.find(str(tmp_path))
    assert found is None
    assert told == [f'{tmp_path}/db.image: not used: the file does not begin with "pyxsdimg"']
