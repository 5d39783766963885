# SPDX-License-Identifier: LGPL-2.1-or-later
"""Result files: one JSON document with everything that was measured, every sample included.

    format      "pyxsd-bench"
    version     1; a reader refuses what is newer than it knows
    complete    false while the run goes on and after an interrupted one
    created     ISO 8601, UTC
    machine     host, kernel, CPU, memory
    settings    the options of the run
    daemons     name -> {version, command, config}
    scenarios   name -> {title, why, axis, unit, not_available: {daemon: what it has not}}
    samples     list of {scenario, measure, size, daemon, round, ...figures}
    missing     list of {scenario, size, daemon, reason}: what could not be measured

The file is replaced as a whole, so that a killed run leaves the last state and never half of one.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
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
    try:
        with open(part, "w", encoding="utf-8") as out:
            json.dump(result, out, separators=(",", ":"))
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        raise OSError(error.errno, error.strerror, path) from error


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
    for group, keys in (("samples", SAMPLE), ("missing", MISSING)):
        for number, row in enumerate(result[group]):
            fault = _fault(row, keys)
            if fault:
                raise BadResult(f"{path}: entry {number} of {group}: {fault}")
    for sample in result["samples"]:
        if sample["scenario"] not in result["scenarios"]:
            raise BadResult(f"{path}: a sample of an undescribed scenario")
    for about in result["scenarios"].values():
        if not isinstance(about, dict) or not about.keys() >= ABOUT:
            raise BadResult(f"{path}: a scenario without {', '.join(sorted(ABOUT))}")
    return result


Kinds = dict[str, tuple[type, ...]]
SAMPLE: Kinds = {
    "scenario": (str,),
    "measure": (str,),
    "daemon": (str,),
    "size": (int,),
    "round": (int,),
    "cpu_us": (int, float),
    "rate": (int, float),
}
MISSING: Kinds = {"scenario": (str,), "size": (int,), "daemon": (str,), "reason": (str,)}
ABOUT = {"title", "why"}


def _fault(row: object, kinds: Kinds) -> str:
    """What is wrong with one entry of a list; empty where it can be used."""
    if not isinstance(row, dict):
        return "no table"
    for name, kind in kinds.items():
        if not isinstance(row.get(name), kind):
            return f"{name} is {'wrong' if name in row else 'missing'}"
    hist = row.get("hist", [])
    if not isinstance(hist, list) or any(not isinstance(b, list) or len(b) != 2 for b in hist):
        return "hist is wrong"
    return ""
