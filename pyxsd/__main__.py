# SPDX-License-Identifier: LGPL-2.1-or-later
"""python -m pyxsd"""

import sys

from pyxsd.cli import main

if __name__ == "__main__":
    sys.exit(main())
