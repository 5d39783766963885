# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a scenario is, and small helpers that several of them use."""

from __future__ import annotations

from typing import Callable, NamedTuple

from ..load import Load
from ..measure import Sample, timed
from ..program import Program
from ..target import Target

VALUE = b"v" * 32
ROOT = "/bench"


class Context(NamedTuple):
    """How one sample is to be taken: how long, whether system calls are counted, and the CPUs
    that the run may use."""

    seconds: float
    syscalls: bool = False
    cpus: tuple[int, ...] = ()


Run = Callable[[Target, int, Context], dict[str, Sample]]
Prepare = Callable[[Target, int, Context], None]


class Scenario(NamedTuple):
    """One row of the table.

    `sizes` ascend; `prepare` brings a daemon from the last size to the next and is not measured.
    `run` gives one sample for each measure.  `main` is the figure that the summary shows:
    cpu_us, p50_us, rate, ... .  `floor`: an echo server can take part.  `needs`: "standin" where
    domains must be created.  `fds` and `memory`: descriptors of this process and bytes of the
    daemon for each one of size.  `attack`: it is run where it is named, once, and is reported in
    the table of attacks.  `kinds`: the kinds of daemons that can take part; empty: all.
    `keeper`: a daemon must have one.
    """

    name: str
    title: str
    why: str
    run: Run
    unit: str = "request"
    axis: str = ""
    sizes: tuple[int, ...] = (1,)
    prepare: Prepare | None = None
    main: str = "cpu_us"
    floor: bool = False
    needs: str = ""
    fds: float = 0.0
    memory: int = 0
    attack: bool = False
    kinds: tuple[str, ...] = ()
    keeper: bool = False


def endless(
    target: Target,
    program: Program,
    context: Context,
    *,
    window: int = 1,
    conns: int = 1,
    unit: str = "request",
    per: int = 1,
    hist: int = 0,
) -> Sample:
    """A sample of `conns` connections that run one program again and again."""
    with target.load() as load:
        number = load.program(program)
        for _ in range(conns):
            load.connect(target.socket, number, window=window)
        return timed(
            target, load, context.seconds, unit=unit, per=per, hist=hist, syscalls=context.syscalls
        )


def once(target: Target, program: Program, window: int = 64) -> None:
    """Runs a program to its end: for preparations."""
    with target.load() as load:
        load.connect(target.socket, program, window=window, loops=1)
        load.finish(target.alive)


def kept(target: Target, key: str) -> Load:
    """A load generator that lives as long as the target, made at the first call."""
    if key not in target.state:
        target.state[key] = target.keep.enter_context(target.load(stall_s=60.0))
    load: Load = target.state[key]
    return load


def grown(target: Target, key: str, size: int) -> int:
    """The size that `key` had at the last call; remembers `size`."""
    before: int = target.state.get(key, 0)
    target.state[key] = size
    return before
