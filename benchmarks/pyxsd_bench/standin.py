# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finds the stand-in Xen (glue/standin) and loads its `peers` module.

It is part of the package: in a checkout through symbolic links, as files when installed;
`$PYXSD_STANDIN` names another place.  Its libraries are built on first use, in `glue/build` or the
user's cache.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType


class StandinMissing(Exception):
    """The stand-in Xen was not found or cannot be built."""


def _folder() -> str:
    here = os.path.dirname(os.path.realpath(__file__))
    return os.environ.get("PYXSD_STANDIN") or os.path.join(here, "glue", "standin")


def load() -> ModuleType:
    """The module `peers` of the stand-in.  StandinMissing says where it was looked for."""
    name = "pyxsd_bench_standin_peers"
    if name in sys.modules:
        return sys.modules[name]
    # The real path: what is compiled in a checkout lies beside its glue, not beside the links.
    folder = os.path.realpath(_folder())
    path = os.path.join(folder, "peers.py")
    spec = importlib.util.spec_from_file_location(name, path)
    if not os.path.exists(path) or spec is None or spec.loader is None:
        raise StandinMissing(f"no stand-in Xen in {folder}")
    if not os.access(os.path.dirname(folder), os.W_OK) or "site-packages" in folder:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        os.environ.setdefault("XSD_STANDIN_LIBS", os.path.join(cache, "pyxsd-standin"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
