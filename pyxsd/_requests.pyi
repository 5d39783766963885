# SPDX-License-Identifier: LGPL-2.1-or-later
from pyxsd._commit import Transactions

class RequestError(Exception): ...

class Requests(Transactions):
    max_requests: int
    path_max: int
    @property
    def writes(self) -> int: ...
