# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of a host, seen below a folder.

`Tree("/")` is this host.  `Tree("/tmp/dom0")` is a host whose files lie in that folder; symbolic
links are followed as a process with that root directory would follow them, so that `/var/run`
-> `/run` does not lead out of the folder.  All paths given to a `Tree` are absolute paths of
the host, such as `/etc/default/xen`.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
import tempfile

from pyxsd.system import configuration

# As the kernel: a longer chain of symbolic links is taken for a loop.
MAX_LINKS = 40


class Tree:
    """One host's files.  Methods that read or write raise OSError as the system gives it."""

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.realpath(root)

    @property
    def is_this_host(self) -> bool:
        """Whether this is the running host, not a folder with the files of one."""
        return self.root == "/"

    def locate(self, path: str) -> str:
        """Where the host's file `path` is, without symbolic links; it need not exist.

        Example: in the tree /tmp/dom0, whose var/run is a link to /run, `/var/run/xen` is at
        /tmp/dom0/run/xen.  A loop of links is an OSError (ELOOP).
        """
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        found: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del found[-1:]
                continue
            here = os.path.join(self.root, *found, part)
            if not os.path.islink(here) or self._leads_out(here):
                found.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            if target.startswith("/"):
                found = []
            todo.extend(p for p in reversed(target.split("/")) if p not in ("", "."))
        return os.path.join(self.root, *found)

    def _leads_out(self, link: str) -> bool:
        """Links to /dev/null, by which systemd masks a unit, stay as they are: a folder cannot hold
        a /dev of its own.  No other one, or a link to /dev/../etc would lead out of the folder."""
        return not self.is_this_host and os.readlink(link) == os.devnull

    def exists(self, path: str) -> bool:
        """Whether the file is there; a link to nothing is not."""
        try:
            return os.path.exists(self.locate(path))
        except OSError:
            return False

    def is_program(self, path: str) -> bool:
        """Whether the file can be executed."""
        try:
            place = self.locate(path)
        except OSError:
            return False
        return os.path.isfile(place) and os.access(place, os.X_OK)

    def read(self, path: str) -> str | None:
        """The file's text, None where it is missing; bytes that are no UTF-8 are kept.

        OSError where it cannot be read, is longer than a settings file can be, or is a FIFO or
        a device.
        """
        place = self.locate(path)
        try:
            mode = os.stat(place).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            data = configuration.read_file(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data.decode("utf-8", "surrogateescape")

    def first_line(self, path: str) -> str:
        """The first line of a file of /sys or /proc; "" where it cannot be read."""
        try:
            text = self.read(path)
        except OSError:
            return ""
        return text.split("\n", 1)[0].strip() if text else ""

    def matches(self, pattern: str) -> list[str]:
        """The host's paths that match a pattern such as `/usr/lib/*/libxenctrl.so.4.*`, sorted."""
        prefix = "" if self.is_this_host else self.root
        return sorted(name[len(prefix) :] for name in glob.glob(glob.escape(prefix) + pattern))

    def replace(self, path: str, text: str) -> None:
        """Gives a file new text, all of it or (OSError) nothing; owner and mode stay.

        A new file gets mode 0644.  Where `path` is a symbolic link, the file it leads to is
        replaced.
        """
        place = self.locate(path)
        try:
            old = os.stat(place)
        except FileNotFoundError:
            old = None
        fd, temporary = tempfile.mkstemp(
            dir=os.path.dirname(place), prefix=os.path.basename(place) + "."
        )
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fchmod(file.fileno(), old.st_mode & 0o7777 if old else 0o644)
                if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fsync(file.fileno())
            os.rename(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise

    def remove(self, path: str) -> None:
        """Removes a file."""
        os.unlink(self.locate(path))
