# SPDX-License-Identifier: LGPL-2.1-or-later
"""A writer of cpio archives of the "newc" format, as Linux unpacks them for its initramfs.

Works on entries in memory: no staging directory, no root needed for device nodes. Knows nothing
of what goes into an image.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class Archive:
    """Entries by absolute path. Parents are made when needed; the last entry of a path wins."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes | Path, int]] = {}

    def __contains__(self, path: str) -> bool:
        """Tell whether the path has an entry."""
        return path.strip("/") in self._entries

    def _add(self, path: str, mode: int, data: bytes | Path = b"", device: int = 0) -> None:
        name = path.strip("/")
        parent = os.path.dirname(name)
        if parent and parent not in self._entries:
            self.directory(parent)
        self._entries[name] = (mode, data, device)

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory; adding it again changes nothing."""
        if path not in self:
            self._add(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes | Path, mode: int = 0o644) -> None:
        """Add a regular file with this content, or with that of a file of this machine."""
        self._add(path, stat.S_IFREG | mode, data)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device node."""
        self._add(path, stat.S_IFCHR | 0o600, device=os.makedev(major, minor))

    def write(self, path: Path) -> int:
        """Write the archive, and return its size in bytes. It appears whole or not at all."""
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with partial.open("wb") as out:
            for number, name in enumerate(self._entries, start=1):
                mode, data, device = self._entries[name]
                content = data.read_bytes() if isinstance(data, Path) else data
                _entry(out, number, name, mode, content, device)
            _entry(out, 0, "TRAILER!!!", 0, b"", 0)
            size = out.tell()
        partial.rename(path)
        return size


def _entry(out: BinaryIO, inode: int, name: str, mode: int, data: bytes, device: int) -> None:
    raw = name.encode() + b"\0"
    fields = (
        inode,
        mode,
        0,  # uid
        0,  # gid
        2 if stat.S_ISDIR(mode) else 1,
        0,  # mtime: the same image from the same input
        len(data),
        0,
        0,
        os.major(device),
        os.minor(device),
        len(raw),
        0,
    )
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + raw)
    out.write(b"\0" * (-(110 + len(raw)) % 4))
    out.write(data)
    out.write(b"\0" * (-len(data) % 4))
