# SPDX-License-Identifier: LGPL-2.1-or-later
"""The suites that run in process, once more under AddressSanitizer and UndefinedBehaviorSanitizer;
and real daemons that crash, since such a build alone can do so on purpose.

The project is built as PYXSD_BUILD=debug in a copy; its tests run in a process of their own, and
what the process leaks is looked for at its end (plugin.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sanitize import copies, plugin

#: What runs; those that are not there yet are left out.
SUITES = (
    "tests/conformance",
    "tests/security",
    "tests/property",
    "tests/fuzz/test_cases.py",
    "tests/unit",
    "tests/rings",
    "tests/domains/test_life.py",
    "tests/domains/test_death.py",
    "tests/domains/test_fairness.py",
    "tests/recovery/debug_build.py",
)
#: Tests that start processes or look at time and memory: nothing of them is about our C.
LEFT_OUT = tuple(
    f"tests/unit/test_{name}.py"
    for name in (
        "agenda_pace",
        "background",
        "config",
        "daemon_log",
        "descriptors",
        "destinations",
        "listening",
        "log_files",
        "notify",
        "options",
        "pid_files",
        "syslog",
    )
)
MINUTES = 10


def needs() -> str:
    """Why this cannot run here; empty where it can."""
    reason = copies.missing("gcc")
    if not reason and not copies.runtime("libasan.so"):
        reason = "gcc's libasan is not installed (Debian package libgcc-12-dev)"
    return reason


def environment(**more: str) -> dict[str, str]:
    """The environment of a Python that loads sanitized modules."""
    return {
        **os.environ,
        "LD_PRELOAD": copies.runtime("libasan.so"),
        # Of all blocks, so that a stray byte of an object is seen as well.
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=1:leak_check_at_exit=0:detect_stack_use_after_return=0:"
        "abort_on_error=0:exitcode=99:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


@pytest.fixture(scope="module")
def copy() -> Path:
    """The project, built with the sanitizers."""
    reason = needs()
    if reason:
        if os.environ.get("PYXSD_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return copies.build("debug", "debug", {"CC": "gcc"})


def test_suites(copy: Path) -> None:
    """No memory error, no undefined behaviour, no leak, and no test fails."""
    suites = [suite for suite in SUITES if (copy / suite).exists()]
    assert "tests/conformance" in suites
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-x",
        "-p",
        "tests.sanitize.plugin",
        "-p",
        "no:cacheprovider",
        *suites,
        *(f"--ignore={name}" for name in LEFT_OUT),
    ]
    env = environment(PYXSD_HYPOTHESIS_EXAMPLES="5", PYXSD_UNDER_SANITIZER="1")
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        command,
        cwd=copy,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=60 * MINUTES,
    )
    # The interpreter's own frames say nothing.
    lines = [line for line in done.stdout.splitlines() if "python3" not in line or " #" not in line]
    shown = "\n".join(lines)[-16000:]
    assert done.returncode == 0, f"status {done.returncode}\n{shown}"
    assert " passed" in done.stdout, shown
    assert plugin.MARK in done.stdout, shown
    found = plugin.leaks(done.stdout)
    assert not found, "\n\n".join(found)[-16000:]


#: fault: (status, what the output says, leaks found)
FAULTS = {
    "nothing": (0, "1 passed", 0),
    "leak": (0, "detected memory leaks", 1),
    "overflow": (99, "heap-buffer-overflow", 0),
    "use_after_free": (99, "heap-use-after-free", 0),
    "undefined": (1, "signed integer overflow", 0),
}


@pytest.fixture(scope="module")
def broken(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with faults, compiled as the debug build compiles."""
    library = tmp_path_factory.mktemp("broken") / "broken.so"
    subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O0",
            "-g",
            "-shared",
            "-fPIC",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-o",
            str(library),
            str(Path(__file__).with_name("broken.c")),
        ],
        check=True,
    )
    return library


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str, copy: Path, broken: Path, tmp_path: Path) -> None:
    """The way the suites run finds each kind of fault."""
    test = tmp_path / "test_broken.py"
    test.write_text(
        f"import ctypes\n\n\ndef test_it():\n    ctypes.CDLL({str(broken)!r}).broken_{fault}()\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-s",
            "-p",
            "tests.sanitize.plugin",
            "-p",
            "no:cacheprovider",
            f"--rootdir={tmp_path}",
            str(test),
        ],
        cwd=copy,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    status, text, lost = FAULTS[fault]
    found = plugin.leaks(done.stdout)
    assert (done.returncode, text in done.stdout, len(found)) == (status, True, lost), done.stdout
