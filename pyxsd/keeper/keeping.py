# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's keeper: whether it can be had, and what it does when nobody is left to serve."""

from __future__ import annotations

import os
import resource
import time

from pyxsd.keeper.keeper import Keeper, can_keep
from pyxsd.keeper.report import ENDED, HANDED_OVER, LOST, STARTING
from pyxsd.keeper.ward import Ward
from pyxsd.keeper.witness import Witness
from pyxsd.state.dump import IMAGE
from pyxsd.system.background import STATUS_FATAL
from pyxsd.system.errors import in_words
from pyxsd.system.listening import run_directory
from pyxsd.system.notify import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from pyxsd.keeper.keeper import End, Life
    from pyxsd.system.configuration import Config

#: The exit status where the daemon died again and again: sysexits' "internal software error".
STATUS_LOST = 70
#: The folder of the recordings of crashes, below `record-directory` or the run directory.
CRASHES = "crashes"
#: What a process may open at least.  A half is for who serves, and for clients; who goes on has the
#: same open and needs some 20 for itself.
DESCRIPTORS_LEAST = 64


def memory(config: Config, told: list[str]) -> Any:
    """Memory that outlives a child; None where that or the child cannot be had, and why is told."""
    from pyxsd._memory import Memory

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY and most < DESCRIPTORS_LEAST:
        told.append(
            f"crash recovery is off: it needs {DESCRIPTORS_LEAST} descriptors, "
            f"and the limit is {most}"
        )
        return None
    try:
        can_keep()
        made = Memory.create(config.recovery_size << 20)
    except OSError as error:
        told.append(f"crash recovery is off: {error.strerror}")
        return None
    # All else that is open now is named in the image, or is closed at some time.
    made.keep((0, 1, 2))
    return made


def keep(
    serve: Callable[[Ward], int],
    memory: Any,
    config: Config,
    begun: Callable[[], object] = lambda: None,
) -> End:
    """Lets children serve; see Keeper.run.  begun() is called when there is the first one."""
    directory = _crashes(config)

    def record(left: Any, cause: str) -> str:
        from pyxsd.recovery import crash

        return crash.record(memory, left, cause, directory, config)

    def live(life: Life) -> int:
        return serve(Ward(life, memory))

    witness = Witness(directory, memory.leave, record)
    return Keeper(memory, _prepare, witness=witness, begun=begun).run(live)


def _crashes(config: Config) -> str:
    """The folder of the recordings of crashes."""
    return os.path.join(config.record_directory or run_directory(os.environ), CRASHES)


def _prepare() -> None:
    """Loads what later children need."""
    from pyxsd.daemon import load_rest
    from pyxsd.recovery import again, crash  # noqa: F401
    from pyxsd.system.descriptors import Reserve

    reserve = Reserve()
    for _ in load_rest(reserve, lambda _: None):
        pass  # what cannot be loaded the first child tells
    reserve.close()


def is_over(end: End) -> bool:
    """Did a death end it that nothing makes up for?"""
    return end.word in (STARTING, LOST)


def has_served(end: End) -> bool:
    """Did any child serve?"""
    return end.word != STARTING


class _Whole:
    """The last image, in the form in which images in the making are written."""

    def __init__(self, put: Callable[[bytes], object], image: Any) -> None:
        self._put = put
        self._image = image

    def step(self, _seconds: float) -> bool:
        """Writes all of it."""
        self._put(self._image)
        return True


def _recorded(memory: Any, cause: str, config: Config) -> str:
    """Records what came since the last image, which nobody else has; in words."""
    from pyxsd.recovery import crash

    try:
        most = crash.RECORDINGS_MAX + 1
        path = crash.record(memory, memory.leave(), cause, _crashes(config), config, most)
    except (OSError, ValueError, MemoryError) as error:
        return f"what came since is not in it, and is not recorded: {in_words(error)}"
    return f"what came since is not in it, and is recorded: pyxsd --replay {path} --as db"


def status(end: End, config: Config, daemonized: bool, memory: Any) -> int:
    """Ends all: the exit status."""
    if end.word == ENDED:
        return end.number
    if end.word == HANDED_OVER:
        # A service manager that does not know this process as its main one need not know the other.
        if not daemonized:
            Notifier(os.environ).moved(end.number)
        return 0
    if end.word == STARTING:
        try:
            os.write(2, f"pyxsd: {end.lost}\n".encode())
        except OSError:
            pass  # nobody can be told
        return STATUS_FATAL
    # Nobody else writes into the log any more.
    from pyxsd.state import disk
    from pyxsd.system.daemon_log import open_daemon_log

    log = open_daemon_log(config)
    log.error("xenstored", f"crash recovery: {end.lost}; nobody serves any more")
    if memory.is_begun():
        try:
            disk.write(
                run_directory(os.environ),
                lambda put: _Whole(put, memory.image()),
                memory.instant,
            )
        except (OSError, ValueError, OverflowError) as error:
            log.error("xenstored", f"crash recovery: the last image cannot be written: {error}")
        else:
            log.error(
                "xenstored",
                f"crash recovery: the last image is in {IMAGE}, of "
                f"{time.time() - memory.instant:.0f} seconds ago; "
                f"{_recorded(memory, end.cause or end.lost, config)}",
            )
    log.close()
    return STATUS_LOST
