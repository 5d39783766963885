# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import Any

from pyxsd._accesslog import AccessLog
from pyxsd._hub import Connection
from pyxsd._requests import RequestError as RequestError
from pyxsd._requests import Requests
from pyxsd.store.tree import Tree

class Server(Requests):
    quota_maxentity: int
    quota_maxsize: int
    def __init__(self, config: Any, host: Any, log: AccessLog | None = None,
                 executable: bytes = b"/usr/sbin/pyxsd") -> None: ...
    def forget_domain(self, domid: int) -> None: ...
    def set_owner_limit(self, owner: int, entries: int) -> None: ...
    def owner_limit(self, owner: int) -> int: ...
    def restore_watch(self, c: Connection, path: bytes, token: bytes,
                      depth: bytes | None) -> None: ...
    def set_tree(self, tree: Tree) -> None: ...
