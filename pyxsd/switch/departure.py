# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL live-update where the program is another xenstored: the steps of the old side.

update.dialogue holds the dialogue; each generator here yields how many seconds it wants to wait,
and the daemon serves meanwhile.
"""

from __future__ import annotations

import time

from pyxsd.keeper.report import PREPARES, WAITS
from pyxsd.state.host_state import StateError
from pyxsd.switch import obstacles, target
from pyxsd.switch.leaving import UNPROTECTED, Leaving, become
from pyxsd.system.errors import in_words
from pyxsd.update.program import ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from typing import Any

CHECK_SECONDS = 5.0
#: Between two looks at what cannot be carried over.  Short, since under load the moments without an
#: open transaction are.
OBSTACLE_SECONDS = 0.002


class Departure:
    """A foreign program that was found, and how it is executed.

    own: the arguments of this daemon; given: those of `-c`.
    """

    def __init__(self, kind: str, path: str, own: Sequence[str], given: Sequence[str] = ()) -> None:
        self.kind = kind
        self.path = path
        self.own = tuple(own)
        self.given = tuple(given)

    def with_arguments(self, words: Sequence[str]) -> Departure:
        """The same with more arguments of `-c`, or with others, as the program's own dialogue has
        it."""
        kept = self.given if self.kind == target.OX else ()
        return Departure(self.kind, self.path, self.own, (*kept, *words))

    @property
    def holds_the_answer(self) -> bool:
        """Does the client that asks wait for its answer, in C xenstored's way?  Else it is told
        BUSY, and by the other program that all is well."""
        return self.kind == target.C

    def command(self, *more: str) -> list[str]:
        """The words that are executed."""
        if self.kind == target.C:
            return target.c_command(self.path, self.own, self.given)
        return target.ox_command(self.path, self.own, self.given, *more)

    def check(
        self, environ: Mapping[str, str], started: Callable[[target.Question | None], None]
    ) -> Iterator[float]:
        """Asks oxenstored whether it could start; C xenstored cannot be asked.  ProgramError."""
        if self.kind != target.OX:
            return
        words = self.command("--help")
        answer = yield from target.ask(words, environ, CHECK_SECONDS, started)
        if answer.status and not target.minds_our_keys_alone(answer):
            why = answer.error.partition("\n")[0]
            raise ProgramError(
                f"Command '{' '.join(words)}' exited with code {answer.status}"
                + (f": {why}" if why else "")
            )

    def leave(
        self, daemon: Any, asked: Any, deadline: float, force: bool, environ: Mapping[str, str]
    ) -> Iterator[float]:
        """Waits for what cannot be carried, and becomes the program; ProgramError where this
        process goes on being the daemon.  asked: the connection that holds_the_answer is about."""
        ward = daemon.ward
        if ward is not None:
            if ward.has_keeper() and not ward.is_made_up_for():
                raise ProgramError(UNPROTECTED)
            ward.leaving(WAITS)
        while True:
            began = time.monotonic()
            found = self._obstacles(daemon, asked)
            if not found:
                break
            if time.monotonic() >= deadline:
                # Once more, for whoever has to find the programs.
                found = self._obstacles(
                    daemon,
                    asked,
                    {c.id: fd for fd, c in daemon.loop.connections.items() if not c.closed},
                )
                if not found:
                    break
                if not force:
                    raise ProgramError("\n".join(found))
                if self.kind == target.OX and obstacles.is_torn(daemon.server):
                    raise ProgramError(
                        "\n".join([*found, "oxenstored cannot take over half a packet"])
                    )
                daemon.log("warn", "live switch: lost by force: " + "; ".join(found))
                break
            # However many connections there are, looking at them is a tenth of the time.
            yield max(OBSTACLE_SECONDS, 10 * (time.monotonic() - began))
        self._become(daemon, asked, environ)

    def _obstacles(
        self, daemon: Any, asked: Any, fds: Mapping[int, int] | None = None
    ) -> list[str]:
        server = daemon.server
        if self.holds_the_answer and (asked.closed or asked.hung_up):
            raise ProgramError("the client that asked has gone")
        if server.host.recorder is not None:
            # What follows is no turn, so no record tells of it.
            server.host.recorder.stop()
        obstacles.serve_what_was_read(server)
        if self.kind == target.C:
            # As C xenstored does at its own update, which goes on with those that were held back.
            server.hold_starts(True)
            daemon.loop.let_go()
            return obstacles.for_c(server, daemon.domains, asked, fds)
        server.flush()
        daemon.loop.let_go()
        return obstacles.for_ox(server, fds)

    def _become(self, daemon: Any, asked: Any, environ: Mapping[str, str]) -> None:
        command = self.command()
        leaving = Leaving(daemon)
        if daemon.ward is not None:
            daemon.ward.leaving(PREPARES)
        try:
            if self.kind == target.C:
                obstacles.read_behind_what_is_held(daemon.server)
                leaving.to_c(asked, environ)
            else:
                leaving.to_ox(target.ox_config(command))
            for loss in leaving.losses:
                daemon.log("warn", f"live switch: {loss}")
            daemon.log("info", f"live switch: becomes {' '.join(command)}")
            daemon.before_exec()
            become(command, daemon.ward)
        except (OSError, StateError, ValueError, OverflowError) as error:
            leaving.undo()
            raise ProgramError(f"{self.path}: {in_words(error)}") from error
        except BaseException:
            leaving.undo()
            raise


def find(
    path: str,
    own: Sequence[str],
    environ: Mapping[str, str],
    started: Callable[[target.Question | None], None],
) -> Generator[float, None, Departure | None]:
    """What a program is: None for a pyxsd, else how to leave for it.  ProgramError."""
    answer = yield from target.ask([path, "--help"], environ, target.HELP_SECONDS, started)
    kind = target.kind_of(path, answer)
    return None if kind == target.PYXSD else Departure(kind, path, own)
