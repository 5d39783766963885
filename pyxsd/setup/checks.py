# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd-setup check: would pyxsd start and serve on this host?  A dry run.

Each check of the table CHECKS reads files and tries libraries, and returns findings.  Nothing is
written, no device is opened, no daemon is spoken to.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pyxsd.setup import boot, installed, running
from pyxsd.setup.tree import Tree
from pyxsd.system import configuration, listening, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from pyxsd.setup.boot import NextBoot
    from pyxsd.system.configuration import Config

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"

OLDEST_PYTHON = (3, 9)
OLDEST_XEN = (4, 14)

#: Free space below which a file system is too small for the state (a few MB) and the logs.
LEAST_BYTES = 32 << 20

#: Folders of shared libraries, beside those that /etc/ld.so.conf.d names.
LIBRARY_FOLDERS = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/lib/*-linux-gnu*",
    "/usr/lib/*-linux-gnu*",
    "/usr/local/lib",
)

#: Patterns of which one must be found each, and what the library is for.
LIBRARIES = (
    (("libxenevtchn.so.1",), "event channels"),
    (("libxengnttab.so.1",), "the guests' pages"),
    (("libxenmanage.so.1", "libxenctrl.so.4.*"), "the states of domains"),
)

DEVICES = (
    ("/dev/xen/evtchn", "xen-evtchn"),
    ("/dev/xen/gntdev", "xen-gntdev"),
    ("/dev/xen/privcmd", "xen-privcmd"),
)


#: Characters.  To take a unit's command of a megabyte apart takes a minute.
_ARGUMENTS_MAX = 16384


@dataclass(frozen=True)
class Finding:
    """One line of the report: OK, NOTE, WARNING or ERROR, and a sentence."""

    level: str
    text: str


@dataclass(frozen=True)
class Subject:
    """What the checks look at.  config is what the daemon would run with."""

    tree: Tree
    boot: NextBoot
    launcher: str
    config_path: str
    config: Config
    warnings: list[str]
    config_fault: str  # why the file was not read, "" if it was
    arguments_fault: str  # what is wrong with XENSTORED_ARGS, "" if nothing is


def subject(tree: Tree, launcher: str) -> Subject:
    """Looks up what all checks need."""
    next_boot = boot.look(tree)
    path, arguments_fault = _arguments(next_boot.arguments)
    text, fault = None, ""
    try:
        text = tree.read(path)
    except OSError as error:
        fault = error.strerror or str(error)
    if text is None and not fault:
        fault = "No such file or directory"
    config, warnings = configuration.parse((text or "").encode("utf-8", "surrogateescape"), path)
    return Subject(tree, next_boot, launcher, path, config, warnings, fault, arguments_fault)


def _arguments(text: str) -> tuple[str, str]:
    """The configuration file that XENSTORED_ARGS names, and what is wrong with them."""
    if len(text) > _ARGUMENTS_MAX:
        return configuration.DEFAULT_PATH, f"there are more than {_ARGUMENTS_MAX} characters"
    try:
        parsed = options.parse(shlex.split(text))
    except ValueError as error:
        return configuration.DEFAULT_PATH, str(error)
    if isinstance(parsed, options.Options):
        return parsed.config_file, ""
    fault = (parsed.stderr or "pyxsd would end at once").split("\n")[0]
    return configuration.DEFAULT_PATH, fault.rstrip(".")


def run(tree: Tree, launcher: str) -> list[Finding]:
    """All findings, in the table's order."""
    about = subject(tree, launcher)
    return [finding for check in CHECKS for finding in check(about)]


def python(about: Subject) -> Iterator[Finding]:
    """The interpreter's version and the extension modules."""
    if not about.tree.is_this_host:
        yield from _python_of(about)
        return
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding(ERROR, f"Python is {version}; pyxsd needs 3.9 or later")
        return
    yield Finding(OK, f"Python {version} ({sys.executable})")
    try:
        import pyxsd._core  # noqa: F401
        import pyxsd._glue  # noqa: F401
    except ImportError as error:
        yield Finding(ERROR, f"pyxsd cannot be loaded: {error}; install the package again")
    else:
        yield Finding(OK, "pyxsd's extension modules can be loaded")


def _python_of(about: Subject) -> Iterator[Finding]:
    """The same for a host whose files lie in a folder: it is looked at, and not run."""
    tree = about.tree
    path = installed.interpreter(tree)
    if not path:
        yield Finding(ERROR, f"no Python: {installed.PYTHON} is missing")
        return
    version = installed.version_of(path)
    shown = ".".join(map(str, version))
    if not version:
        yield Finding(
            WARNING, f"{path} does not tell its version by its name; pyxsd needs 3.9 or later"
        )
        return
    if version < OLDEST_PYTHON:
        yield Finding(ERROR, f"Python is {shown}; pyxsd needs 3.9 or later")
        return
    yield Finding(OK, f"Python {shown} ({path})")
    tag = "".join(map(str, version))
    for copy in installed.copies(tree, about.launcher):
        modules = tree.matches(f"{copy.folder}/pyxsd/_linked.*.so")
        if modules and not any(
            f"cpython-{tag}-" in module or module.endswith(f"cpython-{tag}.so")
            for module in modules
        ):
            yield Finding(
                ERROR,
                f"the copy of pyxsd in {copy.folder} is for another version of "
                f"Python than {shown}; install the package that is for this one",
            )


def copies(about: Subject) -> Iterator[Finding]:
    """One whole installation, and a launcher."""
    found = installed.copies(about.tree, about.launcher)
    if not found:
        yield Finding(
            ERROR,
            "pyxsd itself is not installed: neither in a folder of packages "
            f"nor beside {about.launcher}",
        )
    for copy in found:
        if copy.missing:
            yield Finding(
                ERROR,
                f"the copy of pyxsd in {copy.folder} is incomplete (without "
                f"{', '.join(copy.missing)}); install it again or remove it",
            )
    if len(found) > 1:
        where = ", ".join(f"{copy.version or 'unknown version'} in {copy.folder}" for copy in found)
        yield Finding(
            WARNING,
            f"pyxsd is installed {len(found)} times ({where}); a package's "
            "launcher starts the package's copy; remove the others",
        )
    if about.tree.is_program(about.launcher):
        yield Finding(OK, f"the launcher {about.launcher}")
    else:
        yield Finding(ERROR, f"the launcher {about.launcher} is missing or cannot be executed")


def libraries(about: Subject) -> Iterator[Finding]:
    """Xen's libraries, which pyxsd loads when it starts."""
    folders = [*LIBRARY_FOLDERS, *_configured_folders(about.tree)]
    for patterns, purpose in LIBRARIES:
        found = [
            path
            for pattern in patterns
            for folder in folders
            for path in about.tree.matches(f"{folder}/{pattern}")
        ]
        if not found:
            yield Finding(
                ERROR,
                f"no {' or '.join(patterns)}, for {purpose}: install Xen's "
                "libraries (they come with xl)",
            )
            continue
        fault = _load_fault(found[0]) if about.tree.is_this_host else ""
        if fault:
            yield Finding(ERROR, f"{found[0]}, for {purpose}, cannot be loaded: {fault}")
        else:
            yield Finding(OK, f"{found[0]}, for {purpose}")


def _configured_folders(tree: Tree) -> list[str]:
    folders = []
    for path in ["/etc/ld.so.conf", *tree.matches("/etc/ld.so.conf.d/*.conf")]:
        try:
            lines = (tree.read(path) or "").split("\n")
        except OSError:
            continue
        folders += [line.strip() for line in lines if line.startswith("/")]
    return folders


def _load_fault(path: str) -> str:
    try:
        ctypes.CDLL(path)
    except OSError as error:
        return str(error)
    return ""


def xen(about: Subject) -> Iterator[Finding]:
    """The hypervisor's version, and whether this is domain 0."""
    version = boot.xen_version(about.tree)
    if about.tree.first_line("/sys/hypervisor/type") != "xen" or not version:
        where = (
            "this machine does not run under Xen now"
            if about.tree.is_this_host
            else f"{about.tree.root} does not show a Xen that runs"
        )
        yield Finding(WARNING, f"{where}; what only Xen shows is not checked")
        return
    if tuple(map(int, version.split("."))) < OLDEST_XEN:
        yield Finding(ERROR, f"Xen is {version}; pyxsd needs 4.14 or later")
    else:
        yield Finding(OK, f"Xen {version}")
    if "control_d" not in about.tree.first_line("/proc/xen/capabilities"):
        yield Finding(
            ERROR,
            "this is not domain 0, or xenfs is not mounted: "
            "/proc/xen/capabilities does not say control_d",
        )


def devices(about: Subject) -> Iterator[Finding]:
    """The devices that the libraries open."""
    for path, module in DEVICES:
        try:
            is_device = stat.S_ISCHR(os.stat(about.tree.locate(path)).st_mode)
        except OSError:
            is_device = False
        if is_device:
            yield Finding(OK, f"the device {path}")
        elif boot.xen_version(about.tree):
            yield Finding(ERROR, f"the device {path} is missing: modprobe {module}")


def config(about: Subject) -> Iterator[Finding]:
    """The configuration file and the arguments."""
    if about.arguments_fault:
        yield Finding(
            ERROR, f"{about.boot.file}: XENSTORED_ARGS is not for pyxsd: {about.arguments_fault}"
        )
    if about.config_fault:
        yield Finding(
            WARNING,
            f"the configuration {about.config_path}: {about.config_fault}; "
            "pyxsd would run with its defaults",
        )
    for line in about.warnings:
        yield Finding(WARNING, line)
    if not about.config_fault and not about.warnings:
        yield Finding(OK, f"the configuration {about.config_path}")
    for key, path in (
        ("xenstored-kva", about.config.xenstored_kva),
        ("xenstored-port", about.config.xenstored_port),
    ):
        if not path:
            yield Finding(
                ERROR,
                f"{key} is not configured, so domain 0 would have no ring: write "
                f"'{key} = /proc/xen/xsd_{key.partition('-')[2]}' into "
                f"{about.config_path}",
            )
        elif not about.tree.exists(path) and boot.xen_version(about.tree):
            yield Finding(ERROR, f"{path} ({key}) is missing: mount -t xenfs xenfs /proc/xen")


def folders(about: Subject) -> Iterator[Finding]:
    """Space and permissions where files are written."""
    places = [("the run directory", listening.DEFAULT_RUN_DIRECTORY)]
    for name, path in (
        ("the pid file", about.config.pid_file),
        ("the log", about.config.xenstored_log_file),
        ("the access log", about.config.access_log_file),
    ):
        if path and not path.startswith(configuration.SYSLOG_PREFIX):
            places.append((f"the folder of {name}", os.path.dirname(path) or "/"))
    seen = set()
    for name, path in places:
        if path not in seen:
            seen.add(path)
            yield from _folder(about.tree, name, path)
    if os.geteuid() != 0:
        yield Finding(NOTE, "run this as root: permissions were checked for your user")


def _folder(tree: Tree, name: str, path: str) -> Iterator[Finding]:
    try:
        place = tree.locate(path)
    except OSError as error:
        yield Finding(ERROR, f"{name}, {path}: {error.strerror}")
        return
    if os.path.lexists(place) and not os.path.isdir(place):
        yield Finding(ERROR, f"{name}, {path}, is no folder")
        return
    if not os.path.isdir(place):
        level, what = _missing(name, path)
        yield Finding(level, f"{name}, {path}, is missing{what}")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(ERROR, f"{name}, {path}, cannot be written to")
        return
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_files and not disk.f_favail:
        yield Finding(ERROR, f"{name}, {path}: no file can be made there (no inode is free)")
    elif free < LEAST_BYTES:
        yield Finding(
            ERROR, f"{name}, {path}: {free >> 20} MiB are free; {LEAST_BYTES >> 20} are needed"
        )
    else:
        yield Finding(OK, f"{name}, {path}, {free >> 20} MiB free")


def _missing(name: str, path: str) -> tuple[str, str]:
    """How bad it is that a folder is missing, and what follows.

    The daemon makes its run directory, and no other folder.  Below /run nothing outlives the host's
    restart, so a boot script makes it, or nobody does.
    """
    if name == "the run directory":
        return NOTE, "; it is made at the start"
    if not path.startswith(("/run/", "/var/run/")):
        return ERROR, f": mkdir -p {path}"
    lost = "no pid file is" if name == "the folder of the pid file" else "its lines are not"
    return (
        NOTE if name == "the folder of the pid file" else WARNING,
        f"; pyxsd does not make it, and where the boot script does not either, {lost} written",
    )


def next_boot(about: Subject) -> Iterator[Finding]:
    """What the next boot starts."""
    if about.boot.fault:
        yield Finding(ERROR, f"next boot: {about.boot.fault}")
    elif about.boot.kind == "pyxsd":
        yield Finding(OK, f"the next boot starts {about.boot.program} ({about.boot.origin})")
    else:
        yield Finding(
            NOTE,
            f"the next boot starts {about.boot.program} ({about.boot.origin}); "
            "pyxsd-setup select changes that",
        )
    now = running.look_in(about.tree, ask=False)
    if now.pid:
        yield Finding(NOTE, f"now runs: {now.who}; it goes on until the host is restarted")


def selinux(about: Subject) -> Iterator[Finding]:
    """A security policy that does not know pyxsd."""
    if about.tree.first_line("/sys/fs/selinux/enforce") == "1":
        yield Finding(
            WARNING,
            "SELinux is enforcing, and its reference policy knows no xenstored "
            "of this name: try it with 'setenforce 0' first, and look for denials",
        )


#: All checks, in the report's order.
CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    python,
    copies,
    libraries,
    xen,
    devices,
    config,
    folders,
    selinux,
    next_boot,
)
