# SPDX-License-Identifier: LGPL-2.1-or-later
# A real Xen under QEMU. SYSTEM_DAEMON and SYSTEM_WHEEL: see tests/system/README.md.
# Expects PYTHON to name an interpreter that can import pyxsd.

PYTHON ?= python3

.PHONY: system-test system-test-quick

# Both ways of starting, several guests, save, restore, reboot, destroy: some minutes.
system-test:
	SYSTEM_SIZE=full $(PYTHON) -m pytest -q -rs tests/system

# One guest, for every run of CI.
system-test-quick:
	SYSTEM_SIZE=quick $(PYTHON) -m pytest -q -rs tests/system
