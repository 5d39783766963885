# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another process goes on where one has died, and nobody notices."""
