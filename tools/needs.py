# SPDX-License-Identifier: LGPL-2.1-or-later
"""Says in one line what is missing for building pyxsd, and what to install.

`make` runs this with the Python that it would make .venv with, before anything else.  It runs on
any Python 3, however old, so that it can say that one is too old.
"""

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig


def has_compiler() -> bool:
    """A C compiler: $CC, else gcc or cc."""
    words = shlex.split(os.environ.get("CC", ""))
    return any(shutil.which(name) for name in (words[:1] or ["gcc", "cc"]))


def has_headers() -> bool:
    """Python.h of this Python."""
    return os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))


def has_venv() -> bool:
    """What `python -m venv` needs; Debian has it in a package of its own."""
    return importlib.util.find_spec("ensurepip") is not None


# what is asked, what it is called, the Debian package that has it
NEEDS = (
    (lambda: sys.version_info >= (3, 9), "Python 3.9 or later", "python3"),
    (has_compiler, "a C compiler", "gcc"),
    (lambda: shutil.which("make"), "make", "make"),
    (has_headers, "the headers of Python", "python3-dev"),
    (has_venv, "Python's venv", "python3-venv"),
)


def missing() -> str:
    """One line that says what is missing and how Debian installs it; "" where nothing is."""
    rows = [(name, package) for have, name, package in NEEDS if not have()]
    if not rows:
        return ""
    names = ", ".join(name for name, _ in rows)
    packages = " ".join(package for _, package in rows)
    return f"pyxsd cannot be built: {names} missing. On Debian: apt install {packages}"


if __name__ == "__main__":
    sys.exit(missing() or 0)
