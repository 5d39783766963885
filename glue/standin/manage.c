/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenmanage.so.1 of the stand-in (Xen 4.21 and later).  With
 * -DMANAGE_WITHOUT_CAPS the two calls have the arguments of the library's first
 * form, which had no `caps`; both forms have the same soname.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>

#define EXPORT __attribute__((visibility("default")))
#ifdef MANAGE_WITHOUT_CAPS
#define CAPS_PARAM
#else
#define CAPS_PARAM unsigned *caps,
#endif

enum { STATE_EXIST = 1, STATE_SHUTDOWN = 2, STATE_DYING = 4, STATE_DEAD = 8 };
enum { CAP_CONTROL = 1, CAP_HARDWARE = 2, CAP_XENSTORE = 4 };

typedef struct device xenmanage_handle;

EXPORT xenmanage_handle *xenmanage_open(void *logger, unsigned flags);
EXPORT int xenmanage_close(xenmanage_handle *x);
EXPORT int xenmanage_get_domain_info(xenmanage_handle *x, unsigned domid, unsigned *state,
                                     CAPS_PARAM uint64_t *uid);
EXPORT int xenmanage_poll_changed_domain(xenmanage_handle *x, unsigned *domid, unsigned *state,
                                         CAPS_PARAM uint64_t *uid);

xenmanage_handle *xenmanage_open(void *logger, unsigned flags)
{
    (void)logger;
    return flags ? host_device_refuse(NULL, -EINVAL) : host_device_open("open-manage");
}

int xenmanage_close(xenmanage_handle *x)
{
    host_device_close(x);
    return 0;
}

static void tell(struct domain *d, unsigned domid, unsigned *state, unsigned *caps, uint64_t *uid)
{
    static const unsigned states[] = {
        [DOM_NONE] = 0,
        [DOM_RUNNING] = STATE_EXIST,
        [DOM_SHUTDOWN] = STATE_EXIST,
        [DOM_DYING] = STATE_EXIST | STATE_DYING,
        [DOM_DEAD] = STATE_EXIST | STATE_DEAD,
    };

    if (state)
        *state = states[d->state] | (d->state && d->was_shut_down ? STATE_SHUTDOWN : 0);
    if (caps)
        *caps = domid ? 0 : CAP_CONTROL | CAP_HARDWARE | CAP_XENSTORE;
    if (uid)
        *uid = d->state == DOM_NONE ? 0 : d->uid;
}

int xenmanage_get_domain_info(xenmanage_handle *x, unsigned domid, unsigned *state,
                              CAPS_PARAM uint64_t *uid)
{
#ifdef MANAGE_WITHOUT_CAPS
    unsigned *caps = NULL;
#endif
    int err = host_fault(x->m, "info", (int)domid);

    if (!err && domid >= HOST_DOMAINS)
        err = -EINVAL;
    if (!err && x->m->h->domains[domid].state == DOM_NONE)
        err = -ESRCH;
    if (err)
        return host_result(err);
    tell(&x->m->h->domains[domid], domid, state, caps, uid);
    return 0;
}

int xenmanage_poll_changed_domain(xenmanage_handle *x, unsigned *domid, unsigned *state,
                                  CAPS_PARAM uint64_t *uid)
{
#ifdef MANAGE_WITHOUT_CAPS
    unsigned *caps = NULL;
#endif

    for (unsigned d = 0; d <= x->m->h->domid_hint; d++) {
        if (!atomic_exchange(&x->m->h->domains[d].changed, 0))
            continue;
        *domid = d;
        tell(&x->m->h->domains[d], d, state, caps, uid);
        return 0;
    }
    return host_result(-ENOENT);
}
