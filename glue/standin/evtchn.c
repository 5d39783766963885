/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenevtchn.so.1 of the stand-in: event channels of dom0.  A handle's fd is
 * a FIFO that yields the pending ports as u32, as /dev/xen/evtchn does; it may
 * be inherited over exec and opened again with xenevtchn_fdopen().
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define NO_CLOEXEC 1U

typedef struct xenevtchn_handle {
    struct hostmap *m;
    int index;
    int fd;
} xenevtchn_handle;

EXPORT xenevtchn_handle *xenevtchn_open(void *logger, unsigned flags);
EXPORT xenevtchn_handle *xenevtchn_fdopen(void *logger, int fd, unsigned flags);
EXPORT int xenevtchn_close(xenevtchn_handle *x);
EXPORT int xenevtchn_fd(xenevtchn_handle *x);
EXPORT int xenevtchn_notify(xenevtchn_handle *x, uint32_t port);
EXPORT int xenevtchn_bind_unbound_port(xenevtchn_handle *x, uint32_t domid);
EXPORT int xenevtchn_bind_interdomain(xenevtchn_handle *x, uint32_t domid, uint32_t port);
EXPORT int xenevtchn_bind_virq(xenevtchn_handle *x, unsigned virq);
EXPORT int xenevtchn_unbind(xenevtchn_handle *x, uint32_t port);
EXPORT int xenevtchn_pending(xenevtchn_handle *x);
EXPORT int xenevtchn_unmask(xenevtchn_handle *x, uint32_t port);
EXPORT int xenevtchn_restrict(xenevtchn_handle *x, uint16_t domid);

static int result(int r)
{
    if (r >= 0)
        return r;
    errno = -r;
    return -1;
}

static xenevtchn_handle *make(int fd, bool keep)
{
    xenevtchn_handle *x = calloc(1, sizeof(*x));
    int err;

    if (!x) {
        errno = ENOMEM;
        return NULL;
    }
    err = host_open(NULL, &x->m);
    if (!err) {
        err = host_fault(x->m, "open-evtchn", -1);
        if (!err && fd >= 0) {
            x->fd = fd;
            x->index = host_handle_from_fd(x->m, fd);
            err = x->index < 0 ? x->index : 0;
        } else if (!err) {
            x->index = host_handle_open(x->m, HANDLE_DEVICE, keep, false, &x->fd);
            err = x->index < 0 ? x->index : 0;
        }
        if (err)
            host_close(x->m);
    }
    if (err) {
        free(x);
        errno = -err;
        return NULL;
    }
    return x;
}

xenevtchn_handle *xenevtchn_open(void *logger, unsigned flags)
{
    (void)logger;
    if (flags & ~NO_CLOEXEC) {
        errno = EINVAL;
        return NULL;
    }
    return make(-1, flags & NO_CLOEXEC);
}

xenevtchn_handle *xenevtchn_fdopen(void *logger, int fd, unsigned flags)
{
    (void)logger;
    if (flags || fd < 0) {
        errno = EINVAL;
        return NULL;
    }
    return make(fd, true);
}

int xenevtchn_close(xenevtchn_handle *x)
{
    int err;

    if (!x)
        return 0;
    err = host_handle_close(x->m, x->index, x->fd);
    host_close(x->m);
    free(x);
    return result(err);
}

int xenevtchn_fd(xenevtchn_handle *x)
{
    return x->fd;
}

int xenevtchn_notify(xenevtchn_handle *x, uint32_t port)
{
    return result(host_notify(x->m, 0, x->index, port));
}

int xenevtchn_bind_unbound_port(xenevtchn_handle *x, uint32_t domid)
{
    return result(host_alloc_unbound(x->m, 0, domid, x->index));
}

int xenevtchn_bind_interdomain(xenevtchn_handle *x, uint32_t domid, uint32_t port)
{
    return result(host_bind_interdomain(x->m, x->index, domid, port));
}

int xenevtchn_bind_virq(xenevtchn_handle *x, unsigned virq)
{
    return result(host_bind_virq(x->m, x->index, virq));
}

int xenevtchn_unbind(xenevtchn_handle *x, uint32_t port)
{
    return result(host_unbind(x->m, 0, x->index, port));
}

/* Blocks where the descriptor does, as the device. */
int xenevtchn_pending(xenevtchn_handle *x)
{
    uint32_t port;
    ssize_t n = read(x->fd, &port, sizeof(port));

    if (n == (ssize_t)sizeof(port))
        return (int)port;
    if (n >= 0)
        errno = EIO;
    return -1;
}

int xenevtchn_unmask(xenevtchn_handle *x, uint32_t port)
{
    return result(host_unmask(x->m, 0, x->index, port));
}

int xenevtchn_restrict(xenevtchn_handle *x, uint16_t domid)
{
    (void)x;
    (void)domid;
    return result(-EOPNOTSUPP);
}
