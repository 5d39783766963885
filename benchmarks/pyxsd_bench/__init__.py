# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd-bench: measures any xenstored with the same scenarios, side by side.

Knows no daemon's internals: everything goes through sockets, rings and /proc.
"""

from __future__ import annotations

__version__ = "0.2.0"
