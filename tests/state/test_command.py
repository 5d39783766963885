# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd --show-state`: no Xen, no root, no configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyxsd.state import show
from pyxsd.system import options
from tests.state.recorded import DATA


def run(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pyxsd", *words], stdout=stdout, stderr=subprocess.PIPE, check=False
    )


def test_the_formats_are_those_of_the_command_line() -> None:
    assert options.STATE_FORMATS == tuple(show.WRITERS)


def test_as_text() -> None:
    done = run("--show-state", str(DATA / "c417-special.bin"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"format stream 1, little-endian\nlistening-socket 3\n")


def test_there_and_back(tmp_path: Path) -> None:
    """oxenstored's dump as a stream and as a dump again loses only what C has no place for."""
    source = DATA / "ox417-domains.db"
    stream, again = tmp_path / "stream", tmp_path / "again"
    done = run("--show-state", str(source), "--as", "stream")
    stream.write_bytes(done.stdout)
    assert done.returncode == 0
    done = run("--as=db", "--show-state", str(stream))
    again.write_bytes(done.stdout)
    assert done.returncode == 0
    first, last = (show.read_any(path.read_bytes()) for path in (source, again))
    assert last.nodes == first.nodes
    assert sorted((c.name, c.watches) for c in last.clients) == sorted(
        (c.name, c.watches) for c in first.clients
    )
    assert b"its page or its remote port is not known" in done.stderr


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes((DATA / "c417-special.bin").read_bytes()[:100])
    done = run("--show-state", str(path))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"pyxsd: %s: record " % os.fsencode(path))


def test_a_file_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes((DATA / "ox417-empty.db").read_bytes() + b"nonsense\n")
    done = run("--show-state", str(path))
    assert done.returncode == 1 and done.stdout.startswith(b"format db\n")
    assert b"left out: line " in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_nowhere_to_write() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = run("--show-state", str(DATA / "c417-special.bin"), stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 1
    assert done.stderr == b"pyxsd: standard output: No space left on device\n"
