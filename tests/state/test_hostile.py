# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that are cut, altered or made to harm: a clear message, never a crash, never a part of a
tree taken for the whole."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from pathlib import Path

import pytest

from pyxsd.state import image, show, stream
from pyxsd.state.database import read_db
from pyxsd.state.host_state import StateError
from pyxsd.state.picture import read_image
from pyxsd.state.stream_reader import read_stream
from tests.fuzz.readers import signed
from tests.state.recorded import DATA
from tests.state.test_image import example

SMALL_STREAMS = ("c417-command_line", "c417-stale", "chead-empty", "chead-depth2", "c417-special")
SMALL_DUMPS = ("ox417-empty", "ox417-special", "ox417-targets")
PLACE = re.compile(r"record \d+( \(\w+\))? at byte \d+: |the file |the header |the stream ")


@pytest.mark.parametrize("stem", SMALL_STREAMS)
def test_a_stream_cut_at_every_length(stem: str) -> None:
    data = (DATA / f"{stem}.bin").read_bytes()
    for length in range(len(data)):
        with pytest.raises(StateError) as error:
            read_stream(data[:length])
        assert PLACE.match(str(error.value)), str(error.value)


@pytest.mark.parametrize("stem", SMALL_STREAMS)
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_stream_with_every_byte_flipped(stem: str, flip: int) -> None:
    """A stream has no checksum, so a changed value or name cannot be seen.  What is seen names its
    place; and no node goes missing without a word."""
    data = (DATA / f"{stem}.bin").read_bytes()
    whole = len(read_stream(data).nodes)
    refused = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= flip
        try:
            state = read_stream(bytes(damaged))
        except StateError as error:
            refused += 1
            assert PLACE.match(str(error)), str(error)
        else:
            assert len(state.nodes) == whole or state.faults
            for fault in state.faults:
                assert PLACE.match(fault), fault
    assert refused > 100


@pytest.mark.parametrize("stem", SMALL_DUMPS)
def test_a_dump_cut_at_every_length(stem: str) -> None:
    """A cut between two lines cannot be seen; every other one is."""
    data = (DATA / f"{stem}.db").read_bytes()
    for length in range(len(data)):
        try:
            state = read_db(data[:length])
        except StateError:
            assert length < len(b"$xenstored-dump-format")
        else:
            assert state.faults or data[:length].endswith(b"\n")


@pytest.mark.parametrize("stem", SMALL_DUMPS)
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_a_dump_with_every_byte_flipped(stem: str, flip: int) -> None:
    data = (DATA / f"{stem}.db").read_bytes()
    whole = len(read_db(data).nodes)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= flip
        try:
            state = read_db(bytes(damaged))
        except StateError:
            assert at <= len(b"$xenstored-dump-format")
        else:
            assert len(state.nodes) == whole or state.faults
            for fault in state.faults:
                assert len(fault) < 300


# -- streams made by hand -----------------------------------------------------

HEADER = stream.HEADER.pack(b"xenstore", 1, 0)


def record(type_: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 8)
    return struct.pack("<II", type_, len(body)) + body


GLOBAL = record(1, struct.pack("<ii", 3, 4))
END = record(0, b"")
SOCKET = record(2, struct.pack("<IHHi4xHHI", 1, 1, 0, 7, 0, 0, 0))


def node(path: bytes, value: bytes = b"", letter: bytes = b"n") -> bytes:
    return record(
        5,
        struct.pack("<IIHHHHcBH", 0, 0, len(path) + 1, len(value), 0, 1, letter, 0, 0)
        + path
        + b"\0"
        + value,
    )


def watch(number: int, path: bytes, token: bytes) -> bytes:
    return record(
        3, struct.pack("<IHH", number, len(path) + 1, len(token) + 1) + path + b"\0" + token + b"\0"
    )


ROOT = node(b"/")

DAMAGED = [
    (b"", "the file has 0 bytes and no whole header"),
    (b"nonsense" + HEADER[8:], 'does not begin with "xenstore"'),
    (stream.HEADER.pack(b"xenstore", 3, 0), "version 3; known are 1 and 2"),
    (stream.HEADER.pack(b"xenstore", 1, 2), "unknown flags: 0x2"),
    (HEADER + END, "record 1 (END) at byte 16: there was no GLOBAL"),
    (HEADER + GLOBAL, "record 2 at byte 32: the file ends before END"),
    (HEADER + GLOBAL + GLOBAL + END, "record 2 (GLOBAL) at byte 32: it stands there twice"),
    (HEADER + GLOBAL + END + b"x", "record 2 (END) at byte 32: 1 bytes stand behind it"),
    (HEADER + GLOBAL + struct.pack("<II", 5, 0xFFFFFFF8), "(NODE) at byte 32: 4294967288 bytes"),
    (HEADER + GLOBAL + struct.pack("<II", 5, 7), "its length, 7, is not a multiple of 8"),
    (
        HEADER + GLOBAL + record(5, struct.pack("<IIHHHH", 0, 0, 2, 0, 0, 0xFFFF)) + END,
        "record 2 (NODE) at byte 32: 262140 bytes are missing",
    ),
    (HEADER + GLOBAL + record(5, struct.pack("<IIHHHH", 0, 0, 0, 0, 0, 0)) + END, "the path does"),
    (
        HEADER + GLOBAL + record(2, struct.pack("<IHHi4xHHI", 1, 2, 0, 7, 0, 0, 0)) + END,
        "a connection of kind 2",
    ),
    (
        HEADER + GLOBAL + record(2, struct.pack("<IHHi4xHHI", 1, 1, 0, 7, 0, 9, 4) + b"abcd") + END,
        "9 bytes of a packet in 4 bytes of output",
    ),
    (
        HEADER + GLOBAL + record(2, struct.pack("<IHHi4xHHI", 1, 1, 0, 7, 0, 0, 0xFFFFFFFF)) + END,
        "4294967295 bytes are missing",
    ),
    (
        HEADER + GLOBAL + record(3, struct.pack("<IHH", 1, 3, 2) + b"a\0b\0\0") + END,
        "the path does not end in its only NUL",
    ),
    (HEADER + GLOBAL + record(6, struct.pack("<HH", 0xFFFF, 0xFFFF)) + END, "bytes are missing"),
    (HEADER + GLOBAL + record(6, struct.pack("<HHI", 1, 0, 5)) + END, "1 names are missing"),
    (HEADER + GLOBAL + record(8, struct.pack("<IHHQ", 1, 3, 2, 0)) + END, "at any known place"),
    (HEADER + GLOBAL + record(8, struct.pack("<IHHQ", 1, 0, 0, 0)) + END, "at any known place"),
    (
        HEADER
        + GLOBAL
        + struct.pack("<II", 8, 16)
        + struct.pack("<IHHI", 1, 3, 2, 0)
        + b"/a\0t\0"
        + bytes(15),
        "path and token are longer than the record",
    ),
    (HEADER + record(1, bytes(16)) + END, "8 bytes are left over"),
    (
        HEADER
        + GLOBAL
        + SOCKET
        + record(3, struct.pack("<IHH", 1, 3, 2) + b"/a\0t\0" + bytes(11))
        + END,
        "(WATCH) at byte 64: 11 bytes are left over",
    ),
    (
        HEADER
        + GLOBAL
        + record(5, struct.pack("<IIHHHHcBH", 0, 0, 2, 0, 0, 1, b"n", 0, 0) + b"/\0" + bytes(14))
        + END,
        "(NODE) at byte 32: 18 bytes are left over",
    ),
]


@pytest.mark.parametrize(("data", "words"), DAMAGED)
def test_damage(data: bytes, words: str) -> None:
    with pytest.raises(StateError) as error:
        read_stream(data)
    assert words in str(error.value)


IMPOSSIBLE = [
    (node(b"/a"), "record 4 (NODE) at byte 96: b'/a' stands there twice"),
    (node(b"/b/c"), "b'/b/c': the parent is missing"),
    (node(b"x"), "not a path: b'x'"),
    (node(b"@"), "not a path: b'@'"),
    (node(b"/a/"), "not a path: b'/a/'"),
    (node(b"/q", letter=b"q"), "a permission with the letter b'q'"),
    (watch(9, b"/a", b"t"), "a watch of connection 9, which is not there"),
    (SOCKET + SOCKET, "the connection id 1 is 0 or was used before"),
    (SOCKET + SOCKET.replace(b"\x01\0\0\0\x01", b"\x02\0\0\0\x01"), "the socket 7 stands there"),
    (record(5, struct.pack("<IIHHHHcBH", 0, 4, 3, 0, 0, 1, b"n", 0, 0) + b"/t\0"), "a transaction"),
    (record(5, struct.pack("<IIHHHH", 0, 0, 3, 0, 0, 0) + b"/t\0"), "has no permissions"),
    (record(77, b"12345678"), "(0x4d) at byte 96: a type that is not known"),
    (record(7, struct.pack("<HHI", 1, 0, 0)) * 2, "domain 1 stands there twice"),
]


@pytest.mark.parametrize(("records", "words"), IMPOSSIBLE)
def test_what_is_impossible_is_left_out(records: bytes, words: str) -> None:
    state = read_stream(HEADER + GLOBAL + ROOT + node(b"/a") + records + node(b"/z") + END)
    assert len(state.faults) == 1 and words in state.faults[0]
    assert [node.path for node in state.nodes] == [b"/", b"/a", b"/z"]


def test_a_hostile_stream_costs_no_more_than_its_size() -> None:
    """Lengths are compared with what is there before anything is taken."""
    body = struct.pack("<IIHHHH", 0, 0, 0xFFFF, 0xFFFF, 0, 0xFFFF)
    tracemalloc.start()
    for type_ in (2, 3, 5, 6, 7, 8):
        with pytest.raises(StateError):
            read_stream(HEADER + GLOBAL + record(type_, b"\xff" * 4 + body) + END)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


# -- files --------------------------------------------------------------------


def test_files_that_are_none(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in (
        (tmp_path, "Is a directory"),
        (fifo, "not a file"),
        (tmp_path / "none", "No such file"),
        (Path("/dev/zero"), "not a file"),
    ):
        with pytest.raises(StateError) as error:
            show.show_file(str(path))
        assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


def test_a_file_in_no_known_format(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"/{n0} = x\n")
    with pytest.raises(StateError, match="not a state file: "):
        show.show_file(str(tmp_path / "x"))


def test_a_file_that_says_it_is_very_large(tmp_path: Path) -> None:
    """One that begins as no state file is not read; of one that does it is said."""
    for begin, words in (
        (b"", "not a state file: "),
        (b"xenstore", "Cannot allocate memory"),
        (b"pyxsdimg", "Cannot allocate memory"),
        (b"$xenstored-dump-format\n", "Cannot allocate memory"),
    ):
        path = tmp_path / "large"
        path.write_bytes(begin)
        os.truncate(path, 1 << 42)
        with pytest.raises(StateError, match=words):
            show.show_file(str(path))


def test_what_is_not_whole_is_shown_and_not_converted(tmp_path: Path) -> None:
    data = (DATA / "ox417-empty.db").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-5])
    shown = show.show_file(str(tmp_path / "cut"))
    assert shown.output.startswith(b"format db\n") and not shown.whole
    assert any("cut inside of its last line" in line for line in shown.told)
    for as_format in show.WRITERS:
        with pytest.raises(StateError, match="not converted, since it is not whole: "):
            show.show_file(str(tmp_path / "cut"), as_format)


def test_a_connection_of_an_image_has_a_name_that_can_be_shown() -> None:
    """It stands in front of log lines."""
    world = example()
    data = image.save(world.server)
    world.close()
    name = b"DOM0 (ANON CONN #1)"
    assert name in data and read_image(signed(data)).clients
    for other in (b"\x1b[2J", b"DOM0\n", b"\xff"):
        with pytest.raises(StateError, match="is called b'"):
            read_image(signed(data.replace(name, other.ljust(len(name)))))
