# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program, also by `python -m pyxsd`."""

import gc
import signal
import sys

#: LSB's "program is not installed", as pyxsd-launch has it.
STATUS_NOT_INSTALLED = 5


def main() -> int:
    """Runs the daemon; the exit status.

    Where another xenstored has executed this process, a log rotation must not end it before the
    daemon has its own handler: C xenstored and oxenstored have one.
    """
    if any(word in ("-U", "--live") for word in sys.argv[1:]):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.disable()  # what is imported lives for good; to look through it again and again takes 3 ms
    try:
        from pyxsd.cli import main as daemon
    except ImportError as error:
        print(
            f"pyxsd: cannot be loaded: {error}.  It is damaged, or was made for another Python "
            f"than {sys.executable}; install it again",
            file=sys.stderr,
        )
        return STATUS_NOT_INSTALLED
    return daemon()


if __name__ == "__main__":
    sys.exit(main())
