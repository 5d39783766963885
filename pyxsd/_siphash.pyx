# SPDX-License-Identifier: LGPL-2.1-or-later
"""The secret key of the hash tables of this process, and SipHash-1-3 for tests.

The key comes from the system's random numbers.  PYXSD_HASH_KEY in the environment
(32 hexadecimal digits) sets it instead, so that a run can be repeated exactly; it
is meant for tests, a daemon with a known key can be attacked.
"""

import os


def _read_key(text):
    """The 16 bytes of a key written in hexadecimal; random ones where text is None."""
    if text is None:
        return os.urandom(16)
    key = bytes.fromhex(text)
    if len(key) != 16:
        raise ValueError("PYXSD_HASH_KEY must have 32 hexadecimal digits")
    return key


def _set_key(bytes key):
    memcpy(&hash_key, <const char *>key, 16)


_set_key(_read_key(os.environ.get("PYXSD_HASH_KEY")))


def use_key(bytes key not None):
    """Takes another key of 16 bytes: that of the process whose image is taken over.  Before the
    first server is made: no table with the old key may be there."""
    if len(key) != 16:
        raise ValueError("a key has 16 bytes")
    _set_key(key)


def siphash(bytes key not None, bytes data not None):
    """SipHash-1-3 of data under a key of 16 bytes; the hash as an integer of 64 bits."""
    cdef HashKey parsed
    if len(key) != 16:
        raise ValueError("a key has 16 bytes")
    memcpy(&parsed, <const char *>key, 16)
    return sip_bytes(&parsed, data, len(data))
