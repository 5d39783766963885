# SPDX-License-Identifier: LGPL-2.1-or-later
"""The floor: a server that only echoes, on the epoll pattern of a Xenstore daemon.

`python -m pyxsd_bench.floor SOCKET [POLL_US]` listens on SOCKET, prints `ready` and serves until
it is killed.  POLL_US: after traffic it polls for so long before it sleeps.
"""

from __future__ import annotations

import os
import resource
import socket
import sys

from ._load import lib


def main() -> int:
    path = sys.argv[1]
    poll_us = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(4096)
    print("ready", flush=True)
    error = lib.xb_echo_serve(listener.fileno(), int(poll_us * 1000))
    print(f"floor: {os.strerror(-error)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
