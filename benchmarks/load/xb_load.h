/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The load generator's face: connections that run programs of precomputed requests.
 *
 * A program is a row of steps and one blob with the requests' bytes in the order of the steps.
 * A connection runs its program `loops` times with up to `window` requests in flight and checks
 * every reply against its step.  The first reply that is not what its step expects ends the run
 * with XB_FAILED and a text.  One engine is one thread; no call here may overlap another on the
 * same engine.  Between calls of xb_run nothing happens.
 */
#ifndef XB_LOAD_H
#define XB_LOAD_H

#include <stddef.h>
#include <stdint.h>

enum xb_op {
    XB_SEND = 0,    /* send a request and check its reply */
    XB_AWAIT = 1,   /* until `arg` events of token `slot` came to this connection; takes them */
    XB_AWAIT_ALL = 2, /* until `arg` events came to the whole engine; takes them */
    XB_CONNECT = 3, /* open the socket (where it is closed) */
    XB_CLOSE = 4,   /* close the socket; nothing may be in flight */
    XB_MARK = 5,    /* remember the time */
    XB_LAP = 6,     /* the time since XB_MARK is a duration of class `hist` */
    XB_IDLE = 7,    /* stay connected and count events; does not keep the run going */
    XB_REACT = 8,   /* take one event of token `slot`, or wait for it; from the first XB_REACT on
                     * the connection does not keep the run going */
    XB_JUMP = 9,    /* go on at step `arg` */
    XB_GATE = 10,   /* until some connection opened gate `arg`; closes it */
    XB_OPEN = 11,   /* open gate `arg` */
};

enum xb_expect {
    XB_EXPECT_OK = 0,    /* the payload is "OK\0" */
    XB_EXPECT_ANY = 1,   /* any reply that is not ERROR */
    XB_EXPECT_EXACT = 2, /* the payload is the expected bytes */
    XB_EXPECT_LEN = 3,   /* the payload has exp_len bytes */
    XB_EXPECT_ERROR = 4, /* ERROR with the expected bytes ("ENOENT\0") */
    XB_EXPECT_ID = 5,    /* a transaction id in decimal and a NUL: becomes the connection's */
    XB_EXPECT_COMMIT = 6, /* OK, or EAGAIN: then the program goes on at step `arg` */
    XB_EXPECT_EITHER = 7, /* any reply or any ERROR: for hostile and clean-up traffic only */
};

enum xb_flag {
    XB_BARRIER = 1,  /* send nothing more until this is answered */
    XB_IN_TX = 2,    /* put the connection's transaction id into the header */
    XB_PUBLISH = 4,  /* events are timed from the sending of this request */
    XB_UNTIL = 8,    /* send again, after an event of `slot`, until the reply is as expected */
};

enum xb_status {
    XB_DONE = 0,    /* every program ended */
    XB_MORE = 1,    /* the slice of time is over */
    XB_FAILED = 2,  /* see xb_error */
    XB_STALLED = 3, /* nothing came for the time given to xb_stall_after; xb_error says who waits */
};

#define XB_TYPE_EVENT 15 /* the two of Xenstore's packet types that the engine must know */
#define XB_TYPE_ERROR 16

#define XB_CLASSES 16 /* classes of durations; XB_EVENT_CLASS holds those of events */
#define XB_EVENT_CLASS 15
#define XB_GATES 32768 /* as many as domains */
#define XB_SLOTS 64 /* tokens "0" to "63" are counted one by one */

struct xb_step {
    uint8_t op;
    uint8_t expect;
    uint8_t flags;
    uint8_t hist;
    uint32_t slot;
    uint32_t arg;
    uint32_t off, len;         /* the request in the blob, header included */
    uint32_t exp_off, exp_len; /* the expected payload in the blob of expectations */
};

struct xb_stats {
    uint64_t requests;   /* answered */
    uint64_t events;     /* watch events received */
    uint64_t retries;    /* commits that gave EAGAIN, and reads of XB_UNTIL sent again */
    uint64_t conflicts;  /* commits that gave EAGAIN */
    uint64_t loops;      /* programs run to their end */
    uint64_t connects;
    uint64_t bytes_out, bytes_in;
    uint64_t sends, recvs, waits; /* system calls of the generator itself */
    uint64_t cpu_ns;     /* CPU time of the generator's thread inside xb_run */
    uint64_t wall_ns;    /* time inside xb_run */
};

struct xb_engine;

struct xb_engine *xb_new(void);
void xb_free(struct xb_engine *e);

/* All return a non-negative number, or -errno. */
int xb_program(struct xb_engine *e, const uint8_t *blob, size_t blob_len, const uint8_t *expected,
               size_t expected_len, const struct xb_step *steps, uint32_t n_steps);
int xb_socket_conn(struct xb_engine *e, const char *path, int program, uint32_t window,
                   uint64_t loops);
/* A descriptor that is connected already (a socketpair in tests); the engine closes it. */
int xb_fd_conn(struct xb_engine *e, int fd, int program, uint32_t window, uint64_t loops);
/* A connection that never reads its replies and sends as long as the peer takes bytes. */
int xb_deaf(struct xb_engine *e, int conn);
/* Give a connection that has ended (or idles) another program. */
int xb_restart(struct xb_engine *e, int conn, int program, uint32_t window, uint64_t loops);

/* The domains of a stand-in Xen: its guest library, the directory of the pretended host. */
int xb_rings_open(struct xb_engine *e, const char *library, const char *host_dir);
/* Gives the port that dom0 introduces the domain with. */
int xb_domain_create(struct xb_engine *e, uint32_t domid);
int xb_domain_set(struct xb_engine *e, uint32_t domid, int state, uint32_t code);
int xb_ring_conn(struct xb_engine *e, uint32_t domid, uint32_t port, int program, uint32_t window,
                 uint64_t loops);

int xb_run(struct xb_engine *e, uint64_t slice_ns);
/* From now on programs end at their next end instead of starting again. */
void xb_drain(struct xb_engine *e);
void xb_stall_after(struct xb_engine *e, uint64_t ns);
/* Poll for so long before sleeping (0: sleep at once). */
void xb_spin(struct xb_engine *e, uint64_t ns);
/* A run is over only when besides nothing came for so long (0, the default: at once). */
void xb_quiet(struct xb_engine *e, uint64_t ns);
/* Check header and length only: for servers that echo. */
void xb_echo(struct xb_engine *e, int on);

void xb_reset(struct xb_engine *e);
void xb_read_stats(const struct xb_engine *e, struct xb_stats *out);
uint64_t xb_hist_read(const struct xb_engine *e, int hist, uint64_t *buckets, uint64_t *max_ns,
                      uint64_t *sum_ns);
uint32_t xb_hist_buckets(void);
uint64_t xb_hist_value(uint32_t index);
const char *xb_error(const struct xb_engine *e);
uint64_t xb_now(void);
/* When something came last, in the time of xb_now. */
uint64_t xb_last(const struct xb_engine *e);

/* The floor: serves until it is killed; gives -errno.  poll_ns: poll so long before sleeping. */
int xb_echo_serve(int listen_fd, uint64_t poll_ns);

/* A counter of another process's system calls (perf event on raw_syscalls:sys_enter).
 * Gives a descriptor or -errno; reading gives the count since the opening. */
int xb_syscalls_open(int pid, uint64_t tracepoint_id);
int64_t xb_syscalls_read(int fd);

#endif
