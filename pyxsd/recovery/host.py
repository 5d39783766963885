# SPDX-License-Identifier: LGPL-2.1-or-later
"""The seam between domains, commands and their host, of a daemon whose journal outlives it.

While the journal is recorded it notes the outcome of each call, as record.host does; while it is
replayed it has the outcomes from there.  Where the records end within a call, the call is made: the
process before may have died before it, or behind it and before its record.  What comes of the
second time:

    map_page, map_file    the same page, mapped into this process
    bind, bind_virq       where it fails, the port was bound before and is known to nobody: what no
                          record names is unbound, and then it is bound
    unbind                "there is no such port" is as good as done
    changed               Xen tells once: all domains are asked about
    all others            the same

Pages are mapped while their records are replayed, in the order of then.  One that cannot be had
(its domain has died meanwhile, or there is no memory) gets a page of this process that nobody else
sees, until the records end; see again.py.
"""

from __future__ import annotations

import errno

from pyxsd._journal import HOST
from pyxsd.record.host import CALLS, PAGE_BYTES, PAGES, late_answers, noted, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from pyxsd._journal import Journal

BINDS = ("bind", "bind_virq")
NO_SUCH_PORT = (errno.EINVAL, errno.ENOENT, errno.ENOTCONN, errno.EBADF)


class NoPage(bytearray):
    """What a ring has whose page cannot be had."""


class Kept:
    """What stands before `inner`, a Xen or a control.ControlHost.

    server: who gets late answers that were given within a call.  ports: gives those that are known
    to be bound.
    """

    def __init__(
        self,
        inner: Any,
        journal: Journal,
        server: Any,
        ports: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.inner = inner
        self.channels = getattr(inner, "channels", None)  # asked for in each turn
        self.doubted = 0  # the call that was under way when the process before died
        self._journal = journal
        self._server = server
        self._ports = ports

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in CALLS:
            return found

        def call(*arguments: Any) -> Any:
            late_answers(self._journal, self._server)
            if self._journal.has_ended():
                return self._ask(name, arguments)
            return self._outcome(name, arguments)

        # Found without this method from now on.
        self.__dict__[name] = call
        return call

    def doubt(self, number: int) -> None:
        """That call was under way when the process before died."""
        self.doubted = number

    # -- recorded ---------------------------------------------------------------

    def _ask(self, name: str, arguments: tuple[Any, ...]) -> Any:
        ask = self._again if self.doubted else self._call
        self._journal.doubts(HOST, CALLS[name][0])
        return noted(self._journal, name, ask, (name, arguments))

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "unmap" and not isinstance(arguments[0], int):
            return None  # a page of this process
        return getattr(self.inner, name)(*arguments)

    def _again(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The first call behind the records."""
        doubted, self.doubted = self.doubted, 0
        if doubted != CALLS[name][0]:
            return self._call(name, arguments)
        if name == "changed":
            return None
        try:
            return self._call(name, arguments)
        except OSError as error:
            if name == "unbind" and error.errno in NO_SUCH_PORT:
                return None
            if name not in BINDS or not self.inner.unbind_unknown(set(self._ports()), 1):
                raise
        return self._call(name, arguments)

    # -- replayed ---------------------------------------------------------------

    def _outcome(self, name: str, arguments: tuple[Any, ...]) -> Any:
        result = told(self._journal, name)
        if name in PAGES:
            return page_or_none(self.inner, name, *arguments)
        if name in ("unmap", "log_file"):
            # This process has done what the one before did.
            try:
                self._call(name, arguments)
            except OSError:
                pass  # it was told of then
        return result


def page_or_none(xen: Any, name: str, *arguments: Any) -> Any:
    """The page, or one that nobody else sees where it cannot be had."""
    try:
        return getattr(xen, name)(*arguments)
    except OSError:
        return NoPage(PAGE_BYTES)
