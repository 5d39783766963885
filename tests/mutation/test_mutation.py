# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mutation runner's own parts: what is changed, and that the original stays in the source."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.mutation import c_source, processes, python_source
from tests.mutation.modules import modules
from tests.mutation.pyxsd_mutant import HEAD, SIZE
from tests.mutation.results import EQUIVALENT, HUNG, NOTICED, SURVIVED, Results
from tests.mutation.runner import Runner, imports
from tests.mutation.schema import Mutant, chosen
from tests.mutation.tree import BLOCK, mutate

# statement of a function, and what becomes of it: operator -> results
PYTHON = [
    (
        "if a < b and not c:\n  pass",
        {
            "comparison": {"if a <= b and not c:"},
            "boolean": {"if a < b or not c:", "if a < b and c:"},
        },
    ),
    (
        "while a not in b:\n  pass",
        {"comparison": {"while a in b:"}, "negation": {"while not (a not in b):"}},
    ),
    ("x = a + 1", {"arithmetic": {"x = a - 1"}, "constant": {"x = a + (1 + 1)"}}),
    ("x.y = b'%d' % a", {"deletion": {"pass"}}),
    ("x: int | None = a", {}),
    ("x = a if b else c", {"swapped branches": {"x = a if not (b) else c"}}),
    ("f(a, *b)", {"deletion": {"pass"}}),
    ("return f(a)", {"return value": {"return None"}}),
    ("return True", {"constant": {"return False"}}),
    ("for i in range(3):\n  pass", {"constant": {"for i in range((3 + 1)):"}}),
    ("assert a < b", {}),
    ("import os", {}),
    ("'''a < b'''", {}),
]

CYTHON = [
    ("x = <size_t>a + <long>-b", {"arithmetic": {"x = <size_t>a - <long>-b"}}),
    ("f(&a, a & b)", {"arithmetic": {"f(&a, a | b)"}, "deletion": {"pass"}}),
    ("cdef int x = a - b", {"arithmetic": {"cdef int x = a + b"}}),
    ("cdef char *p = <char *>a", {}),
    ("return a", {"return value": {"return 0"}}),
]

C = [
    (
        "if (!a || b <= c) return 0;",
        {
            "boolean": {"a || b <= c", "!a && b <= c"},
            "comparison": {"!a || b < c"},
            "constant": {"return (0 + 1);"},
        },
    ),
    (
        "int n = a * b, m[4], k = f(a, b - 1);",
        {"arithmetic": {"a + b", "f(a, b + 1)"}, "constant": {"f(a, b - (1 + 1))"}},
    ),
    ("*p = (char *)q + n;", {"arithmetic": {"*p = (char *)q - n;"}, "deletion": {";"}}),
    (
        "for (int i = 0; i < n; i++) f(i);",
        {"comparison": {"i <= n"}, "negation": {"!(i < n)"}, "deletion": {";"}},
    ),
    ("switch (a) { case 1: return f(b); }", {"return value": {"return 0;"}}),
]


def found(mutants: list[Mutant]) -> dict[str, set[str]]:
    """operator -> what statements become."""
    by_operator: dict[str, set[str]] = {}
    for mutant in mutants:
        by_operator.setdefault(mutant.operator, set()).add(mutant.after)
    return by_operator


@pytest.mark.parametrize(("statement", "expected"), PYTHON, ids=[row[0] for row in PYTHON])
def test_python(statement: str, expected: dict[str, set[str]]) -> None:
    source = "import os\ndef f(a, b, c, x):\n    " + statement.replace("\n", "\n    ") + "\n"
    result = python_source.mutate("a.py", source, 1)
    compile(result.text, "a.py", "exec")
    assert found(result.mutants) == {**expected, **negations(statement, expected)}


def negations(statement: str, expected: dict[str, set[str]]) -> dict[str, set[str]]:
    """Each condition without a plain "not" is negated too."""
    if statement.startswith("if") and not any("not" in s for s in statement.split()):
        return {"negation": {f"if not ({statement[3:]}):"}}
    return {}


@pytest.mark.parametrize(("statement", "expected"), CYTHON, ids=[row[0] for row in CYTHON])
def test_cython(statement: str, expected: dict[str, set[str]]) -> None:
    source = f"cimport cython\ncdef int f(int a, int b):\n    {statement}\n"
    assert found(python_source.mutate("a.pyx", source, 1).mutants) == expected


@pytest.mark.parametrize(("statement", "expected"), C, ids=[row[0] for row in C])
def test_c(statement: str, expected: dict[str, set[str]]) -> None:
    source = f"enum {{ A = 1 }};\nstatic int f(int a)\n{{\n    {statement}\n}}\n"
    assert found(c_source.mutate("a.c", source, 1).mutants) == expected


def test_only_the_chosen_mutant_runs() -> None:
    """The original and each mutant of a function are all in one source."""
    source = (
        "from __future__ import annotations\n"
        "def f(a, b):\n"
        "    if a < b:\n"
        "        return a - 2\n"
        "    return b\n"
    )
    result = python_source.mutate("a.py", source, 1)
    results = {}
    for number in range(len(result.mutants) + 1):
        scope: dict[str, object] = {}
        code = result.text.replace(
            "from pyxsd_mutant import pyxsd_is", f"pyxsd_is = lambda n: n == {number}"
        )
        exec(compile(code, "a.py", "exec"), scope)
        f = scope["f"]
        results[number] = [f(1, 2), f(2, 2), f(3, 2)]  # type: ignore[operator]
    assert [(mutant.after, results[number]) for number, mutant in enumerate(result.mutants, 1)] == [
        ("if a <= b:", [-1, 0, 2]),
        ("if not (a < b):", [2, 0, 1]),
        ("return a + 2", [3, 2, 2]),
        ("return None", [None, 2, 2]),
        ("return a - (2 + 1)", [-2, 2, 2]),
        ("return None", [-1, None, None]),
    ]
    assert results[0] == [-1, 2, 2]


def test_keys_tell_all_mutants_apart_and_do_not_depend_on_lines() -> None:
    source = "import os\ndef f(a):\n    g(a)\n    g(a)\n"
    keys = [m.key for m in python_source.mutate("a.py", source, 1).mutants]
    assert len(set(keys)) == len(keys) == 2
    lower = source.replace("def f", "\n\ndef e(a):\n    h(a)\n\ndef f")
    assert set(keys) < {m.key for m in python_source.mutate("a.py", lower, 1).mutants}


def test_wanted_mutants_alone_are_written() -> None:
    source = "import os\ndef f(a):\n    g(a)\n    h(a < 1)\n"
    every = python_source.mutate("a.py", source, 1).mutants
    one = python_source.mutate("a.py", source, 5, {every[1].key})
    assert one.mutants == [every[1]]
    assert "pyxsd_is(5)" in one.text and "pyxsd_is(6)" not in one.text


@pytest.mark.parametrize("path", modules())
def test_origins_name_a_line_for_each_line(path: str) -> None:
    """Of every source of the project; those of Python compile with all mutants in them."""
    result = mutate(path, 1)
    assert len(result.origin) == result.text.count("\n")
    assert len({mutant.key for mutant in result.mutants}) == len(result.mutants)
    if path.endswith(".py"):
        compile(result.text, path, "exec")


def test_the_choice_is_stable() -> None:
    """More mutants in the code take the place of few that were chosen before."""
    mutants = [Mutant("a.py", i, "constant", str(i), str(i + 1), f"a.py: {i}") for i in range(200)]
    before = {m.key for m in chosen(mutants[:180], 20, "1")}
    assert before == {m.key for m in chosen(mutants[:180], 20, "1")}
    assert before != {m.key for m in chosen(mutants[:180], 20, "2")}
    assert len(before & {m.key for m in chosen(mutants, 20, "1")}) >= 14


def test_the_score_leaves_out_the_equivalent(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json")
    mutants = [Mutant("a.py", i, "constant", "1", "2", f"a.py: {i}") for i in range(5)]
    for mutant, result in zip(mutants, [NOTICED, SURVIVED, SURVIVED, "does not compile"]):
        results.set(mutant, result)
    results.equivalent = {"a.py: 2": "the reason"}
    again = Results(tmp_path / "results.json")
    again.equivalent = results.equivalent
    assert again.counts(mutants) == (1, 2)
    assert again.survivors(mutants) == [mutants[1]]


@pytest.mark.parametrize(
    ("line", "path", "does"),
    [
        ("from pyxsd.system.log import Log", "pyxsd/system/log.py", True),
        ("    from pyxsd.system import files, log", "pyxsd/system/log.py", True),
        ("from pyxsd.system.log_file import LogFile", "pyxsd/system/log.py", False),
        ("from pyxsd.system import log_file", "pyxsd/system/log.py", False),
        ("from pyxsd._core import Server", "pyxsd/_core.pyx", True),
        ("# from pyxsd._core import Server", "pyxsd/_core.pyx", False),
        ("import pyxsd", "pyxsd/__init__.py", True),
        ("import pyxsd.cli", "pyxsd/__init__.py", False),
        ("from pyxsd import cli", "pyxsd/__init__.py", False),
        ("from pyxsd.setup import cli", "pyxsd/setup/__init__.py", True),
    ],
)
def test_who_imports_a_source(line: str, path: str, does: bool) -> None:
    """Those tests come first for what runs while a module is imported."""
    assert imports(f"import os\n{line}\n", path) is does


def test_what_is_equivalent_is_there() -> None:
    """A line that was changed is another one: whether it still means the same is to be looked at
    again, under its new key."""
    keys = {mutant.key for path in modules() for mutant in mutate(path, 1).mutants}
    gone = sorted(set(json.loads(EQUIVALENT.read_text(encoding="utf-8"))) - keys)
    assert not gone, "to be taken out of equivalent.json:\n" + "\n".join(gone)


LEAVES_A_CHILD = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("pid", os.getpid(), flush=True)
        time.sleep(1e6)
    os._exit(0)
os.wait()
time.sleep(float(sys.argv[1]))
"""

OUTER = """
import sys
from pathlib import Path
from tests.mutation import processes
done = processes.run([sys.executable, "-c", sys.argv[1], sys.argv[2]], Path("."), {},
                     float(sys.argv[3]), Path(sys.argv[4]))
print(done.status, done.output.split()[1])
"""


@pytest.mark.parametrize(("sleep", "seconds", "status"), [("0", "60", "0"), ("1e6", "1", "None")])
def test_nothing_is_left_behind(tmp_path: Path, sleep: str, seconds: str, status: str) -> None:
    """A daemon that a command left in a session of its own is killed with it."""
    done = subprocess.run(
        [sys.executable, "-c", OUTER, LEAVES_A_CHILD, sleep, seconds, str(tmp_path / "log")],
        cwd=processes.__file__.split("tests/")[0],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    got, pid = done.stdout.split()
    assert got == status
    assert not Path(f"/proc/{pid}").exists()


def test_there_is_room_for_all_modules() -> None:
    """Each has a block of numbers in the file that says which mutant runs."""
    assert len(modules()) * BLOCK <= SIZE - HEAD


#: What becomes of the first of two tests, or of both; what becomes of the mutant, and by which.
ANSWERS: list[tuple[list[str | None], tuple[str, str]]] = [
    ([""], (SURVIVED, "")),
    ([None], (NOTICED, "the test run crashed")),
    (["hung"], (HUNG, "")),
    (["a", "", "a"], (NOTICED, "a")),
    (["a", "", None], (NOTICED, "a")),
    (["a", "a", "b", "", "b"], (NOTICED, "b")),
    (["a", "a", ""], (SURVIVED, "")),  # it fails without the mutant
    (["a", "", "", ""], (SURVIVED, "")),  # it fails now and then
]


@pytest.mark.parametrize(("answers", "became"), ANSWERS)
def test_which_failures_count(answers: list[str | None], became: tuple[str, str]) -> None:
    left = list(answers)
    made: Any = Runner.__new__(Runner)
    made.imported = frozenset()
    made.numbers = {7: SimpleNamespace(path="pyxsd/x.py")}
    made.noticed = Counter()
    made.tests_for = lambda _number: [("a", 1.0), ("b", 1.0)]
    made.answer = lambda **_order: left.pop(0)
    assert made.attempt(7) == became
    assert not left


def test_what_no_test_reaches_is_tried_with_none() -> None:
    made: Any = Runner.__new__(Runner)
    made.imported = frozenset({7})
    made.numbers = {7: SimpleNamespace(path="pyxsd/x.py")}
    made.reach = {}
    assert made.attempt(7) == (SURVIVED, "")
