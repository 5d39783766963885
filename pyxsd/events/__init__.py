# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches, and the events that they get."""
