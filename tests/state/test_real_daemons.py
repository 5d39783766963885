# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's own daemons go on with a state that was read and written anew in the middle of their
live update, with their clients, guests, watches and store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pyxsd.state import show
from tests.clients.daemon import Client, wait_for
from tests.domains.standin import PROJECT, Stand, home, introduce, peers, require, works
from tests.world import EVENT, TYPES

STATES = {"oxenstored": "db", "xenstored": "state_dump"}


def update(stand: Stand, client: Client, program: Path) -> None:
    """The dialogue of a live update; it is over when this returns."""

    def ask(*words: str) -> bytes:
        return bytes(
            client.ask(
                "CONTROL", b"".join(word.encode() + b"\0" for word in ("live-update", *words))
            )[1]
        )

    assert ask("-f", str(program)) in (b"OK\0", b"OK")
    wait_for(lambda: ask("-s", "-t", "30") in (b"OK\0", b"OK"), "the update does not end")


def heard(watcher: Client, event: bytes) -> bool:
    """Waits for an event; those of the watch's beginning and of the update may come before it."""
    while True:
        type_, _, _, body = watcher.packet()
        if type_ == EVENT and body == event:
            return True


@pytest.fixture(name="stand", params=sorted(STATES))
def a_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    name = request.param
    try:
        program = peers.find_program(name)
    except peers.PeerMissing as error:
        require(str(error))
    stand = Stand(name)
    successor = stand.root / "successor"
    successor.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.state.successor "$@"\n')
    successor.chmod(0o755)
    for key, value in (
        ("PROGRAM", program),
        ("STATE", stand.root / "run" / STATES[name]),
        ("COPY", stand.root / "copy"),
    ):
        monkeypatch.setenv(f"SUCCESSOR_{key}", str(value))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    with stand:
        yield stand.start()


def test_it_goes_on(stand: Stand) -> None:
    with stand.client() as client, stand.client() as watcher:
        domains = [stand.host.create(domid) for domid in (1, 3)]
        for domain in domains:
            assert introduce(client, domain) == b"OK\0"
            home(client, domain.domid)
            works(domain, client)
        client.ask("WRITE", b"/a\0\x00binary\xff")
        client.ask("SET_PERMS", b"/a\0b0\0r3\0")
        watcher.ask("WATCH", b"/a\0token\0")
        assert domains[1].request(TYPES["WATCH"], b"in\0tok\0").payload == b"OK\0"
        assert domains[1].packet().payload == b"in\0tok\0"
        before = stand.pid

        update(stand, client, stand.root / "successor")

        assert stand.pid == before and "successor" not in os.readlink(f"/proc/{before}/exe")
        assert (stand.root / "copy").exists()
        shown = show.read_any((stand.root / "copy").read_bytes())
        assert {c.domid for c in shown.clients if c.domid is not None} == {0, 1, 3}
        assert client.ask("READ", b"/a\0")[1] == b"\x00binary\xff"
        assert client.ask("GET_PERMS", b"/a\0")[1] == b"b0\0r3\0"
        for domain in domains:
            works(domain, client)
        client.ask("WRITE", b"/a/b\0x")
        assert heard(watcher, b"/a/b\0token\0")
        client.ask("WRITE", b"/local/domain/3/in\0x")
        assert domains[1].packet().payload == b"in\0tok\0"
