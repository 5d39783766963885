# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real Xen under QEMU's software emulation, with the xenstored of choice.

Floors, each knowing only those above it in this list: ``cpio`` and ``packages`` (what an image
is made of), ``pytree`` (Python and pyxsd in an image), ``image`` (the images), ``machine`` (one
run of QEMU), ``checks`` (which results a run must give), ``session`` (all of it together).
"""
