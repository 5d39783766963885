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
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct xengnttab_handle {
    struct hostmap *m;
    int fd;
} xengnttab_handle;

EXPORT xengnttab_handle *xengnttab_open(void *logger, unsigned flags);
EXPORT int xengnttab_close(xengnttab_handle *x);
EXPORT int xengnttab_fd(xengnttab_handle *x);
EXPORT int xengnttab_set_max_grants(xengnttab_handle *x, uint32_t n);
EXPORT void *xengnttab_map_grant_ref(xengnttab_handle *x, uint32_t domid, uint32_t ref, int prot);
EXPORT int xengnttab_unmap(xengnttab_handle *x, void *addr, uint32_t count);

xengnttab_handle *xengnttab_open(void *logger, unsigned flags)
{
    xengnttab_handle *x = calloc(1, sizeof(*x));
    int err;

    (void)logger;
    (void)flags;
    if (!x) {
        errno = ENOMEM;
        return NULL;
    }
    err = host_open(NULL, &x->m);
    if (!err) {
        err = host_fault(x->m, "open-gnttab", -1);
        if (!err) {
            x->fd = eventfd(0, EFD_CLOEXEC);
            err = x->fd < 0 ? -errno : 0;
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

int xengnttab_close(xengnttab_handle *x)
{
    if (!x)
        return 0;
    close(x->fd);
    host_close(x->m);
    free(x);
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
    void *page = NULL;
    int err = ref == HOST_XENSTORE_REF ? host_map_page(x->m, domid, prot, &page) : -EINVAL;

    if (err) {
        errno = -err;
        return NULL;
    }
    return page;
}

int xengnttab_unmap(xengnttab_handle *x, void *addr, uint32_t count)
{
    (void)x;
    return munmap(addr, (size_t)count * HOST_PAGE_SIZE);
}
