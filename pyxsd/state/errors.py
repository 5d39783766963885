# SPDX-License-Identifier: LGPL-2.1-or-later
"""The error of whoever reads or writes a state file."""


class StateError(Exception):
    """A file that cannot be read, or a state that a format cannot hold."""
