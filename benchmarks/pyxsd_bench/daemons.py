# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which daemons can be measured, and how each is started under the stand-in Xen.

A `Description` is all that is known of a daemon.  The built-in ones are a table; others come
from a description file (an INI file):

    [daemon]
    name = mine
    command = /opt/xen/sbin/oxenstored --no-fork --config-file {config}
    socket = {run}/socket          ; the default
    preload = yes                  ; move hard-wired paths such as /proc/xen and /var/run
    version = /opt/xen/sbin/xl-version           ; optional: prints it
    echo = no                      ; yes: it only sends back what it gets (a floor)
    [config]                       ; optional: lines of the file {config}
    quota-maxwatch = 100
    [environment]                  ; optional
    NAME = value

Placeholders: {run} run directory, {host} the stand-in's directory, {config}, {python}.
"""

from __future__ import annotations

import configparser
import os
import shutil
import sys
from collections.abc import Mapping
from typing import NamedTuple


class BadDescription(Exception):
    """A description file that cannot be used, or an unknown name."""


class Description(NamedTuple):
    """How to start one daemon."""

    name: str
    command: tuple[str, ...]
    config: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    socket: str = "{run}/socket"
    preload: bool = True
    echo: bool = False  # answers with what it was sent: a floor
    version: tuple[str, ...] = ()
    package: str = ""  # what to install where the command is missing
    kind: str = ""  # pyxsd, oxenstored or xenstored, where it is known to be one

    @property
    def keeper(self) -> bool:
        """Has it a keeper, so that another process goes on where the one that serves dies?"""
        return _KEPT in self.config


_KEPT = ("crash-recovery", "true")
_NO_LOG = (("access-log-nb-files", "0"),)
# With its own default of 1024, oxenstored 4.17 stops answering for ever in a boot storm of some
# 30 guests: a connection that caused more events than that is not taken up again.
_OX_EVENTS = (("quota-maxwatchevents", "1000000"),)
_OXEN = (
    ("pid-file", "{run}/daemon.pid"),
    ("xenstored-kva", "{host}/xsd_kva"),
    ("xenstored-port", "{host}/xsd_port"),
    ("xenstored-log-file", "{run}/xenstored.log"),
    ("access-log-file", "{run}/access.log"),
)
_OX_COMMAND = ("{oxenstored}", "--no-fork", "--config-file", "{config}")
_PY_COMMAND = ("{pyxsd}", "--no-fork", "--config-file", "{config}")
_FLOOR = ("{python}", "-m", "pyxsd_bench.floor", "{run}/socket")
_DEBIAN = "Debian package xen-utils-4.17"


def _pyxsd(name: str, *extra: tuple[str, str]) -> Description:
    return Description(
        name, _PY_COMMAND, _OXEN + extra, preload=False, package="pyxsd itself", kind="pyxsd"
    )


BUILT_IN: tuple[Description, ...] = (
    _pyxsd("pyxsd", *_NO_LOG),
    _pyxsd("pyxsd-nopoll", *_NO_LOG, ("poll-time-us", "0")),
    _pyxsd("pyxsd-log"),
    _pyxsd("pyxsd-recovery", *_NO_LOG, _KEPT),
    Description(
        "oxenstored", _OX_COMMAND, _OXEN + _NO_LOG + _OX_EVENTS, package=_DEBIAN, kind="oxenstored"
    ),
    Description(
        "oxenstored-log", _OX_COMMAND, _OXEN + _OX_EVENTS, package=_DEBIAN, kind="oxenstored"
    ),
    Description(
        "xenstored",
        ("{xenstored}", "--no-fork", "--pid-file", "{run}/daemon.pid"),
        package=_DEBIAN,
        kind="xenstored",
    ),
    Description("floor", _FLOOR, preload=False, echo=True),
    Description("floor-poll", (*_FLOOR, "40"), preload=False, echo=True),
)
DEFAULT = ("pyxsd", "oxenstored", "xenstored", "floor", "floor-poll")


def built_in(name: str) -> Description:
    """BadDescription for a name that is not in the table."""
    for description in BUILT_IN:
        if description.name == name:
            return description
    known = ", ".join(description.name for description in BUILT_IN)
    raise BadDescription(f"{name}: not a built-in daemon ({known}) and not a file")


def find(name: str) -> Description:
    """What a word of the command line stands for.  BadDescription where it is nothing.

    A built-in daemon's name; the path of a description file; or NAME=PROGRAM: a build of a
    built-in daemon, which the program's own name tells, under the name NAME.  NAME=VARIANT:PROGRAM
    starts it like that variant (`before=pyxsd-nopoll:/base/bin/pyxsd`).
    """
    called, is_build, program = name.partition("=")
    if is_build:
        return _build(called, program)
    if os.sep in name or name.endswith(".ini"):
        return read(name)
    return built_in(name)


def _build(name: str, program: str) -> Description:
    variant, _, path = program.rpartition(":")
    if not name or not os.access(path, os.X_OK) or os.path.isdir(path):
        raise BadDescription(f"{name}={program}: {path} is no program")
    try:
        like = built_in(variant or os.path.basename(path))
    except BadDescription as error:
        if variant:
            raise
        raise BadDescription(
            f"{name}={program}: no built-in daemon is called "
            f"{os.path.basename(path)}; say which one the program is a build of, "
            f"as in {name}=pyxsd:{path}"
        ) from error
    # Made absolute, for a daemon is started in a directory of its own.
    command = (os.path.abspath(path), *like.command[1:])
    return like._replace(name=name, command=command)


def read(path: str) -> Description:
    """Reads a description file.  BadDescription names the file and the fault."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(path, encoding="utf-8") as source:
            parser.read_file(source)
        section = parser["daemon"]
        name, command = section["name"], tuple(section["command"].split())
        preload = section.getboolean("preload", fallback=True)
        echo = section.getboolean("echo", fallback=False)
    except OSError as error:
        raise BadDescription(f"{path}: {error.strerror}") from error
    except KeyError as error:
        raise BadDescription(f"{path}: {error.args[0]} is missing") from error
    except (configparser.Error, ValueError) as error:
        raise BadDescription(f"{path}: {' '.join(str(error).split())}") from error
    if not name or not command:
        raise BadDescription(f"{path}: name or command is empty")
    return Description(
        name,
        command,
        tuple(parser.items("config")) if parser.has_section("config") else (),
        tuple(parser.items("environment")) if parser.has_section("environment") else (),
        section.get("socket", "{run}/socket"),
        preload,
        echo,
        version=tuple(section.get("version", "").split()),
    )


def _program(name: str) -> str:
    """Where a built-in daemon's program is; the bare name where it is nowhere."""
    override = os.environ.get("XSD_PEER_" + name.upper())
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = override or (beside if os.access(beside, os.X_OK) else shutil.which(name))
    return found or name


def fill(text: str, places: Mapping[str, str]) -> str:
    """Puts the places in; braces that are none of them stay."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def places(run: str, host: str, config: str, programs: Mapping[str, str]) -> dict[str, str]:
    return {
        "run": run,
        "host": host,
        "config": config,
        "python": sys.executable,
        "pyxsd": _program("pyxsd"),
        **programs,
    }
