# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prints the requirements of an extra of pyproject.toml, one a line, for pip."""

import re
import sys
from pathlib import Path

TEXT = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")


def main() -> None:
    """requirements.py EXTRA"""
    line = re.search(rf"^{re.escape(sys.argv[1])} = \[(.*?)\]", TEXT, re.MULTILINE | re.DOTALL)
    if line is None:
        sys.exit(f"no extra {sys.argv[1]} in pyproject.toml")
    print("\n".join(re.findall(r'"([^"]+)"', line.group(1))))


main()
