# SPDX-License-Identifier: LGPL-2.1-or-later
"""Can this machine hold a scenario's size?  Asked before, so that nothing is killed after."""

from __future__ import annotations

import resource

from .proc import available_memory
from .scenarios import Scenario

RESERVE = 64  # descriptors for everything else
KEEP_FREE = 512 * 1024 * 1024


def raise_descriptors() -> int:
    """Raises this process's limit as far as permitted; the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def objection(scenario: Scenario, size: int, daemons: int, has_standin: bool) -> str:
    """Why this size cannot be measured here; empty where it can."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = int(scenario.fds * size)
    every = needed * (1 if scenario.name == "idle-connections" else daemons) + RESERVE
    if every > descriptors:
        return f"needs {every} descriptors, the limit is {descriptors}"
    wanted = scenario.memory * size * daemons
    if wanted and wanted + KEEP_FREE > available_memory():
        return f"needs {wanted // 2**20} MiB of memory, {available_memory() // 2**20} are free"
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY and scenario.memory * size > space:
        return (
            f"needs {scenario.memory * size // 2**20} MiB in one process, "
            f"the limit is {space // 2**20}"
        )
    if scenario.needs == "standin" and not has_standin:
        return "needs the stand-in Xen"
    return ""
