# SPDX-License-Identifier: LGPL-2.1-or-later
"""A copy of the project, built already, in which `make run` may be tried."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 120.0
#: What `make` looks at to see whether it must build.
STAMPS = (".made", ".built", ".bench", ".tests")


def make_copy(folder: Path) -> Path:
    """What git tracks, with the compiled modules and this environment as its .venv."""
    copy = folder / "pyxsd"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    built = [str(path.relative_to(ROOT)) for path in (ROOT / "pyxsd").rglob("*.so")]
    for name in [*filter(None, listed.stdout.split("\0")), *built]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in STAMPS:
            (copy / ".venv" / entry.name).symlink_to(entry)
    for stamp in STAMPS:
        (copy / ".venv" / stamp).touch()
    return copy


def environment(copy: Path) -> dict[str, str]:
    """As a newcomer's shell has it in the copy, with the programs of .venv."""
    env = {
        key: value
        for key, value in os.environ.items()
        if key
        not in ("PYTHONPATH", "XENSTORED_PATH", "NOTIFY_SOCKET", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    env["PATH"] = f"{copy}/.venv/bin:{env['PATH']}"
    return env


class MakeRun:
    """`make run` in a terminal of its own: lines of its output, and Ctrl-C."""

    def __init__(self, copy: Path) -> None:
        self.process = subprocess.Popen(
            # As in a terminal, also where the tests run under nohup.
            ["env", "--default-signal=HUP", "make", "run"],
            cwd=copy,
            env=environment(copy),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.seen: list[str] = []
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def wait_for(self, start: str) -> str:
        """The first line that begins so."""
        while True:
            try:
                line = self._lines.get(timeout=DEADLINE)
            except Empty:
                raise AssertionError(f"no line {start!r} in {self.seen}") from None
            self.seen.append(line)
            if line.startswith(start):
                return line
            if not line and self.process.poll() is not None:
                raise AssertionError(f"it ended without {start!r}: {self.seen}")

    def interrupt(self) -> None:
        """What a terminal does at Ctrl-C: SIGINT for all of its processes."""
        os.killpg(self.process.pid, signal.SIGINT)

    def hang_up(self) -> None:
        """What a terminal does when it is closed."""
        os.killpg(self.process.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Ends all of it, however it is."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
