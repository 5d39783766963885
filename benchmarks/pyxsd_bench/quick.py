# SPDX-License-Identifier: LGPL-2.1-or-later
"""`pyxsd-bench load`: one look at one running daemon, without scenarios or result files."""

from __future__ import annotations

import argparse
import socket as sockets
import sys
from typing import Callable

from . import proc, show
from .arguments import finite, told, whole
from .load import Load, LoadError
from .program import Program

VALUE = b"v" * 32
STEPS = 256


def _fill(n: int) -> Program:
    program = Program()
    for i in range(n):
        program.write(f"/bench/q/{i}", VALUE)
    return program


def _each(add: Callable[[Program, int], object]) -> Callable[[], Program]:
    def build() -> Program:
        program = Program()
        for i in range(STEPS):
            add(program, i)
        return program

    return build


def _mixed(p: Program, i: int) -> None:
    """About what real hosts do: a third reads, a quarter writes, some listings."""
    path = f"/bench/q/{i}"
    if i % 8 < 4:
        p.read(path, VALUE)
    elif i % 8 < 6:
        p.write(path, VALUE)
    elif i % 8 == 6:
        p.get_perms(path)
    else:
        p.directory(path, b"")


def _transaction(p: Program, i: int) -> None:
    if i % 16:
        return
    p.mark().start()
    for k in range(5):
        p.read(f"/bench/q/{i + k}", VALUE).write(f"/bench/q/{i + k}", VALUE)
    p.commit().lap(1)


def _churn(p: Program, i: int) -> None:
    p.mark().connect().read(f"/bench/q/{i}", VALUE).close().lap(1)


MIXES = {
    "read": _each(lambda p, i: p.read(f"/bench/q/{i}", VALUE)),
    "write": _each(lambda p, i: p.write(f"/bench/q/{i}", VALUE)),
    "directory": _each(lambda p, i: p.directory("/bench/q/0", b"")),
    "getperms": _each(lambda p, i: p.get_perms(f"/bench/q/{i}")),
    "mixed": _each(_mixed),
    "transaction": _each(_transaction),
    "churn": _each(_churn),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--socket", required=True, help="the daemon's Unix socket")
    parser.add_argument("--pid", type=int, help="the daemon's process (default: ask the socket)")
    parser.add_argument(
        "--mix", choices=sorted(MIXES), default="mixed", help="which requests are sent (mixed)"
    )
    parser.add_argument("--conns", type=whole, default=1, help="connections (1)")
    parser.add_argument("--window", type=whole, default=1, help="requests in flight each (1)")
    parser.add_argument("--idle", type=int, default=0, help="idle connections beside them (0)")
    parser.add_argument(
        "--seconds", type=finite, default=2.0, help="how long the daemon is loaded (2)"
    )
    parser.add_argument(
        "--spin",
        type=finite,
        default=0.0,
        help="microseconds for which the generator looks for a reply without sleeping (0)",
    )
    parser.add_argument("--echo", action="store_true", help="the peer only echoes (the floor)")


def run(options: argparse.Namespace) -> int:
    idle = []
    try:
        pid = options.pid or proc.listener(options.socket)
        if not pid:
            raise LoadError("the process that listens there is not seen from here: use --pid")
        for _ in range(options.idle):
            idle.append(sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM))
            idle[-1].connect(options.socket)
        with Load(spin_us=options.spin, echo=options.echo) as load:
            load.connect(options.socket, _fill(STEPS), window=32, loops=1)
            load.finish()
            number = load.program(MIXES[options.mix]())
            for _ in range(options.conns):
                load.connect(options.socket, number, window=options.window)
            load.run(min(0.3, options.seconds))
            load.reset()
            _measure(load, pid, options.seconds)
    except (LoadError, OSError) as error:
        print(f"pyxsd-bench: {told(error, options.socket)}", file=sys.stderr)
        return 1
    return 0


def _measure(load: Load, pid: int, seconds: float) -> None:
    before = proc.cpu(pid)
    load.run(seconds)
    after = proc.cpu(pid)
    counts, requests = load.counts(), load.histogram(0)
    per = max(counts.requests, 1)
    ticks = after.user_ticks - before.user_ticks, after.system_ticks - before.system_ticks
    rows = [
        ("requests/s", f"{counts.requests / (counts.wall_ns / 1e9):,.0f}"),
        ("daemon CPU", f"{(after.total_ns - before.total_ns) / per / 1e3:.3f} µs/request"),
        ("user : system", f"{ticks[0]} : {ticks[1]} ticks of {1000 // proc.TICK} ms"),
        ("generator CPU", f"{counts.cpu_ns / per / 1e3:.3f} µs/request"),
    ]
    for name, hist in (("request", requests), ("whole unit", load.histogram(1))):
        if hist.total:
            cells = [f"p{q:g} {hist.quantile(q / 100) / 1e3:.1f}" for q in (50, 90, 99, 99.9)]
            cells.append(f"max {hist.max_ns / 1e3:.1f} µs ({hist.total:,})")
            rows.append((name, " ".join(cells)))
    rows.append(("conflicts", str(counts.conflicts)))
    rows.append(("daemon memory", f"{proc.memory(pid) / 1e6:.1f} MB"))
    rows.append(("system calls", _syscalls(load, pid, seconds)))
    show.table(["figure", "value"], rows, left=2)


def _syscalls(load: Load, pid: int, seconds: float) -> str:
    """Counted in a run of their own, as counting costs time."""
    try:
        with proc.Syscalls(pid) as calls:
            load.reset()
            load.run(min(0.3, seconds))
            return f"{calls.count() / max(load.counts().requests, 1):.3f} /request"
    except OSError as error:
        return f"not available: {error}"
