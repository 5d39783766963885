# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every file of the packages names the version that pyxsd and pyxsd-bench tell of themselves."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.packages.conftest import TOP

versions: Any = importlib.import_module("versions")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that have a version in them."""
    for file in {*versions.SOURCES.values(), *(place.file for place in versions.PLACES)}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / file, tmp_path / file)
    return tmp_path


def test_the_files_agree() -> None:
    assert versions.wrong() == [], "run: python packaging/versions.py"


def test_a_new_version_is_written_and_the_change_logs_are_asked_for(checkout: Path) -> None:
    old = versions.versions(checkout)
    for name, file in versions.SOURCES.items():
        text = (checkout / file).read_text()
        (checkout / file).write_text(text.replace(f'"{old[name]}"', '"7.8.9"'))
    assert len(versions.wrong(checkout)) == len(versions.PLACES)
    versions.write(checkout)
    assert versions.wrong(checkout) == [
        f"{file}: {old['pyxsd']}, but pyxsd is 7.8.9"
        for file in ("packaging/rpm/pyxsd.spec", "packaging/debian/changelog")
    ]
    assert "%global bench_version 7.8.9\n" in (checkout / versions.PLACES[0].file).read_text()


def test_a_file_without_a_version_is_told(checkout: Path) -> None:
    (checkout / "packaging/debian/changelog").write_text("nothing\n")
    right = versions.versions(checkout)["pyxsd"]
    assert versions.wrong(checkout) == [
        f"packaging/debian/changelog: no version, but pyxsd is {right}"
    ]
