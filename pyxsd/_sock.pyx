# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Transport over a stream socket.

Where somebody wants to know how far a call got in which this process dies (`doubt`), recvmmsg and
sendmmsg take the place of recv and send: the kernel stores the number of bytes into the caller's
memory before the call returns, and nobody is killed between the two.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from pyxsd._wire cimport IO_CLOSED, IO_NONE, Doubt, mmsghdr

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SOCK_NONBLOCK
        SOCK_CLOEXEC
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)
    int recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags, void *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags)
    int accept4(int fd, void *address, void *length, int flags)

cdef extern from "unistd.h" nogil:
    int close(int fd)


cdef inline void _describe(Doubt *doubt, void *data, size_t n) noexcept:
    doubt.piece.iov_base = data
    doubt.piece.iov_len = n
    doubt.message.msg_hdr.msg_iov = &doubt.piece
    doubt.message.msg_hdr.msg_iovlen = 1


@cython.final
@cython.no_gc
cdef class SocketTransport(Transport):
    """A connected stream socket, given by its descriptor, which it closes; is_borrowed: not
    before own()."""

    def __cinit__(self, int fd, bint is_borrowed=False):
        self.fd = fd
        self.is_borrowed = is_borrowed

    def __dealloc__(self):
        self.close()

    cdef Py_ssize_t read(self, char *dst, size_t cap) noexcept:
        cdef ssize_t n
        if self.fd < 0:
            return IO_CLOSED
        if self.doubt != NULL:
            _describe(self.doubt, dst, cap)
            n = recvmmsg(self.fd, &self.doubt.message, 1, MSG_DONTWAIT, NULL)
            if n == 1:
                n = self.doubt.message.msg_len
        else:
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
        if self.doubt != NULL:
            _describe(self.doubt, <void *>src, n)
            put = sendmmsg(self.fd, &self.doubt.message, 1, MSG_DONTWAIT | MSG_NOSIGNAL)
            if put == 1:
                put = self.doubt.message.msg_len
        else:
            put = send(self.fd, src, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if put >= 0:
            return put
        if errno == EAGAIN or errno == EINTR:
            return IO_NONE
        return IO_CLOSED

    cpdef close(self):
        """Closes the descriptor; what comes later reads IO_CLOSED."""
        if self.fd >= 0 and not self.is_borrowed:
            close(self.fd)
        self.fd = -1

    def own(self):
        """Closes the descriptor from now on, when it is closed."""
        self.is_borrowed = False

    cdef int descriptor(self) noexcept:
        return self.fd

    def fileno(self):
        """The descriptor."""
        return self.fd


def accept(int listener):
    """A new connection of a listening socket: its descriptor, or -errno."""
    cdef int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    return fd if fd >= 0 else -errno
