# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd: a Xenstore daemon, a drop-in replacement for oxenstored."""

__version__ = "0.1.0"
