/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests on the stand-in: contract in xsd_guest.h. */
#define _GNU_SOURCE
#include "xsd_guest.h"

#include "host.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { TYPE_WATCH_EVENT = 15, TYPE_ERROR = 16, SILENCE_MS = 30000, EVENTS_AT_ONCE = 256 };

_Static_assert(offsetof(struct xsd_page, req_cons) == 2048, "xs_wire.h: indices follow the rings");
_Static_assert(offsetof(struct xsd_page, connection) == 2068, "xs_wire.h: connection");

struct xsd_events {
    struct hostmap *m;
    int index;
    int fd;
};

struct xsd_guest {
    xsd_events *e;
    struct xsd_page *page;
    uint32_t domid, port;
    uint32_t have; /* bytes of the packet that is coming in */
    union {
        struct xsd_header head;
        char bytes[sizeof(struct xsd_header) + XSD_PAYLOAD_MAX];
    } in;
};

xsd_host *xsd_host_open(const char *dir)
{
    struct hostmap *m;
    int err = host_open(dir, &m);

    if (!err)
        return m;
    errno = -err;
    return NULL;
}

void xsd_host_close(xsd_host *h)
{
    host_close(h);
}

int xsd_domain_create(xsd_host *h, uint32_t domid)
{
    int err = host_domain_create(h, domid);

    return err ? err : host_alloc_unbound(h, domid, 0, -1);
}

int xsd_domain_set(xsd_host *h, uint32_t domid, int state, uint32_t code)
{
    if (state < DOM_NONE || state > DOM_DEAD)
        return -EINVAL;
    return host_domain_set(h, domid, (enum dom_state)state, code);
}

int xsd_ports_in_use(xsd_host *h, uint32_t domid)
{
    return host_ports_in_use(h, domid);
}

int xsd_port_reset(xsd_host *h, uint32_t domid)
{
    uint32_t handle = domid && domid < HOST_DOMAINS ? h->h->guest_ports[domid][1].handle : 0;
    int err = host_unbind(h, domid, (int)handle - 1, 1);

    return err ? err : host_alloc_unbound(h, domid, 0, (int)handle - 1);
}

int xsd_port_alloc(xsd_host *h, uint32_t domid)
{
    return host_alloc_unbound(h, domid, 0, -1);
}

/* ---- events ----------------------------------------------------------- */

xsd_events *xsd_events_open(xsd_host *h)
{
    xsd_events *e = calloc(1, sizeof(*e));

    if (!e) {
        errno = ENOMEM;
        return NULL;
    }
    e->m = h;
    e->index = host_handle_open(h, HANDLE_GUEST, false, true, &e->fd);
    if (e->index < 0) {
        errno = -e->index;
        free(e);
        return NULL;
    }
    return e;
}

void xsd_events_close(xsd_events *e)
{
    host_handle_close(e->m, e->index, e->fd);
    free(e);
}

int xsd_events_fd(xsd_events *e)
{
    return e->fd;
}

int xsd_events_wait(xsd_events *e, int timeout_ms, uint32_t *domids, int n)
{
    struct pollfd p = {.fd = e->fd, .events = POLLIN};
    ssize_t got;
    int r;

    got = read(e->fd, domids, (size_t)n * sizeof(*domids));
    if (got < 0 && errno == EAGAIN && timeout_ms) {
        do
            r = poll(&p, 1, timeout_ms);
        while (r < 0 && errno == EINTR && timeout_ms < 0);
        if (r < 0)
            return errno == EINTR ? 0 : -errno;
        got = read(e->fd, domids, (size_t)n * sizeof(*domids));
    }
    if (got < 0)
        return errno == EAGAIN ? 0 : -errno;
    r = (int)((size_t)got / sizeof(*domids));
    for (int i = 0; i < r; i++) { /* unmasked before the rings are looked at: nothing is lost */
        uint32_t event = domids[i];

        domids[i] = event >> 16;
        host_unmask(e->m, event >> 16, e->index, event & 0xffff);
    }
    return r;
}

/* ---- one guest -------------------------------------------------------- */

xsd_guest *xsd_guest_open(xsd_events *e, uint32_t domid, uint32_t port)
{
    xsd_guest *g = calloc(1, sizeof(*g));
    void *page = NULL;
    int err;

    if (!g) {
        errno = ENOMEM;
        return NULL;
    }
    g->e = e;
    g->domid = domid;
    g->port = port ? port : 1;
    err = host_map_page(e->m, domid, PROT_READ | PROT_WRITE, &page);
    if (!err) {
        g->page = page;
        err = host_listen(e->m, domid, g->port, e->index);
        if (err)
            munmap(page, HOST_PAGE_SIZE);
    }
    if (err) {
        free(g);
        errno = -err;
        return NULL;
    }
    return g;
}

void xsd_guest_close(xsd_guest *g)
{
    munmap(g->page, HOST_PAGE_SIZE);
    free(g);
}

struct xsd_page *xsd_guest_page(xsd_guest *g)
{
    return g->page;
}

int xsd_guest_kick(xsd_guest *g)
{
    return host_notify(g->e->m, g->domid, g->e->index, g->port);
}

static uint32_t request_space(xsd_guest *g)
{
    uint32_t used = atomic_load_explicit(&g->page->req_prod, memory_order_relaxed) -
                    atomic_load_explicit(&g->page->req_cons, memory_order_acquire);

    return used <= XSD_RING_SIZE ? XSD_RING_SIZE - used : 0;
}

int xsd_guest_write(xsd_guest *g, const void *data, uint32_t n)
{
    uint32_t prod = atomic_load_explicit(&g->page->req_prod, memory_order_relaxed);
    uint32_t space = request_space(g), at = prod % XSD_RING_SIZE, first;

    if (n > space)
        n = space;
    first = n < XSD_RING_SIZE - at ? n : XSD_RING_SIZE - at;
    memcpy(g->page->req + at, data, first);
    memcpy(g->page->req, (const char *)data + first, n - first);
    atomic_store_explicit(&g->page->req_prod, prod + n, memory_order_release);
    return (int)n;
}

int xsd_guest_read(xsd_guest *g, void *data, uint32_t n)
{
    uint32_t cons = atomic_load_explicit(&g->page->rsp_cons, memory_order_relaxed);
    uint32_t ready = atomic_load_explicit(&g->page->rsp_prod, memory_order_acquire) - cons;
    uint32_t at = cons % XSD_RING_SIZE, first;

    if (ready > XSD_RING_SIZE)
        return -EPROTO;
    if (n > ready)
        n = ready;
    if (n == 0)
        return 0;
    first = n < XSD_RING_SIZE - at ? n : XSD_RING_SIZE - at;
    memcpy(data, g->page->rsp + at, first);
    memcpy((char *)data + first, g->page->rsp, n - first);
    atomic_store_explicit(&g->page->rsp_cons, cons + n, memory_order_seq_cst);
    if (atomic_load_explicit(&g->page->rsp_prod, memory_order_seq_cst) - cons >= XSD_RING_SIZE)
        xsd_guest_kick(g);
    return (int)n;
}

int xsd_guest_send(xsd_guest *g, const struct xsd_header *h, const void *payload)
{
    if (request_space(g) < sizeof(*h) + h->len)
        return 0;
    xsd_guest_write(g, h, sizeof(*h));
    xsd_guest_write(g, payload, h->len);
    return 1;
}

int xsd_guest_recv(xsd_guest *g, struct xsd_header *h, void *data)
{
    for (;;) {
        uint32_t want = sizeof(*h);
        int got;

        if (g->have >= sizeof(*h)) {
            if (g->in.head.len > XSD_PAYLOAD_MAX)
                return -EPROTO;
            want += g->in.head.len;
            if (g->have == want)
                break;
        }
        got = xsd_guest_read(g, g->in.bytes + g->have, want - g->have);
        if (got <= 0)
            return got;
        g->have += (uint32_t)got;
    }
    *h = g->in.head;
    memcpy(data, g->in.bytes + sizeof(*h), h->len);
    g->have = 0;
    return 1;
}

int xsd_guest_reconnect(xsd_guest *g)
{
    g->have = 0;
    atomic_store(&g->page->connection, 1);
    return xsd_guest_kick(g);
}

/* ---- load ------------------------------------------------------------- */

struct flight {
    xsd_guest *g;
    uint32_t sent; /* requests without a reply yet */
};

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* Has the daemon taken all requests before prod?  Else it will look again by itself. */
static int all_taken(xsd_guest *g, uint32_t prod)
{
    atomic_thread_fence(memory_order_seq_cst);
    return (int32_t)(atomic_load_explicit(&g->page->req_cons, memory_order_relaxed) - prod) >= 0;
}

/* Fills the guest's requests up to the depth; one kick, or a frugal guest's. */
static void launch(struct flight *f, struct xsd_load *l, uint64_t *left)
{
    struct xsd_header h = {.type = l->type, .tx_id = l->tx_id, .len = l->len};
    uint32_t before = f->sent;

    while (f->sent < l->depth && *left) {
        uint32_t prod = atomic_load_explicit(&f->g->page->req_prod, memory_order_relaxed);

        if (!xsd_guest_send(f->g, &h, l->payload))
            break;
        if (l->frugal && all_taken(f->g, prod))
            xsd_guest_kick(f->g);
        f->sent++;
        h.req_id++;
        --*left;
    }
    if (f->sent != before && !l->frugal)
        xsd_guest_kick(f->g);
}

/* Takes the replies that are there: how many, or -errno. */
static int collect(struct flight *f, struct xsd_load *l)
{
    char data[XSD_PAYLOAD_MAX];
    struct xsd_header h;
    int r, n = 0;

    while ((r = xsd_guest_recv(f->g, &h, data)) > 0) {
        if (h.type == TYPE_WATCH_EVENT) {
            l->events++;
            continue;
        }
        l->replies++;
        l->errors += h.type == TYPE_ERROR;
        if (f->sent)
            f->sent--;
        n++;
    }
    return r < 0 ? r : n;
}

int xsd_load_run(xsd_events *e, xsd_guest **guests, uint32_t n, struct xsd_load *l)
{
    struct flight *flights = calloc(n ? n : 1, sizeof(*flights));
    uint32_t *by_domid = calloc(HOST_DOMAINS, sizeof(*by_domid)), turn = 0;
    uint64_t left = l->requests, start;
    uint32_t ready[EVENTS_AT_ONCE];
    int r = 0;

    l->replies = l->errors = l->events = l->waits = 0;
    if (!flights || !by_domid || !n || !l->depth) {
        free(flights);
        free(by_domid);
        return n && l->depth ? -ENOMEM : -EINVAL;
    }
    for (uint32_t i = 0; i < n; i++) {
        flights[i].g = guests[i];
        by_domid[guests[i]->domid] = i + 1;
    }
    start = now();
    for (uint32_t i = 0; i < (l->in_turn ? 1 : n); i++)
        launch(&flights[i], l, &left);
    while (r >= 0 && l->replies < l->requests) {
        struct flight *f = &flights[turn];
        int got = 0;

        if (l->in_turn || n == 1)
            for (uint32_t i = 0; i <= l->spin && got == 0; i++)
                got = collect(f, l);
        if (got == 0) {
            l->waits++;
            got = xsd_events_wait(e, SILENCE_MS, ready, EVENTS_AT_ONCE);
            if (got == 0)
                got = -ETIMEDOUT;
            for (int i = 0; i < got && r >= 0; i++) {
                struct flight *one = &flights[by_domid[ready[i]] - 1];

                if (by_domid[ready[i]] == 0)
                    continue;
                r = collect(one, l);
                if (r > 0 && !l->in_turn)
                    launch(one, l, &left);
            }
        } else if (!l->in_turn && got > 0) {
            launch(f, l, &left);
        }
        if (got < 0)
            r = got;
        if (l->in_turn && f->sent == 0) {
            turn = (turn + 1) % n;
            launch(&flights[turn], l, &left);
        }
    }
    l->nanoseconds = now() - start;
    free(flights);
    free(by_domid);
    return r < 0 ? r : 0;
}
