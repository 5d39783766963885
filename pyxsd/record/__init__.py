# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recording what comes from outside, and running it again."""
