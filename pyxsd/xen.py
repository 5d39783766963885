# SPDX-License-Identifier: LGPL-2.1-or-later
"""Xen, reached through the glue: grants, event channels, domain states.

This is the one place where the glue's errors become Python's: XenError has
errno, and its text the call and the domain.
"""

from __future__ import annotations

import errno
import os

from pyxsd._glue import ffi, lib
from pyxsd._ring import EventChannels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, NamedTuple

    class DomainState(NamedTuple):
        """What the hypervisor says of a domid."""

        state: int
        code: int
        unique_id: int


UNKNOWN, RUNNING, SHUTDOWN, DEAD = range(4)
VIRQ_DOM_EXC = 3
PORT_MAX = 1 << 17  # of one domain
HVM_PARAM_STORE_PFN = 1


class XenError(OSError):
    """A call of Xen failed."""


class Xen:
    """One handle of the glue; its parts are opened one by one by open()."""

    def __init__(self) -> None:
        self._api: Any = lib.xsd_glue_api()
        self._glue: Any = self._api.create()
        if self._glue == ffi.NULL:
            raise MemoryError
        self.channels: Any = EventChannels(
            lib.xsd_glue_api_address(), int(ffi.cast("uintptr_t", self._glue))
        )
        self._pages: dict[int, bool] = {}  # address: is it a file's?

    def _check(self, result: int) -> int:
        return _checked(self._api, self._glue, result)

    def open(self) -> None:
        """Opens event channels, grants and domain states; XenError."""
        self._check(self._api.open_evtchn(self._glue))
        self.open_pages_and_states()

    def adopt_channels(self, fd: int) -> None:
        """Takes over the descriptor of an event channel device that another process has opened,
        with all ports that are bound there; XenError, and the descriptor stays open."""
        self._check(self._api.fdopen_evtchn(self._glue, fd))

    def open_pages_and_states(self) -> None:
        """Opens grants and domain states alone; XenError."""
        self._check(self._api.open_gnttab(self._glue))
        self._check(self._api.open_domains(self._glue))

    def close(self) -> None:
        """Gives everything back; pages that are still mapped are unmapped."""
        for page in list(self._pages):
            try:
                self.unmap(page)
            except XenError:
                pass  # the end of the process unmaps it
        self._api.destroy(self._glue)
        self._glue = ffi.NULL

    @property
    def source(self) -> str:
        """The library that tells the states of domains."""
        return str(ffi.string(self._api.domains_source(self._glue)).decode())

    # -- pages ----------------------------------------------------------------

    def map_page(self, domid: int) -> int:
        """Maps a domain's xenstore page; its address."""
        page = ffi.new("void **")
        self._check(self._api.map_page(self._glue, domid, page))
        return self._mapped(page[0], False)

    def map_file(self, path: str) -> int:
        """Maps domain 0's page from a file such as /proc/xen/xsd_kva."""
        page = ffi.new("void **")
        self._check(self._api.map_file(self._glue, os.fsencode(path), page))
        return self._mapped(page[0], True)

    def _mapped(self, page: Any, is_file: bool) -> int:
        address = int(ffi.cast("uintptr_t", page))
        self._pages[address] = is_file
        return address

    def unmap(self, address: int) -> None:
        """Unmaps a page of map_page or map_file."""
        is_file = self._pages.pop(address)
        unmap = self._api.unmap_file if is_file else self._api.unmap_page
        self._check(unmap(self._glue, ffi.cast("void *", address)))

    def indices(self, ring: Any) -> tuple[int, int] | None:
        """What the page of a ring says: (req_cons, rsp_prod); None without a page."""
        found: tuple[int, int] | None = ring.indices
        return found

    def has_work(self, ring: Any) -> bool:
        """Does the page of a ring say that there is something to do?"""
        return bool(ring.has_work())

    # -- event channels -------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor that becomes readable when a port is pending."""
        return self._check(self._api.evtchn_fd(self._glue))

    def bind(self, domid: int, remote_port: int) -> int:
        """Binds to a domain's unbound port; the local port."""
        return self._check(self._api.bind_interdomain(self._glue, domid, remote_port))

    def bind_virq(self) -> int:
        """Binds VIRQ_DOM_EXC; the local port."""
        return self._check(self._api.bind_virq(self._glue, VIRQ_DOM_EXC))

    def unbind(self, port: int) -> None:
        """Frees a local port."""
        self._check(self._api.unbind(self._glue, port))

    def unbind_unknown(self, known: Collection[int], most: int) -> int:
        """Frees the local ports that this device has bound and that are not among the known, `most`
        at most; how many there were.  The device refuses those that are somebody else's."""
        unbind, glue, found = self._api.unbind, self._glue, 0
        for port in range(1, PORT_MAX):
            if port not in known and unbind(glue, port) >= 0:
                found += 1
                if found == most:
                    break
        return found

    def unmask(self, ports: list[int]) -> None:
        """Lets these ports become pending again; XenError."""
        self._check(self._api.unmask(self._glue, ffi.new("uint32_t[]", ports), len(ports)))

    def discard_events(self, ports: list[int]) -> None:
        """Empties the device's queue of pending ports, which cannot be read any more once it has
        overflowed, and unmasks these ports; XenError.  What was in the queue is not told."""
        self._check(self._api.discard_pending(self._glue))
        self.unmask(ports)

    # -- domains --------------------------------------------------------------

    def state(self, domid: int) -> DomainState:
        """(state, shutdown code, unique id or 0) of a domid."""
        found = ffi.new("struct xsd_glue_domain *")
        self._check(self._api.domain_state(self._glue, domid, found))
        return found.state, found.code, found.unique_id  # type: ignore[return-value]

    def changed(self) -> list[int] | None:
        """The domids whose state changed since the last call; None where Xen
        cannot tell, and each domain must be asked for."""
        found = ffi.new("struct xsd_glue_domain *")
        domids: list[int] = []
        while True:
            result = self._api.changed_domain(self._glue, found)
            if result == 0:
                return domids
            if result in (-errno.ENOSYS, -errno.EBADF):
                return None
            if self._check(result):
                domids.append(found.domid)


class Lookups:
    """What Xen knows of domains that another xenstored has introduced; by libxenctrl, which a Xen
    need not have open.  XenError where it cannot be opened; close() when all is asked."""

    def __init__(self) -> None:
        self._api: Any = lib.xsd_glue_api()
        self._glue: Any = self._api.create()
        if self._glue == ffi.NULL:
            raise MemoryError
        try:
            _checked(self._api, self._glue, self._api.open_control(self._glue))
        except XenError:
            self.close()
            raise

    def remote_port(self, domid: int, local_port: int) -> int:
        """The end in that domain of a port of ours; XenError where there is none."""
        who, port = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        _checked(self._api, self._glue, self._api.remote_port(self._glue, local_port, who, port))
        if who[0] != domid:
            raise XenError(
                errno.ENOTCONN, f"port {local_port} is domain {who[0]}'s, and not domain {domid}'s"
            )
        return int(port[0])

    def store_frame(self, domid: int) -> int:
        """The frame of the xenstore page of a domain with parameters (HVM, PVH); XenError."""
        value = ffi.new("uint64_t *")
        _checked(
            self._api,
            self._glue,
            self._api.hvm_param(self._glue, domid, HVM_PARAM_STORE_PFN, value),
        )
        return int(value[0])

    def close(self) -> None:
        """Gives the library back."""
        if self._glue != ffi.NULL:
            self._api.destroy(self._glue)
            self._glue = ffi.NULL


def _checked(api: Any, glue: Any, result: int) -> int:
    """The result of a call of the glue; XenError where it failed."""
    if result < 0:
        text = ffi.string(api.last_text(glue)).decode("utf-8", "replace")
        raise XenError(-result, text or os.strerror(-result))
    return result
