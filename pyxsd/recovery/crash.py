# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recording of a crash: what a process that has died has left in memory, as a file.

It is a recording like those of record.recorder: the last image is its beginning, all that came
since then follows, up to the very request that the process died of, and then how it died.  It is
made by a process of its own, which nobody waits for, while the next one serves.

A guest may make the daemon die as often as it likes.  So there are RECORDINGS_MAX of them at most,
the oldest stay, since the first death of a series tells most: later ones may come of the first, and
a fault that comes again is in the first one as well.  Only where the newest is older than
SERIES_SECONDS the oldest gives its place.  Where nobody goes on any more there may be one more, of
the last death, since nothing else has what came since the last image.  All together have
`record-size` MiB at most, and one takes no more than FREE_SHARE of what is free on the disk.
"""

from __future__ import annotations

import os
import time

from pyxsd import _journal
from pyxsd._accesslog import AccessLog
from pyxsd._core import Server
from pyxsd._journal import Journal
from pyxsd._memory import MemoryFault
from pyxsd._ring import EventChannels
from pyxsd._siphash import use_key
from pyxsd._wire import MemoryTransport
from pyxsd.domains import Domains
from pyxsd.record import beginning, death, files
from pyxsd.record.blanked import Blanked
from pyxsd.record.host import PAGE_BYTES
from pyxsd.recovery import beside
from pyxsd.state import image, surroundings
from pyxsd.state.errors import StateError
from pyxsd.update import arrival

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd._memory import Memory
    from pyxsd.system.configuration import Config

RECORDINGS_MAX = 3
SERIES_SECONDS = 86400.0
FREE_SHARE = 4
MEBIBYTE = 1 << 20
#: Of a recording that is not whole yet.
UNFINISHED = "#"


class NotRecorded(ValueError):
    """There is no recording of this crash, and the text says why."""


def record(
    memory: Memory,
    left: tuple[bytes, bytes],
    cause: str,
    directory: str,
    config: Config,
    most: int = RECORDINGS_MAX,
) -> str:
    """Writes the recording: its path; NotRecorded.

    left: what memory.leave() has given when the process had died.  cause: of its death, in words.
    most: how many there may be.
    To be called in a process that has no server and will have no other one.
    """
    try:
        return _record(memory, left, cause, directory, config, most)
    except (MemoryFault, StateError) as error:
        raise NotRecorded(str(error)) from None
    except OSError as error:
        raise NotRecorded(f"{directory}: {error.strerror or error}") from None
    finally:
        memory.release()


def _record(
    memory: Memory,
    left: tuple[bytes, bytes],
    cause: str,
    directory: str,
    config: Config,
    most: int,
) -> str:
    os.makedirs(directory, 0o700, exist_ok=True)
    known = _room(directory, most)
    mine = memory.copy_left(*left)
    memory.release()
    records = Journal().found_in(mine)
    end = death.of(cause, *mine.begun)
    server, domains = _load(mine, config)
    first = beginning.write(server, domains, config, _wall(records))
    if not config.record_values:
        records = Blanked(server).records(records)
    return _write(directory, known, (first, records, death.write(end)), config, most)


def _room(directory: str, most: int) -> list[int]:
    """The numbers of those that stay, and of the oldest one, which gives its place; NotRecorded."""
    known = files.numbers(directory)
    if len(known) >= most:
        newest = os.path.getmtime(files.path_of(directory, known[-1]))
        if 0 <= time.time() - newest < SERIES_SECONDS:
            raise NotRecorded(
                f"{directory} has {len(known)} recordings already, the last one of the last day"
            )
    return known


def _load(memory: Memory, config: Config) -> tuple[Any, Any]:
    """(server, domains) of the image; StateError."""
    found = beside.read(memory.image())
    use_key(image.hash_key(found))
    around, rows = surroundings.read(found)
    host = arrival.Quiet()
    server = Server(config, host, AccessLog(False))
    domains: Any = Domains(server, _Xen() if around.channels >= 0 else None, host.log)
    domains.virq_port = around.virq_port
    arrival.load(found, server, domains, rows, around, MemoryTransport)
    beside.restore(found, server, domains)
    page = bytearray(PAGE_BYTES)
    for domain in domains.table.values():
        if domain.domid not in domains.closed:
            domain.page = page
    server.log.switch(around.access_log)
    return server, domains


class _Xen:
    """For domains that nobody serves."""

    def __init__(self) -> None:
        self.channels = EventChannels()


def _wall(records: bytes) -> float:
    """The seconds since 1970 of the first turn; 0 where there was none."""
    journal = Journal()
    journal.replay(records)
    while kind := journal.next_kind:
        found = journal.expect(kind)
        if found is None:
            break
        if kind == _journal.TURN and len(found[2]) == 8:
            return _journal.seconds(int.from_bytes(found[2], "little"))
    return 0.0


def _write(
    directory: str,
    known: list[int],
    bodies: tuple[bytes, ...],
    config: Config,
    most: int = RECORDINGS_MAX,
) -> str:
    """Writes a file that is there as a whole or not at all; the oldest goes where it must, once the
    other one is on the disk."""
    path = files.path_of(directory, known[-1] + 1 if known else 1)
    size = sum(map(len, bodies))
    stays = known[1:] if len(known) >= most else known
    kept = sum(os.path.getsize(files.path_of(directory, number)) for number in stays)
    if kept + size > config.record_size * MEBIBYTE:
        raise NotRecorded(
            f"{directory}: {size} bytes more than the {kept} there are more than record-size allows"
        )
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    if size > free // FREE_SHARE:
        raise NotRecorded(f"{directory}: {size} bytes are too many for a disk with {free} free")
    try:
        os.unlink(path + UNFINISHED)
    except FileNotFoundError:
        pass
    writer = files.Writer(path + UNFINISHED)
    try:
        for kind, body in zip((files.BEGINNING, files.JOURNAL, files.DEATH), bodies):
            writer.add(kind, body)
        writer.close(sync=True)
        for number in known[: len(known) - len(stays)]:
            os.unlink(files.path_of(directory, number))
        os.rename(writer.path, path)
    except BaseException:
        os.unlink(writer.path)
        raise
    return path
