# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every Python that pyxsd supports: built from the source distribution, the tests that run in one
process, and a daemon that is started, asked and ended.

Pythons are looked for on PATH and under pyenv's folder; each that is missing is named.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
SUITE = ("tests/unit", "tests/conformance", "tests/security", "tests/rings")
NEEDS = ("pytest>=7", "hypothesis>=6", "setuptools", "cffi", "sortedcontainers")


def find(version: str) -> str | None:
    """A Python of that version that can make virtual environments."""
    found = [shutil.which(f"python{version}")]
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for path in folder.glob(f"{version}.*/bin/python{version}")]
    for program in found:
        if (
            program
            and subprocess.run(
                [
                    program,
                    "-c",
                    "import venv, ensurepip, sys, sysconfig, os; "
                    "sys.exit(not os.path.exists("
                    "sysconfig.get_path('include') + '/Python.h'))",
                ],
                check=False,
                stderr=subprocess.DEVNULL,
            ).returncode
            == 0
        ):
            return program
    return None


def run(*command: str, cwd: Path) -> str:
    """A command that must succeed; its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = tmp_path_factory.mktemp("copy") / "pyxsd"
    names = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        .stdout.decode()
        .split("\0")
    )
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), cwd=copy)
    return next(folder.glob("pyxsd-*.tar.gz"))


@pytest.mark.parametrize("version", VERSIONS)
def test_python(version: str, sdist: Path, tmp_path: Path) -> None:
    program = find(version)
    if program is None:
        # A distribution has one Python; where all are meant to be there, pyenv has them.
        pytest.skip(f"no Python {version} with its headers on PATH or under pyenv")
    run(program, "-m", "venv", "env", cwd=tmp_path)
    python = str(tmp_path / "env/bin/python")
    run(python, "-m", "pip", "install", "--quiet", *NEEDS, cwd=tmp_path)
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(sdist), cwd=tmp_path)
    shutil.copytree(
        ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("docs", "packaging", "glue", "pyproject.toml"):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "build")
            )
        else:
            shutil.copyfile(ROOT / name, tmp_path / name)
    run(python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUITE, cwd=tmp_path)
    serves(python, tmp_path)


def serves(python: str, folder: Path) -> None:
    """A daemon of that Python answers, and saves at SIGTERM."""
    place = folder / "run"
    place.mkdir()
    conf = folder / "pyxsd.conf"
    conf.write_text(
        f"pid-file = {place}/pid\nxenstored-log-file = {place}/log\n"
        f"access-log-file = {place}/access\n"
    )
    with subprocess.Popen(
        [python, "-I", "-m", "pyxsd", "--no-fork", "--no-domain-init", "--config-file", str(conf)],
        stdout=subprocess.PIPE,
        env=dict(os.environ, XENSTORED_RUNDIR=str(place)),
    ) as daemon:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                for _ in range(600):
                    try:
                        client.connect(str(place / "socket"))
                        break
                    except (FileNotFoundError, ConnectionRefusedError):
                        time.sleep(0.05)
                client.settimeout(30)
                for type_, payload, want in ((11, b"/x\0value", b"OK\0"), (2, b"/x\0", b"value")):
                    client.sendall(struct.pack("=IIII", type_, 1, 0, len(payload)) + payload)
                    assert client.recv(4096)[16:] == want
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
    assert b"store,%s," % b"/x".hex().encode() in (place / "db").read_bytes()
