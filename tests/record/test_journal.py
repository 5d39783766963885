# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal itself: what a damaged one brings, and what is in it."""

from __future__ import annotations

import gc
import re
import struct
from collections.abc import Iterator

import pytest

from pyxsd import _journal
from pyxsd._journal import Journal
from pyxsd._wire import MemoryTransport
from pyxsd.record import recording
from pyxsd.record.replay import Replay
from tests.record.kit import Tape, close
from tests.rings.kit import Rings
from tests.world import World, packet

CLOCK, READ, WRITE, RESTART = 16, 17, 18, 19
WITH_PAYLOAD = (_journal.TURN, _journal.ANSWER, _journal.PORTS, READ, _journal.HOST)
HEAD = struct.Struct("<BBHiQ")


def records(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(offset, kind, result, subject) of each record."""
    at = 0
    while at < len(data):
        kind, zero, _, result, subject = HEAD.unpack_from(data, at)
        assert zero == 0
        yield at, kind, result, subject
        at += HEAD.size
        if kind in WITH_PAYLOAD and result > 0:
            at += (result + 7) // 8 * 8
    assert at == len(data)


def recorded() -> tuple[bytes, bytes]:
    """(beginning, journal) of a short life on rings and sockets."""
    world = Rings()
    tape = Tape(world)
    world.ask("s0", "WATCH", b"/local\0t\0")
    world.works(1)
    world.guest(3)
    world.ask("s1", "INTRODUCE", b"3\x004660\x007\0")
    world.ask("s2", "READ", b"/tool\0")
    world.xen.set_state(2, "dead")
    world.virq()
    world.host.domains.scan()
    data = tape.taken()
    tape.check()
    tape.close()
    world.close()
    return tape.beginning, data


def fault_of(beginning: bytes, data: bytes) -> str | None:
    """What a replay says against a journal."""
    replay = Replay(beginning)
    replay.feed(data)
    while replay.step():
        pass
    close(replay)
    return replay.fault


@pytest.fixture(scope="module", name="life")
def a_life() -> tuple[bytes, bytes]:
    made = recorded()
    gc.collect()  # or the first test that is done would seem to have freed it
    return made


def test_a_life_has_records_of_most_kinds(life: tuple[bytes, bytes]) -> None:
    kinds = {kind for _, kind, _, _ in records(life[1])}
    assert kinds >= {
        _journal.TURN,
        _journal.WORK,
        _journal.CONNECT,
        _journal.PORTS,
        _journal.SERVE,
        _journal.HOST,
        CLOCK,
        READ,
        WRITE,
        RESTART,
    }


def test_what_a_switch_does_between_turns() -> None:
    """Starts are held back, what was sent behind them is read and not served, what was read is
    served and no more is read; the interrupt is let go of and bound again."""
    world = Rings()
    tape = Tape(world)
    client, transport = world.connection("s0")
    world.server.hold_starts(True)
    transport.feed(packet("TRANSACTION_START", b"\0", 0, 1))
    world.server.service(client)
    assert world.server.is_holding and world.server.is_held(client)
    transport.feed(packet("READ", b"/tool\0", 0, 2))
    world.server.read_on(client, 1000)
    transport.feed(packet("READ", b"/local\0", 0, 3))
    world.server.hold_starts(False)
    world.server.drain(client)
    world.server.drain(client)
    world.xen.bound[world.host.domains.virq_port] = 0
    world.host.domains.leave_interrupt()
    assert world.host.domains.virq_port == 0
    world.host.domains.start()
    world.turn()
    world.turn()
    assert [answer[1] for answer in world.drain("s0")] == [1, 2, 3]
    kinds = [kind for _, kind, _, _ in records(tape.taken())]
    for kind, count in ((_journal.HOLD_STARTS, 2), (_journal.READ_ON, 1), (_journal.INTERRUPT, 2)):
        assert kinds.count(kind) == count
    tape.check()
    tape.close()
    world.close()


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_page_that_cannot_be_had_for_now(is_recorded: bool) -> None:
    """The ring waits, and is opened again by a scan: where its indices were known when the
    recording began, they are compared."""
    world = Rings()
    world.works(1)
    domains = world.host.domains
    tape = Tape(world) if is_recorded else None
    domains.shut(domains.table[1])
    assert domains.closed == {1}
    if tape is None:
        domains.table[1].expected = world.xen.indices(domains.table[1].transport) or (9, 9)
        tape = Tape(world)
    domains.scan()
    assert not domains.closed
    world.works(1)
    tape.taken()
    tape.check()
    tape.close()
    world.close()


def test_a_record_that_is_missing_is_noticed(life: tuple[bytes, bytes]) -> None:
    """Each is asked for, and where it is not there the next one has another kind or subject."""
    beginning, data = life
    assert fault_of(beginning, data) is None
    begins = [at for at, *_ in records(data)] + [len(data)]
    for (at, kind, _, _), end in zip(records(data), begins[1:]):
        if (
            kind in (_journal.TURN, _journal.SERVE, CLOCK)
            and data[end : end + 1] == data[at : at + 1]
        ):
            continue  # one of two clocks in a row
        fault = fault_of(beginning, data[:at] + data[end:])
        if kind in (_journal.TURN, _journal.WORK, _journal.HOLD, _journal.RELEASE):
            continue  # nobody is to be served then, or it is later, or somebody holds old trees
        assert fault is not None and "byte" in fault, (at, kind)


def test_a_journal_that_ends_within_a_turn_says_where(life: tuple[bytes, bytes]) -> None:
    beginning, data = life
    inside = [at for at, kind, _, _ in records(data) if kind >= CLOCK]
    for at in inside:
        fault = fault_of(beginning, data[:at])
        assert fault is not None and fault.startswith(f"the journal ends at byte {at}, where"), at


def test_a_cut_record_is_refused(life: tuple[bytes, bytes]) -> None:
    beginning, data = life
    begins = {at for at, *_ in records(data)} | {len(data)}
    replay = Replay(beginning)
    for length in range(0, len(data), 3):
        if length not in begins:
            with pytest.raises(ValueError, match="ends within the record at byte"):
                replay.feed(data[:length])
    close(replay)


@pytest.mark.parametrize(
    "kind", [READ, WRITE, RESTART, _journal.HOST, _journal.SERVE, _journal.CONNECT]
)
def test_another_subject_is_noticed(life: tuple[bytes, bytes], kind: int) -> None:
    beginning, data = life
    tried = 0
    for at, found, _, subject in records(data):
        if found == kind:
            changed = bytearray(data)
            struct.pack_into("<Q", changed, at + 8, subject + 77)
            assert fault_of(beginning, bytes(changed)) is not None
            tried += 1
    assert tried


def test_output_of_another_length_is_noticed(life: tuple[bytes, bytes]) -> None:
    beginning, data = life
    for at, kind, _, _ in records(data):
        if kind == WRITE:
            changed = bytearray(data)
            changed[at + 2] ^= 1
            fault = fault_of(beginning, bytes(changed))
            assert fault is not None and f"at byte {at} of the journal stands WRITE" in fault


def test_more_than_was_asked_for_is_never_copied() -> None:
    """A journal that claims a longer read than there is room for."""
    world = World()
    connection, _ = world.connection("s0")
    tape = Tape(world)
    replay = Replay(tape.beginning, host=type(world.host)())
    long = 1 << 20
    replay.feed(
        HEAD.pack(_journal.SERVE, 0, 0, 0, connection.id)
        + HEAD.pack(CLOCK, 0, 0, 0, 1)
        + HEAD.pack(READ, 0, 0, long, connection.id)
        + bytes(long)
    )
    replay.step()
    assert replay.fault is not None and "READ" in replay.fault
    close(replay)
    world.close()


def test_nothing_is_noted_where_nothing_is_recorded() -> None:
    world = World()
    world.ask("s0", "READ", b"/tool\0")
    assert world.server.journal.size == 0 and world.server.journal.take() == b""
    world.close()


def test_a_connection_without_a_descriptor() -> None:
    """A number would be that of another one's socket, for who goes on after a crash."""
    world = World()
    tape = Tape(world)
    world.connection("s1")
    results = [result for _, kind, result, _ in records(tape.taken()) if kind == _journal.CONNECT]
    assert results == [-1]
    tape.close()
    world.close()


def test_trees_are_held_for_as_long_as_somebody_holds_them() -> None:
    world = World()
    tape = Tape(world)

    def released() -> int:
        return [found for _, found, _, _ in records(tape.taken())].count(_journal.RELEASE)

    hold = world.server.hold()
    world.ask("s0", "WRITE", b"/a\0v")
    assert released() == 0
    del hold
    world.turn()
    assert released() == 1
    tape.check()
    tape.close()
    world.close()


def test_the_seam_goes_when_the_recording_ends() -> None:
    world = World()
    connection, transport = world.connection("s0")
    tape = Tape(world)
    assert connection.transport is not transport
    world.ask("s0", "READ", b"/tool\0")
    new, new_transport = world.connection("s1")
    tape.close()
    assert connection.transport is transport and new.transport is new_transport
    assert world.ask("s0", "READ", b"/tool\0")[0] == 2
    assert not world.server.journal.is_recording
    world.close()


def test_a_full_segment_is_asked_for() -> None:
    journal = Journal()
    journal.record(lambda: None, 100)
    with pytest.raises(ValueError):
        journal.record(lambda: None)
    with pytest.raises(ValueError):
        journal.replay(b"")
    journal.note(_journal.SCAN)
    assert journal.size == 16 and journal.take() == HEAD.pack(_journal.SCAN, 0, 0, 0, 0)
    assert journal.offset == 16
    journal.stop()
    journal.note(_journal.SCAN)
    assert journal.size == 0


def test_a_replay_that_goes_on_live() -> None:
    """At the journal's end the bytes come from outside again."""
    world = World()
    world.ask("s0", "WRITE", b"/a\0one")
    tape = Tape(world)
    world.ask("s0", "WRITE", b"/a\0two")
    replay = tape.again()
    replay.journal.go_on()
    server = replay.server
    server.follow_journal()
    connection = server.connections[world.connection("s0")[0].id]
    assert isinstance(connection.transport, MemoryTransport)
    connection.transport.feed(packet("READ", b"/a\0"))
    server.service(connection)
    server.flush()
    assert connection.transport.take()[16:] == b"two"
    close(replay)
    world.close()


@pytest.mark.parametrize("closed", ["s0", "s1", "s2"])
def test_who_was_closed_while_it_waited(closed: str) -> None:
    """It is in the lists of the recorded server, and in no image of it."""
    world = World()
    agenda = world.server.agenda
    names = ("s0", "s1", "s2")
    for name in names:
        world.connection(name)
    slices, agenda.slice_ns, agenda.turn_ns = (agenda.slice_ns, agenda.turn_ns), 0, 0
    world.server.begin(world.now, world.now)
    for name in names:
        connection, transport = world.connection(name)
        transport.feed(packet("READ", b"/tool\0") * 100)
        world.server.service(connection)
    assert agenda.count == 3
    world.server.disconnect(world.connection(closed)[0])
    assert agenda.count == 3
    tape = Tape(world)
    assert agenda.count == 2
    agenda.slice_ns, agenda.turn_ns = slices
    world.turn()
    tape.check()
    tape.close()
    for name in names:
        assert name == closed or len(world.drain(name)) == 100
    world.close()


def test_a_recording_does_not_begin_while_somebody_awaits_an_answer() -> None:
    world = World()
    assert recording.is_possible(world.server)
    world.feed("s0", packet("CONTROL", b"live-update\0later\0"))
    assert not recording.is_possible(world.server)
    world.server.answer(world.connection("s0")[0], b"OK\0")
    assert recording.is_possible(world.server)
    world.close()


def test_what_was_refused_before() -> None:
    """A guest of which processes have died goes on counting."""
    world = World()
    world.connection("s0")[0].refused = 2
    tape = Tape(world)
    world.ask("s0", "READ", b"/tool\0")
    replay = tape.again()
    assert [c.refused for c in replay.server.connections.values() if c.is_socket] == [2]
    close(replay)
    tape.close()
    world.close()


def test_none_is_served_behind_one() -> None:
    """Exactly, also within what a client has sent at once and what others have sent in the turn."""
    world = World()
    for name in ("s0", "s1"):
        world.connection(name)
    tape = Tape(world)
    first = world.server.ops
    for name, asked in (("s0", b"/tool\0"), ("s1", b"/\0"), ("s0", b"/none\0")):
        world.feed(name, packet("READ", asked) * 3)
    total = world.server.ops
    assert total == first + 9
    for last in range(first, total + 1):
        replay = tape.again(last)
        assert replay.requests == last
        assert (replay.is_short, bool(replay.next_request)) == (last < total, last < total)
        if last < total:
            assert re.match(
                r"DOM0 \(ANON CONN #\d\): request 2 with [0-9]+ bytes, 2f", replay.next_request
            )
        close(replay)
    tape.close()
    world.close()
