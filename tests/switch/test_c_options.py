# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line with which C xenstored executes its successor, by getopt_long's rules."""

from __future__ import annotations

import pytest

from pyxsd.switch import c_options
from pyxsd.system.options import Exit, parse

#: A line; is it C's?
KINDS = [
    ("-U", True),
    ("-N -U", True),
    ("-NU", True),
    ("-F /run/x -U", True),
    ("--live-update", True),
    ("--live-u -N", True),
    ("-U -E 600", True),
    ("", False),
    ("--no-fork", False),
    ("--live --restart --no-fork", False),
    ("-FU", False),
    ("-F -U", False),
    ("--pid-file -U", False),
    ("-- -U", False),
    ("--live --restart -T -U", False),
]


@pytest.mark.parametrize("line,is_c", KINDS)
def test_whose_line_it_is(line: str, is_c: bool) -> None:
    assert c_options.is_c_line(line.split()) == is_c


#: A line of C's; as pyxsd's; limits; faults.
LINES = [
    ("-N -F /run/x -U", "--no-fork --pid-file=/run/x", {}, []),
    ("-NF/run/x -U", "--no-fork --pid-file=/run/x", {}, []),
    ("--no-f --pid-f=/run/x --live-u", "--no-fork --pid-file=/run/x", {}, []),
    ("--no-fork --pid-file /run/x -T /tmp/t -U", "--no-fork --pid-file=/run/x -T=/tmp/t", {}, []),
    ("-D -U", "--no-domain-init", {}, []),
    (
        "-E 77 --watch-nb 33 -t 4 -A 3 -S 1500 -M 900 -Q memory=200000 -q memory=100000 "
        "-Q outstanding=9 -Q transaction-nodes=50 -w watch-event=60 -K -U",
        "",
        {
            "nodes": 77,
            "watches": 33,
            "transactions": 4,
            "node-permissions": 3,
            "node-size": 1500,
            "path-max": 900,
            "memory": 200000,
            "outstanding": 9,
            "transaction-nodes": 50,
        },
        [],
    ),
    ("-Q permissions=7 -U", "", {"node-permissions": 7}, []),
    ("-E many -U", "", {}, ["nodes: not a number: 'many'"]),
    ("-I -U", "", {}, []),
    ("-Ioff -U", "", {}, []),
    ("--internal-db=on -V -P -R -U", "", {}, []),
    ("--event 3 --master-domid 1 --priv-domid 2 --trace-control +obj -U", "", {}, []),
    ("-H", None, {}, []),
    ("--config-file /etc/x -U --no-access-log", "--config-file=/etc/x --no-access-log", {}, []),
    ("-U -x", "", {}, ["unknown option '-x'"]),
    ("-U --nonsense", "", {}, ["unknown option '--nonsense'"]),
    ("-U word", "", {}, ["unexpected word 'word'"]),
    ("-U --t", "", {}, ["ambiguous option '--t'"]),
    ("-U -F", "", {}, ["option '-F' needs an argument"]),
    ("-U --no-fork=1", "--no-fork", {}, ["an option without argument: '--no-fork=1'"]),
    (
        "-U --config-file=",
        "",
        {},
        ["pyxsd: option '--config-file' needs the name of a file, and got an empty word."],
    ),
]


#: What of a line C xenstored gets when it takes the host back, where that is anything.
_FORK, _FILE = "--no-fork", "--pid-file=/run/x"
KEPT = {
    "-N -F /run/x -U": [_FORK, _FILE],
    "-NF/run/x -U": [_FORK, _FILE],
    "--no-f --pid-f=/run/x --live-u": [_FORK, _FILE],
    "--no-fork --pid-file /run/x -T /tmp/t -U": [_FORK, _FILE, "--trace-file=/tmp/t"],
    "-D -U": ["--no-domain-init"],
    LINES[5][0]: [
        "--entry-nb=77",
        "--watch-nb=33",
        "--transaction=4",
        "--perm-nb=3",
        "--entry-size=1500",
        "--path-max=900",
        "--quota=memory=200000",
        "--quota-soft=memory=100000",
        "--quota=outstanding=9",
        "--quota=transaction-nodes=50",
        "--timeout=watch-event=60",
        "--keep-orphans",
    ],
    "-Q permissions=7 -U": ["--quota=permissions=7"],
    "-E many -U": ["--entry-nb=many"],
    "-I -U": ["--internal-db"],
    "-Ioff -U": ["--internal-db=off"],
    "--internal-db=on -V -P -R -U": [
        "--internal-db=on",
        "--verbose",
        "--output-pid",
        "--no-recovery",
    ],
    "--event 3 --master-domid 1 --priv-domid 2 --trace-control +obj -U": [
        "--event=3",
        "--master-domid=1",
        "--priv-domid=2",
        "--trace-control=+obj",
    ],
    "-U --no-fork=1": [_FORK],
}


@pytest.mark.parametrize("line,words,limits,faults", LINES)
def test_a_line(line: str, words: str | None, limits: dict[str, int], faults: list[str]) -> None:
    read = c_options.read(line.split())
    if words is None:
        assert isinstance(read, Exit) and read.status == 0
        return
    assert not isinstance(read, Exit)
    *own, kept = read.words
    assert (" ".join(own), read.limits, read.faults) == (words, limits, faults)
    assert read.options.live and read.options.restart
    # The next pyxsd is told the same, and the arguments for the way back with it.
    again = parse(read.words)
    assert again == read.options._replace(live=False, restart=False)
    assert kept == f"--c-arguments={read.options.c_arguments}"
    assert c_options.unpack(read.options.c_arguments) == KEPT.get(line, [])


def test_arguments_that_no_c_xenstored_had() -> None:
    assert c_options.unpack("") == c_options.unpack("xy") == []
