# SPDX-License-Identifier: LGPL-2.1-or-later
"""The glue: its tests proper are in check_glue.py, which needs the stand-in's libraries in the
loader's path and so runs as a process of its own, once per source of domain states."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import peers
import pytest
from conftest import ROOT, missing

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def built_glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a fresh cffi module _glue_check, built from the sources."""
    try:
        import cffi  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        missing("the Python package cffi is not installed")
    sys.path.insert(0, str(ROOT / "glue"))
    import cffi_build

    where = tmp_path_factory.mktemp("glue")
    builder = cffi.FFI()
    builder.cdef(cffi_build.declarations((ROOT / "glue" / "xsd_glue.h").read_text()))
    builder.set_source(
        "_glue_check",
        '#include "xsd_glue.h"',
        sources=[str(ROOT / "glue" / name) for name in ("xsd_glue.c", "xsd_domains.c")],
        include_dirs=[str(ROOT / "glue")],
        libraries=["dl"],
    )
    builder.compile(tmpdir=str(where))
    return where


def compiled(source: str, library: Path, *flags: str) -> None:
    """A shared library of a source beside this file."""
    command = ["cc", "-shared", "-fPIC", *flags, "-o", str(library), str(HERE / source)]
    subprocess.run(command, check=True)


def passes(checks: str, built_glue: Path, **env: str) -> None:
    """A file of checks passes as a process of its own, and none of them is skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / checks)],
        env={**os.environ, "GLUE_CHECK_DIR": str(built_glue), **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize("manage", ["", "manage", "manage0"])
def test_glue(built_glue: Path, libs: Path, manage: str) -> None:
    """check_glue.py with libxenctrl, with libxenmanage, and with that one's first form."""
    env = peers.standin_env(Path("/nonexistent"), manage=manage, libs=libs)
    passes("check_glue.py", built_glue, **env, GLUE_CHECK_MANAGE=manage)


def test_device(built_glue: Path, tmp_path: Path) -> None:
    """check_device.py with a library whose descriptor is a character device."""
    compiled("device.c", tmp_path / "libxenevtchn.so.1")
    (tmp_path / "libxengnttab.so.1").symlink_to("libxenevtchn.so.1")
    passes("check_device.py", built_glue, LD_LIBRARY_PATH=str(tmp_path))


@pytest.mark.parametrize("manage", ["", "manage"])
def test_flags(built_glue: Path, tmp_path: Path, manage: str) -> None:
    """check_flags.py with a library that says of a domain what it is told to."""
    name = "libxenmanage.so.1" if manage else "libxenctrl.so.4.17"
    compiled("flags.c", tmp_path / name, *(["-DMANAGE"] if manage else []))
    passes(
        "check_flags.py",
        built_glue,
        LD_LIBRARY_PATH=str(tmp_path),
        GLUE_CHECK_MANAGE=manage,
        CHECK_FLAGS="1",
    )


BROKEN = [
    ("libxenevtchn.so.1", "open_evtchn", "xenevtchn_open"),
    ("libxengnttab.so.1", "open_gnttab", "xengnttab_open"),
]


@pytest.mark.parametrize("soname,part,first", BROKEN)
@pytest.mark.parametrize("garbage", [True, False], ids=["no library", "without symbols"])
def test_broken_library(
    built_glue: Path, tmp_path: Path, soname: str, part: str, first: str, garbage: bool
) -> None:
    """A library that is none, or lacks a call, is told by name; nothing crashes."""
    if garbage:
        (tmp_path / soname).write_text("not a library\n")
    else:
        source = tmp_path / "empty.c"
        source.write_text("int nothing;\n")
        subprocess.run(
            [
                "cc",
                "-shared",
                "-fPIC",
                f"-Wl,-soname,{soname}",
                "-o",
                str(tmp_path / soname),
                str(source),
            ],
            check=True,
        )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from _glue_check import lib, ffi\n"
        "api = lib.xsd_glue_api(); g = api.create(); r = getattr(api, sys.argv[2])(g)\n"
        "print(r, ffi.string(api.last_call(g)).decode(), ffi.string(api.last_text(g)).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(built_glue), part],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result, call, text = done.stdout.split(None, 2)
    assert soname in text
    assert (result, call) == (("-2", "dlopen") if garbage else ("-38", first))


def test_no_library_of_states_works(built_glue: Path, tmp_path: Path) -> None:
    """Of many failures one line is told: what was looked for, and why the first did not load."""
    for name in ("libxenmanage.so.1", *(f"libxenctrl.so.4.{n}" for n in range(14, 25))):
        (tmp_path / name).write_text("not a library\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from _glue_check import lib, ffi\n"
        "api = lib.xsd_glue_api(); g = api.create(); print(api.open_domains(g))\n"
        "print(ffi.string(api.last_call(g)).decode()); print(ffi.string(api.last_text(g)).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(built_glue)],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "-2",
        "dlopen",
        "dlopen: neither libxenmanage.so.1 nor a libxenctrl.so.4.14 to 4.24 works: "
        "No such file or directory",
    ]


def test_under_sanitizers(tmp_path: Path) -> None:
    """glue_check.c, the glue and the stand-in under AddressSanitizer and UBSan."""
    if not shutil.which("cc"):
        missing("no C compiler (cc)")
    done = subprocess.run(
        ["make", "-s", "-C", str(ROOT / "glue"), "check", "SAN=1", f"OUT={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "glue_check: ok" in done.stdout, done.stdout


def test_builder_of_the_package(built_glue: Path) -> None:
    """The builder that setup.py names describes the same functions."""
    sys.path.insert(0, str(ROOT / "glue"))
    import cffi_build

    name, _, _, options = cffi_build.ffibuilder._assigned_source  # type: ignore[attr-defined]
    assert name == "pyxsd._glue"
    for source in options["sources"]:
        assert (ROOT / source).is_file()
