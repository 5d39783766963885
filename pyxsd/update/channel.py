# SPDX-License-Identifier: LGPL-2.1-or-later
"""The conversation of the old daemon with the new program: messages over a pair of sockets.

A message is a word, a text and some descriptors.  In the order in which they are sent:

    ready        new   its imports are done
    try          old   load this state (one descriptor, a memory file) and write it out again
    written      new   the state as it was written out (one descriptor)
    take         old   load this state and take the host over
    descriptors  old   those that the state speaks of, PIECE at most in a message
    end          old   there are no more
    built        new   everything is there, and nothing was touched yet
    go           old   from now on the new one serves; the old one has stopped
    taken        new   it begins to serve
    refused      new   instead of each of these: why not
"""

from __future__ import annotations

import _socket  # the bare module: `socket` takes 5 ms to import and adds nothing that is used
import fcntl
import mmap
import os
import struct
import time

from pyxsd.named import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: What `take` says where nobody has asked for the update.
UNASKED = "unasked"

# The kernel takes 253 descriptors with one message.
PIECE = 250
_TEXT_MAX = 16384
_INT = struct.Struct("i")


class Message(NamedTuple):
    """One message; whoever receives it closes the descriptors."""

    word: str
    text: str
    descriptors: list[int]


class Channel:
    """One end of the conversation, given by its descriptor, which it closes."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = _socket.socket(fileno=fd)

    @classmethod
    def pair(cls) -> tuple[Channel, int]:
        """One end, and the descriptor of the other one."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        return cls(ours.detach()), theirs.detach()

    def send(
        self,
        word: str,
        text: str = "",
        descriptors: Sequence[int] = (),
        seconds: float | None = None,
    ) -> None:
        """Sends a message, and waits at most so long for room; OSError, TimeoutError."""
        data = f"{word}\0{text}".encode("utf-8", "surrogateescape")[:_TEXT_MAX]
        rights = (
            [
                (
                    _socket.SOL_SOCKET,
                    _socket.SCM_RIGHTS,
                    struct.pack(f"{len(descriptors)}i", *descriptors),
                )
            ]
            if descriptors
            else []
        )
        self._socket.settimeout(seconds)
        self._socket.sendmsg([data], rights, _socket.MSG_NOSIGNAL)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def receive(self, seconds: float | None = None, peek: bool = False) -> Message:
        """The next message, waiting at most so long (0: not at all); with `peek` it stays the next.

        TimeoutError or BlockingIOError where none has come, EOFError where the other end is
        closed.
        """
        self._socket.settimeout(seconds)
        data, rights, _, _ = self._socket.recvmsg(
            _TEXT_MAX,
            _socket.CMSG_SPACE(PIECE * _INT.size),
            _socket.MSG_CMSG_CLOEXEC | (_socket.MSG_PEEK if peek else 0),
        )
        if not data:
            raise EOFError
        word, _, text = data.decode("utf-8", "surrogateescape").partition("\0")
        found = [
            fd
            for level, kind, packed in rights
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            for (fd,) in _INT.iter_unpack(packed[: len(packed) // 4 * 4])
        ]
        return Message(word, text, found)

    def wait_for_end(self, seconds: float) -> tuple[bool, list[str]]:
        """Is the other end closed, within this time?  And the words that were still to be read."""
        deadline = time.monotonic() + seconds
        words: list[str] = []
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False, words
                message = self.receive(left)
                words.append(message.word)
                for fd in message.descriptors:
                    os.close(fd)
        except TimeoutError:
            return False, words
        except (EOFError, OSError):
            return True, words

    def forget(self) -> None:
        """Leaves the descriptor alone, which another process has closed that shares it."""
        self._socket.detach()

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()


# Of linux/fcntl.h: against more seals, shrinking, growing, and writing.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 1 | 2 | 4 | 8


class MemoryFile:
    """A file in memory, which is written once; OSError."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("pyxsd-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def put(self, data: bytes | memoryview) -> None:
        """Adds bytes at its end."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def size(self) -> int:
        """How many bytes it has."""
        return os.fstat(self._fd).st_size

    def detach(self) -> int:
        """Its descriptor, which belongs to the caller from now on; nobody can change the file any
        more."""
        fcntl.fcntl(self._fd, _ADD_SEALS, _SEALS)
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Closes it, where nobody else has it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_memory_file(fd: int, most: int) -> memoryview:
    """The bytes of such a file, whose descriptor is closed; OSError, or ValueError where they are
    more than `most`, or where another process could still change or cut the file."""
    try:
        size = os.fstat(fd).st_size
        if size > most:
            raise ValueError(f"{size} bytes of state, where {most} are the most")
        if fcntl.fcntl(fd, _GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("a state that is not sealed")
        return memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ) if size else b"")
    finally:
        os.close(fd)
