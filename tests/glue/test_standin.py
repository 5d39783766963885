# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in by itself: domains, ports, locks; no daemon, no glue."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import guest
import peers
import pytest


@pytest.fixture
def host(libs: Path, root: Path) -> Iterator[guest.Host]:
    """A host with dom0 only."""
    with guest.Host(root / "host", libs) as host:
        yield host


ERRORS = [
    ("domain 0 is there already", lambda h: h.create(0), errno.EINVAL),
    ("reserved domid", lambda h: h.create(0x7FF0), errno.EINVAL),
    ("create twice", lambda h: (h.create(5), h.create(5)), errno.EEXIST),
    ("state of nobody", lambda h: h.set_state(6, guest.SHUTDOWN), errno.ESRCH),
    ("state out of range", lambda h: (h.create(5), h.set_state(5, 9)), errno.EINVAL),
    ("guest of nobody", lambda h: h.guest(6), errno.EINVAL),
    ("port of nobody", lambda h: h.alloc_port(6), errno.ESRCH),
    ("no such port", lambda h: h.guest(0, 77), errno.EINVAL),
    ("kick from a dead domain", lambda h: kick_dead(h), errno.ENOTCONN),
]


def kick_dead(host: guest.Host) -> None:
    """Kick from a domain, then once more after its death."""
    domain = host.create(5)
    domain.kick()
    host.set_state(5, guest.DYING)
    domain.kick()


@pytest.mark.parametrize("call,expected", [row[1:] for row in ERRORS], ids=[r[0] for r in ERRORS])
def test_errors(host: guest.Host, call: Callable[[guest.Host], object], expected: int) -> None:
    """What Xen refuses is refused."""
    with pytest.raises(OSError) as caught:
        call(host)
    assert caught.value.errno == expected


def test_ports_run_out_and_come_back(host: guest.Host) -> None:
    """A domain's ports are few, are counted, and all end with the domain."""
    host.create(5)
    with pytest.raises(OSError) as caught:
        for _ in range(100):
            host.alloc_port(5)
    assert caught.value.errno == errno.ENOSPC
    assert host.ports_in_use(5) == 15
    host.set_state(5, guest.DYING)
    assert host.ports_in_use(5) == 0


def test_domid_reuse_gives_a_new_page(host: guest.Host) -> None:
    """Who maps the page of a dead domain does not see its namesake's."""
    old = host.create(5)
    old.poke(0, b"old")
    host.set_state(5, guest.GONE)
    new = host.create(5)
    assert bytes(new.page[:3]) == b"\0\0\0"
    new.poke(0, b"new")
    assert bytes(old.page[:3]) == b"old"


def test_files_of_dom0(host: guest.Host, root: Path) -> None:
    """xsd_kva is dom0's page, xsd_port its port."""
    host.guest(0).poke(7, b"x")
    assert (root / "host" / "xsd_kva").read_bytes()[7:8] == b"x"
    assert int((root / "host" / "xsd_port").read_text()) == 1


def test_a_crash_under_the_lock_wedges_nobody(host: guest.Host, root: Path) -> None:
    """A process that dies holding the host's mutex: the next caller takes it over."""
    code = (
        "import ctypes, mmap, os, sys\n"
        "f = open(sys.argv[1], 'r+b')\n"
        "m = mmap.mmap(f.fileno(), 0)\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(m)) + 8\n"
        "lock = ctypes.CDLL(None).pthread_mutex_lock\n"
        "assert lock(ctypes.c_void_p(at)) == 0\n"
        "os._exit(7)\n"
    )
    path = root / "host" / "host.shm"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 7
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shm:
        word = ctypes.c_uint32.from_buffer(shm, 8)
        held = word.value
        del word
    assert held != 0, "the child did not hold the mutex: the test tests nothing"
    host.create(5)


def test_a_guest_process_that_vanishes_leaves_its_port_to_the_next(
    host: guest.Host, root: Path
) -> None:
    """The port is the domain's, not the process's: another process takes it up."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import guest\n"
        "guest.Host(sys.argv[2]).create(5); os._exit(0)\n"
    )
    place = str(Path(peers.__file__).parent)
    subprocess.run([sys.executable, "-c", code, place, str(root / "host")], check=True)
    assert host.ports_in_use(5) == 1
    assert len(os.listdir(root / "host" / "evt")) == 1, "the vanished handle's FIFO is still there"
    host.guest(5).kick()
