# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taking over a state that was written to disk (floor 3).

Without a live update descriptors and local ports of the old process mean
nothing: domains are mapped and bound anew, sockets are gone.

What comes first: VIRQ_DOM_EXC is bound, so that no death is missed; domain 0's
ring is connected, which its watches need; then the state is read.
"""

from __future__ import annotations

from pyxsd.state import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog


def from_file(path: str, server: Any, domains: Any, config: Config, log: DaemonLog,
              required: bool) -> None:
    """Reads the database into a fresh server whose domain 0 is connected.

    What cannot be read or taken over is logged, and the rest goes on: a host
    whose xenstored does not start is lost.
    """
    try:
        loaded = dump.read_file(path, config.quota_maxsize,
                                lambda text: log.warn("xenstored", text))
    except FileNotFoundError:
        if required:
            log.warn("xenstored", f"{path}: no database, starting with an empty store")
        return
    except (OSError, dump.DumpError) as error:
        text = str(error) if isinstance(error, dump.DumpError) else f"{path}: {error.strerror}"
        log.error("xenstored", f"{text}; starting with an empty store")
        return
    server.set_tree(loaded.tree)
    dead = []
    for domid, mfn, remote_port, _ in loaded.domains:
        ring = loaded.rings.get(domid)
        if domid == 0:
            # Its page and port are where the kernel says.
            domains.restore_ring(domid, ring)
        elif not domains.restore(domid, mfn, remote_port, ring):
            # It died meanwhile; the store must not speak of it any more.
            log.warn("xenstored", f"domain {domid} is gone")
            dead.append(domid)
    server.forget_domains(dead)
    for owner, watched, token, depth in loaded.watches:
        connection = server.domains.get(owner) if owner >= 0 else None
        if connection is not None:
            server.restore_watch(connection, watched, token, depth)
    log.info("xenstored", f"restored {server.tree.size} nodes from {path}")
