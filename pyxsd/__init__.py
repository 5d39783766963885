# SPDX-License-Identifier: LGPL-2.1-or-later
"""pyxsd: a Xenstore daemon, a drop-in replacement for oxenstored."""

import sys

__version__ = "0.1.0"

try:
    from pyxsd import _linked
except ImportError:
    pass  # each extension module has a file of its own (see setup.py), or there are none
else:
    # An editable installation offers its own where a copy elsewhere has none.
    if str(_linked.__file__).startswith(__path__[0] + "/"):
        from pyxsd.linked import Linked

        sys.meta_path.insert(0, Linked(_linked))
