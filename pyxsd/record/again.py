# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd --replay DIR`: a recording is run again at a desk.

Each request is printed as the access log would have it, at the time at which it was served; with
--as the state at the end is printed instead.  It needs no Xen, no root and no configuration.

A recording of a crash (recovery.crash) is run twice.  First up to the request that the daemon died
of, and without it, so that all is printed that came before.  Then, where only requests are printed,
from the beginning once more, with that request: where it ends this process as well, the fault can
be looked at with a debugger.
"""

from __future__ import annotations

import calendar
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pyxsd import _siphash
from pyxsd._accesslog import AccessLog
from pyxsd.record import beginning, death, files
from pyxsd.record.replay import Replay
from pyxsd.state import image, show
from pyxsd.state.host_state import StateError

FOREVER = float("inf"), float("inf")

_TIME = re.compile(r"(\d{8}T\d\d:\d\d:\d\d)(\.\d+)?Z")

Print = Callable[[bytes], object]
Blocks = Iterator[tuple[bytes, bytes]]


def until(text: str) -> tuple[float, float]:
    """(requests, seconds since 1970) at which a replay ends: the argument of --until, which is a
    number of requests since the daemon's start, or a time as the access log has it, such as
    20260131T14:30:00.250Z, whose last millisecond or second is in it; ValueError."""
    forever = float("inf")
    if not text:
        return FOREVER
    if text.isascii() and text.isdigit():
        return int(text), forever
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(
            f"--until {text}: neither a number of requests nor a time such as "
            "20260131T14:30:00.250Z"
        )
    seconds = calendar.timegm(time.strptime(match[1], "%Y%m%dT%H:%M:%S"))
    digits = (match[2] or ".")[1:]
    return forever, seconds + (int(digits or 0) + 1) / 10 ** len(digits)


def run(
    directory: str, end: tuple[float, float], as_format: str, out: BinaryIO, tell: Print
) -> bool:
    """Runs a recording, or the one of a directory that the end lies in, the last one as a rule; was
    it all there, and did it do the same again?  StateError where nothing could be run.

    as_format: db or stream, or text; empty: out gets the requests.  tell() gets what there is to
    say, a line at a time.
    """
    path, blocks, faults = _find(directory, end)
    died = _death(path)
    for text in faults:
        tell(text.encode("utf-8", "surrogateescape"))
    try:
        data = next(blocks)[1]
        row = beginning.read(data)
        _siphash.use_key(image.hash_key(image.read(row["image"])))
        replay = _replay(data, not as_format)
    except (StateError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: its beginning makes no sense: {error}") from None
    damage, fault, shown = "", "", 0
    if died is not None:
        replay.end_behind(int(min(end[0], died.served)))
    try:
        for lines in _run(replay, blocks, end):
            if not as_format:
                shown += len(lines)
                out.write(lines)
    except (StateError, ValueError) as error:
        damage = str(error)
    # Where it died it was within a turn as a rule.
    if died is None or not replay.is_short or replay.requests < min(end[0], died.served):
        fault = replay.fault or ""
    for text in (*replay.host.told, *replay.failures):
        tell(f"as in the daemon log: {text}".encode("utf-8", "surrogateescape"))
    for text in filter(None, (damage, fault)):
        tell(f"{path}: {text}".encode("utf-8", "surrogateescape"))
    is_short = end != FOREVER and not _is_over(replay, end)
    tell(
        f"{path}: {replay.requests - row['requests']} requests were run again, up to number "
        f"{replay.requests} at {_shown(replay.clock or row['wall'])}"
        f"{', where the recording ends' if is_short else ''}".encode("utf-8", "surrogateescape")
    )
    if as_format:
        state = show.show_image(image.save(replay.server), "" if as_format == "text" else as_format)
        out.write(state.output)
        for line in state.told:
            tell(line.encode("utf-8", "surrogateescape"))
    if died is not None and not (damage or fault or _is_over(replay, end)):
        if not died.request:
            tell(
                f"{path}: here the daemon died ({died.cause}), within no request".encode(
                    "utf-8", "surrogateescape"
                )
            )
        else:
            tell(
                f"{path}: the daemon died ({died.cause}) within request {died.request}, "
                f"{replay.next_request}".encode("utf-8", "surrogateescape")
            )
            if not as_format:
                tell(b"it is run now, and may end this process as well")
                out.flush()
                out.write(_with_the_last(path, died)[shown:])
                tell(b"it has not ended this process")
    return not (damage or faults or fault)


def _replay(data: bytes, is_printed: bool) -> Replay:
    return Replay(data, AccessLog(is_printed, -1, True, True, True))


def _run(replay: Replay, blocks: Blocks, end: tuple[float, float]) -> Iterator[bytes]:
    """Runs the records of these blocks up to the end; the lines of each step."""
    before = 0
    for kind, records in blocks:
        if kind != files.JOURNAL:
            continue
        replay.feed(records, before)
        before += len(records)
        while not _is_over(replay, end) and replay.step():
            yield replay.server.log.take()[0]
        yield replay.server.log.take()[0]
        if replay.fault or _is_over(replay, end):
            return


def _death(path: str) -> death.Death | None:
    """How the daemon died, if this is a recording of a crash."""
    try:
        for kind, body in files.read(path):
            if kind == files.DEATH:
                return death.read(body)
    except StateError:
        pass  # whoever runs the recording comes there
    return None


def _with_the_last(path: str, died: death.Death) -> bytes:
    """Runs all of a recording of a crash; the lines."""
    blocks = files.read(path)
    replay = _replay(next(blocks)[1], True)
    replay.end_behind(died.begun)
    return b"".join(_run(replay, blocks, FOREVER))


def _is_over(replay: Replay, end: tuple[float, float]) -> bool:
    return replay.requests >= end[0] or replay.clock >= end[1]


def _shown(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H:%M:%S", time.gmtime(seconds)) + f"{seconds % 1:.3f}Z"[1:]


def _find(directory: str, end: tuple[float, float]) -> tuple[str, Blocks, list[str]]:
    """(path, blocks) of the last recording that begins before the end, and what is wrong with
    those behind it; StateError."""
    if os.path.isfile(directory):
        known = [directory]
    else:
        try:
            known = [files.path_of(directory, number) for number in files.numbers(directory)]
        except OSError as error:
            raise StateError(f"{directory}: {error.strerror}") from None
    if not known:
        raise StateError(f"{directory}: there is no recording in it")
    faults: list[str] = []
    for path in reversed(known):
        try:
            row = beginning.read(next(files.read(path))[1])
        except StateError as error:
            faults.append(f"{path}: {error}")
            continue
        if row["requests"] <= end[0] and row["wall"] < end[1]:
            return path, files.read(path), faults
    raise StateError(faults[0] if faults else f"{directory}: all recordings begin later than that")
