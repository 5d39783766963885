# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which process of a daemon is measured that pyxsd-bench has not started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pyxsd_bench import proc

#: Listens, and goes into the background as a daemon does: its child has the socket then.  With a
#: child of its own, if it is to be a keeper.  It ends where nobody holds its stdin any more.
DAEMON = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
if sys.argv[2] == "keeper":
    os.fork()
sys.stdin.read()
"""


def background(path: Path, kind: str) -> tuple[subprocess.Popen[str], int]:
    """One that runs, and its process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert process.wait() == 0
    return process, pid


def test_one_in_the_background(tmp_path: Path) -> None:
    """It listens by the kernel's word, though the process that called listen() is gone."""
    for kind in ("alone", "keeper"):
        process, pid = background(tmp_path / kind, kind)
        try:
            assert proc.listener(str(tmp_path / kind)) == pid
        finally:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.stdout.read()  # until it has ended
            process.stdout.close()
