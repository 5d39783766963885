# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd-setup and pyxsd-launch: how pyxsd comes into a host, and how it is started there.

Nothing of the daemon imports this package.  It imports no extension module either, except where
the launcher becomes the daemon: so it can tell what is wrong where those cannot be loaded.
"""
