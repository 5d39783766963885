# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m pyxsd_bench` is `pyxsd-bench`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
