#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run the system test by hand: `run.py [--daemon D] [--story S]... [--start S]... [--quick]`.

Prints the CHECK lines and what is wrong. Exit status: 0 good, 1 not, 2 something is missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from realxen import session
from realxen.packages import MissingError


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="A real Xen under QEMU, with a xenstored.")
    parser.add_argument("--daemon", choices=session.DAEMONS, default="pyxsd")
    parser.add_argument("--story", choices=tuple(session.STORIES), action="append")
    parser.add_argument("--start", choices=session.STARTS, action="append")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick")
    parser.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument(
        "--wheel",
        "--deb",
        dest="package",
        type=Path,
        help="a wheel or Debian package of pyxsd to run (default: as imported)",
    )
    parser.add_argument("--logs", type=Path, help="keep the logs of good runs too, in this folder")
    options = parser.parse_args()
    size = options.size or "full"
    runs = session.runs(options.daemon, size)
    if options.start or options.story:
        runs = [
            session.Run(options.daemon, start, size, story)
            for start in options.start or session.STARTS[:1]
            for story in options.story or ["lives"]
        ]
    wrong = 0
    for run in runs:
        folder = Path(tempfile.mkdtemp(prefix=f"pyxsd-system-{run.story}-", dir=options.logs))
        try:
            done = session.hold(folder, run, options.package)
        except MissingError as error:
            print(f"system test: {error}", file=sys.stderr)
            return 2
        for result in done.results:
            print(f"CHECK {result.name} {'ok' if result.passed else 'fail'} {result.detail}")
        print(done.summary)
        if done.wrong:
            print(done.tail())
            print("\n".join(f"WRONG {text}" for text in done.wrong))
            print(f"logs: {folder}")
            wrong += len(done.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
