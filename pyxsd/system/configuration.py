# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration file: oxenstored's keys, rules and warnings, read into one read-only record.

What lives here: the table of keys, which is the body of `Config` (field, kind, default); the
parser of the file's text; the words a value may be.  It opens one file for reading and does
nothing else: no logging, no decision whether a warning is fatal.

This is on the way to READY: `dataclasses` would add 15 ms to it.
"""

from __future__ import annotations

import errno
import os
import stat

from pyxsd.named import NamedTuple
from pyxsd.system.spelling import hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/etc/xen/oxenstored.conf"

# A configuration is some kilobytes; what is longer is a wrong path (a device, a log).
MAX_FILE_SIZE = 1 << 20

# oxenstored's integers have 63 bits; what it refuses is refused here.
INT_MIN = -(1 << 62)
INT_MAX = (1 << 62) - 1

# How many bytes of an unknown key a warning repeats, and how many warnings there are at most.
_SHOWN = 200
MAX_WARNINGS = 100

SYSLOG_PREFIX = "syslog:"

# What some editors of other systems put at the start of a file and at the end of each line.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CARRIAGE_RETURN = b"\r"

# Log levels in rising order: a line is written where its level is not below the configured one.
LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3, "null": 4}

# The facilities that oxenstored takes behind `syslog:`, with syslog(3)'s codes.
FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7,
    "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11, "local0": 16, "local1": 17, "local2": 18,
    "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}  # fmt: skip

# Kinds of string values, named so that a field's annotation says how its value is read.
Destination = str  # a path, or syslog:<facility>
Level = str  # a key of LEVELS
Errno = str  # a key of _ERRNOS

# The least value of keys of which a smaller one has no meaning.  That of quotas is another one in
# each case, see docs/configuration.md.
_LEAST = {
    "conflict-max-history-seconds": 0, "poll-time-us": 0,
    "record-size": 1, "recovery-size": 1,
    "xenstored-log-nb-files": 0, "xenstored-log-nb-lines": 0, "xenstored-log-nb-chars": -1,
    "access-log-nb-files": 0, "access-log-nb-lines": 0, "access-log-nb-chars": -1,
}  # fmt: skip
# Of more MiB the bytes could not be counted in 64 bits, and no machine has so many.
_MOST = {"recovery-size": 1 << 40}
# With no credit at all, no guest would ever be served.
_ABOVE_ZERO = ("conflict-burst-limit",)

_BOOLS = {b"true": True, b"false": False}
_ERRNOS = ("EQUOTA", "ENOSPC")


class Config(NamedTuple):
    """Every key of the file, under its name with `_` for `-`.  docs/configuration.md explains them.

    Integers lie within INT_MIN and INT_MAX and may be negative; floats are finite and may be
    zero or negative; strings are file system names (surrogateescape), without NUL, maybe empty.
    """

    pid_file: str = "/var/run/xen/xenstored.pid"
    # transactions
    merge_activate: bool = True
    test_eagain: bool = False
    conflict_burst_limit: float = 5.0
    conflict_max_history_seconds: float = 0.05
    conflict_rate_limit_is_aggregate: bool = True
    # permissions
    perms_activate: bool = True
    perms_watch_activate: bool = True
    # quotas
    quota_activate: bool = True
    quota_maxwatch: int = 100
    quota_transaction: int = 10
    quota_maxentity: int = 1000
    quota_maxsize: int = 2048
    quota_maxperms: int = 64  # entries of a permission list; 0: no limit
    quota_maxrequests: int = 1024
    quota_path_max: int = 2048
    quota_maxoutstanding: int = 1024
    quota_maxwatchevents: int = 1024
    quota_errno: Errno = "EQUOTA"
    # the daemon
    gc_max_overhead: int = 120  # percent; without effect
    persistent: bool = False
    allow_debug: bool = False
    ring_scan_interval: int = 20  # seconds; negative: no scan
    poll_time_us: int = 40  # microseconds; 0: never poll
    crash_recovery: bool = False  # is the daemon proper a child that is made anew when it dies?
    recovery_size: int = 256  # MiB of memory for what outlives a death
    record_directory: str = ""  # empty: nothing is recorded
    record_size: int = 256  # MiB of all recordings together
    record_values: bool = True  # else x in their place
    xenstored_kva: str = ""
    xenstored_port: str = ""
    # logs
    xenstored_log_file: Destination = "/var/log/xen/xenstored.log"
    xenstored_log_level: Level = "warn"
    xenstored_log_nb_files: int = 10
    xenstored_log_nb_lines: int = 13215
    xenstored_log_nb_chars: int = -1
    access_log_file: Destination = "/var/log/xen/xenstored-access.log"
    access_log_nb_files: int = 20
    access_log_nb_lines: int = 13215
    access_log_nb_chars: int = 180
    access_log_read_ops: bool = False
    access_log_transactions_ops: bool = False
    access_log_special_ops: bool = False


def keys() -> dict[str, str]:
    """The keys as they are spelt in the file, each with its kind (`bool`, `int`, ...)."""
    return {field.replace("_", "-"): kind for field, kind in Config.__annotations__.items()}


def _bool(raw: bytes) -> bool:
    if raw not in _BOOLS:
        raise ValueError("expect bool arg")
    return _BOOLS[raw]


def _int(raw: bytes) -> int:
    digits = raw[1:] if raw[:1] in (b"-", b"+") else raw
    if not digits.isdigit():
        raise ValueError("expect int arg")
    significant = digits.lstrip(b"0") or b"0"
    # The length is looked at first: int() of very many digits is slow, or refused by Python.
    if len(significant) <= 19:
        value = -int(significant) if raw[:1] == b"-" else int(significant)
        if INT_MIN <= value <= INT_MAX:
            return value
    raise ValueError(f"expect int arg from {INT_MIN} to {INT_MAX}")


def _is_decimal(raw: bytes) -> bool:
    """Whether the text is digits with at most one point and one exponent: no nan, inf, `_`, 0x."""
    mantissa, e, exponent = raw.lower().partition(b"e")
    if mantissa[:1] in (b"-", b"+"):
        mantissa = mantissa[1:]
    if exponent[:1] in (b"-", b"+"):
        exponent = exponent[1:]
    if e and not exponent.isdigit():
        return False
    whole, _, fraction = mantissa.partition(b".")
    return (whole + fraction).isdigit()


def _float(raw: bytes) -> float:
    if _is_decimal(raw):
        value = float(raw)
        if value - value == 0.0:  # false for the infinity that 1e999 gives
            return value
    raise ValueError("expect float arg")


def _str(raw: bytes) -> str:
    if b"\0" in raw:
        raise ValueError("NUL in a name")
    return os.fsdecode(raw)


def _destination(raw: bytes) -> str:
    value = _str(raw)
    if value.startswith(SYSLOG_PREFIX) and value[len(SYSLOG_PREFIX) :] not in FACILITIES:
        raise ValueError(f"unknown syslog facility {_shown(raw[len(SYSLOG_PREFIX) :])}")
    return value


def _level(raw: bytes) -> str:
    value = _shown(raw)
    if value not in LEVELS:
        raise ValueError(f"expect one of {', '.join(LEVELS)}")
    return value


def _errno(raw: bytes) -> str:
    value = _shown(raw)
    if value not in _ERRNOS:
        raise ValueError(f"expect {' or '.join(_ERRNOS)}")
    return value


# One reader per kind; each raises ValueError with the text that the warning ends in.
_READERS = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "Destination": _destination,
    "Level": _level,
    "Errno": _errno,
}


def _check_range(key: str, value: Any) -> None:
    """ValueError where the value of this key has no meaning."""
    if key in _LEAST and value < _LEAST[key]:
        raise ValueError(f"expect {_LEAST[key]} or more")
    if key in _MOST and value > _MOST[key]:
        raise ValueError(f"expect {_MOST[key]} or less")
    if key in _ABOVE_ZERO and value <= 0:
        raise ValueError("expect more than 0, else no guest is served")


def _shown(raw: bytes) -> str:
    """Bytes of the file as one short printable line; others as `\\xNN`."""
    text = raw[:_SHOWN].decode("utf-8", "backslashreplace")
    if len(raw) > _SHOWN:
        text += ".."
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in text
    )


class _Faults:
    """The warnings about one file: each with file and line, the first MAX_WARNINGS of them.

    A file of a megabyte may have a million faults; showing them all, and comparing each unknown
    key with the known ones, would keep a host from booting for minutes.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._warnings: list[str] = []
        self._more = 0

    def add(self, number: int, text: str) -> None:
        """A fault in line `number`."""
        if self.full():
            self._more += 1
        else:
            self._warnings.append(f"config: {self._name}:{number}: {text}")

    def full(self) -> bool:
        """Whether further faults are only counted."""
        return len(self._warnings) >= MAX_WARNINGS

    def all(self) -> list[str]:
        """The warnings, the last of them the number of those that are not shown."""
        if not self._more:
            return self._warnings
        return [*self._warnings, f"config: {self._name}: {self._more} more wrong lines"]


def parse(text: bytes, name: str = "-") -> tuple[Config, list[str]]:
    """Read the text of a configuration file; never fails, whatever the bytes are.

    Lines are `key = value`, cut at the first `=`, with blanks and tabs around both ignored.
    Empty lines, and lines that begin with `#`, are skipped.  The last line of a key counts.
    Unknown keys, wrong values and lines without `=` keep the default and give one warning each,
    in the file's order, with the file's `name` and the number of the line:
    `config: F:3: unknown key persistant, did you mean persistent?`,
    `config: F:4: persistent: expect bool arg` (oxenstored's words), `config: F:5: no '=' in
    'persistent : true'`, `config: F:6: no key before '='`.  Two traces of other systems' editors
    are such faults as well, each named: a byte order mark at the start of the file, and a carriage
    return behind a value.
    """
    known = keys()
    values: dict[str, Any] = {}
    faults = _Faults(name)
    for number, line in enumerate(text.split(b"\n"), 1):
        raw_key, equals, raw_value = line.partition(b"=")
        raw_key = raw_key.strip(b" \t")
        if raw_key.startswith(b"#") or not line.strip(b" \t\r"):
            continue
        if number == 1 and line.startswith(_BYTE_ORDER_MARK):
            faults.add(number, "begins with a byte order mark: save the file as UTF-8 without one")
            continue
        if line.endswith(_CARRIAGE_RETURN):
            faults.add(number, "ends with a carriage return: save the file with Unix line ends")
            continue
        if equals and not raw_key:
            faults.add(number, "no key before '='")
            continue
        if not equals:
            faults.add(number, f"no '=' in '{_shown(raw_key)}'")
            continue
        key = _shown(raw_key)
        kind = known.get(key)
        if kind is None:
            faults.add(number, f"unknown key {key}" + ("" if faults.full() else hint(key, known)))
            continue
        try:
            value = _READERS[kind](raw_value.strip(b" \t"))
            _check_range(key, value)
            values[key.replace("-", "_")] = value
        except ValueError as error:
            faults.add(number, f"{key}: {error}")
    return Config(**values), faults.all()


def read_file(path: str) -> bytes:
    """The file's bytes; OSError as open and read give it, EFBIG above MAX_FILE_SIZE.

    Never waits: a pipe is EINVAL, since what its writer has not written yet would be missing.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:  # a NUL in the path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, not a file", path)
        chunks: list[bytes] = []
        left = MAX_FILE_SIZE + 1
        while left > 0:
            chunk = os.read(fd, min(left, 1 << 16))
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(fd)
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)


def load(path: str) -> tuple[Config, list[str]]:
    """`parse` of a file.  One that cannot be read is one warning, and all keys have their defaults.

    That nothing stands at DEFAULT_PATH is no warning: a host need not have the file.
    """
    try:
        text = read_file(path)
    except OSError as error:
        if path == DEFAULT_PATH and isinstance(error, FileNotFoundError):
            return Config(), []
        return Config(), [f"config: {path}: {error.strerror}; the defaults are used"]
    return parse(text, path)
