/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxengnttab.so.1 of the stand-in: grant reference 1 of a domain is its
 * xenstore page; there are no other grants.  The handle's fd is only there to
 * have one (close-on-exec, as the device's); mappings end with the process or
 * its exec.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct device xengnttab_handle;

EXPORT xengnttab_handle *xengnttab_open(void *logger, unsigned flags);
EXPORT int xengnttab_close(xengnttab_handle *x);
EXPORT int xengnttab_fd(xengnttab_handle *x);
EXPORT int xengnttab_set_max_grants(xengnttab_handle *x, uint32_t n);
EXPORT void *xengnttab_map_grant_ref(xengnttab_handle *x, uint32_t domid, uint32_t ref, int prot);
EXPORT int xengnttab_unmap(xengnttab_handle *x, void *addr, uint32_t count);

xengnttab_handle *xengnttab_open(void *logger, unsigned flags)
{
    xengnttab_handle *x = host_device_open("open-gnttab");

    (void)logger;
    (void)flags;
    if (!x)
        return NULL;
    x->fd = eventfd(0, EFD_CLOEXEC);
    return x->fd < 0 ? host_device_refuse(x, -errno) : x;
}

int xengnttab_close(xengnttab_handle *x)
{
    if (!x)
        return 0;
    close(x->fd);
    host_device_close(x);
    return 0;
}

int xengnttab_fd(xengnttab_handle *x)
{
    return x->fd;
}

int xengnttab_set_max_grants(xengnttab_handle *x, uint32_t n)
{
    (void)x;
    (void)n;
    return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *x, uint32_t domid, uint32_t ref, int prot)
{
    if (ref == HOST_XENSTORE_REF)
        return host_device_map(x, domid, prot);
    errno = EINVAL;
    return NULL;
}

int xengnttab_unmap(xengnttab_handle *x, void *addr, uint32_t count)
{
    (void)x;
    return munmap(addr, (size_t)count * HOST_PAGE_SIZE);
}
