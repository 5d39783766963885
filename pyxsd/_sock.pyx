# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Transport over a stream socket."""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from pyxsd._wire cimport IO_CLOSED, IO_NONE

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SOCK_NONBLOCK
        SOCK_CLOEXEC
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)
    int accept4(int fd, void *address, void *length, int flags)

cdef extern from "unistd.h" nogil:
    int close(int fd)


@cython.final
@cython.no_gc
cdef class SocketTransport(Transport):
    """A connected stream socket, given by its descriptor, which it closes."""

    def __cinit__(self, int fd):
        self.fd = fd

    def __dealloc__(self):
        self.close()

    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept:
        cdef ssize_t n
        if self.fd < 0:
            return IO_CLOSED
        n = recv(self.fd, dst, cap, MSG_DONTWAIT)
        if n > 0:
            return n
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return IO_NONE
        return IO_CLOSED

    cdef Py_ssize_t write(self, const char *src, size_t n) noexcept:
        cdef ssize_t put
        if self.fd < 0:
            return IO_CLOSED
        put = send(self.fd, src, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if put >= 0:
            return put
        if errno == EAGAIN or errno == EINTR:
            return IO_NONE
        return IO_CLOSED

    cpdef close(self):
        """Closes the descriptor; what comes later reads IO_CLOSED."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    def fileno(self):
        """The descriptor."""
        return self.fd


def accept(int listener):
    """A new connection of a listening socket: its descriptor, or -errno."""
    cdef int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    return fd if fd >= 0 else -errno
