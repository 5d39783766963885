# SPDX-License-Identifier: LGPL-2.1-or-later
# The compiled load generator; its contract is load/xb_load.h.
from typing import Any

ffi: Any
lib: Any
