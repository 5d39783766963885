# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd-setup and pyxsd-launch: how pyxsd comes into a host, and how it is started there.

Nothing of the daemon imports this package.  It imports no extension module either, except where
the launcher becomes the daemon: so it can tell what is wrong where those cannot be loaded.
"""

#: Seconds that a daemon has for its answer: one that is busy for so long hangs, for its guests.
ANSWER_SECONDS = 5.0
