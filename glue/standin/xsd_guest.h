/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests of the stand-in Xen, and its toolstack: libxsdguest.so.
 *
 * A host is a directory (NULL: $XSD_STANDIN_DIR).  Domains are made and changed
 * by anybody; a guest is one process's hold of one domain's xenstore page and
 * its end of the event channel.  Introducing the domain to the xenstore is the
 * caller's (INTRODUCE over its socket, with the port that create gave).
 * One `events` serves any number of guests of a process: one descriptor.
 *
 * int functions return a value >= 0, or -errno; pointers NULL with errno.
 * A host may be used by many threads, an events or guest by one at a time.
 */
#ifndef XSD_GUEST_H
#define XSD_GUEST_H

#include <stdint.h>

#define XSD_API __attribute__((visibility("default")))

typedef struct hostmap xsd_host;
typedef struct xsd_events xsd_events;
typedef struct xsd_guest xsd_guest;

enum { XSD_GONE, XSD_RUNNING, XSD_SHUTDOWN, XSD_DYING, XSD_DEAD };
enum { XSD_RING_SIZE = 1024, XSD_PAYLOAD_MAX = 4096 };

/* The page, by Xen's xs_wire.h. */
struct xsd_page {
    char req[XSD_RING_SIZE]; /* guest to xenstored */
    char rsp[XSD_RING_SIZE];
    _Atomic uint32_t req_cons, req_prod, rsp_cons, rsp_prod;
    _Atomic uint32_t server_features, connection, error, evtchn_port;
};

struct xsd_header {
    uint32_t type, req_id, tx_id, len;
};

XSD_API xsd_host *xsd_host_open(const char *dir);
XSD_API void xsd_host_close(xsd_host *h);

/* A running domain with an empty page; its xenstore port, unbound, for dom0 to bind. */
XSD_API int xsd_domain_create(xsd_host *h, uint32_t domid);
/* One of the states above, code: the SHUTDOWN_* code.  Raises VIRQ_DOM_EXC.  DYING, DEAD
 * and GONE close the domain's ports; GONE frees the domid, whose pages stay with who maps them. */
XSD_API int xsd_domain_set(xsd_host *h, uint32_t domid, int state, uint32_t code);
/* Ports in use by the domain; of dom0: those of the xenstored (its kernel's own not counted). */
XSD_API int xsd_ports_in_use(xsd_host *h, uint32_t domid);
/* The guest's xenstore port anew (unbound), as after a close by the guest: -errno or the port. */
XSD_API int xsd_port_reset(xsd_host *h, uint32_t domid);
/* One more unbound port of the domain, which dom0 may bind. */
XSD_API int xsd_port_alloc(xsd_host *h, uint32_t domid);

XSD_API xsd_events *xsd_events_open(xsd_host *h);
XSD_API void xsd_events_close(xsd_events *e);
XSD_API int xsd_events_fd(xsd_events *e);
/* Waits until some guest has an event (timeout in ms, -1: for ever) and takes up to n of them:
 * fills domids, returns their count; 0: none in time. */
XSD_API int xsd_events_wait(xsd_events *e, int timeout_ms, uint32_t *domids, int n);

/* domid 0: the end of dom0's kernel. port 0: the domain's first port. */
XSD_API xsd_guest *xsd_guest_open(xsd_events *e, uint32_t domid, uint32_t port);
XSD_API void xsd_guest_close(xsd_guest *g); /* unmaps; the domain lives on */
XSD_API struct xsd_page *xsd_guest_page(xsd_guest *g);
XSD_API int xsd_guest_kick(xsd_guest *g);
/* Raw bytes into the request ring, out of the reply ring: how many.  Writing does not kick; reading
 * does where the ring was full, as Linux's driver. */
XSD_API int xsd_guest_write(xsd_guest *g, const void *data, uint32_t n);
XSD_API int xsd_guest_read(xsd_guest *g, void *data, uint32_t n);
/* A whole request, or nothing where it does not fit now: 1 or 0.  (A request of more than the ring
 * must go through xsd_guest_write.) */
XSD_API int xsd_guest_send(xsd_guest *g, const struct xsd_header *h, const void *payload);
/* A whole packet, if it has come: 1 or 0; -EPROTO for a length over 4096.  data: 4096 bytes. */
XSD_API int xsd_guest_recv(xsd_guest *g, struct xsd_header *h, void *data);
/* Asks for a reconnect (connection = 1, kick) and forgets partial packets. */
XSD_API int xsd_guest_reconnect(xsd_guest *g);

struct xsd_load {
    uint32_t type, tx_id, len; /* the request that all send */
    uint32_t depth;            /* requests in flight per guest, kicked together */
    uint32_t in_turn;          /* not 0: only one guest has requests in flight, then the next one */
    uint32_t spin;             /* look at the ring this often before waiting */
    uint32_t frugal;           /* kick only where all before had been taken, as Linux's driver */
    uint64_t requests;         /* how many in all */
    const void *payload;
    uint64_t nanoseconds;      /* out: elapsed */
    uint64_t replies;          /* out */
    uint64_t errors;           /* out: replies of type ERROR */
    uint64_t events;           /* out: watch events seen on the way */
    uint64_t waits;            /* out: sleeps */
};
/* Drives n guests of e; -ETIMEDOUT where nothing came for 30 s. */
XSD_API int xsd_load_run(xsd_events *e, xsd_guest **guests, uint32_t n, struct xsd_load *load);

#endif
