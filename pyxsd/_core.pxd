# SPDX-License-Identifier: LGPL-2.1-or-later
# The server: the table of requests with its handlers, and what the floors above call.

from pyxsd._requests cimport Requests

cdef class Server(Requests):
    pass
