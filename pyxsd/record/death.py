# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a recording of a crash ends with: how the daemon died.

One value (state.values), a dict:

    cause     in words: "killed by SIGSEGV"
    begun     requests whose serving had begun, since the daemon's start; none behind them was
    served    and how many of them were served: one less than `begun` where it died within one
"""

from __future__ import annotations

from pyxsd.named import NamedTuple
from pyxsd.state import values
from pyxsd.state.host_state import StateError


class Death(NamedTuple):
    """See the head of the file."""

    cause: str
    begun: int
    served: int

    @property
    def request(self) -> int:
        """The number of the request within which it died; 0: within none."""
        return self.begun if self.begun > self.served else 0


def of(cause: str, begun: int, served: int) -> Death:
    """served: the number of the last request that was served where the counts were kept; 0 where
    that was none."""
    return Death(cause, begun, begun - (begun > served))


def write(death: Death) -> bytes:
    """As bytes."""
    return values.encode(death._asdict())


def read(data: bytes) -> Death:
    """From bytes; StateError where they make no sense."""
    try:
        death = Death(**values.decode(data))
        kinds = type(death.cause), type(death.begun), type(death.served)
        if kinds != (str, int, int) or not 0 <= death.served <= death.begun <= death.served + 1:
            raise ValueError(repr(death))
    except (TypeError, ValueError, StateError) as error:
        raise StateError(f"no end of a recording of a crash: {error}") from None
    return death
