# SPDX-License-Identifier: LGPL-2.1-or-later
"""One bout: a fresh daemon, its victims, and the attackers, measured from before to after.

Four processes beside the daemon: two victims (a socket of dom0 and a guest's ring), a third one
that reads from an echo server and so shows how late the generator's side itself is, and all
attackers together.  The daemon has one CPU, everything else the other; the victims and the echo
server have real-time priority there.

Phases: `before` (the attackers' domains are introduced and say nothing), `set-up`, `during`,
`after` (they have stopped, what they made is still there), `end` (their domains die and dom0
clears up).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from .. import daemons, placement, proc, standin, wire
from ..measure import Sample
from ..program import Program
from ..target import DaemonFailed, Target, start
from .model import Attack

VALUE = "v" * 32
OWN = "/local/domain/1/data"
VICTIM = 1  # the domid of the guest that suffers
LIBRARY = "libxsdguest.so"
DURING, AROUND = 4.0, 0.7  # so many times the seconds of a sample
HUNG_S = 10.0  # a READ that takes longer is a daemon that hangs
SET_UP_S = 30.0
ANSWER_S = 60.0
SLICE_S = 0.05
# What else runs on this machine must not be taken for the daemon, or keep the attackers quiet.
DAEMON_NICE, ATTACKERS_NICE = -19, -10
PHASES = ("before", "set-up", "during", "after", "end")


class Helper:
    """One of the processes, spoken to in lines."""

    def __init__(self, module: str, options: dict[str, Any]) -> None:
        self.name = module
        command = [sys.executable, "-m", f"pyxsd_bench.attacks.{module}", json.dumps(options)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def hear(self, seconds: float) -> dict[str, Any]:
        """Its answer.  DaemonFailed where none comes in time, or it says that something failed."""
        stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]
        if not select.select([stdout], [], [], seconds)[0]:
            raise DaemonFailed(f"no answer to the {self.name} within {seconds:g} s")
        line = stdout.readline()
        if not line:
            raise DaemonFailed(f"the {self.name} ended")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise DaemonFailed(found["error"])
        return found

    def ask(self, line: str, seconds: float = ANSWER_S) -> dict[str, Any]:
        self.say(line)
        return self.hear(seconds)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def generator_cpu() -> int:
    """The CPU of everything but the daemon; -1 where nothing is pinned."""
    mine = os.sched_getaffinity(0)
    return min(mine) if len(mine) == 1 and (os.cpu_count() or 1) > 1 else -1


def peak(pid: int) -> int:
    """The largest resident memory since `forget_peak`, in bytes."""
    with open(f"/proc/{proc.serving(pid)}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return proc.memory(pid)


def forget_peak(pid: int) -> None:
    """The largest resident memory is counted from now on (proc(5): clear_refs)."""
    with contextlib.suppress(OSError), open(f"/proc/{proc.serving(pid)}/clear_refs", "w") as out:
        out.write("5")


def waited_ns(pid: int) -> int:
    """How long a daemon was ready to run and had no CPU; 0 where the kernel does not say."""
    try:
        with open(f"/proc/{proc.serving(pid)}/schedstat", encoding="ascii") as stat:
            return int(stat.read().split()[1])
    except (OSError, IndexError):
        return 0


class Bout:
    """The measurement of one attack on one daemon."""

    def __init__(self, target: Target, attack: Attack, teams: int, guests: int) -> None:
        self.target = target
        self.attack = attack
        self.teams = teams
        self.guests = guests
        self.victims: dict[str, Helper] = {}
        self.figures: dict[str, Sample] = {}
        # Until the attackers did something: no request was counted, and none cost anything.
        self.about: dict[str, Any] = {"attackers": 0, "requests": 0, "rate": 0.0, "cpu_us": 0.0}
        self.echo = 0  # the process of the echo server
        self.memory = proc.available_memory() // 3  # bytes that the daemon may take
        self.failures: list[str] = []

    def carry_out(self, seconds: float) -> dict[str, Sample]:
        """All figures by measure, "dom0 during" and so on; "attackers" says the rest."""
        with contextlib.ExitStack() as stack:
            try:
                self._carry_out(seconds, stack)
            except (DaemonFailed, OSError) as error:
                self.failures.append(str(error))
                if proc.alive(self.target.pid):
                    self.about["rss"] = peak(self.target.pid)
            if not proc.alive(self.target.pid):
                self.failures.insert(0, self.target.fate())
        self.about["failures"] = "; ".join(self.failures)
        return {**self.figures, "attackers": self.about}

    def _carry_out(self, seconds: float, stack: contextlib.ExitStack) -> None:
        pid = self.target.pid
        echo = stack.enter_context(_echo_server())
        self.echo = echo.pid
        attackers = self._arrive(stack, echo.socket)
        forget_peak(pid)
        self.about["rss_before"] = proc.memory(pid)
        idle = self._phase("before", AROUND * seconds)
        begin = time.monotonic()
        ready = attackers.ask("set-up", SET_UP_S + ANSWER_S)
        self.about["set_up_s"] = time.monotonic() - begin
        self._phase("set-up", 0.0)
        self.about["attackers"] = ready["teams"] * self.attack.guests
        attackers.ask("run")
        cpu, late, begin = proc.cpu(pid).total_ns, waited_ns(pid), time.monotonic()
        probes = self._phase("during", DURING * seconds, wait=True)
        took = time.monotonic() - begin
        spent = proc.cpu(pid).total_ns - cpu
        score = attackers.ask("stop")
        share = (waited_ns(pid) - late) / 1e9 / took
        self._cost(score, spent / 1e3, took, probes * idle)
        self.about["late_share"] = share
        self._phase("after", AROUND * seconds)
        self.about["rss"] = peak(pid)
        self.about["rss_kept"] = proc.memory(pid)
        attackers.ask("leave")
        self._phase("end", 0.0, wait=True)
        self.about["rss_after"] = proc.memory(pid)

    def _arrive(self, stack: contextlib.ExitStack, floor: str) -> Helper:
        """Everybody is there and says nothing yet."""
        cpu = generator_cpu()
        library = os.path.join(str(standin.load().build_standin()), "lib", LIBRARY)
        reading = {"value": VALUE, "path": "/bench", "echo": False, "pin": cpu}
        ring = {**reading, "library": library, "host": self.target.host, "domid": VICTIM}
        where = {"socket": self.target.socket, "host": self.target.host, "library": library}
        attacking = {
            **where,
            "attack": self.attack.name,
            "guests": self.guests,
            "teams": self.teams,
            "set_up_s": SET_UP_S,
            "pid": self.target.pid,
            "memory": self.memory // 4,
            "pin": cpu,
        }
        attackers = Helper("attacker", attacking)
        stack.callback(attackers.close)
        prefer(attackers.process.pid, ATTACKERS_NICE)
        port = self._victims_domain(library)
        for name, options in (
            ("dom0", {**reading, "socket": self.target.socket}),
            ("guest", {**ring, "port": port, "path": OWN}),
            ("floor", {**reading, "socket": floor, "echo": True}),
        ):
            self.victims[name] = Helper("probe", options)
            stack.callback(self.victims[name].close)
        self.about["guests"] = attackers.hear(ANSWER_S)["guests"]
        real = [victim.hear(ANSWER_S)["real_time"] for victim in self.victims.values()]
        self.about["real_time"] = all(real)
        for victim in self.victims.values():
            victim.ask("begin")
        return attackers

    def _victims_domain(self, library: str) -> int:
        with self.target.load() as rings, self.target.load() as load:
            rings.rings(library, self.target.host)
            port = rings.create_domain(VICTIM)
            program = Program().write("/bench", VALUE.encode())
            program.send(wire.INTRODUCE, b"%d\0%d\0%d\0" % (VICTIM, VICTIM + 1000, port))
            program.write(OWN, VALUE.encode()).set_perms(OWN, f"n{VICTIM}")
            load.connect(self.target.socket, program, loops=1)
            load.finish(self.target.alive)
        return port

    def _phase(self, phase: str, seconds: float, wait: bool = False) -> float:
        """Lets it last `seconds` from now, and takes the victims' figures.

        `wait`: a READ that is unanswered then gets HUNG_S more.  DaemonFailed where that is not
        enough.  In the phase before: the daemon's CPU for one READ in microseconds; in the others
        how many READs there were.
        """
        served = {"dom0": self.target.pid, "guest": self.target.pid, "floor": self.echo}
        cpu = {pid: proc.cpu(pid).total_ns for pid in served.values()}
        begin = time.monotonic()
        self._sleep(seconds)
        spent = {pid: (proc.cpu(pid).total_ns - ns) / 1e3 for pid, ns in cpu.items()}
        took, count = time.monotonic() - begin, 0
        silent: list[str] = []
        for name, victim in self.victims.items():
            figures = victim.ask("phase")
            figures["units"] = figures["count"]
            figures["seconds"] = took
            figures["rate"] = figures["count"] / took
            figures["cpu_us"] = spent[served[name]] / max(figures["count"], 1)
            if wait and not silent and figures["waiting_us"] > 1e5:
                self._wait_for(victim, figures)
            if figures["waiting_us"] > HUNG_S * 1e6:
                silent.append(f"{name} had no answer for {figures['waiting_us'] / 1e6:.0f} s")
            # A READ that nobody answered yet took at least as long as it has been waiting.
            figures["max_us"] = max(figures.get("max_us", 0.0), figures["waiting_us"])
            self.figures[f"{name} {phase}"] = figures
            count += figures["count"] if name != "floor" else 0
        if silent:
            raise DaemonFailed("; ".join(silent))
        if phase == "before":
            return spent[self.target.pid] / max(count, 1)
        return float(count)

    def _sleep(self, seconds: float) -> None:
        """DaemonFailed where the daemon takes so much memory that the machine is in danger."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_S))
            if proc.alive(self.target.pid) and proc.resident(self.target.pid) > self.memory:
                raise DaemonFailed(f"took more than {self.memory // 10**6:,} MB")

    def _wait_for(self, victim: Helper, figures: Sample) -> None:
        """Adds the READ that is unanswered to a phase's figures: it gets HUNG_S more."""
        end = time.monotonic() + HUNG_S
        while time.monotonic() < end and proc.alive(self.target.pid):
            self._sleep(SLICE_S)
            more = victim.ask("phase")
            figures["waiting_us"] = more["waiting_us"]
            if more["count"]:
                figures["max_us"] = max(figures.get("max_us", 0.0), more["max_us"])
                figures["waiting_us"] = 0.0
                break

    def _cost(self, score: dict[str, Any], spent_us: float, took: float, own_us: float) -> None:
        """CPU per request of the attackers; what the victims' own READs cost is taken off."""
        requests = max(score["requests"], 1)
        self.about.update(
            requests=score["requests"],
            steps=score["steps"],
            rate=score["requests"] / took,
            seconds=took,
            cpu_us=max(spent_us - own_us, 0.0) / requests,
            cpu_share=spent_us / 1e6 / took,
            gen_us=score["cpu_s"] * 1e6 / requests,
        )


@contextlib.contextmanager
def _echo_server() -> Iterator[Target]:
    """An echo server of real-time priority on the generator's CPU."""
    echo = start(daemons.built_in("floor"))
    try:
        if generator_cpu() >= 0:
            os.sched_setaffinity(echo.pid, [generator_cpu()])
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(echo.pid, os.SCHED_FIFO, os.sched_param(30))
        yield echo
    finally:
        echo.close()


def prefer(pid: int, nice: int) -> None:
    """Gives a daemon the CPU before everything else on this machine, as far as it is permitted.

    Where the kernel shares the CPU among sessions first (autogroup), a process's own nice value
    counts within its session only, so the session gets it too.
    """
    with contextlib.suppress(OSError):
        for task in placement.tasks(pid):
            os.setpriority(os.PRIO_PROCESS, task, nice)
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as session:
            session.write(str(nice))


@contextlib.contextmanager
def _own_session() -> Iterator[None]:
    """The session of this process, which is the daemon's, has its nice value back afterwards."""
    before = ""
    with contextlib.suppress(OSError, IndexError):
        with open("/proc/self/autogroup", encoding="ascii") as session:
            before = session.read().split()[-1]
    try:
        yield
    finally:
        if before:
            with contextlib.suppress(OSError):
                with open("/proc/self/autogroup", "w", encoding="ascii") as session:
                    session.write(before)


def _apart(pid: int) -> None:
    """Keeps the daemon off the generator's CPU."""
    others = set(range(os.cpu_count() or 1)) - {generator_cpu()}
    for task in placement.tasks(pid):
        if generator_cpu() >= 0:
            os.sched_setaffinity(task, others)


def bout(
    target: Target, attack: Attack, teams: int, guests: int, seconds: float
) -> dict[str, Sample]:
    """Carries an attack out on a fresh daemon of the same kind, which is stopped behind it.

    A daemon that dies or hangs so harms no other attack; the sample "attackers" says what happened.
    """
    daemon = target.again()
    try:
        _apart(daemon.pid)
        with _own_session():
            prefer(daemon.pid, DAEMON_NICE)
            return Bout(daemon, attack, teams, guests).carry_out(seconds)
    finally:
        with contextlib.suppress(OSError):
            os.kill(daemon.pid, signal.SIGKILL)  # it may be busy for minutes with what is left
        daemon.close()
