# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks: what one guest, or a thousand, can do to everybody else.

`model` says what an attack is, `table` lists them, `bout` carries one out and measures it with the
processes `attacker` (the hostile guests) and `probe` (the victims), `report` makes the table.
"""
