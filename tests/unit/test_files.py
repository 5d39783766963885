# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that are replaced as a whole, and what is no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyxsd.system import files


@pytest.mark.parametrize("sync", [False, True])
def test_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    synced: list[tuple[bytes, bytes]] = []

    def fsync(fd: int) -> None:
        synced.append((Path(f"/proc/self/fd/{fd}").read_bytes(), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_whole(str(path), lambda out: out.write(b"new"), sync=sync)
    assert path.read_bytes() == b"new"
    assert synced == ([(b"new", b"old")] if sync else [])
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_no_file_is_not_kept_open(tmp_path: Path) -> None:
    """Not even while its error is told."""
    os.mkfifo(tmp_path / "fifo")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(files.NotAFile, match="not a file") as error:
        files.open_to_read(str(tmp_path / "fifo"))
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert error.value.strerror == "not a file"
