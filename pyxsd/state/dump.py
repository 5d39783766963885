# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state as text, out and in.

Two forms, both oxenstored's: the dump that another daemon can take over from
("$xenstored-dump-format"), and the tree for people to read (SIGUSR1).

The dump has one kind of line that oxenstored does not know, and skips with a
warning: "pyxsd-ring", one for each ring, with what the domain is and what was
under way on its ring (see Ring).
"""

from __future__ import annotations

from collections import namedtuple

from pyxsd.store.tree import Tree
from pyxsd.system.files import NotAFile, open_to_read, write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

#: In the run directory: the dump, and the image beside it (disk.py).
DATABASE = "db"
IMAGE = "db.image"

FIRST_LINE = b"$xenstored-dump-format"
LETTERS = b"nrwb"


#: Bytes of a line.  What waits for one ring, in hexadecimal digits, is a quarter of it at most.
LINE_MAX = 1 << 26
#: Faults of a file that are told one by one: a host boots meanwhile, and its log has an end.
WARNINGS_MAX = 100

# The greatest numbers that can stand for something; the least is 0 where nothing else is said.
DOMID_MAX = 0x7FEF
INT_MAX = 0x7FFFFFFF  # descriptors
UINT32_MAX = 0xFFFFFFFF
INT64_MAX = 0x7FFFFFFFFFFFFFFF
UINT64_MAX = 0xFFFFFFFFFFFFFFFF


class DumpError(Exception):
    """A file that is no dump."""


class Ring(namedtuple("Ring", "unique_id req_cons rsp_prod torn input output")):
    """What was under way on a domain's ring when the state was written.

    It is of use only while req_cons and rsp_prod in the ring's page are what they were then.

    unique_id  of the domain; 0: Xen does not tell
    torn       bytes at the front of `output` that are the rest of a packet partly sent
    input      bytes taken out of the ring and not served
    output     bytes not put into the ring yet
    """

    __slots__ = ()  # and no NamedTuple, which takes a start 0.6 ms


def perms_text(perms: list[tuple[int, int]], separator: bytes) -> bytes:
    """Permissions as "n5<separator>r0"."""
    return separator.join(b"%c%d" % (LETTERS[access], domid) for domid, access in perms)


# -- writing ------------------------------------------------------------------


def lines(
    server: Any,
    domains: Iterable[Any],
    listener: int,
    evtchn: tuple[int, int] | None,
    sockets: bool,
) -> Iterator[bytes]:
    """The lines of a dump, without their newlines.

    listener is the descriptor of the listening socket or -1, evtchn the event
    channel device's and the port of VIRQ_DOM_EXC.  The descriptors of clients
    are of use only to a process that inherits them: sockets says whether.
    """
    yield FIRST_LINE
    yield b"global,%d" % listener
    if evtchn is not None:
        yield b"evtchn-dev,%d,%d" % evtchn
    for domain in domains:
        yield b"dom,%d,%d,%d,%d" % (domain.domid, domain.mfn, domain.remote_port, domain.port)
        yield from _ring(domain)
        yield from _watches(b"%d" % domain.domid, domain.connection)
    if sockets:
        for connection in list(server.connections.values()):
            if connection.is_socket:
                fd = connection.transport.fileno()
                yield b"socket,%d" % fd
                yield from _watches(b"-%d" % fd, connection)
    hold = server.hold()
    for names, perms, value in server.tree.walk(True):
        path = b"/" + b"/".join(names)
        yield b"store,%s,%s,%s" % (
            path.hex().encode(),
            perms_text(perms, b"\0").hex().encode(),
            value.hex().encode(),
        )
    del hold


def _ring(domain: Any) -> Iterator[bytes]:
    if domain.indices is not None and not domain.connection.bad:
        connection = domain.connection
        yield b"pyxsd-ring,%d,%d,%d,%d,%d,%s,%s" % (
            domain.domid,
            domain.unique_id,
            *domain.indices,
            connection.torn_output,
            connection.partial_input.hex().encode(),
            connection.pending_output.hex().encode(),
        )


def _watches(who: bytes, connection: Any) -> Iterator[bytes]:
    for path, token, depth in connection.watch_list():
        line = b"watch,%s,%s,%s" % (who, path.hex().encode(), token.hex().encode())
        yield line if depth is None else line + b",%d" % depth


def readable(tree: Any) -> Iterator[bytes]:
    """The tree as lines for people: path{permissions} = value."""
    for names, perms, value in tree.walk(True):
        # oxenstored prints the path of the folder without its leading slash.
        folder, name = b"/".join(names[:-1]), names[-1] if names else b""
        line = b"%s/%s{%s}" % (folder, name, _shown_perms(perms))
        yield line + b" = " + _escaped(value) if value else line


def _shown_perms(perms: list[tuple[int, int]]) -> bytes:
    return perms_text(perms, rb"\000")


def _escaped(value: bytes) -> bytes:
    """As OCaml prints a string: backslashes, and decimal escapes."""
    short = {9: rb"\t", 10: rb"\n", 13: rb"\r", 8: rb"\b", 34: rb"\"", 92: rb"\\"}
    return b"".join(
        short[c] if c in short else bytes([c]) if 32 <= c < 127 else b"\\%03d" % c for c in value
    )


def write_file(path: str, rows: Iterable[bytes]) -> None:
    """Writes lines to a file that replaces the old one only when it is whole; OSError."""
    write_whole(path, lambda out: out.writelines(row + b"\n" for row in rows))


# -- reading ------------------------------------------------------------------


class Loaded:
    """What a dump says; see lines().  The nodes go into `tree`, by its load()."""

    def __init__(self, tree: Any = None) -> None:
        self.tree = Tree() if tree is None else tree
        self.listener = -1
        self.evtchn: tuple[int, int] | None = None
        self.domains: list[tuple[int, int, int, int]] = []  # domid, mfn, remote, local port
        self.rings: dict[int, Ring] = {}  # by domid
        self.sockets: list[int] = []
        self.watches: list[tuple[int, bytes, bytes, bytes | None]] = []


def read_file(path: str, value_max: int, warn: Callable[[str], None]) -> Loaded:
    """Reads a dump; OSError, or DumpError where it is none.

    A broken line is skipped with a warning that has its number, and so is a value longer than
    value_max; of very many the first ones are told, and how many there are.
    """
    try:
        opened = open_to_read(path)
    except NotAFile as error:
        raise DumpError(f"{path}: {error.strerror}") from None
    with opened as file:
        if file.readline(len(FIRST_LINE) + 1).rstrip(b"\n") != FIRST_LINE:
            raise DumpError(f"{path}: not a dump: it does not begin with {FIRST_LINE.decode()}")
        loaded = Loaded()
        skipped = 0
        for number, _, fault in read_lines(_lines_of(file), loaded, value_max):
            skipped += 1
            if skipped <= WARNINGS_MAX:
                warn(f"{path}: line {number} skipped: {fault}")
    if skipped > WARNINGS_MAX:
        warn(f"{path}: {skipped - WARNINGS_MAX} more lines skipped")
    return loaded


def _lines_of(file: Any) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than LINE_MAX the beginning, which is longer, too:
    a damaged file may have one of gigabytes."""
    while line := file.readline(LINE_MAX + 1):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(LINE_MAX)


def read_lines(
    file: Iterable[bytes], loaded: Loaded, value_max: int
) -> Iterator[tuple[int, int, str]]:
    """Reads the lines behind the first one into `loaded`.

    Yields each one that is skipped: its number in the file, the offset in bytes where it
    begins, and what is wrong with it.
    """
    at = len(FIRST_LINE) + 1
    for number, line in enumerate(file, 2):
        try:
            read_line(loaded, line.rstrip(b"\n"), value_max)
        except ValueError as error:
            yield number, at, str(error)
        at += len(line)


def read_line(loaded: Loaded, line: bytes, value_max: int) -> None:
    """One line without its newline; ValueError, and nothing changed."""
    if len(line) > LINE_MAX:
        raise ValueError(f"it has more than {LINE_MAX} bytes")
    kind, *fields = line.split(b",")
    if kind not in READERS:
        raise ValueError(f"unknown record {kind[:32]!r}")
    reader, least = READERS[kind]
    if len(fields) < least:
        raise ValueError(f"{kind.decode()} with {len(fields)} fields")
    reader(loaded, fields, value_max)


def _number(text: bytes, least: int, most: int) -> int:
    """A decimal number of that range; ValueError."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 20:
        raise ValueError(f"not a number: {text[:32]!r}")
    value = int(text)
    if not least <= value <= most:
        raise ValueError(f"{value} is not from {least} to {most}")
    return value


def _hex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ValueError(f"not pairs of hexadecimal digits: {text[:32]!r}") from None


def _read_global(loaded: Loaded, fields: list[bytes], _: int) -> None:
    loaded.listener = _number(fields[0], -1, INT_MAX)


def _read_evtchn(loaded: Loaded, fields: list[bytes], _: int) -> None:
    loaded.evtchn = (_number(fields[0], -1, INT_MAX), _number(fields[1], 0, UINT32_MAX))


def _read_dom(loaded: Loaded, fields: list[bytes], _: int) -> None:
    domid = _number(fields[0], 0, DOMID_MAX)
    mfn = _number(fields[1], -INT64_MAX - 1, INT64_MAX)
    remote = _number(fields[2], 0, UINT32_MAX)
    local = _number(fields[3], 0, UINT32_MAX) if len(fields) > 3 else 0
    loaded.domains.append((domid, mfn, remote, local))


def _read_ring(loaded: Loaded, fields: list[bytes], _: int) -> None:
    domid = _number(fields[0], 0, DOMID_MAX)
    unique_id = _number(fields[1], 0, UINT64_MAX)
    req_cons, rsp_prod, torn = (_number(field, 0, UINT32_MAX) for field in fields[2:5])
    loaded.rings[domid] = Ring(
        unique_id, req_cons, rsp_prod, torn, _hex(fields[5]), _hex(fields[6])
    )


def _read_socket(loaded: Loaded, fields: list[bytes], _: int) -> None:
    loaded.sockets.append(_number(fields[0], 0, INT_MAX))


def _read_watch(loaded: Loaded, fields: list[bytes], _: int) -> None:
    depth = b"%d" % _number(fields[3], 0, UINT32_MAX) if len(fields) > 3 else None
    owner = _number(fields[0], -INT_MAX, DOMID_MAX)
    loaded.watches.append((owner, _hex(fields[1]), _hex(fields[2]), depth))


def _read_store(loaded: Loaded, fields: list[bytes], value_max: int) -> None:
    path, perms, value = (_hex(field) for field in fields[:3])
    if not path.startswith(b"/"):
        raise ValueError(f"not a path: {path[:64]!r}")
    if 0 <= value_max < len(value):
        raise ValueError(f"a value of {len(value)} bytes is too long")
    names = path[1:].split(b"/") if path != b"/" else []
    if not all(names):
        raise ValueError(f"not a path: {path[:64]!r}")
    try:
        loaded.tree.load(names, perms + b"\0", value)
    except ValueError:
        # "@a/b" is one name, if there is no "@a".
        if not path.startswith(b"/@") or len(names) == 1:
            raise
        loaded.tree.load([path[1:]], perms + b"\0", value)


#: By the first field of a line: who reads the others, and how many of them there must be.
READERS = {
    b"global": (_read_global, 1),
    b"evtchn-dev": (_read_evtchn, 2),
    b"dom": (_read_dom, 3),
    b"pyxsd-ring": (_read_ring, 7),
    b"socket": (_read_socket, 1),
    b"watch": (_read_watch, 3),
    b"store": (_read_store, 3),
}
