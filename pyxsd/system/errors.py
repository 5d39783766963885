# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why the daemon cannot start, as exceptions whose text is shown to whoever started it; and what an
exception of others says."""

from __future__ import annotations


class ServiceError(Exception):
    """The daemon cannot start; the text says why, in one line."""


class AlreadyRunning(ServiceError):
    """Another xenstored that is alive holds the socket or a pid file."""


def in_words(error: BaseException) -> str:
    """What the system says of its refusal, without number and file; of other exceptions their text,
    or else their name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
