# SPDX-License-Identifier: LGPL-2.1-or-later
"""State outside the process: written, and read back."""
