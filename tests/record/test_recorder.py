# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recorder of a daemon whose timers the test calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyxsd.record import files, recording
from pyxsd.record.recorder import Recorder
from pyxsd.system.configuration import Config
from tests.record.kit import Recording
from tests.world import World


class Quiet(Recording):
    """One with a world."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Config(record_directory=str(directory), record_size=1))
        self.world = World(self.config)
        self.server = self.world.server

    def second(self) -> None:
        """A second is over."""
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


@pytest.fixture(name="daemon")
def a_daemon(tmp_path: Path) -> Iterator[Quiet]:
    daemon = Quiet(tmp_path / "recorded")
    yield daemon
    daemon.world.close()
    daemon.server = None
    daemon.timers.clear()


def blocks(daemon: Quiet, number: int = 1) -> list[tuple[bytes, bytes]]:
    return list(files.read(files.path_of(daemon.config.record_directory, number)))


def test_written_once_a_second(daemon: Quiet) -> None:
    recorder = Recorder(daemon)
    recorder.start()
    recorder.start()
    assert [kind for kind, _ in blocks(daemon)] == [b"BEGN"]
    daemon.world.ask("s0", "WRITE", b"/a\0secret")
    assert [kind for kind, _ in blocks(daemon)] == [b"BEGN"]
    daemon.second()
    daemon.second()  # nothing happened
    assert [kind for kind, _ in blocks(daemon)] == [b"BEGN", b"JRNL"]
    daemon.world.ask("s0", "WRITE", b"/a\0last")
    recorder.stop()
    assert b"/a\0last" in blocks(daemon)[-1][1]
    assert not daemon.server.journal.is_recording
    daemon.second()
    assert daemon.timers == []
    recorder.stop()


@pytest.mark.parametrize("error", [(), (28, "No space left on device")])
def test_a_next_one_that_cannot_be_begun(
    daemon: Quiet, monkeypatch: pytest.MonkeyPatch, error: tuple[Any, ...]
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(*error) if error else MemoryError

    recorder = Recorder(daemon)
    recorder.start()
    monkeypatch.setattr(recording, "begin_anew", fails)
    for _ in range(200):
        daemon.world.ask("s0", "WRITE", b"/a\0" + b"v" * 2000)
    daemon.second()
    assert daemon.said[-1].startswith("error: recording has ended: ")
    assert recorder.command("") == b"Recording is off\n\0"
    assert daemon.world.ask("s0", "READ", b"/a\0")[1] == b"v" * 2000
    # And it can be switched on again.
    assert recorder.command("on") == b"OK\0"
    assert recorder.command("").startswith(b"Recording is on, ")
    recorder.stop()


def test_a_first_one_that_cannot_be_begun(daemon: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of memory, and its file says so late that it is not whole: the daemon begins."""

    def fails(*_: object) -> bytes:
        raise MemoryError

    def closes(self: files.Writer) -> None:
        os.close(self._fd)
        raise OSError(5, "Input/output error")

    recorder = Recorder(daemon)
    with monkeypatch.context() as patch:
        patch.setattr(recording, "begin", fails)
        patch.setattr(files.Writer, "close", closes)
        recorder.start()
    assert daemon.said[-1].startswith("error: recording has ended: MemoryError")
    assert recorder.command("") == b"Recording is off\n\0"
    recorder.start()
    assert recorder.command("").startswith(b"Recording is on, ")
    recorder.stop()


def test_memory_that_runs_out_within_a_request(daemon: Quiet) -> None:
    """What is done then would not be done in a replay."""
    recorder = Recorder(daemon)
    recorder.start()
    daemon.server.journal.met(MemoryError())
    daemon.second()
    assert "memory has run out" in daemon.said[-1]
    assert recorder.command("") == b"Recording is off\n\0"


def test_a_journal_that_has_ended_is_told(daemon: Quiet) -> None:
    """As for want of memory."""
    recorder = Recorder(daemon)
    recorder.start()
    daemon.server.journal.stop()
    daemon.second()
    assert daemon.said[-1] == "error: recording has ended: the journal has ended"
    assert recorder.command("") == b"Recording is off\n\0"


def test_unknown_words_do_nothing(daemon: Quiet) -> None:
    recorder = Recorder(daemon)
    assert recorder.command("perhaps") == b"OK\0"
    assert recorder.command("") == b"Recording is off\n\0"


def test_other_files_in_the_folder(daemon: Quiet) -> None:
    """Names that are almost those of recordings are nobody's business."""
    folder = Path(daemon.config.record_directory)
    folder.mkdir()
    strange = ["recording-0000001", "recording-\u0660\u0660\u0660\u0660\u0660\u0667", "x"]
    for name in strange:
        (folder / name).write_bytes(b"v" * (2 << 20))
    recorder = Recorder(daemon)
    recorder.start()
    assert daemon.said == [f"info: recording into {folder}/recording-000001"]
    recorder.stop()
    assert sorted(os.listdir(folder)) == sorted([*strange, "recording-000001"])
