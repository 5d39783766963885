# SPDX-License-Identifier: LGPL-2.1-or-later
"""One copy of the project for all tests of the documents, and `make run` in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.copy import MakeRun, make_copy


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, built, in a folder of its own."""
    return make_copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture
def running(copy: Path) -> Iterator[MakeRun]:
    """`make run`, and it is ready."""
    run = MakeRun(copy)
    try:
        run.wait_for("ready: ")
        yield run
    finally:
        run.stop()
