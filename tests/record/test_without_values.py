# SPDX-License-Identifier: LGPL-2.1-or-later
"""`record-values = false`: nothing that a guest wrote is in a recording, and the replay does the
same all the same."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd._accesslog import AccessLog
from pyxsd.record import beginning
from pyxsd.record.replay import Replay
from pyxsd.state import image, picture
from pyxsd.system.configuration import Config
from tests.clients.daemon import Client, Daemon
from tests.conformance.replay import transcripts
from tests.fuzz.program import RECORD
from tests.fuzz.test_cases import corpus
from tests.record.kit import Tape, close
from tests.record.test_daemon import replay as run_again
from tests.record.test_journal import HEAD, READ, RESTART, WITH_PAYLOAD, records
from tests.record.test_programs import run
from tests.record.test_transcripts import record
from tests.rings.kit import Rings
from tests.world import TYPES, World, packet

RANDOM = int(os.environ.get("PYXSD_RECORD_PROGRAMS", "30"))
EVERY = 250  # steps between two comparisons
SECRET = bytes(range(0xE0, 0xF1))
PACKET = 16  # bytes of a header


# -- what a recording must be, said once more in another way ------------------


def streams(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(offset of the payload, subject, payload) of each READ; payload empty: it begins anew."""
    for at, kind, result, subject in records(data):
        begins_anew = data[at + 2] if kind == READ else kind == RESTART and result
        if begins_anew or (kind == READ and result < 0):
            yield at, subject, b""
        if kind == READ and result > 0:
            yield at + HEAD.size, subject, data[at + HEAD.size : at + HEAD.size + result]


def values(data: bytes, starts: dict[int, bytes]) -> list[range]:
    """Where values stand in a journal; starts: what had come before it and was not served."""
    whole: dict[int, list[tuple[int, int]]] = {}  # subject: (byte, its offset; -1: none)
    found: list[range] = []

    def take(subject: int) -> None:
        """Whole packets, and the last one as far as it is there."""
        left = whole.pop(subject, [])
        while len(left) >= PACKET:
            text = bytes(byte for byte, _ in left)
            length = int.from_bytes(text[12:16], "little")
            if length > 4096:
                found.extend(range(at, at + 1) for _, at in left[PACKET:] if at >= 0)
                return
            payload = text[PACKET : PACKET + length]
            if int.from_bytes(text[:4], "little") == TYPES["WRITE"] and b"\0" in payload:
                begin = PACKET + payload.index(b"\0") + 1
                found.extend(
                    range(at, at + 1) for _, at in left[begin : PACKET + length] if at >= 0
                )
            left = left[PACKET + length :]

    for subject, text in starts.items():
        whole[subject] = [(byte, -1) for byte in text]
    for at, subject, payload in streams(data):
        if not payload:
            take(subject)
        whole.setdefault(subject, []).extend((byte, at + i) for i, byte in enumerate(payload))
    for subject in list(whole):
        take(subject)
    return found


def started(world: World) -> dict[int, bytes]:
    return {
        c.id if c.is_socket else 1 << 63 | c.domid: c.partial_input
        for c in world.server.connections.values()
    }


class Blank(Tape):
    """A tape without values; each check looks for them."""

    def __init__(self, world: World, config: Config | None = None) -> None:
        self.starts = started(world)
        super().__init__(world, config, values=False)

    def check(self) -> None:
        super().check()
        for data in (self.beginning, beginning.write(self.world.server, self.domains, self.config)):
            shown = picture.read_image(beginning.read(data)["image"])
            assert all(set(node.value) <= set(b"x") for node in shown.nodes)
        expected = bytearray(self.raw)
        for where in values(self.raw, self.starts):
            expected[where.start] = ord("x")
        for at, kind, result, _ in records(self.raw):
            if kind in WITH_PAYLOAD and result > 0:
                end = at + HEAD.size + result
                expected[end : end + -result % 8] = bytes(-result % 8)
        assert bytes(expected) == self.data


# -- transcripts and programs -------------------------------------------------


@pytest.mark.parametrize("name", transcripts())
def test_every_transcript(name: str) -> None:
    record(name, EVERY, Blank)


def test_random_programs() -> None:
    for seed in range(RANDOM):
        source = random.Random(seed)
        length = 1 + RECORD * source.choice((5, 20, 60, 200))
        run(source.randbytes(length), seed % 5, 60, seed % 2 == 0, Blank)


def test_the_programs_that_reach_the_most() -> None:
    for number, program in enumerate(corpus()):
        run(program, 3, 120, number % 2 == 0, Blank)


# -- a marker -----------------------------------------------------------------


def nowhere(tape: Tape, marker: bytes = SECRET) -> None:
    """The tape does the same again, and has no three bytes of the marker in a row."""
    tape.check()
    for n in range(len(marker) - 2):
        assert marker[n : n + 3] not in tape.beginning + tape.taken()


def write(path: bytes = b"/a", value: bytes = SECRET) -> bytes:
    return packet("WRITE", path + b"\0" + value)


def before(world: World) -> None:
    """All places in which a server that a recording begins with has values."""
    world.ask("s0", "WRITE", b"/a\0" + SECRET)
    tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
    world.ask("s0", "READ", b"/a\0", tx)
    world.ask("s0", "WRITE", b"/b\0" + SECRET, tx)
    world.ask("s1", "WRITE", b"/a\0other" + SECRET)  # the history has both
    world.feed("s1", write()[:-5])  # half a request
    deaf, transport = world.connection("s2")
    transport.room = 20  # one of them is torn
    for _ in range(3):
        transport.feed(packet("READ", b"/a\0"))  # answers that are not sent
        world.server.service(deaf)
    world.server.flush()
    assert SECRET[-5:] in deaf.pending_output and deaf.torn_output


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 20, 40, 1000])
def test_in_pieces(size: int) -> None:
    """Byte by byte, several in one read, cut in the header, the path and the value."""
    world = World()
    before(world)
    tape = Blank(world)
    world.feed("s1", write()[-5:])
    text = write() + packet("MKDIR", b"/dir\0") + write(b"/" + b"p" * 30) + packet("READ", b"/a\0")
    for piece in pieces(text + write(b"/e", b"") + write(b"/last"), size):
        world.feed("s0", piece)
        world.feed("s3", piece)
    nowhere(tape)
    tape.close()
    world.close()


def test_equal_and_not_equal() -> None:
    """Who writes an equal value is in nobody's way, and another one of the same length is."""
    for second in (SECRET, SECRET[::-1]):
        world = World()
        world.ask("s0", "WRITE", b"/a/b\0" + SECRET)
        tape = Blank(world)
        tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
        world.ask("s0", "READ", b"/a/b\0", tx)
        world.ask("s0", "WRITE", b"/a/c\0" + SECRET, tx)
        world.ask("s1", "WRITE", b"/a/b\0" + second)
        end = world.ask("s0", "TRANSACTION_END", b"T\0", tx)[1]
        assert end == (b"OK\0" if second == SECRET else b"EAGAIN\0")
        nowhere(tape)
        tape.close()
        world.close()


def test_a_replayed_transaction_that_began_before() -> None:
    """What it had read is compared by a digest; those of values are not in the recording."""
    for back in (SECRET, SECRET[::-1]):
        world = World()
        world.ask("s0", "WRITE", b"/a\0" + SECRET)
        tx = int(world.ask("s0", "TRANSACTION_START", b"\0")[1][:-1])
        world.ask("s0", "READ", b"/a\0", tx)
        world.ask("s0", "WRITE", b"/b\0", tx)
        tape = Blank(world)
        for row in world.server.connections[world.connection("s0")[0].id].transactions.values():
            digest: Any = row.requests[0][3]
            assert digest and digest.to_bytes(8, "little") not in tape.beginning
        world.ask("s1", "WRITE", b"/a\0other")
        world.ask("s1", "WRITE", b"/a\0" + back)
        end = world.ask("s0", "TRANSACTION_END", b"T\0", tx)[1]
        assert end == (b"OK\0" if back == SECRET else b"EAGAIN\0")
        nowhere(tape)
        tape.close()
        world.close()


def begun_anew(world: Rings) -> None:
    """The domain is released and introduced again, in the middle of a value."""
    world.ask("s0", "RELEASE", b"1\0")
    world.guest(1)
    world.ask("s0", "INTRODUCE", b"1\x004660\x007\0")


def reconnected(world: Rings) -> None:
    """The guest asks for a fresh start, in the middle of a value."""
    world.reconnect(1)


@pytest.mark.parametrize("anew", [begun_anew, reconnected])
def test_a_ring_that_begins_anew(anew: Callable[[Rings], None]) -> None:
    world = Rings()
    tape = Blank(world)
    world.feed("d1", write(b"data")[:-5])
    anew(world)
    for piece in pieces(write(b"data") + write(b"more"), 7):
        world.feed("d1", piece)
    nowhere(tape)
    tape.close()
    world.close()


def test_a_packet_that_is_too_long() -> None:
    world = World()
    tape = Blank(world)
    world.feed("s0", HEAD.pack(0, 0, 0, 0, 0)[:12] + (5000).to_bytes(4, "little") + write())
    world.ask("s1", "WRITE", b"/a\0" + SECRET)
    nowhere(tape)
    tape.close()
    world.close()


def test_what_is_shown() -> None:
    """The requests of a replay have x, and so has its state."""
    world = World()
    world.ask("s0", "WRITE", b"/a\0" + SECRET)
    tape = Blank(world)
    world.ask("s0", "WRITE", b"/b\0" + SECRET[:4])
    host: Any = type(world.host)()
    again = Replay(tape.beginning, AccessLog(True, -1, True, True, True), host)
    host.server = again.server
    again.feed(tape.taken())
    while again.step():
        pass
    assert b"write     /b xxxx\n" in again.server.log.take()[0]
    nodes = picture.read_image(image.save(again.server)).nodes
    found = {node.path: node.value for node in nodes}
    assert found[b"/a"] == b"x" * len(SECRET) and found[b"/b"] == b"xxxx"
    close(again)
    tape.close()
    world.close()


def test_a_daemon(tmp_path: Path) -> None:
    directory = tmp_path / "recorded"
    settings = {"record-directory": str(directory), "record-values": "false", "record-size": "1"}
    with Daemon(settings) as daemon, Client(daemon.socket) as client:
        client.ask("WRITE", b"/kept\0" + SECRET)
        client.sock.sendall(write(b"/half")[:-5])
        with Client(daemon.socket) as other:
            for n in range(600):
                # Several recordings, which begin within a request of the first client.
                other.ask("WRITE", b"/n%d\0" % (n % 3) + SECRET * 100)
        client.sock.sendall(write(b"/half")[-5:])
        assert client.answer()[1] == b"OK\0"
        daemon.process.terminate()
        assert daemon.process.wait(30) == 0
    found = sorted(directory.iterdir())
    assert len(found) >= 2
    for path in found:
        assert SECRET[:3] not in path.read_bytes() and SECRET[-5:] not in path.read_bytes()
    again = run_again(directory, "--as", "text")
    assert again.returncode == 0, again.stderr
    assert b'"/kept" n0 "%s"' % (b"x" * len(SECRET)) in again.stdout
    assert b'"/half" n0 "%s"' % (b"x" * len(SECRET)) in again.stdout
