# SPDX-License-Identifier: LGPL-2.1-or-later
"""What would be started as xenstored at the next boot, and from which file that follows.

Three ways are known (a row of WAYS each): Debian's init script, Xen's systemd unit, and Xen's own
init script.  All but a unit with a command of its own read a settings file, in which XENSTORED
names the program.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from pyxsd.setup import settings
from pyxsd.setup.tree import Tree

#: Where packages put the launcher, and the daemon itself.
LAUNCHER = "/usr/sbin/pyxsd-launch"

#: How a program is called, and what it is.
KINDS = (("pyxsd", "pyxsd"), ("oxenstored", "oxenstored"), ("xenstored", "C xenstored"))

UNIT = "xenstored.service"
UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
XENCOMMONS = ("/etc/sysconfig/xencommons", "/etc/default/xencommons")


@dataclass(frozen=True)
class Way:
    """One way of starting a xenstored.

    name: as it is told.  script: the script that reads the settings.  evidence: files of which
    one shows that the host starts it so.  settings: files that the script may read; the one that
    its text names counts.  programs: what it starts where XENSTORED is not set.
    """

    name: str
    evidence: tuple[str, ...]
    scripts: tuple[str, ...]
    settings: tuple[str, ...]
    programs: tuple[str, ...]


DEBIAN = Way(
    "Debian's init script",
    ("/etc/init.d/xen",),
    ("/etc/init.d/xen",),
    ("/etc/default/xen",),
    ("/usr/lib/xen-{version}/bin/oxenstored", "/usr/lib/xen-{version}/bin/xenstored"),
)
SYSTEMD = Way(
    "Xen's systemd unit",
    tuple(f"{folder}/{UNIT}" for folder in UNIT_FOLDERS),
    ("/etc/xen/scripts/launch-xenstore",),
    XENCOMMONS,
    ("/usr/sbin/oxenstored", "/usr/sbin/xenstored"),
)
INIT = Way(
    "Xen's init script",
    ("/etc/init.d/xencommons",),
    ("/etc/xen/scripts/launch-xenstore", "/etc/init.d/xencommons"),
    XENCOMMONS,
    ("/usr/sbin/oxenstored", "/usr/sbin/xenstored"),
)
WAYS = (DEBIAN, SYSTEMD, INIT)


@dataclass(frozen=True)
class NextBoot:
    """What the next boot starts.

    way: None where none is known.  file: the settings file ("" where none counts), which may be
    missing.  text: its text, None where it is missing.  line: of the file, 0 where it does not
    set the program.  program: the path, "" where that cannot be told.  arguments: behind it, ""
    where there are none.  fault: why it would not be started, or cannot be told; "" if it can.
    editable: whether setting XENSTORED in the file would have the effect that it says.
    """

    way: Way | None = None
    file: str = ""
    text: str | None = None
    line: int = 0
    program: str = ""
    arguments: str = ""
    fault: str = ""
    editable: bool = False

    @property
    def kind(self) -> str:
        """pyxsd, oxenstored, C xenstored, or unknown."""
        return kind_of(self.program)

    @property
    def origin(self) -> str:
        """The file that decides, in words."""
        if self.way is None:
            return "no way of starting a xenstored was found"
        if not self.file:
            return self.way.name
        if self.line:
            return f"{self.file}, line {self.line}"
        return f"{self.way.name}; {self.file} does not set {settings.VARIABLE}"


def kind_of(program: str) -> str:
    """What a program is, by its name: `/usr/sbin/oxenstored-4.17` is oxenstored."""
    name = os.path.basename(program)
    for start, kind in KINDS:
        if name.startswith(start):
            return kind
    return "unknown"


def look(tree: Tree, file: str = "", without: tuple[str, ...] = ()) -> NextBoot:
    """What the next boot starts.  `file`: take this settings file, whatever the host's way.
    `without`: as if the settings file did not name these programs."""
    way = _way(tree)
    if way is None and not file:
        return NextBoot(
            fault="no way of starting a xenstored was found: neither /etc/init.d/xen "
            f"nor {UNIT} nor /etc/init.d/xencommons is there"
        )
    command = _own_command(tree, way)
    if command and not file:
        return _judged(tree, NextBoot(way, program=command[0], arguments=" ".join(command[1:])))
    file = file or _settings_file(tree, way)
    try:
        text = tree.read(file)
    except OSError as error:
        return NextBoot(way, file, fault=f"{file} cannot be read: {error.strerror}")
    if text is not None and without:
        text = settings.deselected(text, without)
    fault = settings.fault(text or "")
    if fault:
        return NextBoot(way, file, text, fault=f"{file}: {fault}")
    kind = settings.find(text or "", "XENSTORETYPE")
    if way is not DEBIAN and kind.value not in (None, "", "daemon"):
        return NextBoot(
            way,
            file,
            text,
            kind.line,
            fault=f"{file}: line {kind.line} sets "
            f"XENSTORETYPE={kind.value}: the store is not kept by a daemon of dom0",
        )
    found = settings.find(text or "", settings.VARIABLE)
    if found.unclear:
        return NextBoot(way, file, text, found.line, fault=f"{file}: {found.unclear}")
    arguments = settings.find(text or "", "XENSTORED_ARGS").value or ""
    program = found.value or _default(tree, way)
    return _judged(
        tree,
        NextBoot(
            way, file, text, found.line if found.value else 0, program, arguments, editable=True
        ),
    )


def _way(tree: Tree) -> Way | None:
    """The host's way of starting a xenstored, None where none is known."""
    return next((way for way in WAYS if any(map(tree.exists, way.evidence))), None)


def _own_command(tree: Tree, way: Way | None) -> list[str]:
    """The words of a unit's command that starts the program itself, without a settings file;
    [] where the host has none."""
    command = _unit_command(tree) if way is SYSTEMD else []
    return command if command and os.path.basename(command[0]) != "launch-xenstore" else []


def is_read(tree: Tree, file: str) -> bool:
    """Whether a boot script of the host reads this settings file."""
    way = _way(tree)
    if way is None or _own_command(tree, way):
        return False
    named = any(file in _text(tree, script) for script in way.scripts)
    return named or tree.locate(file) == tree.locate(_settings_file(tree, way))


def _judged(tree: Tree, boot: NextBoot) -> NextBoot:
    """With the fault that the program itself has."""
    if not boot.program:
        fault = "no xenstored is installed"
    elif not boot.program.startswith("/"):
        fault = f"{boot.origin}: '{boot.program}' is no absolute path"
    elif not tree.exists(boot.program):
        fault = f"{boot.origin}: {boot.program} is missing, so no xenstored would be started"
    elif not tree.is_program(boot.program):
        fault = f"{boot.origin}: {boot.program} cannot be executed"
    else:
        return boot
    return replace(boot, fault=fault)


def _settings_file(tree: Tree, way: Way | None) -> str:
    """The one of the way's settings files that its script names, else one that is there."""
    candidates = way.settings if way else DEBIAN.settings
    for script in way.scripts if way else ():
        text = _text(tree, script)
        named = [file for file in candidates if file in text]
        if named:
            return named[0]
    return next(filter(tree.exists, candidates), candidates[-1])


def _default(tree: Tree, way: Way | None) -> str:
    """What the script starts where XENSTORED is not set; "" where nothing of it is there."""
    way = way or DEBIAN
    if way is not DEBIAN:
        for script in way.scripts:
            assigned = rf"^[^\w\n]*{settings.VARIABLE}=(/\S+)"
            named = re.search(assigned, _text(tree, script), re.MULTILINE)
            if named:
                return named.group(1)
    version = xen_version(tree) or "*"
    for pattern in way.programs:
        found = tree.matches(pattern.format(version=version))
        if found:
            return found[-1]
    return ""


def xen_version(tree: Tree) -> str:
    """The version of the running Xen, such as "4.17"; "" where this is no Xen host."""
    folder = "/sys/hypervisor/version/"
    version = f"{tree.first_line(folder + 'major')}.{tree.first_line(folder + 'minor')}"
    return version if re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", version) else ""


def _unit_command(tree: Tree) -> list[str]:
    """The words of ExecStart= of xenstored.service, with its drop-ins; [] where there is none."""
    unit = next(
        (f"{folder}/{UNIT}" for folder in UNIT_FOLDERS if tree.exists(f"{folder}/{UNIT}")), ""
    )
    # Of drop-ins with the same name the folder that stands first counts; names are read in order.
    drop_ins: dict[str, str] = {}
    for folder in UNIT_FOLDERS:
        for path in tree.matches(f"{folder}/{UNIT}.d/*.conf"):
            drop_ins.setdefault(os.path.basename(path), path)
    command = ""
    for path in [unit, *(drop_ins[name] for name in sorted(drop_ins))]:
        for value in re.findall(r"^ExecStart=(.*)$", _text(tree, path), re.MULTILINE):
            command = value.strip()
    return command.lstrip("-@:+!").split()


def _text(tree: Tree, path: str) -> str:
    try:
        return tree.read(path) or ""
    except OSError:
        return ""
