# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd` of which a part is missing: one line and a status, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyxsd
from pyxsd.__main__ import STATUS_NOT_INSTALLED

#: What the daemon's program finds when it begins.
BEGINS = """
import gc, sys, types
sys.modules["pyxsd.cli"] = types.SimpleNamespace(main=lambda: 1 + gc.isenabled())
from pyxsd.__main__ import main
sys.exit(main())
"""
#: None in sys.modules is a module that is not there.
WITHOUT = (
    "import sys; sys.modules['pyxsd._core'] = None; sys.argv[1:] = ['--version']; "
    "from pyxsd.__main__ import main; sys.exit(main())"
)


def test_a_module_is_missing() -> None:
    folder = Path(str(pyxsd.__file__)).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=folder, text=True, check=False, capture_output=True
    )
    assert (done.returncode, done.stdout) == (STATUS_NOT_INSTALLED, "")
    assert done.stderr.startswith("pyxsd: cannot be loaded: ") and done.stderr.count("\n") == 1
    assert "pyxsd._core" in done.stderr


def test_what_is_imported_is_not_looked_through() -> None:
    folder = Path(str(pyxsd.__file__)).parent.parent
    assert subprocess.run([sys.executable, "-c", BEGINS], cwd=folder, check=False).returncode == 1
