/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenevtchn.so.1 of the stand-in: event channels of dom0.  A handle's fd is
 * a FIFO that yields the pending ports as u32, as /dev/xen/evtchn does; it may
 * be inherited over exec and opened again with xenevtchn_fdopen().
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define NO_CLOEXEC 1U

typedef struct device xenevtchn_handle;

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

static xenevtchn_handle *make(int fd, bool keep)
{
    xenevtchn_handle *x = host_device_open("open-evtchn");

    if (!x)
        return NULL;
    x->fd = fd;
    x->index = fd >= 0 ? host_handle_from_fd(x->m, fd)
                       : host_handle_open(x->m, HANDLE_DEVICE, keep, false, &x->fd);
    return x->index < 0 ? host_device_refuse(x, x->index) : x;
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
    host_device_close(x);
    return host_result(err);
}

int xenevtchn_fd(xenevtchn_handle *x)
{
    return x->fd;
}

int xenevtchn_notify(xenevtchn_handle *x, uint32_t port)
{
    return host_result(host_notify(x->m, 0, x->index, port));
}

int xenevtchn_bind_unbound_port(xenevtchn_handle *x, uint32_t domid)
{
    return host_result(host_alloc_unbound(x->m, 0, domid, x->index));
}

int xenevtchn_bind_interdomain(xenevtchn_handle *x, uint32_t domid, uint32_t port)
{
    return host_result(host_bind_interdomain(x->m, x->index, domid, port));
}

int xenevtchn_bind_virq(xenevtchn_handle *x, unsigned virq)
{
    return host_result(host_bind_virq(x->m, x->index, virq));
}

int xenevtchn_unbind(xenevtchn_handle *x, uint32_t port)
{
    return host_result(host_unbind(x->m, 0, x->index, port));
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
    return host_result(host_unmask(x->m, 0, x->index, port));
}

int xenevtchn_restrict(xenevtchn_handle *x, uint16_t domid)
{
    (void)x;
    (void)domid;
    return host_result(-EOPNOTSUPP);
}
