# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which copies of pyxsd are installed on a host, their versions, and whether all of them is there.

More than one is a trap: the programs of a package take the package's copy, whereas the same Python,
asked by hand with `python3 -m pyxsd`, finds one that pip put below /usr/local first.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass

from pyxsd.setup.tree import Tree

#: Folders of Python packages: those of the distribution's packages, then those of pip.
FOLDERS = (
    "/usr/lib/python3/dist-packages",
    "/usr/lib64/python3.*/site-packages",
    "/usr/lib/python3.*/site-packages",
    "/usr/local/lib/python3.*/dist-packages",
    "/usr/local/lib/python3.*/site-packages",
    "/usr/local/lib64/python3.*/site-packages",
    "/opt/pyxsd/lib*/python3.*/site-packages",  # docs/installation.md
)

#: The Python that a package's programs are run with.
PYTHON = "/usr/bin/python3"

#: One of each kind of file that a whole copy has: program, extension module, glue.
PARTS = ("cli.py", "_linked.*.so", "_glue.*.so", "setup/launch.py")


@dataclass(frozen=True)
class Copy:
    """One installed copy.

    folder: where the folder `pyxsd` lies.  version: "" where nothing says it.  missing: patterns
    of files that it lacks, relative to the folder `pyxsd`.
    """

    folder: str
    version: str
    missing: tuple[str, ...] = ()


def copies(tree: Tree, launcher: str = "") -> list[Copy]:
    """All copies in the usual folders, those of packages first.

    Also the copy that `launcher` starts, where pip has put both into an environment of its own such
    as /opt/pyxsd; and of this host the one that this program belongs to, wherever it lies.
    """
    found: list[Copy] = []
    places: list[str] = []
    folders = [folder for pattern in FOLDERS for folder in tree.matches(pattern)]
    folders += _beside(tree, launcher)
    if tree.is_this_host:
        folders.append(folder_here())
    for folder in folders:
        place = tree.locate(folder)
        if os.path.isdir(os.path.join(place, "pyxsd")) and place not in places:
            places.append(place)
            found.append(_copy(tree, folder))
    return found


def _beside(tree: Tree, launcher: str) -> list[str]:
    """The folders of Python packages of the environment in which the launcher lies: of
    /usr/sbin/pyxsd-launch -> /opt/pyxsd/bin/pyxsd-launch /opt/pyxsd/lib/python3.*/site-packages."""
    if not launcher:
        return []
    try:
        place = tree.locate(launcher)[len(tree.root.rstrip("/")) :]
    except OSError:
        return []
    environment = glob.escape(os.path.dirname(os.path.dirname(place)))
    return [
        folder
        for lib in ("lib", "lib64")
        for folder in tree.matches(f"{environment}/{lib}/python3.*/site-packages")
    ]


def interpreter(tree: Tree) -> str:
    """The host's own Python, such as /usr/bin/python3.11; "" where there is none.

    Debian and Fedora have /usr/bin/python3 as a link to the file with the version in its name.
    """
    place = tree.locate(PYTHON)
    return place[len(tree.root.rstrip("/")) :] if os.path.isfile(place) else ""


def version_of(interpreter_path: str) -> tuple[int, ...]:
    """(3, 11) for /usr/bin/python3.11; () where the name has no version."""
    named = re.search(r"/python(\d+)\.(\d+)$", interpreter_path)
    return tuple(map(int, named.groups())) if named else ()


def _copy(tree: Tree, folder: str) -> Copy:
    package = f"{folder}/pyxsd"
    missing = tuple(part for part in PARTS if not tree.matches(f"{package}/{part}"))
    return Copy(folder, _version(tree, folder), missing)


def _version(tree: Tree, folder: str) -> str:
    for pattern in ("pyxsd-*.dist-info", "pyxsd-*.egg-info"):
        for path in tree.matches(f"{folder}/{pattern}"):
            return os.path.basename(path).split("-")[1].replace(".dist", "").replace(".egg", "")
    try:
        text = tree.read(f"{folder}/pyxsd/__init__.py") or ""
    except OSError:
        text = ""
    named = re.search(r"^__version__\b[^=]*=\s*[\"']([^\"']+)", text, re.MULTILINE)
    return named.group(1) if named else ""


def folder_here() -> str:
    """The folder in which the folder `pyxsd` of this program lies."""
    import pyxsd

    return os.path.dirname(os.path.dirname(os.path.abspath(str(pyxsd.__file__))))


def version_here() -> str:
    """The version of the copy that this program belongs to; "" where it does not say."""
    import pyxsd

    return str(getattr(pyxsd, "__version__", ""))
