# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests of the stand-in Xen for tests: a thin ctypes face of libxsdguest.so.

::

    with Host(root / "host") as host:
        guest = host.create(5)             # a running domain with page and port
        ...introduce it over the socket: domid 5, any mfn, guest.port...
        guest.request(READ, b"name\\0")    # -> (type, req_id, tx_id, payload)
        host.set_state(5, SHUTDOWN, code=0)

Errors are OSError with the errno of the stand-in. Waiting ends at a deadline
with TimeoutError; nothing sleeps.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, final

import peers

GONE, RUNNING, SHUTDOWN, DYING, DEAD = range(5)
RING_SIZE = 1024
PAGE_SIZE = 4096
WATCH_EVENT = 15
DEADLINE = 20.0
#: Offsets in the page, by Xen's xs_wire.h.
FIELDS = {
    "req_cons": 2048,
    "req_prod": 2052,
    "rsp_cons": 2056,
    "rsp_prod": 2060,
    "server_features": 2064,
    "connection": 2068,
    "error": 2072,
    "evtchn_port": 2076,
}


class Packet(NamedTuple):
    """One reply or event."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


class Load(ctypes.Structure):
    """struct xsd_load: what to send, and what came of it (xsd_guest.h)."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("tx_id", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("in_turn", ctypes.c_uint32),
        ("spin", ctypes.c_uint32),
        ("frugal", ctypes.c_uint32),
        ("requests", ctypes.c_uint64),
        ("payload", ctypes.c_char_p),
        ("nanoseconds", ctypes.c_uint64),
        ("replies", ctypes.c_uint64),
        ("errors", ctypes.c_uint64),
        ("events", ctypes.c_uint64),
        ("waits", ctypes.c_uint64),
    ]


def load_library(libs: Path | None = None) -> ctypes.CDLL:
    """libxsdguest.so with its functions' types declared; built where it is not yet."""
    path = (libs or peers.build_standin()) / "lib" / "libxsdguest.so"
    lib = ctypes.CDLL(str(path), use_errno=True)
    pointer, u32, number = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int
    table = {
        "xsd_host_open": (pointer, [ctypes.c_char_p]),
        "xsd_host_close": (None, [pointer]),
        "xsd_domain_create": (number, [pointer, u32]),
        "xsd_domain_set": (number, [pointer, u32, number, u32]),
        "xsd_ports_in_use": (number, [pointer, u32]),
        "xsd_port_reset": (number, [pointer, u32]),
        "xsd_port_alloc": (number, [pointer, u32]),
        "xsd_events_open": (pointer, [pointer]),
        "xsd_events_close": (None, [pointer]),
        "xsd_events_fd": (number, [pointer]),
        "xsd_events_wait": (number, [pointer, number, pointer, number]),
        "xsd_guest_open": (pointer, [pointer, u32, u32]),
        "xsd_guest_close": (None, [pointer]),
        "xsd_guest_page": (pointer, [pointer]),
        "xsd_guest_kick": (number, [pointer]),
        "xsd_guest_write": (number, [pointer, ctypes.c_char_p, u32]),
        "xsd_guest_read": (number, [pointer, pointer, u32]),
        "xsd_guest_reconnect": (number, [pointer]),
        "xsd_load_run": (number, [pointer, pointer, u32, ctypes.POINTER(Load)]),
    }
    for name, (result, arguments) in table.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


def checked(result: int, what: str) -> int:
    """A result >= 0, or OSError."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def opened(pointer: int | None, what: str) -> int:
    """A pointer, or OSError with ctypes' errno."""
    if not pointer:
        err = ctypes.get_errno()
        raise OSError(err, f"{what}: {os.strerror(err)}")
    return pointer


@final
class Host:
    """A pretended host: its domains, and the faults that it plays."""

    def __init__(self, directory: str | Path, libs: Path | None = None) -> None:
        """Join the host in `directory`, or make it."""
        self.directory = Path(directory)
        self.lib = load_library(libs)
        self.handle = opened(self.lib.xsd_host_open(os.fsencode(self.directory)), str(directory))
        self.events = opened(self.lib.xsd_events_open(self.handle), "events")
        self.guests: list[Guest] = []

    def create(self, domid: int) -> Guest:
        """A running domain, and its guest (not yet introduced)."""
        port = checked(self.lib.xsd_domain_create(self.handle, domid), f"domain {domid}")
        return self.guest(domid, port)

    def guest(self, domid: int, port: int = 0) -> Guest:
        """Take up a domain that is there; 0: the kernel's end of dom0's ring."""
        guest = Guest(self, domid, port or 1)
        self.guests.append(guest)
        return guest

    def set_state(self, domid: int, state: int, code: int = 0) -> None:
        """RUNNING, SHUTDOWN (with the code), DYING, DEAD or GONE; raises VIRQ_DOM_EXC."""
        checked(self.lib.xsd_domain_set(self.handle, domid, state, code), f"domain {domid}")

    def ports_in_use(self, domid: int = 0) -> int:
        """Event channel ports of a domain; of dom0 all but its kernel's xenstore port."""
        return checked(self.lib.xsd_ports_in_use(self.handle, domid), "ports")

    def reset_port(self, domid: int) -> int:
        """Close the domain's xenstore port and allocate it again, unbound."""
        return checked(self.lib.xsd_port_reset(self.handle, domid), f"domain {domid}")

    def alloc_port(self, domid: int) -> int:
        """One more unbound port of the domain (as a toolstack makes for a second INTRODUCE)."""
        return checked(self.lib.xsd_port_alloc(self.handle, domid), f"domain {domid}")

    def set_faults(self, *lines: str) -> None:
        """Errors to play from now on, e.g. "map 7 EPERM", "bind * ENOSPC"; none: play none."""
        path = self.directory / "faults"
        if lines:
            staged = path.with_suffix(".new")
            staged.write_text("".join(f"{line}\n" for line in lines))
            staged.replace(path)
        elif path.exists():
            path.unlink()

    def run_load(self, guests: Sequence[Guest], load: Load) -> Load:
        """Drive guests from C (they must have no request in flight)."""
        array = (ctypes.c_void_p * len(guests))(*[guest.handle for guest in guests])
        checked(self.lib.xsd_load_run(self.events, array, len(guests), ctypes.byref(load)), "load")
        return load

    def close(self) -> None:
        """Drop all guests; the domains stay."""
        for guest in self.guests:
            guest.close()
        if self.events:
            self.lib.xsd_events_close(self.events)
            self.lib.xsd_host_close(self.handle)
        self.events = self.handle = 0

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self, seconds: float) -> list[int]:
        """The domids that got an event, waiting up to `seconds` for the first."""
        ready = (ctypes.c_uint32 * 256)()
        count = self.lib.xsd_events_wait(self.events, max(0, int(seconds * 1000)), ready, 256)
        return list(ready[: checked(count, "events")])


class Guest:
    """One domain's page and event channel, from inside the domain."""

    def __init__(self, host: Host, domid: int, port: int) -> None:
        """Use Host.create() or Host.guest()."""
        self.host = host
        self.domid = domid
        self.port = port
        self.handle = opened(host.lib.xsd_guest_open(host.events, domid, port), f"domain {domid}")
        address = host.lib.xsd_guest_page(self.handle)
        self.page = (ctypes.c_ubyte * PAGE_SIZE).from_address(address)
        self.buffer = b""
        self._req_id = 0

    def close(self) -> None:
        """Unmap the page."""
        if self.handle:
            del self.page
            self.host.lib.xsd_guest_close(self.handle)
        self.handle = 0

    def fields(self) -> dict[str, int]:
        """Indices and fields of the page, by name."""
        return {name: self.get(name) for name in FIELDS}

    def get(self, name: str) -> int:
        """One index or field."""
        return int(ctypes.c_uint32.from_buffer(self.page, FIELDS[name]).value)

    def set(self, name: str, value: int) -> None:
        """Overwrite an index or field, whatever it was."""
        ctypes.c_uint32.from_buffer(self.page, FIELDS[name]).value = value & 0xFFFFFFFF

    def poke(self, offset: int, data: bytes) -> None:
        """Overwrite bytes of the page: requests at 0, replies at 1024."""
        self.page[offset : offset + len(data)] = list(data)

    def kick(self) -> None:
        """Notify the xenstored."""
        checked(self.host.lib.xsd_guest_kick(self.handle), "kick")

    def write(self, data: bytes) -> int:
        """Put bytes into the request ring, without a kick: how many fitted."""
        return checked(self.host.lib.xsd_guest_write(self.handle, data, len(data)), "write")

    def read(self, limit: int = RING_SIZE) -> bytes:
        """Take what is in the reply ring, at most `limit` bytes; OSError(EPROTO) on bad indices."""
        data = ctypes.create_string_buffer(limit)
        count = checked(self.host.lib.xsd_guest_read(self.handle, data, limit), "read")
        return data.raw[:count]

    def send(self, data: bytes, seconds: float = DEADLINE) -> None:
        """Put all bytes into the ring and kick, waiting for space where needed."""
        deadline = time.monotonic() + seconds
        while True:
            count = self.write(data)
            data = data[count:]
            if count:
                self.kick()
            if not data:
                return
            self._wait(deadline, f"{len(data)} bytes unsent")

    def _wait(self, deadline: float, what: str) -> None:
        """Until the next event, or 50 ms (another guest of the host may have taken it)."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"domain {self.domid}: {what}; {self.fields()}")
        self.host.wait(min(left, 0.05))

    def receive(self, count: int, seconds: float = DEADLINE) -> bytes:
        """Exactly `count` bytes from the reply ring."""
        deadline = time.monotonic() + seconds
        while len(self.buffer) < count:
            data = self.read()
            self.buffer += data
            if not data:
                self._wait(deadline, f"{len(self.buffer)} of {count} bytes came")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def packet(self, seconds: float = DEADLINE) -> Packet:
        """The next whole reply or event."""
        kind, req_id, tx_id, length = struct.unpack("=4I", self.receive(16, seconds))
        return Packet(kind, req_id, tx_id, self.receive(length, seconds))

    def request(
        self,
        kind: int,
        payload: bytes,
        tx_id: int = 0,
        events: list[Packet] | None = None,
        seconds: float = DEADLINE,
    ) -> Packet:
        """Send one request and give its reply; watch events before it go into `events`."""
        self._req_id += 1
        self.send(struct.pack("=4I", kind, self._req_id, tx_id, len(payload)) + payload, seconds)
        while True:
            packet = self.packet(seconds)
            if packet.type != WATCH_EVENT:
                return packet
            if events is not None:
                events.append(packet)

    def reconnect(self, seconds: float = DEADLINE) -> None:
        """Ask for a reconnect by the connection field and wait until it is done."""
        self.buffer = b""
        checked(self.host.lib.xsd_guest_reconnect(self.handle), "reconnect")
        deadline = time.monotonic() + seconds
        while self.get("connection"):
            self._wait(deadline, "no reconnect")


def count_mappings(pid: int, host: str | Path) -> int:
    """How many xenstore pages of the host a process has mapped, dom0's included."""
    pages = (f"{host}/pages/", f"{host}/xsd_kva")
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum(any(page in line for page in pages) for line in lines)
