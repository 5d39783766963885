/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the load generator share: the engine's and the connections' state.
 */
#ifndef XB_INTERNAL_H
#define XB_INTERNAL_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "xb_hist.h"
#include "xb_load.h"

#define XB_IN_SIZE (64u * 1024u)
#define XB_HEADER 16u
#define XB_PAYLOAD_MAX 4096u

struct xb_header {
    uint32_t type, req_id, tx_id, len;
};

struct xb_program_def {
    struct xb_step *steps;
    uint32_t n_steps;
    uint8_t *blob;
    uint8_t *expected;
    size_t blob_len;
    bool patched; /* a step carries XB_IN_TX: each connection needs a blob of its own */
};

struct xb_flight {
    uint32_t step;
    uint64_t sent_ns;
};

enum xb_state {
    XB_RUNNING,
    XB_PASSIVE, /* ended, or in XB_IDLE */
};

struct xb_conn {
    int fd; /* -1: closed, or a ring */
    struct xsd_guest *guest; /* NULL: a socket */
    uint32_t domid;
    int index;
    enum xb_state state;
    bool deaf, owns_path, want_out, registered, at_barrier, waits_global, waits_event, background;
    char *path;
    const struct xb_program_def *prog;
    uint8_t *own_blob;
    const uint8_t *blob;
    uint32_t pc;
    uint64_t loops_left; /* 0: for ever */
    bool endless;
    uint32_t window, flight_mask, flight_head, flight_tail;
    struct xb_flight *flight;
    struct iovec out[2]; /* bytes that still have to be sent, in order */
    uint32_t n_out;
    uint32_t tx_id;
    uint64_t mark_ns;
    uint32_t events[XB_SLOTS];
    uint8_t *in;
    uint32_t in_len;
    uint64_t last_ns; /* last time anything moved */
};

struct xb_engine {
    int epfd;
    struct xb_conn **conns;
    uint32_t n_conns, running, open;
    struct xb_rings *rings; /* NULL: no domains */
    struct xb_program_def **programs;
    uint32_t n_programs;
    struct xb_stats stats;
    struct xb_hist *hists[XB_CLASSES];
    uint64_t stall_ns, spin_ns, publish_ns, last_ns, idle_ns, quiet_ns;
    uint64_t global_events;
    uint32_t global_waiters;
    bool draining, echo, failed, wake;
    uint8_t gates[XB_GATES];
    char error[512];
};

/* xb_engine.c */
int xb_new_conn(struct xb_engine *e, const char *path, int fd, int program, uint32_t window,
                uint64_t loops);
/* xb_ring.c */
void xb_rings_close(struct xb_engine *e);
int xb_rings_serve(struct xb_engine *e);
int xb_ring_flush(struct xb_engine *e, struct xb_conn *c);
void xb_ring_close(struct xb_engine *e, struct xb_conn *c);
/* xb_conn.c */
/* `n` more bytes are in the input buffer (0: the peer took some of ours). */
int xb_conn_received(struct xb_engine *e, struct xb_conn *c, uint32_t n);
int xb_conn_advance(struct xb_engine *e, struct xb_conn *c, uint64_t now);
int xb_conn_readable(struct xb_engine *e, struct xb_conn *c, bool block);
int xb_conn_flush(struct xb_engine *e, struct xb_conn *c);
int xb_fail(struct xb_engine *e, const struct xb_conn *c, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* xb_check.c: 0 go on, 1 the connection's program moved elsewhere, -1 failed */
int xb_check_reply(struct xb_engine *e, struct xb_conn *c, const struct xb_header *hdr,
                   const uint8_t *payload, uint64_t now);
int xb_check_event(struct xb_engine *e, struct xb_conn *c, const uint8_t *payload, uint32_t len,
                   uint64_t now);

#endif
