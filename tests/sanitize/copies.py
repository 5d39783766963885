# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds copies of the project with other compilers and flags, out of the way of the real one.

A copy lies under build/copies/<name>-<key>/, where the key stands for the compiler, the flags and
setup.py.  A second build only compiles what changed.  Safe to call from several processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("PYXSD_COPIES") or PROJECT / "build" / "copies")

#: What a copy holds, from the top of the project.
PARTS = (
    "pyxsd",
    "glue",
    "tests",
    "docs",
    "packaging",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "MANIFEST.in",
    "LICENSE",
)
LEFT_OUT = {"__pycache__", "build", "build-san", "node_modules"}
SUFFIXES_LEFT_OUT = {".so", ".o", ".pyc"}


class BuildFailed(RuntimeError):
    """The copy does not compile; the text is what the build said."""


def missing(*programs: str) -> str:
    """Which of the programs are not installed, as a reason to skip; empty where all are there."""
    gone = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(gone)}" if gone else ""


def _files(top: Path) -> Iterator[Path]:
    if top.is_file():
        yield top
        return
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix not in SUFFIXES_LEFT_OUT and path.is_file():
                yield path


def update(copy: Path, changed: Mapping[str, str] | None = None) -> None:
    """Brings the copy's sources up to date; only what differs gets a new time.

    changed: texts that take the place of sources, by their paths from the top of the project.
    """
    texts = {PROJECT / path: text.encode() for path, text in (changed or {}).items()}
    wanted = set()
    for part in PARTS:
        for source in _files(PROJECT / part):
            target = copy / source.relative_to(PROJECT)
            wanted.add(target)
            content = texts.get(source) or source.read_bytes()
            mode = stat.S_IMODE(source.stat().st_mode)
            if not target.is_file() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            if stat.S_IMODE(target.stat().st_mode) != mode:
                target.chmod(mode)
    for part in PARTS:
        for path in list(_files(copy / part)):
            if path not in wanted and path.suffix in {".py", ".pyx", ".pxd", ".pyi"}:
                path.unlink()


def build(name: str, mode: str, env: Mapping[str, str]) -> Path:
    """The directory of a built copy.

    mode is PYXSD_BUILD, env goes to the compiler (CC, CFLAGS, LDSHARED ...).  BuildFailed where it
    does not compile.
    """
    text = repr((mode, sorted(env.items()), sys.version, (PROJECT / "setup.py").read_bytes()))
    copy = CACHE / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    copy.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"{name}-*"):
        if old != copy:
            shutil.rmtree(old, ignore_errors=True)
    with open(copy / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        update(copy)
        command = [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "--inplace",
            f"-j{os.cpu_count() or 1}",
        ]
        done = subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, **env, "PYXSD_BUILD": mode},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise BuildFailed(f"{copy}\n{done.stdout[-8000:]}")
    return copy


def runtime(library: str) -> str:
    """The path of a sanitizer's run-time library of gcc, "" where it is not installed."""
    done = subprocess.run(
        ["gcc", f"-print-file-name={library}"], stdout=subprocess.PIPE, text=True, check=False
    )
    path = done.stdout.strip()
    return path if os.path.isabs(path) and os.path.exists(path) else ""
