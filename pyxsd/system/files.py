# SPDX-License-Identifier: LGPL-2.1-or-later
"""Opening a file whose name somebody gave, without waiting for anything."""

from __future__ import annotations

import errno
import os
import stat

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
