# SPDX-License-Identifier: LGPL-2.1-or-later
"""Both distributions, pyxsd and pyxsd-bench, build in isolation, and what is installed runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*command: str, cwd: Path | str = "/") -> str:
    """The output of a command that must succeed."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def sources(tmp_path: Path) -> Path:
    """What git tracks, as it is in the working tree, symbolic links included."""
    copy = tmp_path / "copy"
    listed = run("git", "-C", str(ROOT), "ls-files", "-z")
    for name in filter(None, listed.split("\0")):
        here, there = ROOT / name, copy / name
        if here.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            if here.is_symlink():
                there.symlink_to(os.readlink(here))
            else:
                there.write_bytes(here.read_bytes())
    return copy


def need_build() -> None:
    """Skips without the module `build`, or fails where everything must run."""
    if importlib.util.find_spec("build.__main__") is None:
        text = "build is not installed: pip install the extra 'test'"
        if os.environ.get("PYXSD_REQUIRE_ALL"):
            pytest.fail(text)
        pytest.skip(text)


def members(archive: Path) -> set[str]:
    """The names in a wheel, or in a source distribution without its top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        assert not [member.name for member in sdist.getmembers() if member.issym()]
        return {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}


def built(copy: Path, folder: str) -> tuple[Path, Path]:
    """The source distribution of a folder, and the wheel that is made of it."""
    out = copy.parent / f"dist-{folder}"
    run(sys.executable, "-m", "build", "--outdir", str(out), str(copy / folder))
    sdist, wheel = (next(out.glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    return sdist, wheel


def installed(tmp_path: Path, wheel: Path) -> Path:
    """The programs of a new environment that holds the wheel and what it requires."""
    folder = tmp_path / "env"
    venv.create(folder, with_pip=True, symlinks=True)
    run(str(folder / "bin" / "pip"), "install", "--quiet", str(wheel))
    return folder / "bin"


def test_pyxsd(tmp_path: Path) -> None:
    """The daemon alone: no load generator is compiled, packed or installed."""
    need_build()
    sdist, wheel = built(sources(tmp_path), ".")
    names = members(sdist)
    assert {
        "setup.py",
        "LICENSE",
        "pyxsd/_core.pyx",
        "pyxsd/_core.pxd",
        "glue/xsd_glue.c",
        "glue/standin/host.c",
    } <= names
    assert not [
        name
        for name in names | members(wheel)
        if "bench" in name and not name.startswith(("docs/", "packaging/"))
    ]
    programs = installed(tmp_path, wheel)
    assert "--config-file" in run(str(programs / "pyxsd"), "--help")
    assert not (programs / "pyxsd-bench").exists()
    run(str(programs / "python"), "-c", "import pyxsd._core, pyxsd._glue")


def test_pyxsd_bench(tmp_path: Path) -> None:
    """The harness alone, with the stand-in Xen: it starts a daemon there and measures it."""
    need_build()
    sdist, wheel = built(sources(tmp_path), "benchmarks")
    names = members(sdist)
    standin = {
        f"pyxsd_bench/glue/{name}"
        for name in (
            "Makefile",
            "standin/host.c",
            "standin/evtchn.map",
            "standin/xsd_guest.h",
            "standin/peers.py",
        )
    }
    assert {"setup.py", "load_build.py", "LICENSE", "load/xb_engine.c", "load/xb_load.h"} <= names
    assert standin <= names & members(wheel)
    programs = installed(tmp_path, wheel)
    assert "usage" in run(str(programs / "pyxsd-bench"), "--help")
    assert not (programs / "pyxsd").exists()
    libs = tmp_path / "libs"
    text = (
        "from pyxsd_bench import standin; from pathlib import Path\n"
        f"standin.load().build_standin(Path({str(libs)!r}))"
    )
    run(str(programs / "python"), "-c", text)
    assert (libs / "lib" / "libxsdguest.so").exists()
    result, page = tmp_path / "result.json", tmp_path / "page.html"
    run(
        str(programs / "pyxsd-bench"),
        "run",
        "floor",
        "--only",
        "churn",
        "--smoke",
        "-q",
        "-o",
        str(result),
        "--html",
        str(page),
    )
    assert "<svg" in page.read_text()
