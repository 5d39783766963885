# SPDX-License-Identifier: LGPL-2.1-or-later
"""The glue as Python sees it: each page goes back by the way it came."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from pyxsd._glue import ffi, lib
from pyxsd.xen import Lookups, Xen, XenError


class Api:
    """The glue's table, with pages that are made up; what is unmapped is noted."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.next = 0x1000
        self.unmapped: list[tuple[str, int]] = []
        self.refuses: set[int] = set()
        self.bound = {3, 5, 9}
        self.destroyed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def map_page(self, _glue: Any, _which: Any, page: Any) -> int:
        page[0] = ffi.cast("void *", self.next)
        self.next += 0x1000
        return 0

    map_file = map_page

    def _unmap(self, kind: str, page: Any) -> int:
        address = int(ffi.cast("uintptr_t", page))
        self.unmapped.append((kind, address))
        return -errno.EINVAL if address in self.refuses else 0

    def unmap_page(self, _glue: Any, page: Any) -> int:
        return self._unmap("page", page)

    def destroy(self, glue: Any) -> None:
        self.destroyed += 1
        self.real.destroy(glue)

    def unbind(self, _glue: Any, port: int) -> int:
        if port not in self.bound:
            return -errno.ENOTCONN
        self.bound.discard(port)
        return 0

    def unmap_file(self, _glue: Any, page: Any) -> int:
        return self._unmap("file", page)


def test_pages_go_back_as_they_came() -> None:
    """A grant is unmapped by the library, domain 0's file is not; at the end all that is left."""
    xen = Xen()
    api = xen._api = Api(xen._api)
    pages = [xen.map_page(5), xen.map_file("/proc/xen/xsd_kva"), xen.map_page(6)]
    assert pages == [0x1000, 0x2000, 0x3000]
    xen.unmap(pages[0])
    assert api.unmapped == [("page", 0x1000)]
    with pytest.raises(KeyError):
        xen.unmap(pages[0])
    api.refuses.add(0x2000)
    with pytest.raises(XenError) as refused:
        xen.unmap(pages[1])
    assert refused.value.errno == errno.EINVAL
    xen.map_file("again")
    xen.close()
    assert sorted(api.unmapped[2:]) == [("file", 0x4000), ("page", 0x3000)]


@pytest.mark.parametrize(("most", "left"), [(0, {5}), (1, {5, 9}), (2, {5}), (7, {5})])
def test_ports_that_nobody_knows(most: int, left: set[int]) -> None:
    """The lowest ones go, `most` at most; 0: all of them."""
    xen = Xen()
    api = xen._api = Api(xen._api)
    assert xen.unbind_unknown({5}, most) == 3 - len(left)
    assert api.bound == left
    xen.close()
    assert api.destroyed == 1


def test_lookups_end_once() -> None:
    """However often they are closed."""
    made: Any = Lookups.__new__(Lookups)
    api = made._api = Api(lib.xsd_glue_api())
    made._glue = api.create()
    for _ in range(2):
        made.close()
        assert api.destroyed == 1
