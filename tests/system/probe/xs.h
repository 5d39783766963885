/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A small blocking Xenstore client: one connection, over a Unix socket or over the kernel's
 * xenbus device (then the requests travel through the domain's own ring).
 * Knows the wire format only; what to ask and what to expect is the callers' matter.
 * A broken connection ends the process with a message: nothing here could go on without it.
 */
#ifndef PROBE_XS_H
#define PROBE_XS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { XS_PAYLOAD_MAX = 4096, XS_EVENTS_MAX = 256 };

enum xs_type {
    XS_CONTROL = 0,
    XS_DIRECTORY = 1,
    XS_READ = 2,
    XS_GET_PERMS = 3,
    XS_WATCH = 4,
    XS_UNWATCH = 5,
    XS_TRANSACTION_START = 6,
    XS_TRANSACTION_END = 7,
    XS_GET_DOMAIN_PATH = 10,
    XS_WRITE = 11,
    XS_MKDIR = 12,
    XS_RM = 13,
    XS_SET_PERMS = 14,
    XS_WATCH_EVENT = 15,
    XS_ERROR = 16,
    XS_DIRECTORY_PART = 22,
};

struct xs_event {
    char *path;
    char *token;
};

struct xs {
    int fd;
    uint32_t next_id;
    /* The last reply: `error` is "" or the error's name; `data` has a NUL behind its `len` bytes. */
    uint32_t req_id;
    char error[32];
    char data[XS_PAYLOAD_MAX + 1];
    size_t len;
    /* Events that came while a reply was awaited, oldest first. */
    struct xs_event events[XS_EVENTS_MAX];
    size_t event_count;
};

/* `where` is a socket, or a character device such as /dev/xen/xenbus. */
void xs_open(struct xs *xs, const char *where);
void xs_close(struct xs *xs);

/* Sends a request without waiting; returns its req_id. */
uint32_t xs_send(struct xs *xs, enum xs_type type, uint32_t tx, const void *payload, size_t len);
/* Waits for the next reply. True when it is no error. */
bool xs_reply(struct xs *xs);
/* Both. */
bool xs_call(struct xs *xs, enum xs_type type, uint32_t tx, const void *payload, size_t len);

/* Requests whose payload is one string, or two. */
bool xs_path(struct xs *xs, enum xs_type type, uint32_t tx, const char *path);
bool xs_pair(struct xs *xs, enum xs_type type, const char *first, const char *second);
bool xs_write(struct xs *xs, uint32_t tx, const char *path, const void *value, size_t len);
bool xs_put(struct xs *xs, uint32_t tx, const char *path, const char *value);
/* 0 when it failed. */
uint32_t xs_begin(struct xs *xs);
bool xs_end(struct xs *xs, uint32_t tx, bool commit);

/* Takes the oldest event; waits at most `ms` milliseconds for one. The caller frees it. */
bool xs_next_event(struct xs *xs, int ms, struct xs_event *event);
void xs_free_event(struct xs_event *event);
/* Takes events until one has this path and token (NULL: any); drops the others. */
bool xs_await_event(struct xs *xs, int ms, const char *path, const char *token);
void xs_drop_events(struct xs *xs);

long xs_now_ms(void);

#endif
