# SPDX-License-Identifier: LGPL-2.1-or-later
"""A toy that is kept: it answers words of one connection, which outlives it.

python -m tests.keeper.toy DESCRIPTOR [WORD]: the descriptor is a connected socket of packets.  Each
child says `born N CAUSE` with its number, and answers each word; what a word does stands in WORDS.
At the end the keeper prints what run() has returned.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from pyxsd.keeper import keeper as keeper_module
from pyxsd.keeper.keeper import Keeper, Life, can_keep

SERVED, BEGUN, OPENED, CAUSE = range(4)


class ToyMemory:
    """Counts in memory that outlives the child."""

    def __init__(self) -> None:
        self.words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("i")

    def progress(self) -> int:
        """Words answered that are called requests."""
        return self.words[SERVED]

    def is_begun(self) -> bool:
        """Has a child begun to serve?"""
        return bool(self.words[BEGUN])

    def died(self, cause: int) -> None:
        """Keeps it."""
        self.words[CAUSE] = cause


class Toy:
    """One child."""

    def __init__(self, memory: ToyMemory, client: socket.socket, start: str, life: Life) -> None:
        self.memory = memory
        self.client = client
        self.life = life
        self.start = start

    def run(self) -> int:
        """Answers until a word or a signal ends it."""
        if self.start == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.start == "raises":
            raise RuntimeError("a start that fails")
        elif self.start == "fails":
            return 5
        elif self.start == "does not come back" and self.life.number:
            os._exit(7)
        elif self.start == "is killed before it comes back" and self.life.number:
            os.kill(os.getpid(), signal.SIGKILL)
        caught: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda number, _: self.signalled(number, caught))
        self.memory.words[BEGUN] = 1
        self.life.report.serving()
        self.client.send(f"born {self.life.number} {self.life.cause}".encode())
        if self.start == "ends when told" and self.life.number == 1:
            self.client.recv(100)
        self.life.let_signals_in()
        while not caught:
            # Python's handler waits for the end of a call that begins just behind the signal.
            if select.select([self.client], [], [], 0.1)[0]:
                word, _, rest = self.client.recv(100).decode().partition(" ")
                WORDS[word](self, rest)
        return 0

    def signalled(self, number: int, caught: list[int]) -> None:
        """Tells of it, and ends at SIGTERM and SIGINT."""
        self.client.send(signal.Signals(number).name.encode())
        if number in (signal.SIGTERM, signal.SIGINT):
            caught.append(number)
            self.life.report.ended(0)
            os._exit(0)

    def who(self, _: str) -> None:
        """A request."""
        self.memory.words[SERVED] += 1
        self.client.send(f"{os.getpid()} {os.getppid()}".encode())

    def open(self, _: str) -> None:
        """Opens a descriptor whose number outlives it."""
        self.memory.words[OPENED] = os.dup(2)
        self.client.send(b"opened")

    def still(self, _: str) -> None:
        """Is that descriptor open?"""
        os.fstat(self.memory.words[OPENED])
        self.client.send(b"still open")

    def exit(self, status: str) -> None:
        """Without a word to the keeper."""
        os._exit(int(status))

    def die(self, number: str) -> None:
        """By a signal."""
        os.kill(os.getpid(), int(number))

    def end(self, status: str) -> None:
        """On purpose."""
        self.life.report.ended(int(status))
        os._exit(int(status))

    def hand_over(self, _: str) -> None:
        """And then by a fault of its own: another one serves all the same."""
        self.life.report.handed_over(77)
        os.kill(os.getpid(), signal.SIGSEGV)

    def throw(self, _: str) -> None:
        """An exception that nobody catches."""
        raise RuntimeError("thrown")


WORDS: dict[str, Callable[[Toy, str], None]] = {
    "who": Toy.who,
    "open": Toy.open,
    "still": Toy.still,
    "exit": Toy.exit,
    "die": Toy.die,
    "end": Toy.end,
    "hand-over": Toy.hand_over,
    "throw": Toy.throw,
}


def main() -> int:
    """The keeper."""
    client = socket.socket(fileno=int(sys.argv[1]))
    start = sys.argv[2] if len(sys.argv) > 2 else ""
    memory = ToyMemory()
    can_keep()
    keeper_module.PREPARE_SECONDS = 0.0
    # Not a hundred, with pauses that would make a test long.
    keeper = Keeper(
        memory,
        lambda: print("prepared", flush=True),
        kills_max=5,
        begun=lambda: print("begun", flush=True),
    )
    end = keeper.run(lambda life: Toy(memory, client, start, life).run())
    print(end.word, end.number, end.lost, flush=True)
    return end.number


if __name__ == "__main__":
    sys.exit(main())
