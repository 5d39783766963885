# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings files: what a variable is set to, what the shell would not understand, and the edit."""

from __future__ import annotations

import subprocess

import pytest

from pyxsd.setup import settings
from pyxsd.setup.settings import MARK, OFF, OUT

LAUNCHER = "/usr/sbin/pyxsd-launch"

# text, value, line
CLEAR: list[tuple[str, str | None, int]] = [
    ("", None, 0),
    ("#XENSTORED=/a\n", None, 0),
    ("XENSTORED=/a\n", "/a", 1),
    ("XENSTORED=/a", "/a", 1),
    ("\n  export XENSTORED=/a\n", "/a", 2),
    ("XENSTORED='/a b'\n", "/a b", 1),
    ('XENSTORED="/a"  # why\n', "/a", 1),
    ("XENSTORED=/a\nXENSTORED=/b\n", "/b", 2),
    ("XENSTORED=/a\nXENSTORED=\n", "", 2),
    ("XENSTORED_ARGS=/a\nMY_XENSTORED=/b\n", None, 0),
    ("XENSTORED=/a\necho $XENSTORED ${XENSTORED:-x}\n", "/a", 1),
    ("XENSTORED=/a\nB=1 # was XENSTORED once\n", "/a", 1),
    ("if x; then\n:\nfi\nXENSTORED=/a\n", "/a", 4),
    ("XENSTORED=/b\xe9\n", "/b\xe9", 1),
]


@pytest.mark.parametrize(("text", "value", "line"), CLEAR)
def test_clear(text: str, value: str | None, line: int) -> None:
    assert settings.find(text, "XENSTORED") == settings.Found(value, line)


@pytest.mark.parametrize("text", [row[0] for row in CLEAR if not row[0].startswith("if")])
def test_the_shell_agrees(text: str) -> None:
    """What is found without running the text is what running it gives."""
    shell = subprocess.run(
        ["sh", "-c", f'exec 3>&1 >/dev/null\n{text}\nprintf %s "${{XENSTORED-unset}}" >&3'],
        stdout=subprocess.PIPE,
        check=True,
        env={"PATH": "/bin:/usr/bin"},
    )
    found = settings.find(text, "XENSTORED").value
    assert shell.stdout.decode() == ("unset" if found is None else found)


# text, what is said of it
UNCLEAR: list[tuple[str, str]] = [
    ("XENSTORED=$(which pyxsd)\n", "line 1 sets XENSTORED to something that only running"),
    ("XENSTORED=`x`\n", "line 1 sets XENSTORED to something"),
    ("XENSTORED=$HOME/x\n", "line 1 sets XENSTORED to something"),
    ("XENSTORED=/a; echo\n", "line 1 sets XENSTORED to something"),
    ("XENSTORED=/a\\\n", "line 1 sets XENSTORED to something"),
    ("XENSTORED=/a b\n", "line 1 has more than one word"),
    ("XENSTORED='/a\n", "line 1 has a quotation mark without its partner"),
    ("XENSTORED=/a\r\n", "line 1 has a stray control character"),
    ("XENSTORED = /a\n", "line 1 has blanks around '='"),
    ("if x; then\n  XENSTORED=/a\nfi\n", "line 2 sets XENSTORED only under a condition"),
    ("f() {\nXENSTORED=/a\n}\n", "line 2 sets XENSTORED only under a condition"),
    ("[ -x /a ] && XENSTORED=/a\n", "line 1 sets XENSTORED in a way"),
    (": ${XENSTORED:=/a}\n", "line 1 sets XENSTORED in a way"),
    ("unset XENSTORED\n", "line 1 sets XENSTORED in a way"),
    (". /etc/other\n", "line 1 reads another file"),
    ("if x; then\nif y; then\n:\nfi\nXENSTORED=/a\nfi\n", "line 5 sets XENSTORED only under"),
]


@pytest.mark.parametrize(("text", "said"), UNCLEAR)
def test_unclear(text: str, said: str) -> None:
    assert settings.find(text, "XENSTORED").unclear.startswith(said)


# text, what is said of it ("": nothing)
FAULTS = [
    ("XENSTORED=/a\n", ""),
    ("", ""),
    ("A='\n", "the shell does not understand it"),
    ("if x\n", "the shell does not understand it"),
    ("<<<<< HEAD\n)\n", "the shell does not understand it"),
    ("A=1\nexit 0\n", "line 2: 'exit' ends the boot script"),
    ("\0\0", "line 1 has a NUL character"),
]


@pytest.mark.parametrize(("text", "said"), FAULTS)
def test_faults(text: str, said: str) -> None:
    found = settings.fault(text)
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize("error", [FileNotFoundError("sh"), subprocess.TimeoutExpired("sh", 1)])
def test_without_a_shell_there_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert settings.fault("A='\n") == ""


def test_looking_for_faults_runs_nothing(tmp_path: object) -> None:
    victim = f"{tmp_path}/victim"
    assert settings.fault(f"touch {victim}\n") == ""
    with pytest.raises(FileNotFoundError):
        open(victim)


# text before, text after select
EDITS = [
    ("", f"{MARK}\nXENSTORED={LAUNCHER}\n"),
    ("A=1\n", f"A=1\n{MARK}\nXENSTORED={LAUNCHER}\n"),
    ("A=1\n\n", f"A=1\n\n{MARK}\nXENSTORED={LAUNCHER}\n"),
    ("XENSTORED=/o\nA=1\n", f"{OFF}XENSTORED=/o\nA=1\n{MARK}\nXENSTORED={LAUNCHER}\n"),
    (
        "  export XENSTORED=/o # x\n",
        f"{OFF}  export XENSTORED=/o # x\n{MARK}\nXENSTORED={LAUNCHER}\n",
    ),
    ("#XENSTORED=/o\n", f"#XENSTORED=/o\n{MARK}\nXENSTORED={LAUNCHER}\n"),
]


@pytest.mark.parametrize(("before", "after"), EDITS)
def test_edit_and_way_back(before: str, after: str) -> None:
    assert settings.selected(before, LAUNCHER) == after
    assert settings.find(after, "XENSTORED").value == LAUNCHER
    assert settings.selected(after, LAUNCHER) == after
    assert settings.deselected(after, (LAUNCHER,)) == before


# text before, text after deselect
BY_HAND = [
    (f"A=1\nXENSTORED={LAUNCHER}\n", f"A=1\n{OUT}XENSTORED={LAUNCHER}\n"),
    ("XENSTORED=/o\n", "XENSTORED=/o\n"),
    # Changed by others behind select's back: their lines stay.
    (f"{OFF}XENSTORED=/o\nB=2\n{MARK}\nXENSTORED={LAUNCHER}\nC=3\n", "XENSTORED=/o\nB=2\nC=3\n"),
    (f"A=1\n{MARK}\nB=2\n", "A=1\nB=2\n"),
]


@pytest.mark.parametrize(("before", "after"), BY_HAND)
def test_deselect_of_what_others_wrote(before: str, after: str) -> None:
    assert settings.deselected(before, (LAUNCHER,)) == after


def test_a_value_of_a_megabyte() -> None:
    """It is no path, and is not taken apart."""
    most = settings.VALUE_MAX
    assert settings.find("X=/" + "a" * (most - 1), "X").value == "/" + "a" * (most - 1)
    found = settings.find("\nX=/" + "a" * 1_000_000, "X")
    assert (found.value, found.line) == (None, 2)
    assert found.unclear == f"line 2 has more than {most} characters behind '='"
