# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prints requirements that the project's pyproject.toml files state, one a line, for `pip -r`.

`requirements.py PART...`: PART is "build" (what building needs), "run" (what running needs) or the
name of an extra.  Both distributions are asked, pyxsd and, where it is there, pyxsd-bench.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

TOP = Path(__file__).resolve().parent.parent
FILES = (TOP / "pyproject.toml", TOP / "benchmarks" / "pyproject.toml")


def parts(document: dict[str, Any]) -> dict[str, list[str]]:
    """The requirements of one pyproject.toml by part."""
    project = document["project"]
    return {
        "build": document["build-system"]["requires"],
        "run": project.get("dependencies", []),
        **project.get("optional-dependencies", {}),
    }


def main(wanted: list[str]) -> None:
    """Ends with a message where no file has a part of that name."""
    known = [parts(tomllib.loads(path.read_text("utf-8"))) for path in FILES if path.exists()]
    lines: dict[str, None] = {}
    for part in wanted:
        if not any(part in one for one in known):
            sys.exit(f"requirements.py: no part {part} in {', '.join(map(str, FILES))}")
        lines.update(dict.fromkeys(line for one in known for line in one.get(part, [])))
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
