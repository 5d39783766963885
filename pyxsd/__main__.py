# SPDX-License-Identifier: LGPL-2.1-or-later
"""python -m pyxsd"""

import sys

from pyxsd.cli import main

sys.exit(main())
