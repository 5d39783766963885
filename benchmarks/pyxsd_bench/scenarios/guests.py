# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the parties of a guest's life say to Xenstore, as programs.

The toolstack is libxl's sequence in outline: a transaction for the domain's tree, one for each
device, a wait for the backend.  Backend drivers and the guest's frontends go through the states of
the xenbus protocol (1 initialising, 2 waiting, 3 initialised, 4 connected, 5 closing, 6 closed),
woken by watches.  The agent in the guest writes its data and then reports.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import wire
from ..program import ANY, Program

BOOTED = 1  # the class of durations from the toolstack's first request to the end
DEVICES = (("vbd", 51712), ("vif", 0))
BACKENDS = "/local/domain/0/backend"
FRONT_KEYS = ("ring-ref", "event-channel", "protocol", "feature-a", "feature-b")
BACK_KEYS = ("script", "bridge", "mac", "handle", "type", "hotplug-status")
AGENT_KEYS = (
    "os_name", "os_distro", "os_major", "os_minor", "os_uname", "attr/PVAddons/Major",
    "attr/PVAddons/Minor", "attr/eth0/ip", "attr/eth0/mac", "meminfo_total", "meminfo_free",
    "updated", "volumes/0/name", "volumes/0/size", "volumes/0/free",
)  # fmt: skip


class Guest(NamedTuple):
    """One guest; `port` is its event channel."""

    domid: int
    port: int

    @property
    def home(self) -> str:
        return f"/local/domain/{self.domid}"

    @property
    def vm(self) -> str:
        return f"/vm/00000000-0000-0000-0000-{self.domid:012d}"

    @property
    def libxl(self) -> str:
        return f"/libxl/{self.domid}"

    def front(self, kind: str, device: int) -> str:
        return f"{self.home}/device/{kind}/{device}"

    def back(self, kind: str, device: int) -> str:
        return f"{BACKENDS}/{kind}/{self.domid}/{device}"


def _tree(p: Program, g: Guest) -> None:
    """The domain's directories, in one transaction."""
    own, seen = f"n{g.domid}", ("n0", f"r{g.domid}")
    p.start()
    for top in (g.home, g.vm, g.libxl):
        p.mkdir(top).set_perms(top, *seen)
    for name in ("cpu", "memory", "device", "control", "console"):
        p.mkdir(f"{g.home}/{name}").set_perms(f"{g.home}/{name}", *seen)
    for name in ("data", "drivers", "feature", "attr", "error", "control/shutdown"):
        p.mkdir(f"{g.home}/{name}").set_perms(f"{g.home}/{name}", own)
    p.write(f"{g.home}/vm", g.vm.encode()).write(f"{g.home}/name", b"guest-%d" % g.domid)
    for name in ("uuid", "name", "start_time", "image/ostype"):
        p.write(f"{g.vm}/{name}", b"value-of-" + name.encode())
    p.write(f"{g.libxl}/type", b"pv").commit()


def _device(p: Program, g: Guest, kind: str, device: int) -> None:
    front, back = g.front(kind, device), g.back(kind, device)
    record = f"{g.libxl}/device/{kind}/{device}"
    p.start().read_missing(record)
    p.mkdir(front).set_perms(front, f"n{g.domid}", "r0")
    p.mkdir(back).set_perms(back, "n0", f"r{g.domid}")
    for key in BACK_KEYS:
        p.write(f"{back}/{key}", b"value-of-" + key.encode())
    p.write(f"{back}/frontend", front.encode()).write(f"{back}/frontend-id", b"%d" % g.domid)
    p.write(f"{back}/online", b"1").write(f"{back}/state", b"1")
    p.write(f"{front}/backend", back.encode()).write(f"{front}/backend-id", b"0")
    p.write(f"{front}/state", b"1")
    p.write(f"{record}/frontend", front.encode()).write(f"{record}/backend", back.encode())
    p.commit()
    p.watch(f"{back}/state", 1).read_until(f"{back}/state", b"2", 1).unwatch(f"{back}/state", 1)


def toolstack_boots(g: Guest) -> Program:
    p = Program().send(wire.GET_DOMAIN_PATH, b"%d\0" % g.domid, expect=ANY)
    _tree(p, g)
    for key, value in (("static-max", b"131072"), ("target", b"131072"), ("videoram", b"0")):
        p.write(f"{g.home}/memory/{key}", value)
    p.write(f"{g.home}/domid", b"%d" % g.domid)
    for key, value in (("port", b"2"), ("ring-ref", b"77"), ("limit", b"1048576")):
        p.write(f"{g.home}/console/{key}", value)
    for kind, device in DEVICES:
        _device(p, g, kind, device)
    p.send(wire.INTRODUCE, b"%d\0%d\0%d\0" % (g.domid, g.domid + 1000, g.port))
    # Only now the guest is unpaused.
    return p.write(f"{g.libxl}/dm-version", b"qemu_xen").open_gate(g.domid)


def backend_boots(g: Guest) -> Program:
    p = Program()
    for kind, device in DEVICES:
        front, back = g.front(kind, device), g.back(kind, device)
        p.watch(f"{back}/state", 1).read_until(f"{back}/state", b"1", 1)
        p.read(f"{back}/frontend").read(f"{back}/frontend-id")
        for key in ("feature-barrier", "feature-sg", "feature-rx-copy", "max-ring-page-order"):
            p.write(f"{back}/{key}", b"1")
        p.write(f"{back}/state", b"2").unwatch(f"{back}/state", 1)
    for kind, device in DEVICES:
        front, back = g.front(kind, device), g.back(kind, device)
        p.watch(f"{front}/state", 2).read_until(f"{front}/state", b"3", 2)
        p.read(f"{front}/ring-ref").read(f"{front}/event-channel")
        p.write(f"{back}/state", b"4").read_until(f"{front}/state", b"4", 2)
        p.unwatch(f"{front}/state", 2)
    return p


def guest_boots(g: Guest) -> Program:
    p = Program().mark().gate(g.domid)
    p.directory(f"{g.home}/device")
    for kind, device in DEVICES:
        front, back = g.front(kind, device), g.back(kind, device)
        p.directory(f"{g.home}/device/{kind}").read(f"{front}/backend").read(f"{front}/backend-id")
        p.watch(f"{back}/state", 4).read_until(f"{back}/state", b"2", 4)
        p.start()
        for key in FRONT_KEYS:
            p.write(f"{front}/{key}", b"8")
        p.write(f"{front}/state", b"3").commit()
        p.read_until(f"{back}/state", b"4", 4).write(f"{front}/state", b"4")
        p.unwatch(f"{back}/state", 4)
    for key in AGENT_KEYS:
        p.write(f"{g.home}/data/{key}", b"value-of-" + key.encode())
    return p.lap(BOOTED)


def guest_reports(g: Guest) -> Program:
    """What the agent does every minute."""
    p = Program().mark()
    for key in AGENT_KEYS[7:]:
        p.write(f"{g.home}/data/{key}", b"new-value-of-" + key.encode())
    return p.read(f"{g.home}/memory/target").lap(BOOTED)


def toolstack_stops(g: Guest) -> Program:
    p = Program().mark().write(f"{g.home}/control/shutdown", b"poweroff")
    for kind, device in DEVICES:
        state = f"{g.back(kind, device)}/state"
        p.watch(state, 1).read_until(state, b"6", 1).unwatch(state, 1)
    p.start()
    for kind, device in DEVICES:
        p.rm(g.back(kind, device)).rm(g.front(kind, device))
    p.rm(f"{g.libxl}/device").commit()
    for kind, _ in DEVICES:
        p.rm(f"{BACKENDS}/{kind}/{g.domid}")
    p.send(wire.RELEASE, b"%d\0" % g.domid)
    return p.rm(g.home).rm(g.vm).rm(g.libxl).lap(BOOTED)


def backend_stops(g: Guest) -> Program:
    p = Program()
    for kind, device in DEVICES:
        state = f"{g.front(kind, device)}/state"
        p.watch(state, 2).read_until(state, b"6", 2).unwatch(state, 2)
        p.write(f"{g.back(kind, device)}/state", b"6")
    return p


def guest_stops(g: Guest) -> Program:
    shutdown = f"{g.home}/control/shutdown"
    p = Program().watch(shutdown, 5).read_until(shutdown, b"poweroff", 5)
    p.write(shutdown, b"")
    for kind, device in DEVICES:
        p.write(f"{g.front(kind, device)}/state", b"5").write(
            f"{g.front(kind, device)}/state", b"6"
        )
    return p


def device_model(g: Guest) -> Program:
    """QEMU's Xen backends: a watch on the whole backend tree, a look at its own for each event."""
    p = Program().watch(BACKENDS, 6)
    return p.react(6, wire.DIRECTORY, f"{BACKENDS}/vbd/{g.domid}\0".encode())


def host_watcher() -> Program:
    """A daemon of the host that watches everything (xenopsd, squeezed, rrdd, libvirt)."""
    p = Program()
    for slot, path in enumerate(("/local/domain", "/vm", BACKENDS, "@introduceDomain")):
        p.watch(path, slot + 10)
    return p.watch("@releaseDomain", 15).idle()
