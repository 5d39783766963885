# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import final

from pyxsd._core import Server

@final
class Blanked:
    def __new__(cls, server: Server) -> Blanked: ...
    def records(self, data: bytes) -> bytes: ...
