# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image on disk: `db.image` beside oxenstored's `db` in the run directory.

It is written at SIGTERM, behind the db, so that it is the newer of the two.  Whoever writes the
db alone, such as another xenstored or a rotation of the access log, makes it out of date.
"""

from __future__ import annotations

import os

from pyxsd.named import NamedTuple
from pyxsd.state import surroundings
from pyxsd.state.dump import DATABASE, IMAGE
from pyxsd.state.errors import StateError
from pyxsd.state.records import HEADER, MAGIC
from pyxsd.system.files import open_to_read, read_some, write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyxsd.state.records import Record


class Found(NamedTuple):
    """An image that a daemon can begin with."""

    path: str
    records: list[Record]
    around: surroundings.Surroundings
    rows: list[surroundings.Row]


def write(
    directory: str, saving: Callable[[Callable[[bytes], object]], Any], instant: float | None = None
) -> None:
    """Writes an image, which takes the place of the old one when it is whole; OSError.

    saving(put) gives the Saving of it.  instant: of when it is, in seconds since 1970, where that
    is not now; the file gets this time, so that a db that was written later is the newer one.
    """
    path = os.path.join(directory, IMAGE)
    write_whole(path, lambda out: saving(out.write).step(float("inf")), sync=True)
    if instant is not None:
        os.utime(path, (instant, instant))


def find(directory: str) -> tuple[Found | None, list[str]]:
    """The image of a directory where it is whole and not older than the db, and what is to be
    said of it otherwise."""
    path = os.path.join(directory, IMAGE)
    try:
        found = os.stat(path)
        data = _data(path)
    except FileNotFoundError:
        return None, []
    except OSError as error:
        return None, [f"{path}: not used: {error.strerror}"]
    try:
        if found.st_mtime_ns < os.stat(os.path.join(directory, DATABASE)).st_mtime_ns:
            return None, [f"{path}: not used: it is older than {DATABASE}"]
    except OSError:
        pass  # there is no other state
    try:
        return _checked(path, data), []
    except StateError as error:
        return None, [f"{path}: not used: {error}"]


def _data(path: str) -> bytes:
    """The bytes of a file, or the first ones where it is no image, whatever its size; OSError."""
    with open_to_read(path) as file:
        first = read_some(file, HEADER.size)
        if not first.startswith(MAGIC):
            return first
        file.seek(0)
        return read_some(file, -1)


def _checked(path: str, data: bytes) -> Found:
    """An image that was loaded once, so that nothing of it is used where it makes no sense;
    StateError."""
    # Here, since most daemons start without an image.
    from pyxsd.state import image, trial

    records = image.read(data)
    around, rows = surroundings.read(records)
    trial.loaded(records, any_key=True).close()
    return Found(path, records, around, rows)
