# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m pyxsd_bench.holder SOCKET N`: N connections that say nothing.

Prints `ready` when the daemon answers behind the last of them, keeps them until the end of its
standard input.  A process of its own, so that the descriptors of several daemons' idle clients
need not fit into one.
"""

from __future__ import annotations

import resource
import socket
import sys

from . import wire


def main() -> int:
    path, number = sys.argv[1], int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    try:
        for _ in range(number):
            held.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            held[-1].connect(path)
        # The backlog hides who is not accepted yet: an answer on the last one proves it.
        held[-1].sendall(wire.PROBE)
        if not held[-1].recv(4096):
            raise ConnectionError("closed by the daemon")
    except OSError as error:
        print(f"failed after {len(held)}: {error}", flush=True)
        return 1
    print("ready", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
