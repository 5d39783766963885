# SPDX-License-Identifier: LGPL-2.1-or-later
"""A state file as text, or in another format: what `pyxsd --show-state` does.

It needs no Xen, no root and no configuration, and only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pyxsd.named import NamedTuple
from pyxsd.state import carry, dump, records, stream
from pyxsd.state.database import read_db, write_db
from pyxsd.state.host_state import LETTERS, Client, HostState, Node, StateError
from pyxsd.state.picture import read_image
from pyxsd.state.stream_reader import read_stream
from pyxsd.state.stream_writer import write_stream
from pyxsd.system.files import content, open_to_read

#: By the argument of --as: what takes out of a state what does not fit, and who writes the rest.
WRITERS: dict[
    str, tuple[Callable[[HostState], tuple[HostState, list[str]]], Callable[[HostState], bytes]]
] = {
    "db": (carry.for_db, write_db),
    "stream": (carry.for_stream, write_stream),
}


class Shown(NamedTuple):
    """What came of a file."""

    output: bytes  # for stdout
    told: list[str]  # for stderr: what was left out, or what the other format cannot hold
    whole: bool  # nothing of the file was left out


def show_file(path: str, as_format: str = "") -> Shown:
    """A file as text, or in one of the formats of WRITERS.

    StateError, with the file's name in it, where the file cannot be read, or where it is to be
    converted and is not whole.
    """
    try:
        return _show(read_any(_content(path)), as_format, f"{path}: ")
    except StateError as error:
        raise StateError(f"{path}: {error}") from None


def show_image(data: bytes, as_format: str = "") -> Shown:
    """The same of an image's bytes."""
    return _show(read_image(data), as_format, "")


def _show(state: HostState, as_format: str, who: str) -> Shown:
    if not as_format:
        return Shown(
            b"".join(line + b"\n" for line in text(state)),
            [f"{who}left out: {fault}" for fault in state.faults],
            not state.faults,
        )
    if state.faults:
        raise StateError(f"not converted, since it is not whole: {state.faults[0]}")
    converted, losses = convert(state, as_format)
    return Shown(converted, [f"{who}not carried: {loss}" for loss in losses], True)


def _content(path: str) -> bytes:
    """The bytes of a file that begins as one of the formats; StateError.  Any other one may be a
    disk's image, and is not read."""
    try:
        with open_to_read(path) as file:
            _reader_of(file.read(max(len(magic) for magic, _ in READERS)))
        return content(path)
    except OSError as error:
        raise StateError(str(error.strerror)) from None


#: What a file begins with, and who reads it.
READERS: tuple[tuple[bytes, Callable[[bytes], HostState]], ...] = (
    (stream.MAGIC, read_stream),
    (dump.FIRST_LINE, read_db),
    (records.MAGIC, read_image),
)


def read_any(data: bytes) -> HostState:
    """The state that a file's bytes hold, in whichever of the formats; StateError."""
    return _reader_of(data)(data)


def _reader_of(data: bytes) -> Callable[[bytes], HostState]:
    """Who reads what begins so; StateError."""
    for magic, reader in READERS:
        if data.startswith(magic):
            return reader
    first = ", ".join(magic.decode() for magic, _ in READERS)
    raise StateError(f"not a state file: it begins with none of {first}")


def convert(state: HostState, as_format: str) -> tuple[bytes, list[str]]:
    """A state as the bytes of a file of that format, and what it loses; StateError."""
    carried, write = WRITERS[as_format]
    fit, losses = carried(state)
    return write(fit), losses


# -- as text ------------------------------------------------------------------


def text(state: HostState) -> Iterator[bytes]:
    """The lines that docs/state.md describes, without their newlines."""
    if state.kind == "stream":
        yield b"format stream %d, %s-endian" % (
            state.version,
            b"big" if state.big_endian else b"little",
        )
    else:
        yield b"format %s" % state.kind.encode()
    yield b"listening-socket %d" % state.listener
    yield b"event-channels %d" % state.evtchn
    if state.virq_port is not None:
        yield b"virq-port %d" % state.virq_port
    for kind, quotas in ((b"domain", state.domain_quotas), (b"global", state.global_quotas)):
        for name, value in quotas.items():
            yield b"%s-quota %s %d" % (kind, quoted(name), value)
    for client in state.clients:
        yield from _client(client)
    for domid, settings in state.settings.items():
        yield b"domain %d features %d" % (domid, settings.features)
        for name, value in settings.quotas.items():
            yield b"domain %d quota %s %d" % (domid, quoted(name), value)
    for node in state.nodes:
        yield _node(node)


def _client(client: Client) -> Iterator[bytes]:
    words = [b"socket %d" % client.fd if client.domid is None else b"ring %d" % client.domid]
    for name, value in (
        ("connection", client.number or None),
        ("target", client.target),
        ("mfn", client.mfn),
        ("remote-port", client.remote_port),
        ("local-port", client.local_port),
        ("unique-id", client.unique_id),
    ):
        if value is not None:
            words.append(b"%s=%d" % (name.encode(), value))
    if client.indices is not None:
        words.append(b"req-cons=%d rsp-prod=%d" % client.indices)
    yield b" ".join(words)
    if client.input:
        yield b"  input %s" % quoted(client.input)
    if client.output:
        yield b"  output torn=%d %s" % (client.torn, quoted(client.output))
    for watch in client.watches:
        line = b"  watch %s %s" % (quoted(watch.path), quoted(watch.token))
        yield line if watch.depth is None else line + b" depth=%d" % watch.depth
    for number, requests in client.transactions.items():
        yield b"  transaction %d requests=%d" % (number, requests)
    for path, token in client.waiting:
        yield b"  waiting-event %s %s" % (quoted(path), quoted(token))


def _node(node: Node) -> bytes:
    perms = b",".join(
        b"%s%d%s" % (LETTERS[entry.access].encode(), entry.domid, b"!" if entry.stale else b"")
        for entry in node.permissions
    )
    return b"node %s %s %s" % (quoted(node.path), perms, quoted(node.value))


def quoted(data: bytes) -> bytes:
    r"""Bytes between double quotes: printable ASCII as it is, but \" and \\, the rest as \x0a."""
    return b'"%s"' % b"".join(
        b"\\" + bytes([c]) if c in b'"\\' else bytes([c]) if 32 <= c < 127 else b"\\x%02x" % c
        for c in data
    )
