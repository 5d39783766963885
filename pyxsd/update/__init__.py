# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live update: the running daemon hands its host over to another process of pyxsd."""
