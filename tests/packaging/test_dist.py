# SPDX-License-Identifier: LGPL-2.1-or-later
"""The source distribution and the wheel build in isolation, and what is installed runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*command: str, cwd: Path | str = "/") -> str:
    """The output of a command that must succeed."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=env, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def sources(tmp_path: Path) -> Path:
    """What git tracks, as it is in the working tree."""
    copy = tmp_path / "copy"
    listed = run("git", "-C", str(ROOT), "ls-files", "-z")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def test_sdist_and_wheel(tmp_path: Path) -> None:
    if importlib.util.find_spec("build.__main__") is None:
        text = "build is not installed: pip install the extra 'test'"
        if os.environ.get("PYXSD_REQUIRE_ALL"):
            pytest.fail(text)
        pytest.skip(text)
    copy = sources(tmp_path)
    run(sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), cwd=copy)
    sdist, wheel = (next((tmp_path / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "LICENSE", "pyxsd/_core.pyx", "pyxsd/_core.pxd", "glue/xsd_glue.c",
            "glue/standin/host.c", "benchmarks/cli.py"} <= names
    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    programs = tmp_path / "env" / "bin"
    run(str(programs / "pip"), "install", "--quiet", str(wheel))
    assert "--config-file" in run(str(programs / "pyxsd"), "--help")
    assert "usage" in run(str(programs / "pyxsd-bench"), "--help")
    run(str(programs / "python"), "-c", "import pyxsd._core, pyxsd._glue, pyxsd_bench._load")
