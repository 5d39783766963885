# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is mutated, and which tests have to notice it."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

#: All tests but those of the build, the documents and the benchmarks, and those that take minutes.
#: Which of them a mutant is tried with is found out by a run that notes what each test reaches.
TESTS = (
    "tests/unit",
    "tests/rings",
    "tests/security",
    "tests/conformance",
    "tests/property",
    "tests/glue/test_glue.py",
    "tests/domains",
    "tests/setup",
    "tests/state",
    "tests/update",
    "tests/switch",
    "tests/record",
    "tests/recovery",
    "tests/keeper",
    "tests/clients/test_life.py",
    "tests/clients/test_hostile.py",
)

#: Tests that take long and notice nothing that the others miss.
TOO_LONG = (
    "tests/domains/test_daemon.py::test_a_guest_that_kicks_only_where_it_must",
    "tests/domains/test_daemon.py::test_a_lazy_ring_is_found",
    "tests/domains/test_daemon.py::test_a_thousand_domains",
    "tests/clients/test_hostile.py::test_ten_thousand_connections",
    "tests/clients/test_hostile.py::test_a_watcher_that_never_reads",
    "tests/clients/test_hostile.py::test_a_client_that_never_reads",
    "tests/clients/test_hostile.py::test_a_client_that_never_reads_and_leaves",
    "tests/glue/test_glue.py::test_under_sanitizers",
    "tests/state/test_real_daemons.py",
    "tests/update/test_load.py::test_updates_under_load",
    "tests/record/test_programs.py",
    "tests/recovery/test_kills.py",
    "tests/keeper/test_load.py",
    "tests/keeper/test_hand_over.py",
)


def modules() -> list[str]:
    """The sources that are mutated: all of pyxsd and the glue, by their paths from the top."""
    sources = [
        *PROJECT.glob("pyxsd/**/*.pyx"),
        *PROJECT.glob("pyxsd/**/*.py"),
        *PROJECT.glob("glue/xsd_*.c"),
    ]
    return sorted(str(source.relative_to(PROJECT)) for source in sources)


def deselected() -> list[str]:
    """Arguments of pytest that leave out what takes too long."""
    return [f"--deselect={name}" for name in TOO_LONG]
