# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why the daemon cannot start, as exceptions whose text is shown to whoever started it."""

from __future__ import annotations


class ServiceError(Exception):
    """The daemon cannot start; the text says why, in one line."""


class AlreadyRunning(ServiceError):
    """Another xenstored that is alive holds the socket or a pid file."""
