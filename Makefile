# SPDX-License-Identifier: LGPL-2.1-or-later
# make run    builds, and starts pyxsd in the foreground on a pretended Xen, files under ./run/
# make test   builds, and runs all tests
# make help   what else there is

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard pyxsd/*.pyx pyxsd/*.pxd pyxsd/*/*.pyx pyxsd/*/*.pxd glue/*.c glue/*.h glue/*.py benchmarks/load/* benchmarks/*_build.py)

.PHONY: help build run test lint bench core-bench system-test system-test-quick dist clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "make lint, make bench, make system-test, make dist, make clean"

$(VENV)/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "setuptools>=77" wheel "Cython>=3.0.8,<4" "cffi>=1.15" "sortedcontainers>=2.4"
	touch $@

$(VENV)/.built: $(VENV)/.made setup.py $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(VENV)/.tests: $(VENV)/.made
	$(BIN)/pip install --quiet $$($(BIN)/python packaging/requirements.py test)
	touch $@

build: $(VENV)/.built

run: build
	$(BIN)/python tools/run.py

test: build $(VENV)/.tests
	$(BIN)/python -m pytest

lint: build $(VENV)/.tests
	$(BIN)/python -m pytest tests/lint

bench: build
	$(BIN)/pyxsd-bench run

core-bench: build $(VENV)/.tests
	$(BIN)/python -m pytest benchmarks/core --benchmark-only

# A real Xen under QEMU, see tests/system/README.md. Full: both ways of starting, several guests,
# save, restore, reboot, destroy: some minutes. Quick: one guest, for every run of CI.
system-test: SYSTEM_SIZE := full
system-test-quick: SYSTEM_SIZE := quick
system-test system-test-quick: build $(VENV)/.tests
	SYSTEM_SIZE=$(SYSTEM_SIZE) $(BIN)/python -m pytest -q -rs tests/system

dist: $(VENV)/.made
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

clean:
	rm -rf build dist run glue/build *.egg-info
	find pyxsd benchmarks -name '*.so' -delete
