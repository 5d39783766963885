# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which copies of pyxsd are installed on a host, their versions, and whether all of them is there.

More than one is a trap: a copy that pip put below /usr/local is found before the package's, so
the package's launcher would start it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pyxsd.setup.tree import Tree

#: Folders of Python packages, in the order in which system-wide interpreters search them.
FOLDERS = (
    "/usr/local/lib/python3.*/dist-packages", "/usr/local/lib/python3.*/site-packages",
    "/usr/local/lib64/python3.*/site-packages",
    "/usr/lib/python3/dist-packages", "/usr/lib64/python3.*/site-packages",
    "/usr/lib/python3.*/site-packages",
)

#: One of each kind of file that a whole copy has: program, extension module, glue.
PARTS = ("cli.py", "_core.*.so", "_glue.*.so", "setup/launch.py")


@dataclass(frozen=True)
class Copy:
    """One installed copy.

    folder: where the folder `pyxsd` lies.  version: "" where nothing says it.  missing: patterns
    of files that it lacks, relative to the folder `pyxsd`.
    """

    folder: str
    version: str
    missing: tuple[str, ...] = ()


def copies(tree: Tree) -> list[Copy]:
    """All copies in the usual folders, the one that is found first at the front."""
    found: list[Copy] = []
    places: list[str] = []
    for pattern in FOLDERS:
        for folder in tree.matches(pattern):
            place = tree.locate(folder)
            if os.path.isdir(os.path.join(place, "pyxsd")) and place not in places:
                places.append(place)
                found.append(_copy(tree, folder))
    return found


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


def version_here() -> str:
    """The version of the copy that this program belongs to; "" where it does not say."""
    import pyxsd

    return str(getattr(pyxsd, "__version__", ""))
