# SPDX-License-Identifier: LGPL-2.1-or-later
"""The versions of pyxsd and pyxsd-bench in the files that a distribution reads as they are.

A version is written by hand in one place, `__version__` of the Python package.  `versions.py`
copies the two into the RPM spec.  `versions.py --check` writes nothing: it prints each place that
has another version, the newest entries of the two packages' change logs among them, and ends with
status 1 where there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent

#: Where `__version__` of each distribution stands.
SOURCES = {"pyxsd": "pyxsd/__init__.py", "pyxsd-bench": "benchmarks/pyxsd_bench/__init__.py"}


class Place(NamedTuple):
    """A file that repeats the version of a distribution.

    pattern: one group before the version, one for it.  written: whether this program writes it;
    an entry of a change log is written by whoever makes the release.
    """

    file: str
    distribution: str
    pattern: str
    written: bool


PLACES = (
    Place("packaging/rpm/pyxsd.spec", "pyxsd", r"(?m)^(Version: +)(\S+)$", True),
    Place("packaging/rpm/pyxsd.spec", "pyxsd-bench", r"(?m)^(%global bench_version )(\S+)$", True),
    Place("packaging/rpm/pyxsd.spec", "pyxsd", r"(%changelog\n\* .* - )([^-\s]+)-", False),
    Place("packaging/debian/changelog", "pyxsd", r"\A(pyxsd \()([^-)]+)-", False),
)


def versions(top: Path = TOP) -> dict[str, str]:
    """The version of each distribution."""
    found = {}
    for name, file in SOURCES.items():
        text = (top / file).read_text(encoding="utf-8")
        match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
        assert match is not None, f'{file} has no line __version__ = "..."'
        found[name] = match.group(1)
    return found


def wrong(top: Path = TOP) -> list[str]:
    """A line for each place that has another version than its distribution."""
    right = versions(top)
    lines = []
    for place in PLACES:
        match = re.search(place.pattern, (top / place.file).read_text(encoding="utf-8"))
        said = match.group(2) if match else "no version"
        if said != right[place.distribution]:
            lines.append(
                f"{place.file}: {said}, but {place.distribution} is {right[place.distribution]}"
            )
    return lines


def write(top: Path = TOP) -> None:
    """Writes the versions into the places that this program keeps."""
    right = versions(top)
    for place in PLACES:
        if place.written:
            file = top / place.file
            text = file.read_text(encoding="utf-8")
            file.write_text(
                re.sub(place.pattern, rf"\g<1>{right[place.distribution]}", text, count=1),
                encoding="utf-8",
            )


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    if argv not in ([], ["--check"]):
        print("usage: versions.py [--check]", file=sys.stderr)
        return 2
    if not argv:
        write()
    lines = wrong()
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
