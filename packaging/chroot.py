# SPDX-License-Identifier: LGPL-2.1-or-later
"""Throwaway Debian systems in which packages are built and tried.

A base system is made once with mmdebstrap and kept as a folder below $PYXSD_CHROOTS (default:
`.cache/chroots` of the checkout).  A `Chroot` is a writable layer on top of it, in namespaces of
its own for mounts and processes: when it is closed, its processes have ended and its files are
gone.  Needs root.

`chroot.py make KIND SUITE` makes a base system, `chroot.py shell KIND SUITE` opens a shell in a
throwaway copy of one.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

TOP = Path(__file__).resolve().parent.parent
MIRROR = "http://deb.debian.org/debian"

#: What each kind of base system has besides the packages that are Essential.
PACKAGES = {
    # Builds the source package and checks the result.
    "build": (
        "build-essential",
        "cython3",
        "debhelper",
        "dh-sequence-python3",
        "fakeroot",
        "lintian",
        "locales",
        "pybuild-plugin-pyproject",
        "python3-all-dev",
        "python3-cffi",
        "python3-setuptools",
        "python3-sortedcontainers",
    ),
    # A host without pyxsd: Debian's Xen tools, and no compiler.
    "host": (
        "apt-utils",
        "init-system-helpers",
        "lsof",
        "procps",
        "strace",
        "xen-utils-4.17",
        "xen-utils-common",
        "xenstore-utils",
    ),
    # Builds wheels against an old C library.
    "wheel": ("build-essential", "python3-dev", "python3-pip", "python3-venv"),
    # Builds RPMs.
    "rpm": (
        "build-essential",
        "cython3",
        "python3-cffi",
        "python3-dev",
        "python3-pip",
        "procps",
        "python3-setuptools",
        "python3-sortedcontainers",
        "python3-wheel",
        "rpm",
        "rpmlint",
        "xenstore-utils",
    ),
}

#: Where a suite's Xen tools have another version in their names.
RENAMED = {
    ("trixie", "xen-utils-4.17"): "xen-utils-4.20",
    ("sid", "xen-utils-4.17"): "xen-utils-4.20",
}

#: A mirror's Release file may be older than it says it is valid.
APT_OPTIONS = (
    'Acquire::Check-Valid-Until "false"',
    'Acquire::Check-Date "false"',
    'Acquire::Languages "none"',
    'APT::Install-Recommends "false"',
)


class ChrootError(Exception):
    """A base system cannot be made, or a command in a chroot failed; the text says which."""


def missing() -> str:
    """What is missing for chroots on this machine, in a few words; "" where nothing is."""
    if os.geteuid() != 0:
        return "chroots need root"
    absent = [
        name
        for name in ("mmdebstrap", "unshare", "nsenter", "mount", "umount")
        if shutil.which(name) is None
    ]
    return f"not installed: {', '.join(absent)}" if absent else ""


def base(kind: str, suite: str) -> Path:
    """The folder of a base system, which is made where it is not there yet; ChrootError."""
    store = Path(os.environ.get("PYXSD_CHROOTS") or TOP / ".cache" / "chroots")
    folder = store / f"{kind}-{suite}"
    if folder.is_dir():
        return folder
    store.mkdir(parents=True, exist_ok=True)
    packages = [RENAMED.get((suite, name), name) for name in PACKAGES[kind]]
    unfinished = Path(tempfile.mkdtemp(prefix=f"{kind}-{suite}.", dir=store))
    done = subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            *(f"--aptopt={option}" for option in APT_OPTIONS),
            f"--include={','.join(packages)}",
            suite,
            str(unfinished),
            MIRROR,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=dict(os.environ, TMPDIR=str(store)),
    )
    if done.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ChrootError(f"mmdebstrap {suite} failed:\n{done.stdout[-3000:]}")
    for name in ("hosts", "resolv.conf"):  # the network as this machine has it
        shutil.copyfile(f"/etc/{name}", unfinished / "etc" / name)
    unfinished.chmod(0o755)
    unfinished.rename(folder)
    return folder


class Chroot:
    """A throwaway system on top of a base; a context manager.  `root` is its folder."""

    def __init__(self, kind: str, suite: str) -> None:
        below = base(kind, suite)
        self._folder = Path(tempfile.mkdtemp(prefix="chroot-", dir=below.parent))
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir()
        self.root = self._folder / "root"
        options = f"lowerdir={below},upperdir={self._folder}/upper,workdir={self._folder}/work"
        # The first process of the namespaces: all others end with it, and it waits for those whose
        # parents are gone.
        setup = (
            'mount -t overlay overlay -o "$1" "$2" && mount -t proc proc "$2/proc" && '
            'mount -t tmpfs tmpfs "$2/run" && mount --rbind /dev "$2/dev" && '
            'mount -t sysfs -o ro sysfs "$2/sys" && echo ready && '
            "while :; do sleep 3600 & wait; done"
        )
        self._inside = 0  # the first process, as it is numbered outside
        self._first = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                setup,
                "sh",
                options,
                str(self.root),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._first.stdout is not None
        said = self._first.stdout.readline()
        if said != "ready\n":
            said += self._first.stdout.read()
            self.close()
            raise ChrootError(f"no chroot: {said}")
        children = f"/proc/{self._first.pid}/task/{self._first.pid}/children"
        self._inside = int(Path(children).read_text(encoding="ascii").split()[0])

    def close(self) -> None:
        """Ends its processes and removes its files."""
        self._first.send_signal(signal.SIGKILL)
        self._first.wait()
        if self._inside:
            try:
                ending = os.pidfd_open(self._inside)
            except ProcessLookupError:
                ending = -1
            if ending >= 0:
                select.select([ending], [], [])
                os.close(ending)
        if self._first.stdout is not None:
            self._first.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Chroot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def command(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` inside."""
        return [
            "nsenter",
            f"--target={self._inside}",
            "--mount",
            "--pid",
            "chroot",
            str(self.root),
            *words,
        ]

    def run(
        self,
        script: str,
        *arguments: str,
        status: int | None = 0,
        cwd: str = "/root",
        **environment: str,
    ) -> str:
        """Runs a shell script inside; its output with stderr.

        ChrootError, with the output's end, where it ends with another status than `status`
        (None: any will do).  Nothing of this process's environment gets in.
        """
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            **environment,
        }
        done = subprocess.run(
            self.command(["sh", "-c", f"cd {cwd} && {{ {script}\n}}", "sh", *arguments]),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if status is not None and done.returncode != status:
            raise ChrootError(
                f"status {done.returncode}, expected {status}: {script}\n{done.stdout[-6000:]}"
            )
        return done.stdout

    def put(self, inside: str, *files: Path) -> None:
        """Copies files into a folder inside, which is made."""
        self.run('mkdir -p "$1"', inside)
        for file in files:
            with open(file, "rb") as source:
                subprocess.run(
                    self.command(["sh", "-c", 'cat > "$1"', "sh", f"{inside}/{file.name}"]),
                    stdin=source,
                    check=True,
                )

    def get(self, inside: str, folder: Path) -> list[Path]:
        """Copies the files of a folder inside into a folder of this machine; their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.Popen(
            self.command(
                [
                    "sh",
                    "-c",
                    'cd "$1" && find . -maxdepth 1 -type f -print0 | tar -c --null -T - -f -',
                    "sh",
                    inside,
                ]
            ),
            stdout=subprocess.PIPE,
        )
        subprocess.run(
            ["tar", "-x", "--no-same-owner", "-C", str(folder)], stdin=packed.stdout, check=True
        )
        if packed.wait():
            raise ChrootError(f"no files from {inside}")
        return sorted(folder.iterdir())


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    if len(argv) != 3 or argv[0] not in ("make", "shell") or argv[1] not in PACKAGES:
        print(f"usage: chroot.py make|shell {'|'.join(PACKAGES)} SUITE", file=sys.stderr)
        return 2
    trouble = missing()
    if trouble:
        print(f"chroot.py: {trouble}", file=sys.stderr)
        return 1
    try:
        if argv[0] == "make":
            print(base(argv[1], argv[2]))
            return 0
        with Chroot(argv[1], argv[2]) as chroot:
            return subprocess.run(chroot.command(["bash", "-l"]), check=False).returncode
    except ChrootError as error:
        print(f"chroot.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
