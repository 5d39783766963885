# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: options, faults, and what --config-test answers."""

from __future__ import annotations

from pathlib import Path

import pytest

import pyxsd
from pyxsd.system import configuration, options
from pyxsd.system.options import Exit, Options

HELP = Exit(stdout=options.usage())
VERSION = Exit(stdout=f"pyxsd {pyxsd.__version__}\n")

# words, what they say
RIGHT: list[tuple[list[str], Options | Exit]] = [
    ([], Options()),
    (["--no-domain-init"], Options(domain_init=False)),
    (["--config-file", "/c"], Options(config_file="/c")),
    (["--config-file=/c=d"], Options(config_file="/c=d")),
    (["--config-file", "/c", "--config-file", "/d"], Options(config_file="/d")),
    (["--no-fork"], Options(daemonize=False)),
    (["--reraise-top-level"], Options(reraise_top_level=True)),
    (["--no-access-log"], Options(access_log=False)),
    (["--pid-file", "/p"], Options(pid_file="/p")),
    (["--pid-file", "--no-fork"], Options(pid_file="--no-fork")),
    (["--pid-file", ""], Options(pid_file="")),
    (["-T", "/t"], Options(trace_file="/t")),
    (["-T=/t"], Options(trace_file="/t")),
    (["--restart"], Options(restart=True)),
    (["--live", "--restart"], Options(live=True, restart=True)),
    (["--config-test"], Options(config_test=True)),
    (["--disable-socket"], Options(disable_socket=True)),
    (["--c-arguments=2d4e"], Options(c_arguments="2d4e")),
    (["--show-state", "/s"], Options(show_state="/s")),
    (["--as=db", "--show-state", "/s"], Options(show_state="/s", as_format="db")),
    (["--show-state", "/s", "--as", "stream"], Options(show_state="/s", as_format="stream")),
    (["", "--no-fork", ""], Options(daemonize=False)),
    (["--pid-file", "word"], Options(pid_file="word")),
    (["--help"], HELP),
    (["-help"], HELP),
    (["-h"], HELP),
    (["--version"], VERSION),
    (["--no-fork", "--version", "--config-test"], VERSION),
    (["--live", "--version"], VERSION),
    (["--version", "--help"], HELP),
    (["--live", "--config-test"], Options(live=True, config_test=True)),
    (["--live", "-h"], Options(live=True, config_test=True)),
    (["--help", "--no-fork"], HELP),
    (["--restart", "--help"], HELP),
    (["--live", "--help"], Options(live=True, config_test=True)),
    (["--help", "--live"], Options(live=True, config_test=True)),
    (
        ["--live", "--restart", "--config-file", "/c", "--help"],
        Options(live=True, restart=True, config_file="/c", config_test=True),
    ),
    (
        ["--no-fork", "--no-domain-init", "--pid-file", "/p", "--config-file", "/c"],
        Options(daemonize=False, domain_init=False, pid_file="/p", config_file="/c"),
    ),
]

# words, what stderr begins with
WRONG: list[tuple[list[str], str]] = [
    (["--bogus"], "pyxsd: unknown option '--bogus'.\n"),
    (["--bogus=1"], "pyxsd: unknown option '--bogus=1'.\n"),
    (["-"], "pyxsd: unknown option '-'.\n"),
    (["--"], "pyxsd: unknown option '--'.\n"),
    (["word"], "pyxsd: unexpected word 'word'.\n"),
    (["--no-fork", "word"], "pyxsd: unexpected word 'word'.\n"),
    (["--pid-file", "/p", "word"], "pyxsd: unexpected word 'word'.\n"),
    (["--help", "word"], "pyxsd: unexpected word 'word'.\n"),
    (["--version", "word"], "pyxsd: unexpected word 'word'.\n"),
    (["--version="], "pyxsd: unknown option '--version=', did you mean --version?\n"),
    (["-h=1"], "pyxsd: unknown option '-h=1'.\n"),
    (["--no-forc"], "pyxsd: unknown option '--no-forc', did you mean --no-fork?\n"),
    (["--pidfile=/p"], "pyxsd: unknown option '--pidfile=/p', did you mean --pid-file?\n"),
    (["--" + "x" * 100000], "pyxsd: unknown option '--" + "x" * 100000 + "'.\n"),
    (["--help", "--bogus"], "pyxsd: unknown option '--bogus'.\n"),
    (["--live", "--bogus", "--help"], "pyxsd: unknown option '--bogus'.\n"),
    (["--pid-file"], "pyxsd: option '--pid-file' needs an argument.\n"),
    (["--no-fork", "-T"], "pyxsd: option '-T' needs an argument.\n"),
    (
        ["--config-file="],
        "pyxsd: option '--config-file' needs the name of a file, and got an empty word.\n",
    ),
    (
        ["--config-file", "", "--no-fork"],
        "pyxsd: option '--config-file' needs the name of a file, and got an empty word.\n",
    ),
    (["--no-fork=3"], "pyxsd: option '--no-fork' takes no argument.\n"),
    (["--live"], "pyxsd: option '--live' needs '--restart' or '--help'.\n"),
    (["--live", "--no-fork"], "pyxsd: option '--live' needs '--restart' or '--help'.\n"),
    (["--as", "db"], "pyxsd: option '--as' needs '--show-state' or '--replay'.\n"),
    (["--until", "5"], "pyxsd: option '--until' needs '--replay'.\n"),
    (
        ["--replay", "/d", "--show-state", "/s"],
        "pyxsd: options '--show-state' and '--replay' do not go together.\n",
    ),
    (["--replay", "/d", "--as", "xml"], "pyxsd: option '--as' takes db or stream or text.\n"),
    (["--replay="], "pyxsd: option '--replay' needs the name of a file, and got an empty word.\n"),
    (["--show-state", "/s", "--as", "xml"], "pyxsd: option '--as' takes db or stream.\n"),
    (
        ["--show-state="],
        "pyxsd: option '--show-state' needs the name of a file, and got an empty word.\n",
    ),
    (["--show-state"], "pyxsd: option '--show-state' needs an argument.\n"),
    (["--config-test="], "pyxsd: option '--config-test' takes no argument.\n"),
]


@pytest.mark.parametrize(("words", "expected"), RIGHT)
def test_right(words: list[str], expected: Options | Exit) -> None:
    assert options.parse(words) == expected


@pytest.mark.parametrize(("words", "first"), WRONG)
def test_wrong(words: list[str], first: str) -> None:
    assert options.parse(words) == Exit(status=2, stderr=first + "Try 'pyxsd --help'.\n")


def test_usage_names_every_option_and_field() -> None:
    lines = options.usage("prog").splitlines()
    assert lines[0].startswith("usage: prog ")
    assert [line.split()[0] for line in lines[1:]] == [
        *(row[0] for row in options.TABLE), "--version", "-h,",
    ]  # fmt: skip
    # The options of a live update are for daemons alone.
    hidden = {"take_over", "c_arguments"}
    assert {row[1] for row in options.TABLE} | hidden == set(Options._fields)
    for option in (options.TAKE_OVER, options.C_ARGUMENTS):
        assert option not in options.usage()


def test_defaults() -> None:
    assert Options()._asdict() == {
        "domain_init": True, "config_file": "/etc/xen/oxenstored.conf", "daemonize": True,
        "reraise_top_level": False, "access_log": True, "pid_file": "", "trace_file": "",
        "restart": False, "live": False, "config_test": False, "disable_socket": False,
        "show_state": "", "as_format": "", "replay": "", "until": "",
        "take_over": "", "c_arguments": "",
    }  # fmt: skip
    assert Exit() == (0, "", "")


def test_live_help_says_that_it_can_take_over(tmp_path: Path) -> None:
    """By that a daemon knows a pyxsd which it can hand over to."""
    path = tmp_path / "conf"
    path.write_text("quota-maxsize = 2048\n")
    assert options.check_config(str(path), live=True).stdout.endswith(options.CAN_TAKE_OVER)
    assert options.CAN_TAKE_OVER not in options.check_config(str(path)).stdout


def test_the_result_is_read_only() -> None:
    parsed = options.parse(["--restart"])
    with pytest.raises(AttributeError):
        parsed.restart = False  # type: ignore[misc,union-attr]


# How the world starts an oxenstored: Xen's launch-xenstore, Debian's init script (whose choom takes
# the `--` away), XenServer's unit, oxenstored itself before a live update and at its end.
STARTS: list[tuple[list[str], Options]] = [
    (["--pid-file", "/var/run/xen/xenstored.pid"], Options(pid_file="/var/run/xen/xenstored.pid")),
    (
        ["--no-fork", "--pid-file", "/run/xenstore.pid"],
        Options(daemonize=False, pid_file="/run/xenstore.pid"),
    ),
    (["--no-fork"], Options(daemonize=False)),
    (
        ["--live", "--no-domain-init", "--restart", "--config-file", "/c", "--help"],
        Options(live=True, domain_init=False, restart=True, config_file="/c", config_test=True),
    ),
    (
        ["--no-fork", "--live", "--restart"],
        Options(daemonize=False, live=True, restart=True),
    ),
]


@pytest.mark.parametrize(("words", "expected"), STARTS)
def test_how_an_oxenstored_is_started(words: list[str], expected: Options) -> None:
    assert options.parse(words) == expected


# file's bytes (None: no file), status, stdout and stderr with {} for the file
CHECKS: list[tuple[bytes | None, int, str, str]] = [
    (b"quota-maxwatch = 5\n", 0, "Configuration valid at {}\n", ""),
    (b"", 0, "Configuration valid at {}\n", ""),
    (None, 2, "", "error: config: {}: No such file or directory\n"),
    (
        b"foo = 1\nquota-maxwatch = abc\n",
        2,
        "",
        "config: {}:1: unknown key foo\nconfig: {}:2: quota-maxwatch: expect int arg\n",
    ),
    (b"persistent : true\n", 2, "", "config: {}:1: no '=' in 'persistent : true'\n"),
]


@pytest.mark.parametrize(("text", "status", "stdout", "stderr"), CHECKS)
def test_check_config(
    tmp_path: Path, text: bytes | None, status: int, stdout: str, stderr: str
) -> None:
    path = tmp_path / "c.conf"
    if text is not None:
        path.write_bytes(text)
    expected = Exit(
        status=status, stdout=stdout.format(path), stderr=stderr.replace("{}", str(path))
    )
    assert options.check_config(str(path)) == expected


def test_check_config_of_a_directory(tmp_path: Path) -> None:
    answer = options.check_config(str(tmp_path))
    assert answer == Exit(status=2, stderr=f"error: config: {tmp_path}: Is a directory\n")


def test_the_default_file_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "c.conf")
    monkeypatch.setattr(configuration, "DEFAULT_PATH", path)
    assert options.check_config(path) == Exit(
        stdout=f"Configuration valid at {path}\n",
        stderr=f"error: config: {path}: No such file or directory\n",
    )
    (tmp_path / "c.conf").mkdir()
    assert options.check_config(path).status == 2
