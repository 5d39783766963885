# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks: the table is sound, the set-ups are accepted, and the figures say what happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyxsd_bench import cli, daemons, results, runner, standin, wire
from pyxsd_bench.attacks import bout, report
from pyxsd_bench.attacks.model import Attack, Build, Role, Team
from pyxsd_bench.attacks.stage import Stage
from pyxsd_bench.attacks.table import ALL, by_name
from pyxsd_bench.load import Load
from pyxsd_bench.proc import resident
from pyxsd_bench.program import ANY, EITHER, IN_TX, Program
from pyxsd_bench.summary import Summary
from pyxsd_bench.target import Target, start

from .conftest import Server, missing, ok

SECONDS = 0.02
#: One attack of each kind: programs on rings, a function in Python, a deaf guest, sockets.
KINDS = ("deep-write", "half-packets", "flood-deaf", "socket-pipelines")


@pytest.fixture
def daemon() -> Iterator[Target]:
    """pyxsd on the stand-in Xen."""
    program = daemons.places("", "", "", {})["pyxsd"]
    if not os.access(program, os.X_OK):
        missing("pyxsd")
    target = start(daemons.built_in("pyxsd"))
    yield target
    target.close()


def library() -> str:
    return os.path.join(str(standin.load().build_standin()), "lib", bout.LIBRARY)


def builds(attack: Attack) -> list[Build]:
    return [build for role in attack.roles for build in (role.setup, role.step) if build]


def test_names_and_reasons() -> None:
    assert len({attack.name for attack in ALL}) == len(ALL)
    assert all(attack.title and attack.why and attack.guests for attack in ALL)
    with pytest.raises(ValueError, match="no attack is named nonsense"):
        by_name("nonsense")


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_programs(attack: Attack) -> None:
    """The engine takes them, and nobody who counts requests by bytes shares the count."""
    team = Team(tuple(range(10, 10 + attack.guests)))
    with Load() as load:
        for build in builds(attack):
            load.program(build(team))
    deaf = [role for role in attack.roles if role.deaf and role.step]
    assert not deaf or len([role for role in attack.roles if role.step]) == len(deaf)
    assert bool(attack.act) != any(role.step for role in attack.roles)


def strict(build: Build | None) -> Build | None:
    """The same program, but the first request that is refused ends it with an error.

    GET_PERMS may be refused: there are attacks whose lists do not fit into its reply.  So may what
    is in a transaction: there are attacks that fill one until the daemon says that it is enough.
    """
    if build is None:
        return None

    def checked(team: Team) -> Program:
        program = build(team)
        steps = program.steps
        for i, step in enumerate(steps):
            kind = program.blob[step.off] if step.length else -1
            bounded = kind == wire.GET_PERMS or step.flags & IN_TX
            if step.expect == EITHER and not bounded:
                steps[i] = step._replace(expect=ANY)
        return program

    return checked


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_set_up_is_accepted(
    attack: Attack, shared: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set-up that is refused would make a harmless attack."""
    roles = tuple(Role(None, strict(r.setup), via=r.via, conns=r.conns) for r in attack.roles)
    attack = attack._replace(roles=roles)
    stage = Stage(attack, shared.socket, shared.host, library(), 1, 1)
    guest = stage.guest
    refused: list[int] = []

    def watched(domid: int) -> Any:
        found = guest(domid)
        request = found.request

        def checked(kind: int, payload: bytes, **options: Any) -> Any:
            reply = request(kind, payload, **options)
            # A daemon may have enough of open transactions.
            if reply.type == wire.ERROR and kind != wire.TRANSACTION_START:
                refused.append(kind)
            return reply

        found.request = checked
        return found

    monkeypatch.setattr(stage, "guest", watched)
    try:
        assert stage.set_up(lambda: False) == 1
        assert not refused
    finally:
        stage.leave()
        stage.load.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Target]:
    """One daemon for all set-ups, which accepts permission lists of any length.

    The attacks try several lengths, as some daemons have a quota for them.
    """
    if not os.access(daemons.places("", "", "", {})["pyxsd"], os.X_OK):
        missing("pyxsd")
    description = daemons.built_in("pyxsd")
    config = (*description.config, ("quota-maxperms", "0"))
    target = start(description._replace(config=config))
    yield target
    target.close()


@pytest.mark.parametrize("name", KINDS)
def test_a_bout(name: str, daemon: Target) -> None:
    """Every phase has figures of every victim, and the attackers did something."""
    found = bout.bout(daemon, by_name(name), 1, 1, SECONDS)
    about = found.pop("attackers")
    assert about["failures"] == ""
    assert about["requests"] > 0
    assert about["cpu_us"] >= 0
    assert 0 < about["rss_before"] <= about["rss"]
    assert (about["attackers"], about["guests"]) == (1, 1)
    assert set(found) == {f"{v} {p}" for v in ("dom0", "guest", "floor") for p in bout.PHASES}
    for phase in ("before", "during"):
        for victim in ("dom0", "guest", "floor"):
            assert found[f"{victim} {phase}"]["count"] > 0, (victim, phase)
    assert daemon.fate() == ""


def test_several_teams_among_more_guests(daemon: Target) -> None:
    found = bout.bout(daemon, by_name("refused-watchers"), 3, 20, SECONDS)
    assert found["attackers"]["failures"] == ""
    assert (found["attackers"]["attackers"], found["attackers"]["guests"]) == (6, 20)


def test_a_machine_that_holds_no_more_teams(
    daemon: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first team attacks anyway; nobody else is set up in a daemon of that size."""
    carry_out = bout.Bout.carry_out

    def small(self: bout.Bout, seconds: float) -> dict[str, Any]:
        self.memory = 4 * resident(self.target.pid) - 4
        return carry_out(self, seconds)

    monkeypatch.setattr(bout.Bout, "carry_out", small)
    found = bout.bout(daemon, by_name("flood-read"), 5, 5, SECONDS)
    assert (found["attackers"]["attackers"], found["attackers"]["guests"]) == (1, 5)


def test_a_daemon_that_takes_too_much(daemon: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyxsd_bench.attacks.bout.proc.available_memory", lambda: 3)
    found = bout.bout(daemon, by_name("flood-read"), 1, 1, SECONDS)
    assert found["attackers"]["failures"].startswith("took more than")


Phase = Callable[[bout.Bout, str, float, bool], float]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was killed by signal 9"),
        (signal.SIGSTOP, "dom0 had no answer for"),
    ],
)
def test_a_daemon_that_dies_or_hangs(
    number: signal.Signals, said: str, daemon: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named in the row of the attack, and another bout finds a daemon that works."""
    phase: Phase = bout.Bout._phase

    def harmed(self: bout.Bout, name: str, seconds: float, wait: bool = False) -> float:
        if name == "during":
            os.kill(self.target.pid, number)
        return phase(self, name, seconds, wait)

    with monkeypatch.context() as patch:
        patch.setattr(bout.Bout, "_phase", harmed)
        patch.setattr(bout, "HUNG_S", 0.2)
        found = bout.bout(daemon, by_name("flood-read"), 1, 1, SECONDS)
    assert said in found["attackers"]["failures"]
    assert found["dom0 before"]["count"] > 0
    found = bout.bout(daemon, by_name("flood-read"), 1, 1, SECONDS)
    assert found["attackers"]["failures"] == ""


class Probe:
    """The process that is a victim."""

    def __init__(self, server: Server) -> None:
        options = {"socket": server.path, "path": "/x", "value": "OK\0", "echo": False, "pin": -1}
        command = [sys.executable, "-m", "pyxsd_bench.attacks.probe", json.dumps(options)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())  # type: ignore[no-any-return]

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write("phase\n")
        self.process.stdin.flush()
        return self.hear()


def test_the_probe_counts_a_read_that_waits(serve: Callable[..., Server]) -> None:
    """A READ without an answer is reported as waiting, and with its whole length afterwards."""
    open_, held = threading.Event(), threading.Event()
    open_.set()

    def answer(kind: int, req_id: int, tx_id: int, payload: bytes) -> bytes:
        if not open_.is_set():
            held.set()
            open_.wait()
        return ok(kind, req_id, tx_id, payload)

    probe = Probe(serve(answer))
    try:
        open_.clear()
        assert held.wait(20)
        probe.ask()
        silent = probe.ask()
        assert silent["count"] == 0
        assert silent["waiting_us"] > 0
        open_.set()
        after: dict[str, Any] = {"count": 0}
        while not after["count"]:
            after = probe.ask()
        assert after["max_us"] >= silent["waiting_us"]
    finally:
        open_.set()
        probe.process.kill()
        probe.process.communicate()


def test_they_run_where_they_are_named() -> None:
    names = {f"attacks-{attack.name}" for attack in ALL}
    assert {s.name for s in runner.choose(["attacks"])} == names
    assert not names & {s.name for s in runner.choose([])}
    assert not names & {s.name for s in runner.choose(["churn", "watches"])}
    assert [s.name for s in runner.choose(["attacks-kicks"])] == ["attacks-kicks"]


def test_one_sample_each(tmp_path: Path) -> None:
    """However many samples other scenarios get; the file can be read again and has its table."""
    if not os.access(daemons.places("", "", "", {})["pyxsd"], os.X_OK):
        missing("pyxsd")
    out = tmp_path / "result.json"
    options = ["--repeat", "3", "--seconds", str(SECONDS), "-q", "-o", str(out)]
    assert cli.main(["run", "pyxsd", "--only", "attacks-kicks", *options]) == 0
    result = results.load(str(out))
    assert [s["round"] for s in result["samples"] if s["measure"] == "attackers"] == [0]
    table = report.table(Summary([("x", result)]))
    (cells,) = (dict(zip(table.head, row)) for row in table.rows)
    assert cells["attack"] == "kicks"
    assert cells["attacking"] == "1 of 1"
    assert cells["answers"] == "yes"
    assert float(cells["memory before"]) > 1
    page, document = tmp_path / "page.html", tmp_path / "document.md"
    shown = ["--html", str(page), "--markdown", str(document)]
    assert cli.main(["report", str(out), *shown]) == 0
    assert "\n| kicks | 1 of 1 | pyxsd |" in document.read_text()
    assert "<td>kicks</td><td>1 of 1</td><td>pyxsd</td>" in page.read_text()
    # In the table of attacks, and nowhere else.
    assert document.read_text().count("kicks") == 1


def _summary(samples: list[dict[str, Any]]) -> Summary:
    about = {"title": "t", "why": "w", "attack": True}
    result = {"daemons": {"d": {}}, "scenarios": {"attacks-x": about}, "missing": []}
    return Summary([("x", {**result, "samples": samples})])


def _sample(measure: str, **figures: Any) -> dict[str, Any]:
    key = {"scenario": "attacks-x", "size": 1, "daemon": "d", "round": 0, "measure": measure}
    return {**key, **figures}


@pytest.mark.parametrize(
    ("count", "shown"),
    [(5000, "2.5"), (3, "≥ 40.0")],
)
def test_few_reads_have_no_quantile(count: int, shown: str) -> None:
    """With three READs in a second the longest one says more than their p99."""
    samples = [
        _sample("dom0 during", count=count, p99_us=2500.0, max_us=40000.0),
        _sample(
            "attackers", attackers=1, guests=1, failures="d died", requests=0, rate=0.0, cpu_us=0.0
        ),
    ]
    table = report.table(_summary(samples))
    (cells,) = (dict(zip(table.head, row)) for row in table.rows)
    assert cells["dom0 during"] == shown
    assert cells["guest during"] == "–"
    assert cells["worst ms"] == "40.0"
    assert cells["answers"] == "d died"
    assert cells["CPU µs/request"] == "–"


def test_a_set_up_that_failed() -> None:
    """Nobody attacked, so nothing can be said of each attacker."""
    about = {"failures": "late", "requests": 0, "rate": 0.0, "cpu_us": 0.0, "attackers": 0}
    table = report.table(_summary([_sample("attackers", **about, rss=2e6, rss_before=1e6)]))
    (cells,) = (dict(zip(table.head, row)) for row in table.rows)
    assert cells["attacking"] == "0 of 1"
    assert cells["most"] == "2.0"
    assert cells["per attacker"] == "–"


def test_nothing_to_show() -> None:
    assert report.table(_summary([])).rows == []


def test_a_session_has_its_nice_value_back() -> None:
    with contextlib.ExitStack() as stack:
        try:
            before = Path("/proc/self/autogroup").read_text()
        except OSError:
            missing("autogroup")
        stack.enter_context(bout._own_session())
        stack.callback(os.setpriority, os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
        bout.prefer(os.getpid(), 1)
    assert Path("/proc/self/autogroup").read_text() == before
