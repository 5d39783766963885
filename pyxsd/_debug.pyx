# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether this is a build for debugging (PYXSD_BUILD=debug), and what such a build alone can do:
die on purpose, so that it can be tried what becomes of a crash."""

cdef extern from *:
    """
    #include <signal.h>
    #include <stdlib.h>
    #include <unistd.h>
    #ifdef PYXSD_DEBUG
    #define PYXSD_IS_DEBUG 1
    /* As a fault of ours would, and not as a sanitizer reports one. */
    __attribute__((no_sanitize("address", "undefined")))
    static void pyxsd_crash_segv(void) { *(volatile int *)8 = 0; }
    static void pyxsd_crash_abort(void) { abort(); }
    static void pyxsd_crash_exit(void) { _exit(3); }
    static void pyxsd_crash_kill(void) { kill(getpid(), SIGKILL); }
    #else
    #define PYXSD_IS_DEBUG 0
    static void pyxsd_crash_segv(void) {}
    static void pyxsd_crash_abort(void) {}
    static void pyxsd_crash_exit(void) {}
    static void pyxsd_crash_kill(void) {}
    #endif
    """
    int PYXSD_IS_DEBUG
    void pyxsd_crash_segv() noexcept nogil
    void pyxsd_crash_abort() noexcept nogil
    void pyxsd_crash_exit() noexcept nogil
    void pyxsd_crash_kill() noexcept nogil

IS_DEBUG = PYXSD_IS_DEBUG != 0


def crash(bytes word not None):
    """Ends the process in a build for debugging, and does nothing in another one; ValueError for
    another word than segv, abort, exit and kill."""
    if word == b"segv":
        pyxsd_crash_segv()
    elif word == b"abort":
        pyxsd_crash_abort()
    elif word == b"exit":
        pyxsd_crash_exit()
    elif word == b"kill":
        pyxsd_crash_kill()
    else:
        raise ValueError("segv, abort, exit or kill")
