# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONTROL: what an administrator asks the running daemon.

oxenstored's commands and those of C xenstored, in one table.  An answer is the
whole payload; anything unknown or failing is answered "OK" as oxenstored does.
"""

from __future__ import annotations

from pyxsd import __version__, _debug
from pyxsd._limits import QUOTAS
from pyxsd._wire import RequestError
from pyxsd.numbers import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Protocol

    class ControlHost(Protocol):
        """What commands need beyond the server."""

        def mfn(self, domid: int) -> int:
            """The mfn a domain was introduced with; KeyError where it is not."""

        def access_log(self, on: bool | None) -> bool:
            """Switches the access log on or off (None: neither); whether it is on."""

        def log_file(self, path: str) -> None:
            """Lets the daemon log go to another file; OSError."""

        def memory(self) -> str:
            """A report on the memory in use, lines of text."""

        def replace(self, path: bytes, text: str) -> None:
            """Writes a file anew; OSError."""

        def record(self, word: str) -> bytes:
            """The answer to record with this word, "" for none."""

        def live_update(self, connection: Any, arguments: list[str]) -> bytes | None:
            """The answer to live-update with these arguments; None: it comes by Server.answer()."""


OK = b"OK\0"
FAULT_MAX = 1024  # bytes of what is told of a fault
PAYLOAD_MAX = 4096


def shown(value: bool) -> str:
    """As OCaml prints it."""
    return "true" if value else "false"


def unwritable(path: bytes, error: OSError) -> bytes:
    """The answer where a named file cannot be written: `cannot write PATH: REASON`."""
    return b"cannot write %s: %s\0" % (path[:256], str(error.strerror).encode())


class Control:
    """The commands of one server."""

    def __init__(self, server: Any, host: Any) -> None:
        self.server = server
        self.host = host

    def run(self, connection: Any, payload: bytes) -> bytes | None:
        """The answer to a CONTROL request; None where it comes later, by Server.answer()."""
        name, *arguments = payload.split(b"\0")
        if arguments and arguments[-1] == b"":
            arguments.pop()
        command = COMMANDS.get(name)
        if command is None or not (connection.privileged or command.is_open):
            return OK
        try:
            return command.run(self, connection, arguments)
        except (ValueError, LookupError, OSError, RequestError):
            return OK

    # -- oxenstored's ---------------------------------------------------------

    def print(self, connection: Any, arguments: list[bytes]) -> bytes:
        """print <message>: into the access log."""
        self.server.log.note(b"=======>", b"debug", arguments[0])
        return OK

    def quota(self, connection: Any, arguments: list[bytes]) -> bytes:
        """quota [<domid> | set <name> <value> | max [-r]]"""
        server = self.server
        if not arguments:
            lines = [f"{quota.name:<18}: {server.limits.shown(quota.name)}\n" for quota in QUOTAS]
            return "".join(lines).encode() + b"\0"
        if arguments[0] == b"set":
            if connection.privileged:
                server.set_quota(arguments[1].decode(), number(arguments[2]))
            return OK
        if arguments[0] == b"max":
            entries = server.tree.all_entries()
            watches = max((c.watch_count for c in server.domains.values()), default=0)
            most = max((n for domid, n in entries.items() if domid), default=0)
            return f"nodes             : {most}\nwatches           : {watches}\n\0".encode()
        domid = number(arguments[0])
        count = server.tree.entries(domid)
        if count == 0:
            return b"dom%d quota: not set\0" % domid
        most = server.limits.shown_of_owner(domid)
        return b"dom%d quota: %d/%s\0" % (domid, count, most.encode())

    def watches(self, connection: Any, arguments: list[bytes]) -> bytes:
        """watches: a line for each."""
        answer = b""
        for other in sorted(self.server.connections.values(), key=lambda c: (c.is_socket, c.id)):
            for path, token, depth in other.watch_list():
                shown = b"None" if depth is None else b"Some %d" % depth
                answer += b"watch %s: %s %s %s\n" % (other.label, path, token, shown)
                if len(answer) > PAYLOAD_MAX:
                    # It cannot be sent, and a guest may ask for it (allow-debug).
                    return answer
        return answer + b"\0"

    def compact(self, connection: Any, arguments: list[bytes]) -> bytes:
        """compact: gives free memory back."""
        self.host.trim()
        return b"Compacted"

    def trim(self, connection: Any, arguments: list[bytes]) -> bytes:
        """trim: the same."""
        self.host.trim()
        return b"trimmed"

    def domain(self, arguments: list[bytes]) -> Any:
        """The connection of the domain named by the first argument."""
        return self.server.domains[number(arguments[0])]

    def txn(self, connection: Any, arguments: list[bytes]) -> bytes:
        """txn <domid>: a line for each open transaction."""
        lines = [
            f"paths: {len(txn.changes)}, operations: {txn.count}, "
            f"quota_reached: {'true' if txn.quota_reached else 'false'}\n"
            for txn in self.domain(arguments).transactions.values()
        ]
        return "".join(lines).encode()

    def xenbus(self, connection: Any, arguments: list[bytes]) -> bytes:
        """xenbus <domid>: the state of its queues."""
        other = self.domain(arguments)
        replies, events = other.queued
        partial = other.partial_input
        needed = (
            max(0, 16 - len(partial))
            if len(partial) < 16
            else max(0, 16 + int.from_bytes(partial[12:16], "little") - len(partial))
        )
        output = len(other.pending_output)
        more = [
            ("has_more_input", bool(partial)),
            ("has_old_output", bool(output)),
            ("has_new_output", bool(replies + events)),
            ("has_more_work", bool(partial or output)),
        ]
        return (
            f"xenbus: XenBus state: partial_in: {needed} needed, partial_out: {output} bytes, "
            f"pkt_out: {replies + events} packets, BoundedQueue capacity: "
            f"{self.server.quota('outstanding') + self.server.quota('watch-events')}, used: "
            f"{{\twatch_event: {events}\tcommand_reply: {replies}}}; overflow queue length: "
            f"{other.overflowing}, can_input: {shown(not other.blocked)}, "
            + ", ".join(f"{name}: {shown(value)}" for name, value in more)
            + "."
        ).encode()

    def mfn(self, connection: Any, arguments: list[bytes]) -> bytes:
        """mfn <domid>: as given to INTRODUCE."""
        return b"%d\0" % self.host.mfn(number(arguments[0]))

    def live_update(self, connection: Any, arguments: list[bytes]) -> bytes | None:
        """live-update ...: see update.dialogue."""
        words = [a.decode("utf-8", "surrogateescape") for a in arguments]
        try:
            answer: bytes | None = self.host.live_update(connection, words)
        except (ValueError, LookupError, OSError, RequestError) as error:
            # OK would say that an update is done.
            text = f"live-update failed: {type(error).__name__}: {error}"
            self.host.log("error", "control", text)
            return text.encode("utf-8", "surrogateescape")[:FAULT_MAX]
        return answer

    # -- C xenstored's --------------------------------------------------------

    def check(self, connection: Any, arguments: list[bytes]) -> bytes:
        """check: counts the tree anew and compares."""
        entries: dict[int, int] = {}
        nodes = 0
        for names, perms, _ in self.server.tree.walk():
            if names:
                nodes += 1
                entries[perms[0][0]] = entries.get(perms[0][0], 0) + 1
        if nodes != self.server.tree.size or entries != self.server.tree.all_entries():
            self.host.log("error", "control", "check: entry counts differ from the tree")
        return OK

    def log(self, connection: Any, arguments: list[bytes]) -> bytes:
        """log [on|off]: the access log."""
        if not arguments:
            return b"Log is on\n\0" if self.host.access_log(None) else b"Log is off\n\0"
        if arguments[0] in (b"on", b"off"):
            self.host.access_log(arguments[0] == b"on")
        return OK

    def logfile(self, connection: Any, arguments: list[bytes]) -> bytes:
        """logfile <file>: where the daemon log goes from now on."""
        try:
            self.host.log_file(arguments[0].decode("utf-8", "surrogateescape"))
        except OSError as error:
            return unwritable(arguments[0], error)
        return OK

    def memreport(self, connection: Any, arguments: list[bytes]) -> bytes:
        """memreport [<file>]: memory in use, into a file or the daemon log."""
        report = self.host.memory()
        if arguments:
            try:
                self.host.replace(arguments[0], report)
            except OSError as error:
                return unwritable(arguments[0], error)
        else:
            self.host.log("warn", "memreport", report)
        return OK

    def record(self, connection: Any, arguments: list[bytes]) -> bytes:
        """record [on|off]: what comes from outside, see pyxsd.record."""
        answer: bytes = self.host.record(arguments[0].decode() if arguments else "")
        return answer

    def version(self, connection: Any, arguments: list[bytes]) -> bytes:
        """version: the version of the daemon that runs, which need not be the installed one."""
        return b"pyxsd %s\0" % __version__.encode()

    def crash(self, connection: Any, arguments: list[bytes]) -> bytes:
        """crash [segv|abort|exit|kill]: ends the process that serves, in a build for debugging."""
        _debug.crash(arguments[0] if arguments else b"segv")
        return OK

    def help(self, connection: Any, arguments: list[bytes]) -> bytes:
        """help: the commands and their arguments, a line each."""
        return (
            b"".join(
                (name + b" " + command.usage.encode()).rstrip() + b"\n"
                for name, command in sorted(COMMANDS.items())
            )
            + b"\0"
        )


class Command:
    """One row of the table: what runs, its arguments in help, and whether anybody may ask for
    it where allow-debug is set (it changes nothing of the daemon then)."""

    __slots__ = ("is_open", "run", "usage")  # a NamedTuple takes a start 0.3 ms

    def __init__(
        self,
        run: Callable[[Control, Any, list[bytes]], bytes | None],
        usage: str = "",
        is_open: bool = False,
    ) -> None:
        self.run = run
        self.usage = usage
        self.is_open = is_open


#: One row per command.
COMMANDS: dict[bytes, Command] = {
    b"print": Command(Control.print, "<message>", True),
    b"quota": Command(Control.quota, "[<domid>|set <name> <value>|max [-r]]", True),
    b"watches": Command(Control.watches, "", True),
    b"compact": Command(Control.compact, "", True),
    b"trim": Command(Control.trim, "", True),
    b"txn": Command(Control.txn, "<domid>", True),
    b"xenbus": Command(Control.xenbus, "<domid>", True),
    b"mfn": Command(Control.mfn, "<domid>", True),
    b"live-update": Command(
        Control.live_update, "[-f <file>|-c <argument>...|-s [-t <s>] [-F]|-a]"
    ),
    b"check": Command(Control.check),
    b"log": Command(Control.log, "[on|off]"),
    b"logfile": Command(Control.logfile, "<file>"),
    b"memreport": Command(Control.memreport, "[<file>]"),
    b"record": Command(Control.record, "[on|off]"),
    b"version": Command(Control.version),
    b"help": Command(Control.help),
}

if _debug.IS_DEBUG:
    COMMANDS[b"crash"] = Command(Control.crash, "[segv|abort|exit|kill]", True)
