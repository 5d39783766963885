# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts pyxsd in the foreground for a look at it, with its files under ./run/.

It runs on the stand-in Xen, so that domains can be introduced on a machine
without one: see glue/standin/README.md and tools/ask.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "glue" / "standin"))

import guest  # noqa: E402
import peers  # noqa: E402


def main() -> int:
    """Prepares ./run/, says how to talk to the daemon, and runs it."""
    run = ROOT / "run"
    shutil.rmtree(run / "host", ignore_errors=True)
    (run / "host").mkdir(parents=True)
    libs = peers.build_standin()
    guest.Host(run / "host").close()
    settings = {
        "pid-file": run / "xenstored.pid",
        "xenstored-log-file": run / "xenstored.log",
        "access-log-file": run / "xenstored-access.log",
        "xenstored-log-level": "info",
        "xenstored-kva": run / "host" / "xsd_kva",
        "xenstored-port": run / "host" / "xsd_port",
    }
    conf = run / "pyxsd.conf"
    conf.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    env = peers.standin_env(run / "host", libs=libs)
    env["XENSTORED_RUNDIR"] = str(run)
    os.chdir(ROOT)
    print("Talk to it from another terminal, in this folder:  "
          "python3 tools/ask.py write /hello world ls / domain 5", flush=True)
    command = [sys.executable, "-m", "pyxsd", "--no-fork", "--config-file", str(conf)]
    daemon = subprocess.Popen(command, env=env)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: daemon.terminate())
    return daemon.wait()


if __name__ == "__main__":
    sys.exit(main())
