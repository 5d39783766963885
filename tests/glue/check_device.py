# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading and unmasking pending ports on a descriptor that is a character device, and on one that
is not; run by test_glue.py with the library of device.c in the loader's path."""

from __future__ import annotations

import errno
import os
import struct
import sys
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, os.environ["GLUE_CHECK_DIR"])

import _glue_check  # type: ignore[import-not-found]

ffi, lib = _glue_check.ffi, _glue_check.lib
api = lib.xsd_glue_api()


@pytest.fixture
def glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A handle with nothing open."""
    monkeypatch.setenv("CHECK_UNMASKED", str(tmp_path / "unmasked"))
    made = api.create()
    yield made
    api.destroy(made)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The far end of the character device."""
    far, near = os.openpty()
    tty.setraw(near)
    monkeypatch.setenv("CHECK_DEVICE", os.ttyname(near))
    yield far
    os.close(far)
    os.close(near)


def packed(*ports: int) -> bytes:
    """Ports as the device carries them."""
    return struct.pack(f"={len(ports)}I", *ports)


def test_device(glue: Any, device: int, tmp_path: Path) -> None:
    """Ports are read from it, and one write gives it all that are unmasked."""
    assert api.open_evtchn(glue) == 0
    ports = ffi.new("uint32_t[]", 8)
    assert api.pending(glue, ports, 8) == 0
    os.write(device, packed(3, 7, 9))
    assert api.pending(glue, ports, 8) == 3
    assert list(ports[0:3]) == [3, 7, 9]
    assert api.unmask(glue, ports, 3) == 0
    assert os.read(device, 64) == packed(3, 7, 9)
    assert not (tmp_path / "unmasked").exists()


def test_device_that_fails(glue: Any, device: int) -> None:
    """A device that does not know the call for emptying its queue says so."""
    assert api.open_evtchn(glue) == 0
    assert api.discard_pending(glue) == -errno.ENOTTY
    assert ffi.string(api.last_call(glue)) == b"IOCTL_EVTCHN_RESET"


def test_one_port_fails_among_several(
    glue: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a character device each port is unmasked by itself; one that cannot be, because it
    was unbound meanwhile, is told, and the ports behind it are unmasked all the same."""
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setenv("CHECK_DEVICE", str(tmp_path / "fifo"))
    assert api.open_evtchn(glue) == 0
    ports = ffi.new("uint32_t[]", [3, 7, 9])
    assert api.unmask(glue, ports, 3) == -errno.ENOTCONN
    assert ffi.string(api.last_text(glue)).startswith(b"xenevtchn_unmask(port 7)")
    assert (tmp_path / "unmasked").read_bytes() == packed(3, 9)


def test_failures_without_a_reason(glue: Any, device: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that sets no errno: EIO, whatever errno was before; and it is let go of."""
    monkeypatch.setenv("CHECK_CLOSE", "1")
    for part, call in (("evtchn", b"xenevtchn_close"), ("gnttab", b"xengnttab_close")):
        assert getattr(api, f"open_{part}")(glue) == 0
        if part == "gnttab":
            ffi.errno = errno.EPERM
            assert api.map_page(glue, 5, ffi.new("void **")) == -errno.EIO
            ffi.errno = errno.EPERM
            assert api.unmap_page(glue, ffi.NULL) == -errno.EIO
        ffi.errno = errno.EPERM
        assert getattr(api, f"close_{part}")(glue) == -errno.EIO
        assert ffi.string(api.last_text(glue)) == call + b": Input/output error"
        assert getattr(api, f"close_{part}")(glue) == 0  # closed already
