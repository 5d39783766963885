# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files: opened without waiting for anything, made anew, or there as a whole only."""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_regular(path: str | bytes) -> int:
    """The descriptor of a regular file, opened for writing and made where it is missing.

    OSError where it cannot be opened, and for anything but a regular file: writing to a FIFO, a
    terminal or a device may wait for ever, and everybody would wait with it.  Links are
    followed.  Nothing of the file is changed.
    """
    try:
        fd = os.open(path, _FLAGS, 0o644)
    except ValueError:
        raise OSError(errno.EINVAL, "NUL in the name") from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, a socket
            raise _not_regular() from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _not_regular()
    return fd


def _not_regular() -> OSError:
    return OSError(errno.EINVAL, "not a regular file")


def replace_contents(path: str | bytes, text: str) -> None:
    """Let a regular file hold `text` and nothing else; errors as `open_regular`'s."""
    with open(open_regular(path), "w", encoding="utf-8") as file:
        file.truncate()
        file.write(text)


def create_anew(path: str) -> int:
    """The descriptor of a file that is made now, with mode 0600; OSError.

    What was there goes first: it may be readable by others, or a link.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_whole(path: str, write: Callable[[Any], object], *, sync: bool = False) -> None:
    """Lets write(file) fill a file that replaces the old one only when it is whole; OSError.

    sync: it is on the disk before it takes the old one's place.
    """
    temporary = path + "#"
    fd = create_anew(temporary)
    try:
        with open(fd, "wb", buffering=1 << 16) as out:
            write(out)
            if sync:
                out.flush()
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # it is the first failure that counts
        raise


class NotAFile(OSError):
    """A folder, a FIFO, a device: something that is no regular file."""


def open_to_read(path: str) -> Any:
    """A regular file, to be read as bytes; OSError, NotAFile for anything else."""
    file = open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotAFile(errno.EINVAL, "not a file")
    return file


def content(path: str) -> bytes:
    """The bytes of a regular file; errors as open_to_read's, and ENOMEM where it is too large."""
    with open_to_read(path) as file:
        return read_some(file, -1)


def read_some(file: Any, most: int) -> bytes:
    """So many bytes of an open file, or all that are left (-1); OSError, ENOMEM where they are too
    many: a file may say that it has any number of bytes."""
    try:
        data: bytes = file.read(most)
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None
    return data
