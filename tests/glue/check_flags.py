# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the glue makes of the flags of a domain, each alone and together; run by test_glue.py with
one of the libraries of flags.c in the loader's path."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

sys.path.insert(0, os.environ["GLUE_CHECK_DIR"])

import _glue_check  # type: ignore[import-not-found]

ffi, lib = _glue_check.ffi, _glue_check.lib
api = lib.xsd_glue_api()
UNKNOWN, RUNNING, SHUTDOWN, DEAD = range(4)
MANAGE = os.environ["GLUE_CHECK_MANAGE"] == "manage"

#: Of Xen's public/domctl.h, XEN_DOMCTL_GETDOMSTATE_STATE_*: EXIST 1, SHUTDOWN 2, DYING 4, DEAD 8.
OF_MANAGE = [
    (0, UNKNOWN),
    (1, RUNNING),
    (2, UNKNOWN),
    (4, UNKNOWN),
    (8, DEAD),
    (1 | 2, SHUTDOWN),
    (1 | 4, RUNNING),
    (1 | 8, DEAD),
    (1 | 2 | 4, SHUTDOWN),
    (1 | 2 | 4 | 8, DEAD),
    (2 | 8, DEAD),
    (1 | 16, RUNNING),
]
#: Of the same file, XEN_DOMINF_*: dying 1, which is set once the domain is dead; HVM 2, shutdown 4,
#: paused 8, blocked 16, running 32; the code of the shutdown in bits 16 to 23.
OF_CTRL = [
    (0, RUNNING),
    (1, DEAD),
    (2, RUNNING),
    (4, SHUTDOWN),
    (8, RUNNING),
    (16, RUNNING),
    (32, RUNNING),
    (1 | 4, DEAD),
    (4 | 8, SHUTDOWN),
    (1 | 2 | 4 | 8 | 16 | 32, DEAD),
    (255 << 16, RUNNING),
    (4 | 255 << 16, SHUTDOWN),
    (4 | 1 << 24, SHUTDOWN),
]


@pytest.fixture
def glue() -> Iterator[Any]:
    """A handle with the library open."""
    made = api.create()
    assert api.open_domains(made) == 0, ffi.string(api.last_text(made))
    yield made
    api.destroy(made)


@pytest.mark.parametrize("flags, state", OF_MANAGE if MANAGE else OF_CTRL)
def test_state(glue: Any, monkeypatch: pytest.MonkeyPatch, flags: int, state: int) -> None:
    """Asked about one domain, and told of one that has changed; both say the same."""
    monkeypatch.setenv("CHECK_FLAGS", str(flags))
    code = flags >> 16 & 255 if state == SHUTDOWN and not MANAGE else -1
    out = ffi.new("struct xsd_glue_domain *")
    assert api.domain_state(glue, 5, out) == 0
    assert (out.domid, out.state, out.code) == (5, state, code)
    if MANAGE:
        assert api.changed_domain(glue, out) == 1
        assert (out.domid, out.state, out.code, out.unique_id) == (5, state, code, 7)


def test_domain_0_is_asked_whether_the_library_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there on every host; of others this process may not be allowed to ask."""
    monkeypatch.setenv("CHECK_REFUSE", "1")
    made = api.create()
    assert api.open_domains(made) == 0
    out = ffi.new("struct xsd_glue_domain *")
    assert api.domain_state(made, 5, out) == -errno.EPERM
    api.destroy(made)


@pytest.mark.parametrize("domid, fine", [(0x7FEF, True), (0x7FF0, False), (0xFFFF, False)])
def test_a_list_with_a_domid_that_cannot_be(
    glue: Any, monkeypatch: pytest.MonkeyPatch, domid: int, fine: bool
) -> None:
    """Then the records have another size than was thought: no list is asked for any more."""
    if MANAGE:
        return  # which tells one domain at a time
    monkeypatch.setenv("CHECK_DOMID", str(domid))
    out = ffi.new("struct xsd_glue_domain *")
    if fine:
        assert api.changed_domain(glue, out) == 1
        assert (out.domid, out.state) == (domid, DEAD)
        return
    for _ in range(2):
        assert api.changed_domain(glue, out) == -errno.ENOSYS
        assert ffi.string(api.last_text(glue)).startswith(
            b"xc_domain_getinfolist(records of unknown size)"
        )
        monkeypatch.delenv("CHECK_DOMID", raising=False)
