/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections over the shared rings of domains of the stand-in Xen.  Its guest library
 * (glue/standin/xsd_guest.h) is loaded at run time, so that it is the one that the daemon's
 * stand-in libraries were built with.  Nothing here is needed for sockets.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "xb_internal.h"
#include "xsd_guest.h"

#define DOMIDS 32768u
#define TURN 256

/* Every function of the library that is used here, once. */
#define FUNCTIONS(X)                                                                              \
    X(xsd_host_open) X(xsd_host_close) X(xsd_domain_create) X(xsd_domain_set) X(xsd_events_open)  \
    X(xsd_events_close) X(xsd_events_fd) X(xsd_events_wait) X(xsd_guest_open) X(xsd_guest_close)  \
    X(xsd_guest_kick) X(xsd_guest_write) X(xsd_guest_read)

struct xb_rings {
    void *lib;
    xsd_host *host;
    xsd_events *events;
    struct xb_conn *by_domid[DOMIDS];
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

static int load_library(struct xb_rings *r, const char *path)
{
    r->lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!r->lib)
        return -ENOENT;
#define LOOK_UP(name)                                                                              \
    *(void **)&r->name = dlsym(r->lib, #name);                                                     \
    if (!r->name)                                                                                  \
        return -ENOSYS;
    FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return 0;
}

int xb_rings_open(struct xb_engine *e, const char *library, const char *host_dir)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    struct xb_rings *r;
    int error;

    if (e->rings)
        return 0;
    r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    e->rings = r;
    error = load_library(r, library);
    if (error < 0)
        return error;
    r->host = r->xsd_host_open(host_dir);
    r->events = r->host ? r->xsd_events_open(r->host) : NULL;
    if (!r->events)
        return -errno;
    return epoll_ctl(e->epfd, EPOLL_CTL_ADD, r->xsd_events_fd(r->events), &ev) < 0 ? -errno : 0;
}

void xb_rings_close(struct xb_engine *e)
{
    struct xb_rings *r = e->rings;

    if (!r)
        return;
    if (r->events)
        r->xsd_events_close(r->events);
    if (r->host)
        r->xsd_host_close(r->host);
    if (r->lib)
        dlclose(r->lib);
    free(r);
    e->rings = NULL;
}

int xb_domain_create(struct xb_engine *e, uint32_t domid)
{
    return e->rings ? e->rings->xsd_domain_create(e->rings->host, domid) : -ENODEV;
}

int xb_domain_set(struct xb_engine *e, uint32_t domid, int state, uint32_t code)
{
    return e->rings ? e->rings->xsd_domain_set(e->rings->host, domid, state, code) : -ENODEV;
}

int xb_ring_conn(struct xb_engine *e, uint32_t domid, uint32_t port, int program, uint32_t window,
                 uint64_t loops)
{
    struct xsd_guest *guest;
    int index;

    if (!e->rings || domid == 0 || domid >= DOMIDS)
        return -EINVAL;
    guest = e->rings->xsd_guest_open(e->rings->events, domid, port);
    if (!guest)
        return -errno;
    index = xb_new_conn(e, NULL, -1, program, window, loops);
    if (index < 0) {
        e->rings->xsd_guest_close(guest);
        return index;
    }
    e->conns[index]->guest = guest;
    e->conns[index]->domid = domid;
    e->rings->by_domid[domid] = e->conns[index];
    return index;
}

void xb_ring_close(struct xb_engine *e, struct xb_conn *c)
{
    if (!c->guest)
        return;
    e->rings->by_domid[c->domid] = NULL;
    e->rings->xsd_guest_close(c->guest);
    c->guest = NULL;
}

/* What does not fit waits until the daemon has taken something: it notifies then. */
int xb_ring_flush(struct xb_engine *e, struct xb_conn *c)
{
    bool wrote = false;

    c->want_out = false;
    while (c->n_out) {
        struct iovec *out = &c->out[0];
        int n = e->rings->xsd_guest_write(c->guest, out->iov_base, (uint32_t)out->iov_len);

        wrote |= n > 0;
        e->stats.bytes_out += n > 0 ? (uint64_t)n : 0;
        if ((size_t)n < out->iov_len) {
            out->iov_base = (uint8_t *)out->iov_base + n;
            out->iov_len -= (size_t)n;
            c->want_out = true;
            break;
        }
        c->out[0] = c->out[1];
        c->n_out--;
    }
    if (!wrote)
        return 0;
    e->stats.sends++;
    return e->rings->xsd_guest_kick(c->guest) < 0 ? xb_fail(e, c, "kick failed") : 0;
}

static int serve_one(struct xb_engine *e, struct xb_conn *c)
{
    int n = 0, total = 0;

    while (!c->deaf && c->in_len < XB_IN_SIZE &&
           (n = e->rings->xsd_guest_read(c->guest, c->in + c->in_len, XB_IN_SIZE - c->in_len)) > 0) {
        c->in_len += (uint32_t)n;
        total += n;
    }
    if (n < 0)
        return xb_fail(e, c, "the ring's indices are inconsistent");
    e->stats.recvs++;
    if (c->want_out && xb_ring_flush(e, c) < 0)
        return -1;
    return xb_conn_received(e, c, (uint32_t)total);
}

int xb_rings_serve(struct xb_engine *e)
{
    uint32_t domids[TURN];
    int i, n = e->rings->xsd_events_wait(e->rings->events, 0, domids, TURN);

    for (i = 0; i < n; i++) {
        struct xb_conn *c = domids[i] < DOMIDS ? e->rings->by_domid[domids[i]] : NULL;

        if (c && serve_one(e, c) < 0)
            return -1;
    }
    return n < 0 ? -1 : 0;
}
