# SPDX-License-Identifier: LGPL-2.1-or-later
"""A child that shares the table of descriptors with this process, and nothing else.

What one of the two opens has the same number in the other one, and stays open when its opener dies.
The process must have one thread.  glue/xsd_clone.h has the system call.
"""

import os

from libc.errno cimport errno

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *wanted, sigset_t *before)
    enum:
        SIG_SETMASK
        SIGKILL

cdef extern from "sys/prctl.h" nogil:
    int prctl(int option, unsigned long argument)
    enum:
        PR_SET_PDEATHSIG
        PR_SET_DUMPABLE

cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_close_range
    #define SYS_close_range 436
    #endif
    /* CLOSE_RANGE_UNSHARE: those from `first` on are not copied, they are simply not there. */
    static long pyxsd_leave_descriptors(unsigned int first)
    {
        return syscall(SYS_close_range, first, ~0U, 2U);
    }
    """
    long pyxsd_leave_descriptors(unsigned int first) noexcept nogil

cdef extern from "xsd_clone.h" nogil:
    struct xsd_thread:
        pass
    int xsd_thread_here(xsd_thread *thread)
    int xsd_clone(const xsd_thread *thread)
    int xsd_clone_check()


cdef object _error(int number):
    return OSError(number, "clone with a shared table of descriptors: " + os.strerror(number))


def check():
    """Makes such a child and waits for its end; OSError where it cannot be had, or is not what it
    should be."""
    cdef sigset_t every, before
    cdef int result
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    result = xsd_clone_check()
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if result < 0:
        raise _error(-result)


def spawn():
    """0 in the child, its pid in the parent; OSError.  Both have the signal mask of before."""
    cdef sigset_t every, before
    cdef xsd_thread thread
    cdef int pid = xsd_thread_here(&thread)
    if pid < 0:
        raise _error(-pid)
    PyOS_BeforeFork()
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)
    pid = xsd_clone(&thread)
    if pid == 0:
        PyOS_AfterFork_Child()
    else:
        PyOS_AfterFork_Parent()
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if pid < 0:
        raise _error(-pid)
    return pid


def die_with_parent(bint on):
    """Is this process killed when the one ends that has made it?"""
    prctl(PR_SET_PDEATHSIG, SIGKILL if on else 0)


def leave_descriptors():
    """From now on this process has a table of descriptors of its own, with 0, 1 and 2 in it; it
    never has copies of the others, not for a moment.  OSError where the kernel cannot do that
    (before Linux 5.9)."""
    if pyxsd_leave_descriptors(3) < 0:
        raise OSError(errno, "close_range: " + os.strerror(errno))


def leave_no_core():
    """No core file is written of this process: it would hold what guests have written, and its
    death would be known only when the file is whole."""
    prctl(PR_SET_DUMPABLE, 0)
