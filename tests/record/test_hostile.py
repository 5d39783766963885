# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recordings that somebody has made by hand, with right checksums: `--replay` says in a line what
makes no sense, and neither ends by it nor does what control characters in it tell a terminal."""

from __future__ import annotations

import gc
import io
import math
import os
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyxsd import _journal
from pyxsd.record import again, files
from pyxsd.state import values
from pyxsd.state.host_state import StateError
from tests.clients.daemon import PROJECT
from tests.fuzz.readers import signed
from tests.record.test_journal import HEAD, recorded, records
from tests.state.test_random_files import damaged

ESCAPE = "\x1b]0;title\x07"
NAN = float("nan")
ROUNDS = 600
#: What takes the place of some value.
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 63,
    1e300,
    NAN,
    math.inf,
    b"",
    b"\x1b[2J",
    "",
    ESCAPE,
    [],
    [1, 2],
    {},
)

Row = dict[str, Any]


@pytest.fixture(scope="module", name="life")
def a_life() -> tuple[bytes, bytes]:
    made = recorded()
    gc.collect()  # or the first test that is done would seem to have freed it
    return made


def write(path: Path, beginning: bytes, journal: bytes, death: object = None) -> str:
    """A recording of these blocks."""
    writer = files.Writer(str(path))
    writer.add(files.BEGINNING, beginning)
    writer.add(files.JOURNAL, journal)
    if death is not None:
        writer.add(files.DEATH, values.encode(death))
    writer.close()
    return str(path)


def run(path: str, as_format: str = "", raised: bool = False) -> tuple[bytes, str]:
    """What is printed, and what is said; StateError counts as said, unless it is to be raised."""
    out, said = io.BytesIO(), list[bytes]()
    try:
        again.run(path, again.FOREVER, as_format, out, said.append)
    except StateError as error:
        if raised:
            raise
        said.append(str(error).encode("utf-8", "surrogateescape"))
    return out.getvalue(), b"\n".join(said).decode()


def changed(**more: object) -> Callable[[Row], Row]:
    return lambda row: {**row, **more}


def setting(**more: object) -> Callable[[Row], Row]:
    return lambda row: {**row, "config": {**row["config"], **more}}


def domain(at: int, value: object) -> Callable[[Row], Row]:
    """Its first domain has that field."""

    def change(row: Row) -> Row:
        first, *others = row["domains"]
        first = [*first[:at], value, *first[at + 1 :]]
        return {**row, "domains": [first, *others]}

    return change


def without(name: str) -> Callable[[Row], Row]:
    return lambda row: {key: value for key, value in row.items() if key != name}


BEGINNINGS = {
    "no-time": (without("wall"), "wall is missing"),
    "time-text": (changed(wall="now"), "wall is 'now'"),
    "time-far": (changed(wall=1e300), "wall is 1e+300"),
    "time-none": (changed(wall=NAN), "wall is nan"),
    "requests": (changed(requests=None), "requests is None"),
    "requests-negative": (changed(requests=-1), "requests is -1"),
    "image": (changed(image=[]), "image is []"),
    "config": (changed(config=[]), "config is []"),
    "setting": (setting(poll_time_us="x"), "config is "),
    "setting-large": (setting(poll_time_us=1 << 63), "config is "),
    "setting-none": (setting(conflict_rate_limit=1.0), "config is "),
    "setting-nan": (setting(conflict_burst_limit=NAN), "config is "),
    "group": (changed(down=[1 << 40]), "down is [1099511627776]"),
    "group-strange": (changed(unasked=[7000]), "unasked names a domain that is missing"),
    "ports": (changed(ports=[7000]), "ports names a domain that is missing"),
    "virq": (changed(virq=1 << 32), "virq is 4294967296"),
    "refused": (changed(refused=[[1]]), "refused is [[1]]"),
    "domains": (changed(domains=[[1]]), "domains is [[1]]"),
    "mfn": (domain(1, "x"), "domains is "),
    "expected": (domain(6, [1]), "domains is "),
    "version": (changed(version=ESCAPE), "recorded by pyxsd "),
}


@pytest.mark.parametrize("change,said", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_beginning_that_makes_no_sense(
    life: tuple[bytes, bytes], tmp_path: Path, change: Callable[[Row], Row], said: str
) -> None:
    row = change(values.decode(life[0]))
    assert said in run(write(tmp_path / "recording-000001", values.encode(row), life[1]))[1]


def time_bits(seconds: float) -> int:
    return int.from_bytes(struct.pack("<d", seconds), "little")


def record(kind: int, subject: int = 0, result: int = 0, payload: bytes = b"") -> bytes:
    """One record of a journal."""
    head = HEAD.pack(kind, 0, 0, len(payload) or result, subject)
    return head + payload + bytes(-len(payload) % 8)


def turn(wall: float, now: float) -> bytes:
    return record(_journal.TURN, time_bits(now), 0, struct.pack("<d", wall))


#: "7" is released, which asks Xen for its state first.
RECORDS = {
    "wall-far": (turn(1e300, 1.0), "a time of 1e+300 seconds"),
    "wall-none": (turn(NAN, 1.0), "a time of nan seconds"),
    "now-negative": (turn(1.0, -1.0), "a time of -1.0 seconds"),
    "turn-short": (record(_journal.TURN, 0, 0, b""), ""),
    "tick": (record(_journal.TICK, time_bits(math.inf)), "a time of inf seconds"),
    "answer": (record(_journal.ANSWER, 77, 0, b"x"), "there is no connection 77"),
    "shut": (record(_journal.SHUT, 77), "there is no domain 77"),
    "strange": (record(99), "an answer that nobody has asked for"),
}


@pytest.mark.parametrize("data,said", RECORDS.values(), ids=RECORDS)
def test_a_record_that_makes_no_sense(
    life: tuple[bytes, bytes], tmp_path: Path, data: bytes, said: str
) -> None:
    """The replay ends there, and says at which byte."""
    path = write(tmp_path / "recording-000001", life[0], life[1] + data + turn(5.0, 5.0))
    printed, found = run(path)
    assert b" watch" in printed and "Traceback" not in found
    assert f"before byte {len(life[1]) + len(data)} of the journal: {said}" in found or not said


ANSWERS = (
    b"",
    b"N",
    values.encode([]),
    values.encode([True]),
    values.encode([True, "x"]),
    values.encode([True, [1, 2]]),
    values.encode([True, None, 3]),
    values.encode([False, ESCAPE, 3]),
    values.encode([7, [1, 2, 3]]),
)


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_of_the_host_that_makes_no_sense(
    life: tuple[bytes, bytes], tmp_path: Path, answer: bytes
) -> None:
    """In the place of each that there is."""
    journal = life[1]
    places = [at for at, kind, _, _ in records(journal) if kind == _journal.HOST]
    assert len(places) > 5
    for number, at in enumerate(places):
        _, _, _, length, call = HEAD.unpack_from(journal, at)
        behind = at + HEAD.size + (length + 7) // 8 * 8
        data = journal[:at] + record(_journal.HOST, call, 0, answer) + journal[behind:]
        said = run(write(tmp_path / f"recording-{number:06}", life[0], data))[1]
        assert "Traceback" not in said and ESCAPE not in said
        assert " makes no sense: " in said or answer == values.encode([True, [1, 2]])


def other(value: Any, source: random.Random) -> Any:
    """A value of which some part is another one."""
    if isinstance(value, dict) and value and source.random() < 0.9:
        key = source.choice(list(value))
        return {**value, key: other(value[key], source)}
    if isinstance(value, list) and value and source.random() < 0.9:
        at = source.randrange(len(value))
        if source.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], other(value[at], source), *value[at + 1 :]]
    return source.choice(ODD)


def other_journal(journal: bytes, source: random.Random) -> bytes:
    """Records that are missing, stand there twice, or have some other field."""
    places = [at for at, *_ in records(journal)] + [len(journal)]
    parts = [journal[a:b] for a, b in zip(places, places[1:])]
    for _ in range(source.choice((1, 1, 3))):
        at = source.randrange(len(parts))
        kind, _, check, result, subject = HEAD.unpack_from(parts[at])
        body = parts[at][HEAD.size :]
        how = source.randrange(5)
        if how == 0:
            del parts[at]
        elif how == 1:
            parts.insert(at, source.choice(parts))
        elif how == 2:
            kind = source.randrange(1, 27)
            parts[at] = HEAD.pack(kind, 0, check, -source.randrange(99), subject)
        elif how == 3:
            subject = source.choice((0, 1, 7, 1 << 63, (1 << 64) - 1, time_bits(1e300)))
            parts[at] = HEAD.pack(kind, 0, check, result, subject) + body
        elif body:
            body = damaged(body[: max(result, 0)] or b"x", source) or b"x"
            parts[at] = record(kind, subject, 0, body)
    return b"".join(part for part in parts if len(part) % 8 == 0)


def test_at_random(life: tuple[bytes, bytes], tmp_path: Path) -> None:
    """No exception but StateError, and no control character of the file in what is printed."""
    source = random.Random(1)
    row = values.decode(life[0])
    died = {
        "cause": "killed by SIGSEGV",
        "begun": row["requests"] + 6,
        "served": row["requests"] + 5,
    }
    for number in range(ROUNDS):
        beginning, journal = life
        death: object = None
        what = number % 4
        if what == 0:
            beginning = values.encode(other(row, source))
        elif what == 1:
            image = signed(damaged(row["image"], source))
            beginning = values.encode({**row, "image": image})
        elif what == 2:
            journal = other_journal(journal, source)
        else:
            death = other(died, source)
        path = tmp_path / f"recording-{number:06}"
        try:
            write(path, beginning, journal, death)
        except (TypeError, ValueError, struct.error):
            continue  # a value that has no form
        printed, _ = run(str(path), source.choice(("", "", "text", "db")))
        assert all(c == 10 or 32 <= c < 127 for c in printed), number
        path.unlink()


@pytest.mark.parametrize(
    "begin,said",
    [
        (b"", "no recording"),
        (struct.pack("<8sII", files.MAGIC, files.VERSION, 0), "there is no block of the type"),
        (
            struct.pack("<8sII4sII4x", files.MAGIC, files.VERSION, 0, b"BEGN", 0, (1 << 32) - 1),
            "the checksum is wrong|Cannot allocate memory",
        ),
    ],
    ids=["nothing", "header", "block"],
)
def test_a_file_that_says_it_is_very_large(tmp_path: Path, begin: bytes, said: str) -> None:
    """No more of it is read than a block."""
    path = tmp_path / "recording-000001"
    path.write_bytes(begin)
    os.truncate(path, 1 << 42)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, before[1]))
    try:
        with pytest.raises(StateError, match=said):
            run(str(tmp_path), raised=True)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_what_is_said_has_no_control_characters(life: tuple[bytes, bytes], tmp_path: Path) -> None:
    """From outside; the folder may be called as it likes."""
    row = values.decode(life[0])
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    death = {"cause": ESCAPE + "\x9b", "begun": row["requests"] + 2, "served": row["requests"] + 2}
    write(folder / "recording-000001", life[0], life[1], death)
    done = subprocess.run(
        [sys.executable, "-m", "pyxsd", "--replay", str(folder)],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    assert b"here the daemon died (\\x1b]0;title\\x07\\x9b), within no request\n" in done.stderr
    assert done.returncode == 0 and os.fsencode(folder) in done.stderr
