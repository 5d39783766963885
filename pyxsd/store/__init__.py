# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tree of nodes and all that works on it alone."""
