# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration file: its rules in tables, and any bytes at all."""

from __future__ import annotations

import math
import os
import random
import syslog
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyxsd.system import configuration as config
from pyxsd.system import options
from pyxsd.system.configuration import Config
from pyxsd.system.options import Exit
from pyxsd.system.spelling import hint, meant

ROOT = Path(__file__).resolve().parents[2]

# oxenstored's defaults, as its documentation and its own test files have them.
DEFAULTS = {
    "pid-file": "/var/run/xen/xenstored.pid",
    "merge-activate": True,
    "conflict-burst-limit": 5.0,
    "conflict-max-history-seconds": 0.05,
    "conflict-rate-limit-is-aggregate": True,
    "perms-activate": True,
    "perms-watch-activate": True,
    "quota-activate": True,
    "quota-maxwatch": 100,
    "quota-transaction": 10,
    "quota-maxentity": 1000,
    "quota-maxsize": 2048,
    "quota-maxperms": 64,
    "quota-maxrequests": 1024,
    "quota-path-max": 2048,
    "ring-scan-interval": 20,
    "quota-maxoutstanding": 1024,
    "quota-maxwatchevents": 1024,
    "gc-max-overhead": 120,
    "test-eagain": False,
    "persistent": False,
    "xenstored-log-file": "/var/log/xen/xenstored.log",
    "xenstored-log-level": "warn",
    "xenstored-log-nb-files": 10,
    "xenstored-log-nb-lines": 13215,
    "xenstored-log-nb-chars": -1,
    "access-log-file": "/var/log/xen/xenstored-access.log",
    "access-log-nb-files": 20,
    "access-log-nb-lines": 13215,
    "access-log-nb-chars": 180,
    "access-log-read-ops": False,
    "access-log-transactions-ops": False,
    "access-log-special-ops": False,
    "allow-debug": False,
    "xenstored-kva": "",
    "xenstored-port": "",
    # pyxsd's own
    "quota-errno": "EQUOTA",
    "poll-time-us": 40,
    "crash-recovery": False,
    "recovery-size": 256,
    "record-directory": "",
    "record-size": 256,
    "record-values": True,
}

KIND_TYPES = {"bool": bool, "int": int, "float": float}


def field(key: str) -> str:
    return key.replace("-", "_")


def test_defaults_and_kinds() -> None:
    settings = Config()
    assert {key: getattr(settings, field(key)) for key in DEFAULTS} == DEFAULTS
    assert set(config.keys()) == set(DEFAULTS)
    for key, kind in config.keys().items():
        assert type(DEFAULTS[key]) is KIND_TYPES.get(kind, str), key


RANGE = f"expect int arg from {-(2**62)} to {2**62 - 1}"

# text, changed fields, warnings
LINES: list[tuple[bytes, dict[str, object], list[str]]] = [
    (b"", {}, []),
    (b"quota-maxwatch = 5", {"quota_maxwatch": 5}, []),
    (b"quota-maxwatch=5\n", {"quota_maxwatch": 5}, []),
    (b"\t quota-maxwatch\t =\t 5 \t\n", {"quota_maxwatch": 5}, []),
    (b"quota-maxwatch = 5\nquota-maxwatch = 6\n", {"quota_maxwatch": 6}, []),
    (b"quota-maxwatch = -5", {"quota_maxwatch": -5}, []),
    (b"quota-maxwatch = +5", {"quota_maxwatch": 5}, []),
    (b"quota-maxwatch = 007", {"quota_maxwatch": 7}, []),
    (b"quota-maxwatch = 4611686018427387903", {"quota_maxwatch": 2**62 - 1}, []),
    (b"quota-maxwatch = -4611686018427387904", {"quota_maxwatch": -(2**62)}, []),
    (b"quota-maxwatch = " + b"0" * 10000 + b"3", {"quota_maxwatch": 3}, []),
    (b"ring-scan-interval = -1", {"ring_scan_interval": -1}, []),
    (b"poll-time-us = 0", {"poll_time_us": 0}, []),
    (b"conflict-burst-limit = 7", {"conflict_burst_limit": 7.0}, []),
    (b"conflict-burst-limit = 7.", {"conflict_burst_limit": 7.0}, []),
    (b"conflict-burst-limit = .5", {"conflict_burst_limit": 0.5}, []),
    (b"conflict-burst-limit = +1.5E+2", {"conflict_burst_limit": 150.0}, []),
    (b"persistent = true", {"persistent": True}, []),
    (b"persistent = true\npersistent = false", {"persistent": False}, []),
    (b"pid-file = /a = b", {"pid_file": "/a = b"}, []),
    (b"pid-file = /a # not a comment", {"pid_file": "/a # not a comment"}, []),
    (b"pid-file =", {"pid_file": ""}, []),
    (b"pid-file = /\xff\xfe", {"pid_file": "/\udcff\udcfe"}, []),
    (b"access-log-file = syslog:local3", {"access_log_file": "syslog:local3"}, []),
    (b"xenstored-log-level = debug", {"xenstored_log_level": "debug"}, []),
    (b"xenstored-log-level = null", {"xenstored_log_level": "null"}, []),
    (b"quota-errno = ENOSPC", {"quota_errno": "ENOSPC"}, []),
    # skipped
    (b"# quota-maxwatch = 5\n  #persistent = x\n\n   \n\t\r\n# no equals sign\n", {}, []),
    # warnings; the default stays
    (b"foo = 1", {}, ["config: F:1: unknown key foo"]),
    (b"x#y = 1", {}, ["config: F:1: unknown key x#y"]),
    (
        b"QUOTA-MAXWATCH = 1",
        {},
        ["config: F:1: unknown key QUOTA-MAXWATCH, did you mean quota-maxwatch?"],
    ),
    (
        b"quota_maxwatch = 1",
        {},
        ["config: F:1: unknown key quota_maxwatch, did you mean quota-maxwatch?"],
    ),
    (
        b"acesss-log-nb-chars = 180",
        {},
        ["config: F:1: unknown key acesss-log-nb-chars, did you mean access-log-nb-chars?"],
    ),
    (b" = 5", {}, ["config: F:1: no key before '='"]),
    (b"=", {}, ["config: F:1: no key before '='"]),
    (b"persistent = 1", {}, ["config: F:1: persistent: expect bool arg"]),
    (b"persistent =", {}, ["config: F:1: persistent: expect bool arg"]),
    (b"persistent = True", {}, ["config: F:1: persistent: expect bool arg"]),
    (b"persistent = true # yes", {}, ["config: F:1: persistent: expect bool arg"]),
    # what editors of other systems leave
    (
        b"persistent = true\r\npid-file = /a\r\n\r\n# comment\r\nquota-maxwatch = 5\n",
        {"quota_maxwatch": 5},
        [
            "config: F:1: ends with a carriage return: save the file with Unix line ends",
            "config: F:2: ends with a carriage return: save the file with Unix line ends",
        ],
    ),
    (
        b"\xef\xbb\xbfquota-maxwatch = 5\nquota-transaction = 6\n",
        {"quota_transaction": 6},
        ["config: F:1: begins with a byte order mark: save the file as UTF-8 without one"],
    ),
    (b"\npid-file = /\xef\xbb\xbfx\n", {"pid_file": "/\ufeffx"}, []),
    (b"quota-maxsize = a", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize =", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = -", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = 5.0", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = 5 6", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = 0x10", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = 1_000", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = \xd9\xa3", {}, ["config: F:1: quota-maxsize: expect int arg"]),
    (b"quota-maxsize = 4611686018427387904", {}, [f"config: F:1: quota-maxsize: {RANGE}"]),
    (b"quota-maxsize = " + b"9" * 10000, {}, [f"config: F:1: quota-maxsize: {RANGE}"]),
    *(
        (b"%s = %s" % (key, value), {}, [f"config: F:1: {key.decode()}: expect {least}"])
        for key, value, least in (
            (b"conflict-burst-limit", b"0", "more than 0, else no guest is served"),
            (b"conflict-burst-limit", b"-1.5E+2", "more than 0, else no guest is served"),
            (b"conflict-max-history-seconds", b"-0.1", "0 or more"),
            (b"poll-time-us", b"-1", "0 or more"),
            (b"record-size", b"0", "1 or more"),
            (b"recovery-size", b"0", "1 or more"),
            (b"recovery-size", b"1099511627777", "1099511627776 or less"),
            (b"xenstored-log-nb-files", b"-3", "0 or more"),
            (b"xenstored-log-nb-lines", b"-1", "0 or more"),
            (b"xenstored-log-nb-chars", b"-2", "-1 or more"),
            (b"access-log-nb-files", b"-1", "0 or more"),
            (b"access-log-nb-lines", b"-1", "0 or more"),
            (b"access-log-nb-chars", b"-2", "-1 or more"),
        )
    ),
    (b"xenstored-log-nb-files = 0", {"xenstored_log_nb_files": 0}, []),
    (b"access-log-nb-chars = -1", {"access_log_nb_chars": -1}, []),
    (b"conflict-burst-limit = x", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"conflict-burst-limit = .", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"conflict-burst-limit = 1e", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"conflict-burst-limit = nan", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"conflict-burst-limit = -inf", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"conflict-burst-limit = 1e999", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"conflict-burst-limit = 1_0.5", {}, ["config: F:1: conflict-burst-limit: expect float arg"]),
    (b"pid-file = /a\0b", {}, ["config: F:1: pid-file: NUL in a name"]),
    (
        b"xenstored-log-level = WARN",
        {},
        ["config: F:1: xenstored-log-level: expect one of debug, info, warn, error, null"],
    ),
    (
        b"xenstored-log-file = syslog:foo",
        {},
        ["config: F:1: xenstored-log-file: unknown syslog facility foo"],
    ),
    (b"quota-errno = EIO", {}, ["config: F:1: quota-errno: expect EQUOTA or ENOSPC"]),
    # lines without =
    (b"quota-maxwatch : 5", {}, ["config: F:1: no '=' in 'quota-maxwatch : 5'"]),
    (b"\nquota-maxwatch 5\n", {}, ["config: F:2: no '=' in 'quota-maxwatch 5'"]),
    (b"persistent\n", {}, ["config: F:1: no '=' in 'persistent'"]),
    # each fault by itself, in the file's order; what is right counts
    (
        b"a = 1\npersistent = 1\nquota-maxwatch = 7\nb = 2\n",
        {"quota_maxwatch": 7},
        [
            "config: F:1: unknown key a",
            "config: F:2: persistent: expect bool arg",
            "config: F:4: unknown key b",
        ],
    ),
    # a wrong value does not undo a right one before it
    (
        b"quota-maxwatch = 7\nquota-maxwatch = x\n",
        {"quota_maxwatch": 7},
        ["config: F:2: quota-maxwatch: expect int arg"],
    ),
]


@pytest.mark.parametrize(("text", "changed", "warnings"), LINES)
def test_lines(text: bytes, changed: dict[str, Any], warnings: list[str]) -> None:
    settings, told = config.parse(text, "F")
    assert told == warnings
    assert settings == Config(**changed)


def test_an_unknown_key_is_shown_short_and_printable() -> None:
    _settings, told = config.parse(b"\x1b[2J\xff\r" + b"x" * 100000 + b" = 1")
    assert len(told) == 1
    assert told[0].startswith("config: -:1: unknown key \\x1b[2J\\xff\\x0dxxx")
    assert told[0].endswith("..")
    assert len(told[0]) < 300
    assert told[0].isprintable()


def check_any(text: bytes) -> None:
    """Whatever the bytes: every field has its type and range, and faults are one line each."""
    settings, told = config.parse(text)
    for key, kind in config.keys().items():
        value = getattr(settings, field(key))
        assert type(value) is KIND_TYPES.get(kind, str)
        if isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, int):
            assert config.INT_MIN <= value <= config.INT_MAX
        elif isinstance(value, str):
            assert "\0" not in value
    assert all(line.isprintable() for line in told)
    assert len(told) <= text.count(b"\n") + 1


@given(st.binary())
def test_random_bytes(text: bytes) -> None:
    check_any(text)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DEFAULTS)).map(str.encode) | st.binary(max_size=8),
            st.sampled_from([b"=", b" = ", b"\t=", b"", b"=="]),
            st.binary(max_size=20)
            | st.integers().map(lambda n: str(n).encode())
            | st.floats().map(lambda x: str(x).encode())
            | st.text("0123456789.+-eE_xnaif", max_size=10).map(str.encode),
        ).map(b"".join)
    ).map(b"\n".join)
)
def test_lines_that_are_nearly_right(text: bytes) -> None:
    check_any(text)


def test_a_megabyte_of_noise() -> None:
    noise = random.Random(7)
    check_any(noise.randbytes(1 << 20))
    check_any(b"=" * (1 << 20))


def test_many_faults_are_shown_in_part_and_counted() -> None:
    _settings, told = config.parse(b"wrong\n" * 500 + b"quota-maxwach = 1\n" * 200000, "F")
    assert len(told) == config.MAX_WARNINGS + 1
    assert told[0] == "config: F:1: no '=' in 'wrong'"
    assert told[-2:] == ["config: F:100: no '=' in 'wrong'", "config: F: 200400 more wrong lines"]


# word, what was meant
MEANT = [
    ("quota-maxwatches", "quota-maxwatch"),
    ("QUOTA_MAXWATCH", "quota-maxwatch"),
    ("acces-log-file", "access-log-file"),
    ("xenstored-log-nbfiles", "xenstored-log-nb-files"),
    ("colour", ""),
    ("", ""),
    ("persistent" * 10, ""),
]


@pytest.mark.parametrize(("word", "name"), MEANT)
def test_what_was_meant(word: str, name: str) -> None:
    assert meant(word, config.keys()) == name
    assert hint(word, config.keys()) == (f", did you mean {name}?" if name else "")


def test_only_words_of_some_length_are_looked_for() -> None:
    """The search takes time with the square of the length: 64 characters and no more."""
    for length, name in ((64, "x" * 64), (65, "")):
        assert meant("x" * length, ["x" * 64]) == name


def test_it_is_read_only_and_comparable() -> None:
    settings = Config(quota_maxwatch=7)
    assert settings.quota_maxwatch == 7
    assert settings == Config(quota_maxwatch=7)
    assert hash(settings) == hash(Config(quota_maxwatch=7))
    assert settings != Config()
    assert "quota_maxwatch=7" in repr(settings)
    with pytest.raises(AttributeError):
        settings.quota_maxwatch = 8  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del settings.quota_maxwatch
    with pytest.raises(TypeError):
        Config(no_such_key=1)  # type: ignore[call-arg]
    assert Config().quota_maxwatch == 100


def test_load(tmp_path: Path) -> None:
    file = tmp_path / "c.conf"
    file.write_bytes(b"quota-maxwatch = 7\nx = 1\n")
    assert config.load(str(file)) == (
        Config(quota_maxwatch=7), [f"config: {file}:2: unknown key x"]
    )  # fmt: skip


@pytest.mark.parametrize("text", [None, b"", b"quota-maxwatch = 7\n"])
def test_a_pipe_is_refused(tmp_path: Path, text: bytes | None) -> None:
    """Without a writer (None) it would be waited for; with one, half of it might be there."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = -1 if text is None else os.open(fifo, os.O_RDWR)
    if text:
        os.write(writer, text)
    told = f"config: {fifo}: it is a pipe, not a file"
    assert config.load(str(fifo)) == (Config(), [f"{told}; the defaults are used"])
    assert options.check_config(str(fifo)) == Exit(status=2, stderr=f"error: {told}\n")
    if writer >= 0:
        os.close(writer)


def test_a_file_as_large_as_may_be(tmp_path: Path) -> None:
    """One mebibyte, and not a byte more."""
    file = tmp_path / "large"
    for size, faults in (((1 << 20), 0), ((1 << 20) + 1, 1)):
        file.write_bytes(b"#" * size)
        assert len(config.load(str(file))[1]) == faults


def test_facilities_have_the_codes_of_syslog() -> None:
    assert len(config.FACILITIES) == 20
    for name, code in config.FACILITIES.items():
        # Python names no ftp.
        assert code == (11 if name == "ftp" else getattr(syslog, f"LOG_{name.upper()}") >> 3)


def test_load_of_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big, loop, missing = (str(tmp_path / name) for name in ("big", "loop", "missing"))
    Path(big).write_bytes(b"# " + b"x" * config.MAX_FILE_SIZE)
    Path(loop).symlink_to(loop)
    table = [
        ("/dev/zero", "File too large"),
        (big, "File too large"),
        (str(tmp_path), "Is a directory"),
        (loop, "Too many levels of symbolic links"),
        (missing, "No such file or directory"),
        (missing + "\0", "No such file or directory"),
    ]
    for path, reason in table:
        assert config.load(path) == (Config(), [f"config: {path}: {reason}; the defaults are used"])
    monkeypatch.setattr(config, "DEFAULT_PATH", missing)
    assert config.load(missing) == (Config(), [])


def test_the_shipped_file_names_every_key_and_changes_only_the_ring_of_domain_0() -> None:
    text = (ROOT / "packaging/pyxsd.conf").read_bytes()
    settings, told = config.parse(text)
    assert told == []
    expected = Config(xenstored_kva="/proc/xen/xsd_kva", xenstored_port="/proc/xen/xsd_port")
    assert settings == expected
    # What is commented out is the key with its default.
    uncommented = [
        line[1:] if line[:1] == b"#" and line[1:2].isalpha() else line for line in text.split(b"\n")
    ]
    settings, told = config.parse(b"\n".join(uncommented))
    assert told == []
    assert settings == expected
    named = [line.partition(b"=")[0].strip().decode() for line in uncommented
             if b"=" in line and not line.startswith(b"#")]  # fmt: skip
    assert sorted(named) == sorted(DEFAULTS)


def test_the_documentation_has_every_key_with_its_default() -> None:
    rows: dict[str, str] = {}
    for line in (ROOT / "docs/configuration.md").read_text().splitlines():
        if line.startswith("| `"):
            key, default = (cell.strip().strip("`") for cell in line.split("|")[1:3])
            rows[key] = default
    shown = {True: "true", False: "false", "": "(none)"}
    assert rows == {key: shown.get(value, str(value)) if isinstance(value, (bool, str))
                    else str(value) for key, value in DEFAULTS.items()}  # fmt: skip
