# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program, also by `python -m pyxsd`."""

import signal
import sys


def main() -> int:
    """Runs the daemon; the exit status.

    Where another xenstored has executed this process, a log rotation must not end it before the
    daemon has its own handler: C xenstored and oxenstored have one.
    """
    if any(word in ("-U", "--live") for word in sys.argv[1:]):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from pyxsd.cli import main as daemon

    return daemon()


if __name__ == "__main__":
    sys.exit(main())
