# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts of a live update by themselves: messages, files in memory, processes, refusals."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyxsd.update import arrival, channel, program
from tests.clients.daemon import wait_for


@pytest.fixture
def ends() -> Iterator[tuple[channel.Channel, channel.Channel]]:
    """Both ends of a conversation."""
    ours, theirs = channel.Channel.pair()
    other = channel.Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


Ends = tuple[channel.Channel, channel.Channel]


# -- messages -------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 16384 - 5, 16384 - 4, 20000])
def test_a_message(ends: Ends, length: int) -> None:
    """Word, NUL and text have 16,384 bytes at most: the rest of the text is left out."""
    text = ("x" * length)[: 16384 - len("word") - 1]
    ends[0].send("word", "x" * length)
    assert ends[1].receive(5) == channel.Message("word", text, [])


def test_descriptors_are_closed_by_a_new_program() -> None:
    """Those that come with a message, and that of the conversation, whoever made it."""
    ours, theirs = channel.Channel.pair()
    os.set_inheritable(theirs, True)
    other = channel.Channel(theirs)
    assert not os.get_inheritable(theirs)
    ours.send("take", descriptors=[0, 1])
    found = other.receive(5).descriptors
    assert len(found) == 2 and not any(os.get_inheritable(fd) for fd in found)
    for fd in found:
        os.close(fd)
    ours.close()
    with pytest.raises(EOFError):
        other.receive(5)
    other.close()


def test_nothing_has_come(ends: Ends) -> None:
    for seconds in (0, 0.01):
        with pytest.raises((BlockingIOError, TimeoutError)):
            ends[1].receive(seconds)


# -- the new side ---------------------------------------------------------------

REFUSALS: list[tuple[BaseException, str]] = [
    (ValueError("a reason"), "a reason"),
    (ValueError(), "ValueError"),
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), "No such file"),
    (OSError("without a number"), "without a number"),
    (OSError(), "OSError"),
]


@pytest.mark.parametrize("error, text", REFUSALS, ids=[row[1] for row in REFUSALS])
def test_a_refusal(ends: Ends, error: BaseException, text: str) -> None:
    arrival.refuse(ends[0], error)
    assert ends[1].receive(5) == channel.Message("refused", text, [])
    ends[1].close()
    arrival.refuse(ends[0], error)  # nobody is there any more


@pytest.mark.parametrize("word, goes", [("go", True), ("stop", False), ("", False)])
def test_whether_it_may_serve(ends: Ends, word: str, goes: bool) -> None:
    if word:
        ends[1].send(word)
    else:
        ends[1].close()
    assert arrival.agreed(ends[0]) is goes


# -- the program ----------------------------------------------------------------

# what the shell does, what is written, how it ended
ENDS = [
    ("echo one; echo two", "one\ntwo\n", "exited with code 0"),
    ("exit 7", "", "exited with code 7"),
    ("kill -TERM $$", "", "was killed by signal 15"),
    ("head -c 65536 /dev/zero | tr '\\0' x; echo more", "x" * 65536, "exited with code 0"),
    ("head -c 65535 /dev/zero | tr '\\0' x; echo more", "x" * 65535 + "m", "exited with code 0"),
]


@pytest.mark.parametrize("text, output, how", ENDS, ids=[row[0][:20] for row in ENDS])
def test_a_process(tmp_path: Path, text: str, output: str, how: str) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nsleep 0.05\n{text}\n")
    script.chmod(0o755)
    process = program.Process(program.Program(str(script)), os.environ, converse=False)
    assert process.how_it_ended() == "did not end"

    def over() -> bool:
        process.output()
        return process.ended()

    wait_for(over, "it does not end")
    assert (process.output(), process.how_it_ended()) == (output, how)
    process.close()
    assert process.output() == output


def test_a_process_that_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho up; exec sleep 600\n")
    script.chmod(0o755)
    process = program.Process(program.Program(str(script)), os.environ, converse=False)
    wait_for(process.output, "it does not begin")
    process.kill()
    assert process.ended() and process.how_it_ended() == "was killed by signal 9"
    with pytest.raises(program.ProgramError, match="^/no/such: No such file or directory$"):
        program.Process(program.Program("/no/such"), os.environ, converse=False)


def test_a_process_that_leaves_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was given nothing yet: nobody waits for what it has started, which has the other end
    of the channel and lives on."""
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/left\nwait\n")
    script.chmod(0o755)
    process = program.Process(program.Program(str(script)), os.environ, converse=True)
    left = tmp_path / "left"
    wait_for(lambda: left.exists() and left.read_text().endswith("\n"), "it does not begin")

    def waits(*_: object) -> None:
        raise AssertionError("somebody waits")

    try:
        monkeypatch.setattr(channel.Channel, "wait_for_end", waits)
        process.kill()
        assert process.ended() and process.channel is None
        os.kill(int(left.read_text()), 0)
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)
