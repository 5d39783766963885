# SPDX-License-Identifier: LGPL-2.1-or-later
"""check: a sound dom0 has no error, and each thing that can be wrong is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyxsd.setup import checks, cli
from pyxsd.setup.tree import Tree
from tests.setup.dom0 import DEBIAN, PACKAGE, PROGRAM, ROOT, content, copy, make, without_pyxsd

LAUNCHER = "/usr/sbin/pyxsd-launch"
CONFIG = "/etc/xen/oxenstored.conf"
RIGHT = DEBIAN[CONFIG]
LOCAL = "/usr/local/lib/python3.11/dist-packages/pyxsd"


def found(root: Path) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in checks.run(Tree(str(root)), LAUNCHER)]


def test_a_sound_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, DEBIAN)
    before = content(root)
    assert cli.main(["check", "--root", str(root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        f"0 errors, 0 warnings.  pyxsd can be started on the host that lies in {root}.",
        f"The paths are that host's: /etc is {root}/etc.",
    ]
    assert {line.split(":")[0] for line in said[:-2]} == {"ok", "note"}
    assert (
        "note:    the folder of the pid file, /var/run/xen, is missing; pyxsd does not make "
        "it, and where the boot script does not either, no pid file is written"
    ) in said
    assert any("libxenctrl.so.4.17, for the states of domains" in line for line in said)
    assert content(root) == before


# name, files that differ (None: removed), level, what is said
WRONG: list[tuple[str, dict[str, str | None], str, str]] = [
    (
        "library",
        {"/usr/lib/x86_64-linux-gnu/libxenevtchn.so.1": None},
        "error",
        "no libxenevtchn.so.1, for event channels",
    ),
    (
        "states",
        {"/usr/lib/x86_64-linux-gnu/libxenctrl.so.4.17": None},
        "error",
        "no libxenmanage.so.1 or libxenctrl.so.4.*",
    ),
    ("no-xen", {"/sys/hypervisor/type": None}, "warning", "does not show a Xen that runs"),
    ("kvm", {"/sys/hypervisor/type": "kvm\n"}, "warning", "does not show a Xen that runs"),
    ("old-xen", {"/sys/hypervisor/version/minor": "9\n"}, "error", "Xen is 4.9; pyxsd needs 4.14"),
    ("guest", {"/proc/xen/capabilities": "\n"}, "error", "this is not domain 0"),
    (
        "device",
        {"/dev/xen/gntdev": None},
        "error",
        "the device /dev/xen/gntdev is missing: modprobe xen-gntdev",
    ),
    ("no-device", {"/dev/xen/privcmd": "text"}, "error", "the device /dev/xen/privcmd is missing"),
    (
        "no-config",
        {CONFIG: None},
        "warning",
        "the configuration /etc/xen/oxenstored.conf: No such file or directory",
    ),
    (
        "no-ring",
        {CONFIG: None},
        "error",
        "write 'xenstored-kva = /proc/xen/xsd_kva' into /etc/xen/oxenstored.conf",
    ),
    ("bad-value", {CONFIG: f"{RIGHT}quota-maxwatch = many\n"}, "warning", "quota-maxwatch"),
    ("bad-key", {CONFIG: f"{RIGHT}quota-maxwatc = 1\n"}, "warning", "quota-maxwatc"),
    ("binary", {CONFIG: "\0\1\2=\3"}, "error", "xenstored-port is not configured"),
    ("no-xenfs", {"/proc/xen/xsd_port": None}, "error", "mount -t xenfs xenfs /proc/xen"),
    (
        "other-config",
        {"/etc/default/xen": "XENSTORED_ARGS='--config-file /etc/x.conf'\n"},
        "warning",
        "the configuration /etc/x.conf: No such file",
    ),
    (
        "c-arguments",
        {"/etc/default/xen": "XENSTORED_ARGS='--transaction=32 --watch-nb=512'\n"},
        "error",
        "XENSTORED_ARGS is not for pyxsd: pyxsd: unknown option '--transaction=32'",
    ),
    (
        "long-arguments",
        {
            "/etc/init.d/xen": None,
            "/etc/systemd/system/xenstored.service": "[Service]\nExecStart=/usr/sbin/pyxsd "
            + "x" * 16385,
        },
        "error",
        "XENSTORED_ARGS is not for pyxsd: there are more than 16384 characters",
    ),
    (
        "strange-version",
        {"/sys/hypervisor/version/minor": "\u00b2\n"},
        "warning",
        "does not show a Xen that runs",
    ),
    (
        "log-folder",
        {CONFIG: f"{RIGHT}access-log-file = /no/such/access.log\n"},
        "error",
        "the folder of the access log, /no/such, is missing: mkdir -p /no/such",
    ),
    (
        "log-file",
        {CONFIG: f"{RIGHT}xenstored-log-file = {CONFIG}/x\n"},
        "error",
        "the folder of the log, /etc/xen/oxenstored.conf, is no folder",
    ),
    ("launcher", {LAUNCHER: None}, "error", "the launcher /usr/sbin/pyxsd-launch is missing"),
    (
        "gone",
        {"/etc/default/xen": "XENSTORED=/usr/sbin/gone\n"},
        "error",
        "/usr/sbin/gone is missing, so no xenstored would be started",
    ),
    ("nonsense", {"/etc/default/xen": ")(\n"}, "error", "the shell does not understand it"),
    (
        "half",
        {PACKAGE + "/cli.py": None, PACKAGE + "/_linked.cpython-311.so": None},
        "error",
        f"the copy of pyxsd in {PACKAGE[:-6]} is incomplete (without cli.py, _linked.*.so",
    ),
    (
        "carriage-returns",
        {"/etc/default/xen": "A=1\r\nXENSTORED_ARGS=\r\n"},
        "error",
        "/etc/default/xen: line 1 ends with a carriage return",
    ),
    (
        "run-log",
        {CONFIG: f"{RIGHT}xenstored-log-file = /run/x/log\n"},
        "warning",
        "/run/x, is missing; pyxsd does not make it, and where the boot script does not either, "
        "its lines are not written",
    ),
    (
        "twice",
        {**copy(PACKAGE, "0.1.0"), **copy(LOCAL, "0.2.0")},
        "warning",
        f"installed 2 times (0.1.0 in {PACKAGE[:-6]}, 0.2.0 in {LOCAL[:-6]}); a package's launcher "
        "starts the package's copy",
    ),
    ("no-python", {"/usr/bin/python3": None}, "error", "no Python: /usr/bin/python3 is missing"),
    (
        "old-python",
        {"/usr/bin/python3": PROGRAM + "# 3.6"},
        "warning",
        "/usr/bin/python3 does not tell its version by its name",
    ),
    (
        "other-python",
        {
            **copy(PACKAGE, "0.1.0"),
            PACKAGE + "/_linked.cpython-311.so": None,
            PACKAGE + "/_linked.cpython-39-x86_64-linux-gnu.so": "",
        },
        "error",
        f"the copy of pyxsd in {PACKAGE[:-6]} is for another version of Python than 3.11",
    ),
    ("selinux", {"/sys/fs/selinux/enforce": "1\n"}, "warning", "SELinux is enforcing"),
]


# the file that /usr/bin/python3 is a link to, and the line of the report
PYTHONS = [
    ("python3.6", "error:   Python is 3.6; pyxsd needs 3.9 or later"),
    ("python3.8", "error:   Python is 3.8; pyxsd needs 3.9 or later"),
    ("python3.9", "ok:      Python 3.9 (/usr/bin/python3.9)"),
    ("python3.15", "ok:      Python 3.15 (/usr/bin/python3.15)"),
    (
        "python",
        "warning: /usr/bin/python does not tell its version by its name; pyxsd needs 3.9 or later",
    ),
]


@pytest.mark.parametrize(("name", "said"), PYTHONS)
def test_the_python_is_that_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    """And not the one that this program runs on."""
    root = make(tmp_path, without_pyxsd(DEBIAN))
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to(name)
    (root / "usr/bin" / name).write_text("")
    cli.main(["check", "--root", str(root)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == said
    assert not any("Python" in line for line in lines[1:])


# what is different in a sound host, and the line of the report
RIGHT_LINES: list[tuple[dict[str, str | None], str]] = [
    ({"/sys/hypervisor/version/minor": "13\n"}, "error:   Xen is 4.13; pyxsd needs 4.14 or later"),
    ({"/sys/hypervisor/version/minor": "14\n"}, "ok:      Xen 4.14"),
    (
        {},
        "note:    the next boot starts /usr/lib/xen-4.17/bin/oxenstored (Debian's init script; "
        "/etc/default/xen does not set XENSTORED); pyxsd-setup select changes that",
    ),
    (
        {"/etc/default/xen": f"XENSTORED={LAUNCHER}\n"},
        f"ok:      the next boot starts {LAUNCHER} (/etc/default/xen, line 1)",
    ),
]


@pytest.mark.parametrize(("files", "said"), RIGHT_LINES, ids=[row[1][9:30] for row in RIGHT_LINES])
def test_lines_of_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str | None], said: str
) -> None:
    cli.main(["check", "--root", str(make(tmp_path, {**DEBIAN, **files}))])
    assert said in capsys.readouterr().out.splitlines()


def test_a_file_in_the_place_of_a_folder_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {CONFIG: f"{RIGHT}xenstored-log-file = {CONFIG}/x\n"}
    cli.main(["check", "--root", str(make(tmp_path, {**DEBIAN, **files}))])
    lines = [line for line in capsys.readouterr().out.splitlines() if "folder of the log," in line]
    assert lines == [f"error:   the folder of the log, {CONFIG}, is no folder"]


MIB = 1 << 20
# free bytes, inodes and free inodes (0, 0: the file system has no table of them), what is said
SPACE = [
    (32 * MIB, 10, 1, "ok", "the folder of the log, /var/log/xen, 32 MiB free"),
    (
        32 * MIB - 1,
        10,
        1,
        "error",
        "the folder of the log, /var/log/xen: 31 MiB are free; 32 are needed",
    ),
    (
        64 * MIB,
        10,
        0,
        "error",
        "the folder of the log, /var/log/xen: no file can be made there (no inode is free)",
    ),
    (64 * MIB, 0, 0, "ok", "the folder of the log, /var/log/xen, 64 MiB free"),
]


@pytest.mark.parametrize(("free", "inodes", "free_inodes", "level", "said"), SPACE)
def test_space(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    inodes: int,
    free_inodes: int,
    level: str,
    said: str,
) -> None:
    disk = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=inodes, f_favail=free_inodes)
    root = make(tmp_path, {**DEBIAN, CONFIG: f"{RIGHT}xenstored-log-file = /var/log/xen/x\n"})
    monkeypatch.setattr(os, "statvfs", lambda _path: disk)
    assert (level, said) in found(root)


@pytest.mark.parametrize(
    ("files", "level", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str | None],
    level: str,
    said: str,
) -> None:
    sound = found(make(tmp_path / "sound", DEBIAN))
    root = make(
        tmp_path / "wrong",
        {**DEBIAN, **{path: text for path, text in files.items() if not path.startswith("/dev")}},
    )
    for path, text in files.items():
        if text is None or path.startswith("/dev"):
            place = root / path[1:]
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink()
            if text is not None:
                place.write_text(text)
    now = found(root)
    assert any(level == what and said in text for what, text in now), now
    assert not any(said in text for _, text in sound)
    errors = any(what == "error" for what, _ in now)
    assert cli.main(["check", "--root", str(root)]) == (1 if errors else 0)


def test_this_machine_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is here: a report, no traceback."""
    assert cli.main(["check"]) in (0, 1)
    assert re.search(r"^\d+ errors?, \d+ warnings?\.", capsys.readouterr().out, re.MULTILINE)


def test_one_of_a_kind_is_in_the_singular(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, {**DEBIAN, CONFIG: f"{RIGHT}quota-maxwatch = many\n"})
    (root / "dev/xen/gntdev").unlink()
    assert cli.main(["check", "--root", str(root)]) == 1
    assert capsys.readouterr().out.splitlines()[-2] == "1 error, 1 warning."


@pytest.mark.parametrize("command", ["check", "status"])
def test_a_reader_that_does_not_wait(command: str) -> None:
    """As in `pyxsd-setup check | head -1`: no words about a broken pipe, no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "pyxsd.setup.cli", command],
        cwd=ROOT,
        env=env,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""


def test_a_launcher_without_pyxsd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, without_pyxsd(DEBIAN))
    before = content(root)
    for command, status in (("check", 1), ("select", 1)):
        assert cli.main([command, "--root", str(root)]) == status
        told = capsys.readouterr()
        assert (
            f"error:   pyxsd itself is not installed: neither in a folder of packages nor "
            f"beside {LAUNCHER}\n"
        ) in told.out + told.err
    assert content(root) == before


def test_a_copy_in_an_environment_that_no_link_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package has taken the links' place; the copy that the document tells to make is there."""
    folder = "/opt/pyxsd/lib/python3.11/site-packages"
    root = make(tmp_path, {**DEBIAN, **copy(folder + "/pyxsd", "0.3.0")})
    cli.main(["check", "--root", str(root)])
    assert f"0.3.0 in {folder}" in capsys.readouterr().out


def test_a_copy_in_an_environment_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the launcher's link; nothing else names it."""
    folder = "/opt/pyxsd/lib/python3.11/site-packages"
    files = without_pyxsd({path: text for path, text in DEBIAN.items() if path != LAUNCHER})
    root = make(
        tmp_path,
        {**files, **copy(folder + "/pyxsd", "0.3.0"), "/opt/pyxsd/bin/pyxsd-launch": PROGRAM},
    )
    (root / LAUNCHER[1:]).parent.mkdir(parents=True)
    (root / LAUNCHER[1:]).symlink_to("/opt/pyxsd/bin/pyxsd-launch")
    assert cli.main(["check", "--root", str(root)]) == 0
    cli.main(["status", "--root", str(root)])
    assert f"installed:        pyxsd 0.3.0 in {folder}\n" in capsys.readouterr().out
    (root / folder[1:] / "pyxsd/_linked.cpython-311.so").rename(
        root / folder[1:] / "pyxsd/_linked.cpython-39.so"
    )
    assert cli.main(["check", "--root", str(root)]) == 1
    assert f"the copy of pyxsd in {folder} is for another version" in capsys.readouterr().out


# words, status, what is said
WORDS = [
    ([], 2, "a command is missing"),
    (["--version"], 0, "pyxsd-setup "),
    (["check", "--root", "/no/such"], 2, "--root /no/such: there is no such folder"),
]


@pytest.mark.parametrize(("words", "status", "said"), WORDS)
def test_command_line(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    assert cli.main(words) == status
    told = capsys.readouterr()
    assert said in told.out + told.err


@pytest.mark.parametrize("command", ["update", "take-over", "give-back"])
@pytest.mark.parametrize("seconds", ["-1", "3601", "9" * 5000, "1.5", "", "x"])
def test_seconds_out_of_range(
    capsys: pytest.CaptureFixture[str], command: str, seconds: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, f"--timeout={seconds}"])
    assert ended.value.code == 2
    assert "is no number of seconds from 0 to 3600" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["bogus"], ["select", "extra"], ["--bogus"]])
def test_wrong_command_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: pyxsd-setup" in capsys.readouterr().err
