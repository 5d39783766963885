# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the next boot starts, and from which file that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyxsd.setup import boot
from pyxsd.setup.tree import MAX_LINKS, Tree
from tests.setup.dom0 import COMMON, DEBIAN, LAUNCH_XENSTORE, ROOT, SYSTEMD, make

OXENSTORED = "/usr/lib/xen-4.17/bin/oxenstored"
LAUNCHER = "/usr/sbin/pyxsd-launch"
UNIT = "/usr/lib/systemd/system/xenstored.service"
DROP_IN = "/etc/systemd/system/xenstored.service.d/pyxsd.conf"

# name, files, program, its kind, origin
STARTS = [
    (
        "debian",
        DEBIAN,
        OXENSTORED,
        "oxenstored",
        "Debian's init script; /etc/default/xen does not set XENSTORED",
    ),
    (
        "debian-c",
        {path: text for path, text in DEBIAN.items() if path != OXENSTORED},
        "/usr/lib/xen-4.17/bin/xenstored",
        "C xenstored",
        "Debian's init script; /etc/default/xen does not set XENSTORED",
    ),
    (
        "debian-selected",
        {**DEBIAN, "/etc/default/xen": f"\nXENSTORED={LAUNCHER}\n"},
        LAUNCHER,
        "pyxsd",
        "/etc/default/xen, line 2",
    ),
    (
        "debian-empty",
        {**DEBIAN, "/etc/default/xen": "XENSTORED=\n"},
        OXENSTORED,
        "oxenstored",
        "Debian's init script; /etc/default/xen does not set XENSTORED",
    ),
    (
        "systemd",
        SYSTEMD,
        "/usr/sbin/oxenstored",
        "oxenstored",
        "Xen's systemd unit; /etc/sysconfig/xencommons does not set XENSTORED",
    ),
    (
        "systemd-default",
        {
            **SYSTEMD,
            "/etc/default/xencommons": f"XENSTORED={LAUNCHER}\n",
            "/etc/xen/scripts/launch-xenstore": LAUNCH_XENSTORE.format(
                settings="/etc/default/xencommons"
            ),
        },
        LAUNCHER,
        "pyxsd",
        "/etc/default/xencommons, line 1",
    ),
    (
        "systemd-drop-in",
        {
            **SYSTEMD,
            DROP_IN: (ROOT / "packaging/systemd/xenstored.service.d/pyxsd.conf").read_text(),
        },
        LAUNCHER,
        "pyxsd",
        "Xen's systemd unit",
    ),
    (
        "systemd-masked-drop-in",
        {
            **SYSTEMD,
            DROP_IN: "[Service]\nExecStart=\nExecStart=-/usr/sbin/oxenstored\n",
            DROP_IN.replace("/etc", "/usr/lib"): f"[Service]\nExecStart={LAUNCHER}\n",
        },
        "/usr/sbin/oxenstored",
        "oxenstored",
        "Xen's systemd unit",
    ),
    (
        "init",
        {
            **COMMON,
            "/etc/init.d/xencommons": "#!/bin/sh\n",
            "/usr/sbin/xenstored": "#!/bin/sh\n",
            "/etc/default/xencommons": "XENSTORED=/usr/sbin/xenstored\n",
        },
        "/usr/sbin/xenstored",
        "C xenstored",
        "/etc/default/xencommons, line 1",
    ),
]


@pytest.mark.parametrize(
    ("files", "program", "kind", "origin"),
    [row[1:] for row in STARTS],
    ids=[row[0] for row in STARTS],
)
def test_what_starts(
    tmp_path: Path, files: dict[str, str | None], program: str, kind: str, origin: str
) -> None:
    found = boot.look(Tree(str(make(tmp_path, files))))
    assert (found.fault, found.program, found.kind, found.origin) == ("", program, kind, origin)


# name, settings of Debian's file (None: missing), what is said
FAULTS: list[tuple[str, str, str]] = [
    (
        "missing",
        "XENSTORED=/usr/sbin/gone\n",
        "/etc/default/xen, line 1: /usr/sbin/gone is missing",
    ),
    ("no-program", "XENSTORED=/etc/default/xen\n", "line 1: /etc/default/xen cannot be executed"),
    ("relative", "XENSTORED=pyxsd\n", "'pyxsd' is no absolute path"),
    ("syntax", "XENSTORED='/a\n", "/etc/default/xen: the shell does not understand it"),
    ("two-words", "XENSTORED=/a b\n", "/etc/default/xen: line 1 has more than one word"),
    ("binary", "\0\x01\x02", "/etc/default/xen: line 1 has a NUL character"),
]


@pytest.mark.parametrize(
    ("text", "said"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_what_does_not_start(tmp_path: Path, text: str, said: str) -> None:
    found = boot.look(Tree(str(make(tmp_path, {**DEBIAN, "/etc/default/xen": text}))))
    assert said in found.fault


def test_a_store_in_a_domain_of_its_own(tmp_path: Path) -> None:
    files = {**SYSTEMD, "/etc/sysconfig/xencommons": "XENSTORETYPE=domain\n"}
    found = boot.look(Tree(str(make(tmp_path, files))))
    assert "XENSTORETYPE=domain: the store is not kept by a daemon of dom0" in found.fault
    assert not found.editable


def test_no_way_of_starting(tmp_path: Path) -> None:
    found = boot.look(Tree(str(make(tmp_path, COMMON))))
    assert "neither /etc/init.d/xen nor" in found.fault
    assert (found.kind, found.origin) == ("unknown", "no way of starting a xenstored was found")


def test_a_folder_in_the_file_s_place(tmp_path: Path) -> None:
    root = make(tmp_path, {**DEBIAN, "/etc/default/xen": None})
    assert boot.look(Tree(str(root))).fault == "/etc/default/xen cannot be read: Is a directory"


def test_links_stay_in_the_tree(tmp_path: Path) -> None:
    """A link to /etc of the tree is not followed into this machine's /etc."""
    root = make(tmp_path, {**DEBIAN, "/etc/xen.settings": f"XENSTORED={LAUNCHER}\n"})
    (root / "etc/default/xen").unlink()
    (root / "etc/default/xen").symlink_to("/etc/xen.settings")
    assert boot.look(Tree(str(root))).program == LAUNCHER
    tree = Tree(str(root))
    assert tree.locate("/var/run/xen/../x") == f"{root}/run/x"
    assert tree.locate("/../../etc") == f"{root}/etc"
    (root / "etc/null").symlink_to("/dev/null")
    assert tree.locate("/etc/null") == f"{root}/etc/null"
    # A link to a device may lead anywhere.
    for n, target in enumerate(("/dev/../etc", "/dev/./../etc", "/dev/shm/../../etc")):
        (root / f"out{n}").symlink_to(target)
        assert tree.locate(f"/out{n}/default/xen") == f"{root}/etc/xen.settings"
    (root / "0").write_text("end")
    for n in range(1, MAX_LINKS + 2):
        (root / str(n)).symlink_to(f"/{n - 1}")
    assert tree.locate(f"/{MAX_LINKS}") == f"{root}/0"
    with pytest.raises(OSError, match="Too many levels"):
        tree.locate(f"/{MAX_LINKS + 1}")
    (root / "loop").symlink_to("/loop")
    with pytest.raises(OSError, match="Too many levels"):
        tree.locate("/loop/x")
    assert not tree.exists("/loop/x")


def test_a_script_of_empty_lines(tmp_path: Path) -> None:
    """A megabyte of them is looked at once, and not once for each line."""
    script = "\n" * 1_000_000
    root = make(tmp_path, {**SYSTEMD, "/etc/xen/scripts/launch-xenstore": script})
    assert boot.look(Tree(str(root))).program == "/usr/sbin/oxenstored"
