# SPDX-License-Identifier: LGPL-2.1-or-later
"""Result files: one JSON document with everything that was measured, every sample included.

    format      "pyxsd-bench"
    version     1; a reader refuses what is newer than it knows
    complete    false while the run goes on and after an interrupted one
    created     ISO 8601, UTC
    machine     host, kernel, CPU, memory
    settings    the options of the run
    daemons     name -> {version, command, config}
    scenarios   name -> {title, why, axis, unit}
    samples     list of {scenario, measure, size, daemon, round, ...figures}
    missing     list of {scenario, size, daemon, reason}: what could not be measured

The file is replaced as a whole, so that a killed run leaves the last state and never half of one.
"""

from __future__ import annotations

import json
import os
import platform
import time
from typing import Any

VERSION = 1
FORMAT = "pyxsd-bench"
Result = dict[str, Any]
LISTS = ("samples", "missing")
TABLES = ("machine", "settings", "daemons", "scenarios")


class BadResult(Exception):
    """A file that is no result file, is cut, or is newer than this program."""


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    model, memory_kib = platform.processor() or "unknown", 0
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as info:
        memory_kib = int(info.readline().split()[1])
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": model,
        "cpus": os.cpu_count(),
        "memory_mib": memory_kib // 1024,
        "python": platform.python_version(),
        "system": _system(),
    }


def _system() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8") as release:
            for line in release:
                if line.startswith("PRETTY_NAME="):
                    return line.split("=", 1)[1].strip().strip('"')
    except OSError:
        pass
    return platform.system()


def new(settings: dict[str, Any]) -> Result:
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": False,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "settings": settings,
        "daemons": {},
        "scenarios": {},
        "samples": [],
        "missing": [],
    }


def save(path: str, result: Result) -> None:
    """Replaces the file.  OSError where that does not work."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as out:
        json.dump(result, out, separators=(",", ":"))
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)


def load(path: str) -> Result:
    """Reads and checks a file.  BadResult names the file and what is wrong with it."""
    try:
        with open(path, encoding="utf-8") as source:
            result = json.load(source)
    except OSError as error:
        raise BadResult(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadResult(f"{path}: cut off or not JSON ({error})") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise BadResult(f"{path}: not a result file of pyxsd-bench")
    version = result.get("version")
    if not isinstance(version, int) or version < 1:
        raise BadResult(f"{path}: has no version")
    if version > VERSION:
        raise BadResult(f"{path}: version {version} is newer than this program's {VERSION}")
    for names, kind in ((LISTS, list), (TABLES, dict)):
        for name in names:
            if not isinstance(result.get(name), kind):
                raise BadResult(f"{path}: {name} is missing")
    for sample in result["samples"]:
        if not isinstance(sample, dict) or not sample.keys() >= KEYS:
            raise BadResult(f"{path}: a sample without {', '.join(sorted(KEYS))}")
        if sample["scenario"] not in result["scenarios"]:
            raise BadResult(f"{path}: a sample of an undescribed scenario")
    return result


KEYS = {"scenario", "measure", "size", "daemon", "round", "cpu_us", "rate"}
