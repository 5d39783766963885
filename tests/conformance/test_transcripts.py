# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every transcript of a real oxenstored, in process: no answer may differ."""

from __future__ import annotations

import pytest

from tests.conformance.replay import play, transcripts

IN_PROCESS = transcripts("lifecycle")
ALL = transcripts()


@pytest.mark.parametrize("name", IN_PROCESS)
def test_packet_by_packet(name: str) -> None:
    play(name).close()


@pytest.mark.parametrize("name", IN_PROCESS)
def test_byte_by_byte(name: str) -> None:
    play(name, pieces=True).close()


@pytest.mark.parametrize("name", ALL)
def test_over_sockets_and_rings(name: str) -> None:
    play(name, rings=True).close()
