# SPDX-License-Identifier: LGPL-2.1-or-later
"""select and deselect: the file, its backup, what is said, and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pyxsd.setup import boot, choose, cli, settings
from pyxsd.setup.tree import Tree
from tests.setup.dom0 import COMMON, DEBIAN, PROGRAM, SYSTEMD, UNIT, content, lacking, make

SETTINGS = {
    "debian": (DEBIAN, "/etc/default/xen"),
    "systemd": (SYSTEMD, "/etc/sysconfig/xencommons"),
}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """pyxsd-setup: status, stdout, stderr."""
    status = cli.main(list(words))
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.mark.parametrize("host", SETTINGS)
def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    files, file = SETTINGS[host]
    root = make(tmp_path, files)
    (root / file[1:]).chmod(0o640)
    before = content(root)
    status, said, _ = run(capsys, "select", "--root", str(root))
    assert status == 0
    assert f"Copied {file} to {file}{choose.BACKUP}.\n" in said
    assert f"Changed {file}: XENSTORED=/usr/sbin/pyxsd-launch.\n" in said
    assert "instead of" in said and "a xenstored that runs now goes on" in said
    assert boot.look(Tree(str(root))).kind == "pyxsd"
    changed = {path for path, what in content(root).items() if before.get(path) != what}
    assert changed == {file[1:], file[1:] + choose.BACKUP}
    assert (root / file[1:]).stat().st_mode & 0o777 == 0o640

    selected = content(root)
    status, said, _ = run(capsys, "select", "--root", str(root))
    assert (status, content(root)) == (0, selected)
    assert said.startswith("Nothing to do: ")

    assert run(capsys, "deselect", "--root", str(root))[0] == 0
    assert content(root) == before
    status, said, _ = run(capsys, "deselect", "--root", str(root))
    assert (status, content(root)) == (0, before)
    assert said == f"Nothing to do: {file} does not name pyxsd.\n"


def test_what_others_changed_meanwhile_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "/usr/lib/xen-4.17/bin/xenstored"
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": f"XENSTORED={program}\n"})
    file = root / "etc/default/xen"
    run(capsys, "select", "--root", str(root))
    file.write_text(file.read_text() + "XENSTORED_ARGS=--no-access-log\n")
    status, said, _ = run(capsys, "deselect", "--root", str(root))
    assert status == 0
    assert file.read_text() == f"XENSTORED={program}\nXENSTORED_ARGS=--no-access-log\n"
    assert "was changed by others since" in said
    assert (root / "etc/default/xen.before-pyxsd").exists()


def test_a_line_written_by_hand_is_switched_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """deselect says so: nobody knows how it was before."""
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": f"XENSTORED={boot.LAUNCHER}\n"})
    status, said, _ = run(capsys, "deselect", "--root", str(root))
    assert status == 0
    assert "the line that names pyxsd is switched off" in said and "as it was before" not in said
    assert boot.look(Tree(str(root))).kind == "oxenstored"


def test_the_backup_is_of_the_time_before_pyxsd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a second launcher is selected after the first."""
    root = make(tmp_path, {**DEBIAN, "/opt/launch": PROGRAM})
    before = (root / "etc/default/xen").read_text()
    run(capsys, "select", "--root", str(root))
    run(capsys, "select", "--root", str(root), "--launcher", "/opt/launch")
    assert boot.look(Tree(str(root))).program == "/opt/launch"
    assert (root / "etc/default/xen.before-pyxsd").read_text() == before
    run(capsys, "deselect", "--root", str(root), "--launcher", "/opt/launch")
    assert (root / "etc/default/xen").read_text() == before


def test_a_file_without_a_last_newline_comes_back_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": "A=1"})
    run(capsys, "select", "--root", str(root))
    run(capsys, "deselect", "--root", str(root))
    assert (root / "etc/default/xen").read_text() == "A=1"


def test_a_missing_file_is_made_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, {**SYSTEMD, "/etc/sysconfig": None})
    (root / "etc/sysconfig/xencommons").unlink()
    before = content(root)
    assert "Made /etc/sysconfig/xencommons" in run(capsys, "select", "--root", str(root))[1]
    assert "Removed /etc/sysconfig/xencommons" in run(capsys, "deselect", "--root", str(root))[1]
    assert content(root) == before


# settings of Debian's file, what is said
REFUSED = [
    ("XENSTORED=$(which x)\n", "only running it would tell; mend the file by hand first"),
    ("A=1\r\n", "line 1 ends with a carriage return"),
    ("if\n", "the shell does not understand it"),
    ("\0", "NUL character"),
    (None, "Is a directory"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_file_that_is_not_understood_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": text})
    before = content(root)
    status, out, error = run(capsys, "select", "--force", "--root", str(root))
    assert (status, out, content(root)) == (1, "", before)
    assert error.startswith("pyxsd-setup: ") and said in error


def test_select_heeds_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, {**DEBIAN, "/etc/xen/oxenstored.conf": ""})
    before = content(root)
    status, _, error = run(capsys, "select", "--root", str(root))
    assert (status, content(root)) == (1, before)
    assert "xenstored-kva is not configured" in error and "--force" in error
    assert run(capsys, "select", "--force", "--root", str(root))[0] == 0


def test_a_launcher_that_is_missing_is_never_selected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, DEBIAN)
    (root / "usr/sbin/pyxsd-launch").unlink()
    before = content(root)
    status, _, error = run(capsys, "select", "--force", "--root", str(root))
    assert (status, content(root)) == (1, before)
    assert "the next boot would have no xenstored" in error


def test_select_mends_a_program_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": "XENSTORED=/usr/sbin/gone\n"})
    assert run(capsys, "select", "--root", str(root))[0] == 0
    assert (
        "Careful, the next boot may start no xenstored: /etc/default/xen, line 1: "
        in run(capsys, "deselect", "--root", str(root))[1]
    )


def test_a_unit_s_own_command_is_not_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, {**SYSTEMD, UNIT: "[Service]\nExecStart=/usr/sbin/oxenstored\n"})
    before = content(root)
    status, _, error = run(capsys, "select", "--root", str(root))
    assert (status, content(root)) == (1, before)
    assert error == "pyxsd-setup: Xen's systemd unit names the program itself: change it there.\n"


def test_another_file_and_launcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(
        tmp_path,
        {
            **DEBIAN,
            "/opt/launch": PROGRAM,
            "/etc/mine": "A=1\n",
            "/etc/init.d/xen": "#!/bin/sh\n. /etc/default/xen\n. /etc/mine\n",
        },
    )
    words = ("--root", str(root), "--file", "/etc/mine", "--launcher", "/opt/launch")
    assert run(capsys, "select", *words)[0] == 0
    assert settings.find((root / "etc/mine").read_text(), "XENSTORED").value == "/opt/launch"
    assert run(capsys, "deselect", *words)[0] == 0
    assert (root / "etc/mine").read_text() == "A=1\n"


# files of the host, words, what is said
NOT_READ: list[tuple[dict[str, str | None], str]] = [
    (
        DEBIAN,
        "no boot script of this host reads /etc/mine (the one that is read is "
        "/etc/default/xen); --force writes it all the same",
    ),
    (
        {**COMMON, "/usr/sbin/oxenstored": PROGRAM},
        "no boot script of this host reads /etc/mine (no way of starting a xenstored was found: ",
    ),
    (
        {**SYSTEMD, UNIT: "[Service]\nExecStart=/usr/sbin/oxenstored\n"},
        "no boot script of this host reads /etc/mine (Xen's systemd unit); --force",
    ),
]


@pytest.mark.parametrize(("files", "said"), NOT_READ)
def test_a_file_that_nothing_reads_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str | None], said: str
) -> None:
    root = make(tmp_path, {**files, "/etc/mine": "A=1\n"})
    before = content(root)
    words = ("select", "--root", str(root), "--file", "/etc/mine")
    status, out, error = run(capsys, *words)
    assert (status, out, content(root)) == (1, "", before)
    assert error.startswith(f"pyxsd-setup: {said}"), error
    assert run(capsys, *words, "--force")[0] == 0
    assert "XENSTORED=/usr/sbin/pyxsd-launch\n" in (root / "etc/mine").read_text()


def test_a_link_to_the_file_that_is_read_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, DEBIAN)
    (root / "etc/mine").symlink_to("default/xen")
    assert run(capsys, "select", "--root", str(root), "--file", "/etc/mine")[0] == 0
    assert boot.look(Tree(str(root))).kind == "pyxsd"


@pytest.mark.parametrize("command", ["select", "deselect"])
def test_a_file_is_named_by_its_whole_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    root = make(tmp_path, DEBIAN)
    before = content(root)
    status, _, error = run(capsys, command, "--root", str(root), "--file", "etc/default/xen")
    assert (status, content(root)) == (2, before)
    assert "--file etc/default/xen: give the whole path" in error


@pytest.mark.parametrize("launcher", ["usr/sbin/x", "./x", "x", "/opt/a b", "/opt/$(x)", "/x\n"])
@pytest.mark.parametrize("command", ["check", "select", "deselect"])
def test_a_launcher_that_a_boot_script_does_not_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, launcher: str
) -> None:
    root = make(tmp_path, DEBIAN)
    before = content(root)
    status, _, error = run(capsys, command, "--root", str(root), "--launcher", launcher)
    assert (status, content(root)) == (2, before)
    assert error.startswith("pyxsd-setup: --launcher ") and error.count("\n") == 1


def test_force_is_named_where_it_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """test_select_heeds_check has one where it does."""
    root = make(tmp_path, DEBIAN)
    status, _, error = run(capsys, "select", "--root", str(root), "--launcher", "/opt/none")
    assert status == 1
    assert error.endswith("pyxsd-setup: not selected, since it would not work.\n"), error


def test_a_full_disk_leaves_the_file_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full file system nothing is changed and nothing is left behind."""
    if os.geteuid() != 0:
        lacking("only root can mount a small file system")
    root = make(tmp_path, DEBIAN)
    folder = root / "etc/default"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "pyxsd-test", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if mounted.returncode:
        lacking(f"cannot mount a small file system: {mounted.stderr}")
    try:
        (folder / "xen").write_text("A=1\n")
        full = os.open(folder / "full", os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="No space left"):
            while True:
                os.write(full, b"x" * 1024)
        os.close(full)
        before = content(folder)
        status, out, error = run(capsys, "select", "--force", "--root", str(root))
        assert (status, out, content(folder)) == (1, "", before)
        assert error == (
            "pyxsd-setup: cannot write /etc/default/xen: No space left on device; "
            "nothing was changed.\n"
        )
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_file_that_no_boot_script_reads_is_no_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--force writes it; what the next boot starts is not told of it."""
    root = make(tmp_path, DEBIAN)
    status, said, _ = run(capsys, "select", "--root", str(root), "--file", "/etc/x", "--force")
    assert status == 0
    assert "The next boot starts" not in said
    assert "No boot script of this host reads /etc/x: the next boot is as it was before." in said
    said = run(capsys, "deselect", "--root", str(root), "--file", "/etc/x")[1]
    assert "The next boot starts" not in said and "No boot script of this host reads /etc/x" in said


def test_an_empty_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": ""})
    before = content(root)
    run(capsys, "select", "--root", str(root))
    assert "Changed /etc/default/xen" in run(capsys, "deselect", "--root", str(root))[1]
    assert content(root) == before


@pytest.mark.parametrize("command", ["select", "deselect"])
def test_a_fifo_is_no_settings_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    root = make(tmp_path, DEBIAN)
    file = root / "etc/default/xen"
    file.unlink()
    os.mkfifo(file)
    status, _, error = run(capsys, command, "--root", str(root))
    assert status == 1
    assert "/etc/default/xen cannot be read: it is not a regular file" in error
    assert file.is_fifo()


def test_deselect_of_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, DEBIAN)
    (root / "etc/default/xen").unlink()
    assert (
        run(capsys, "deselect", "--root", str(root))[1]
        == "Nothing to do: /etc/default/xen is not there.\n"
    )


def test_select_lists_that_the_host_starts_no_xenstored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: text for path, text in DEBIAN.items() if path != "/etc/init.d/xen"}
    root = make(tmp_path, files)
    status, _, error = run(capsys, "select", "--root", str(root))
    assert status == 1
    assert "error:   next boot: no way of starting a xenstored was found" in error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device; nothing was changed.\n"),
        (
            PermissionError(13, "Permission denied"),
            "Permission denied; nothing was changed; run this as root.\n",
        ),
    ],
)
@pytest.mark.parametrize("command", ["select", "deselect"])
def test_a_file_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    error: OSError,
    said: str,
) -> None:
    root = make(tmp_path, DEBIAN)
    if command == "deselect":
        run(capsys, "select", "--root", str(root))
    before = content(root)

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(Tree, "replace", refuse)
    assert run(capsys, command, "--root", str(root)) == (
        1,
        "",
        f"pyxsd-setup: cannot write /etc/default/xen: {said}",
    )
    assert content(root) == before
