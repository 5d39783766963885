# SPDX-License-Identifier: LGPL-2.1-or-later
"""`--show-state` and `--replay`: what is read and printed, and not served."""

from __future__ import annotations

import gc

from pyxsd.system.stdio import STDOUT, tell


def show_state(path: str, as_format: str) -> int:
    """Prints a state file; 0 where all of it was understood and printed, else 1."""
    gc.enable()
    from pyxsd.state import show
    from pyxsd.state.host_state import StateError

    try:
        shown = show.show_file(path, as_format)
        with open(STDOUT, "wb", closefd=False) as out:
            out.write(shown.output)
    except StateError as error:
        tell(str(error))
        return 1
    except OSError as error:
        tell(f"standard output: {error.strerror}")
        return 1
    for line in shown.told:
        tell(line)
    return 0 if shown.whole else 1


def replay(directory: str, until: str, as_format: str) -> int:
    """Runs a recording again; 0 where it did the same as then, else 1."""
    gc.enable()
    from pyxsd.record import again
    from pyxsd.state.host_state import StateError

    try:
        end = again.until(until)
        with open(STDOUT, "wb", closefd=False) as out:
            went_well = again.run(
                directory,
                end,
                as_format,
                out,
                lambda line: tell(line.decode("utf-8", "surrogateescape")),
            )
    except (StateError, ValueError) as error:
        tell(str(error))
        return 1
    except OSError as error:
        tell(f"standard output: {error.strerror}")
        return 1
    return 0 if went_well else 1
