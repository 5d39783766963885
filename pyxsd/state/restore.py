# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taking over a state that was written to disk.

Without a live update descriptors and local ports of the old process mean
nothing: domains are mapped and bound anew, sockets are gone.

What comes first: VIRQ_DOM_EXC is bound, so that no death is missed.  Of a database domain 0's ring
is connected then, which its watches need, and then the state is read; of an image it is connected
behind that, since an image is loaded into a server that nobody is connected to.
"""

from __future__ import annotations

import os
import time

from pyxsd._wire import Transport
from pyxsd.state import dump
from pyxsd.system.errors import in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyxsd.state.disk import Found
    from pyxsd.system.configuration import Config
    from pyxsd.system.daemon_log import DaemonLog


def from_file(
    path: str, server: Any, domains: Any, config: Config, log: DaemonLog, required: bool
) -> None:
    """Reads the database into a fresh server whose domain 0 is connected.

    What cannot be read or taken over is logged, and the rest goes on: a host
    whose xenstored does not start is lost.
    """
    try:
        loaded = dump.read_file(
            path, config.quota_maxsize, lambda text: log.warn("xenstored", text)
        )
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
    log.info("xenstored", f"restored {server.tree.size} nodes from {path}{_age(path)}")


def from_image(
    found: Found, server: Any, domains: Any, config: Config, log: DaemonLog, with_domain0: bool
) -> None:
    """Loads an image into a fresh server whose hash key is the image's.

    Sockets are gone.  Rings are opened again: where nobody has used one since, its half requests,
    unsent output, transactions and waiting events go on; else its watches alone.  Of an image from
    before the machine was booted only the store is taken.  with_domain0: its ring is wanted.
    """
    # Here, since most daemons start without an image.
    from pyxsd.state import image, surroundings

    rings = {} if domains.xen is None else domains.transports(found.rows)
    image.load(
        found.records,
        server,
        time.monotonic(),
        lambda _number, domid: rings.get(domid) or Transport(),
    )
    rows = {row.domid: row for row in found.rows}
    now = surroundings.boot_id()
    same_boot = bool(now) and found.around.boot == now
    logged = server.log.active
    server.log.switch(False)
    dead = []
    for connection in list(server.connections.values()):
        domid = connection.domid
        row = None if connection.is_socket else rows.get(domid)
        if row is not None and same_boot and domains.xen is not None:
            if domid == 0 and not with_domain0:
                server.disconnect(connection)
            elif domid == 0:
                _domain0(domains, config, connection, row.indices, log)
            elif not domains.restore_known(row, connection):
                # It died meanwhile; the store must not speak of it any more.
                log.warn("xenstored", f"domain {domid} is gone")
                server.disconnect(connection)
                dead.append(domid)
            continue
        server.disconnect(connection)
        if row is not None and domid and not same_boot:
            dead.append(domid)
    for connection in server.take_changed():
        # No loop has ever waited for one of these.
        connection.registered = connection.interest
    server.log.switch(logged)
    server.forget_domains(dead)
    for connection in server.connections.values():
        if connection.awaits:
            server.answer(connection, b"the daemon was started again\0")
    of = "" if same_boot else ", the store alone: the machine was booted since"
    log.info(
        "xenstored", f"restored {server.tree.size} nodes from {found.path}{_age(found.path)}{of}"
    )


def _age(path: str) -> str:
    """When the file was written: where SIGTERM found a full disk, an older one is still there."""
    try:
        seconds = time.time() - os.stat(path).st_mtime
    except OSError:
        return ""
    return f", written {max(0, round(seconds))} seconds ago"


def _domain0(
    domains: Any, config: Config, connection: Any, indices: tuple[int, int] | None, log: DaemonLog
) -> None:
    """Opens domain 0's ring for a connection that is there, or ends that."""
    try:
        domains.start_domain0(config.xenstored_kva, config.xenstored_port, connection, indices)
    except (OSError, ValueError) as error:
        log.error("xenstored", f"domain 0 has no ring: {in_words(error)}")
        domains.server.disconnect(connection)
