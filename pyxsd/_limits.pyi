# SPDX-License-Identifier: LGPL-2.1-or-later
from typing import Any, NamedTuple

QUOTA_MAX: int
NEVER: int

class Quota(NamedTuple):
    name: str
    key: str
    scope: str
    least: int
    unlimited: int
    meaning: str

QUOTAS: tuple[Quota, ...]
NAMES: dict[str, int]

class Limits:
    def __new__(cls, config: Any) -> Limits: ...
    def get(self, name: str) -> int: ...
    def shown(self, name: str) -> str: ...
    def set(self, name: str, value: int) -> None: ...
    def of_owner(self, owner: int) -> int: ...
    def shown_of_owner(self, owner: int) -> str: ...
    def set_owner(self, owner: int, value: int) -> None: ...
