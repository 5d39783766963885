/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine: programs, connections and the loop that waits for them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "xb_internal.h"

#define TURN 256
#define WINDOW_MAX 65536u

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t xb_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

struct xb_engine *xb_new(void)
{
    struct xb_engine *e = calloc(1, sizeof(*e));
    int i;

    if (!e)
        return NULL;
    e->stall_ns = 10000000000u;
    for (i = 0; i < XB_CLASSES; i++)
        e->hists[i] = calloc(1, sizeof(*e->hists[i]));
    e->epfd = epoll_create1(EPOLL_CLOEXEC);
    for (i = 0; i < XB_CLASSES; i++)
        if (!e->hists[i] || e->epfd < 0) {
            xb_free(e);
            return NULL;
        }
    return e;
}

static void free_program(struct xb_program_def *p)
{
    if (!p)
        return;
    free(p->steps);
    free(p->blob);
    free(p->expected);
    free(p);
}

static void free_conn(struct xb_conn *c)
{
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    free(c->path);
    free(c->own_blob);
    free(c->flight);
    free(c->in);
    free(c);
}

void xb_free(struct xb_engine *e)
{
    uint32_t i;

    if (!e)
        return;
    for (i = 0; i < e->n_conns; i++) {
        xb_ring_close(e, e->conns[i]);
        free_conn(e->conns[i]);
    }
    xb_rings_close(e);
    for (i = 0; i < e->n_programs; i++)
        free_program(e->programs[i]);
    for (i = 0; i < XB_CLASSES; i++)
        free(e->hists[i]);
    free(e->conns);
    free(e->programs);
    if (e->epfd >= 0)
        close(e->epfd);
    free(e);
}

static void *copy(const void *from, size_t len)
{
    void *to = malloc(len ? len : 1);

    if (to && len)
        memcpy(to, from, len);
    return to;
}

/* Room for one more pointer in an array that grows by doubling. */
static int grow(void *array_address, uint32_t n)
{
    void **array = array_address, *bigger;

    if (n & (n - 1) || n == 1)
        return 0;
    bigger = realloc(*array, sizeof(void *) * (n ? 2 * (size_t)n : 2));
    if (!bigger)
        return -ENOMEM;
    *array = bigger;
    return 0;
}

static bool step_is_sound(const struct xb_step *s, size_t blob_len, size_t expected_len,
                          uint32_t n_steps)
{
    if (s->hist >= XB_CLASSES || (s->expect == XB_EXPECT_COMMIT && s->arg >= n_steps) ||
        (s->op == XB_JUMP && s->arg >= n_steps) ||
        ((s->op == XB_GATE || s->op == XB_OPEN) && s->arg >= XB_GATES))
        return false;
    if (s->op == XB_AWAIT || s->op == XB_REACT || (s->flags & XB_UNTIL))
        if (s->slot >= XB_SLOTS)
            return false;
    if (s->op != XB_SEND)
        return true;
    if (s->expect != XB_EXPECT_LEN && (uint64_t)s->exp_off + s->exp_len > expected_len)
        return false;
    return s->len >= XB_HEADER && (uint64_t)s->off + s->len <= blob_len;
}

int xb_program(struct xb_engine *e, const uint8_t *blob, size_t blob_len, const uint8_t *expected,
               size_t expected_len, const struct xb_step *steps, uint32_t n_steps)
{
    struct xb_program_def *p;
    uint32_t i;

    for (i = 0; i < n_steps; i++)
        if (!step_is_sound(&steps[i], blob_len, expected_len, n_steps))
            return -EINVAL;
    if (grow(&e->programs, e->n_programs) < 0)
        return -ENOMEM;
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->steps = copy(steps, sizeof(*steps) * n_steps);
    p->blob = copy(blob, blob_len);
    p->expected = copy(expected, expected_len);
    p->blob_len = blob_len;
    p->n_steps = n_steps;
    for (i = 0; i < n_steps; i++)
        p->patched |= (steps[i].flags & XB_IN_TX) != 0;
    if (!p->steps || !p->blob || !p->expected) {
        free_program(p);
        return -ENOMEM;
    }
    e->programs[e->n_programs] = p;
    return (int)e->n_programs++;
}

static int load_program(struct xb_engine *e, struct xb_conn *c, int program, uint32_t window,
                        uint64_t loops)
{
    uint32_t size = 1;

    if (program < 0 || (uint32_t)program >= e->n_programs || !window || window > WINDOW_MAX)
        return -EINVAL;
    while (size < window)
        size *= 2;
    free(c->flight);
    free(c->own_blob);
    c->own_blob = NULL;
    c->prog = e->programs[program];
    c->flight = calloc(size, sizeof(*c->flight));
    if (c->prog->patched)
        c->own_blob = copy(c->prog->blob, c->prog->blob_len);
    if (!c->flight || (c->prog->patched && !c->own_blob))
        return -ENOMEM;
    c->blob = c->own_blob ? c->own_blob : c->prog->blob;
    c->window = window;
    c->flight_mask = size - 1;
    c->flight_head = c->flight_tail = 0;
    c->pc = 0;
    c->endless = loops == 0;
    c->loops_left = loops;
    c->at_barrier = c->waits_event = c->background = false;
    c->state = XB_RUNNING;
    e->running++;
    e->draining = false;
    e->global_events = e->publish_ns = 0;
    e->idle_ns = 0;
    return 0;
}

int xb_new_conn(struct xb_engine *e, const char *path, int fd, int program, uint32_t window,
                uint64_t loops)
{
    struct xb_conn *c;
    int error;

    if (path && strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return -ENAMETOOLONG;
    if (grow(&e->conns, e->n_conns) < 0)
        return -ENOMEM;
    c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->fd = -1;
    c->index = (int)e->n_conns;
    c->in = malloc(XB_IN_SIZE);
    c->path = path ? strdup(path) : NULL;
    error = !c->in || (path && !c->path) ? -ENOMEM : load_program(e, c, program, window, loops);
    if (error < 0) {
        free_conn(c);
        return error;
    }
    c->fd = fd;
    e->conns[e->n_conns++] = c;
    return c->index;
}

int xb_socket_conn(struct xb_engine *e, const char *path, int program, uint32_t window,
                   uint64_t loops)
{
    return xb_new_conn(e, path, -1, program, window, loops);
}

int xb_fd_conn(struct xb_engine *e, int fd, int program, uint32_t window, uint64_t loops)
{
    struct epoll_event ev = {.events = EPOLLIN};
    struct timeval limit = {.tv_usec = 100000};
    int index = xb_new_conn(e, NULL, fd, program, window, loops);

    if (index < 0)
        return index;
    ev.data.ptr = e->conns[index];
    if (epoll_ctl(e->epfd, EPOLL_CTL_ADD, fd, &ev) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
        return -errno;
    e->conns[index]->registered = true;
    e->open++;
    return index;
}

int xb_deaf(struct xb_engine *e, int conn)
{
    if (conn < 0 || (uint32_t)conn >= e->n_conns)
        return -EINVAL;
    e->conns[conn]->deaf = true;
    if (e->conns[conn]->state == XB_RUNNING)
        e->running--; /* a deaf connection never ends and keeps nothing going */
    return 0;
}

int xb_restart(struct xb_engine *e, int conn, int program, uint32_t window, uint64_t loops)
{
    if (conn < 0 || (uint32_t)conn >= e->n_conns)
        return -EINVAL;
    if (e->conns[conn]->state != XB_PASSIVE)
        return -EBUSY;
    return load_program(e, e->conns[conn], program, window, loops);
}

void xb_drain(struct xb_engine *e)
{
    e->draining = true;
}

void xb_stall_after(struct xb_engine *e, uint64_t ns)
{
    e->stall_ns = ns;
}

void xb_spin(struct xb_engine *e, uint64_t ns)
{
    e->spin_ns = ns;
}

void xb_quiet(struct xb_engine *e, uint64_t ns)
{
    e->quiet_ns = ns;
}

void xb_echo(struct xb_engine *e, int on)
{
    e->echo = on != 0;
}

void xb_reset(struct xb_engine *e)
{
    int i;

    memset(&e->stats, 0, sizeof(e->stats));
    e->idle_ns = 0; /* events that a program waits for stay counted */
    for (i = 0; i < XB_CLASSES; i++)
        memset(e->hists[i], 0, sizeof(*e->hists[i]));
}

void xb_read_stats(const struct xb_engine *e, struct xb_stats *out)
{
    *out = e->stats;
}

uint64_t xb_hist_read(const struct xb_engine *e, int hist, uint64_t *buckets, uint64_t *max_ns,
                      uint64_t *sum_ns)
{
    if (hist < 0 || hist >= XB_CLASSES)
        return 0;
    memcpy(buckets, e->hists[hist]->buckets, sizeof(e->hists[hist]->buckets));
    *max_ns = e->hists[hist]->max_ns;
    *sum_ns = e->hists[hist]->sum_ns;
    return e->hists[hist]->count;
}

uint32_t xb_hist_buckets(void)
{
    return XB_HIST_BUCKETS;
}

uint64_t xb_hist_value(uint32_t index)
{
    return xb_hist_floor(index);
}

const char *xb_error(const struct xb_engine *e)
{
    return e->error;
}

uint64_t xb_last(const struct xb_engine *e)
{
    return e->last_ns;
}

static int wake_global(struct xb_engine *e, uint64_t now)
{
    uint32_t i;

    while (e->wake && e->global_waiters) {
        e->wake = false;
        for (i = 0; i < e->n_conns; i++)
            if (e->conns[i]->waits_global && xb_conn_advance(e, e->conns[i], now) < 0)
                return -1;
    }
    return 0;
}

/* The only connection that can make progress, where there is just one: it is read with a
 * blocking recv, as libxenstore does, instead of epoll_wait and recv. */
static struct xb_conn *only_conn(struct xb_engine *e)
{
    if (e->open != 1 || e->n_conns != 1 || e->conns[0]->fd < 0 || e->conns[0]->want_out ||
        e->conns[0]->deaf)
        return NULL;
    return e->conns[0];
}

static int serve(struct xb_engine *e, const struct epoll_event *events, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        struct xb_conn *c = events[i].data.ptr;

        if (!c) {
            if (xb_rings_serve(e) < 0)
                return -1;
            continue;
        }
        if (events[i].events & EPOLLOUT) {
            e->last_ns = c->deaf ? e->last_ns : xb_now();
            if (xb_conn_flush(e, c) < 0)
                return -1;
            if (xb_conn_advance(e, c, e->last_ns) < 0)
                return -1;
        }
        if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) &&
            xb_conn_readable(e, c, false) < 0)
            return -1;
    }
    return wake_global(e, e->last_ns);
}

static int wait_once(struct xb_engine *e, uint64_t deadline, uint64_t now)
{
    struct epoll_event events[TURN];
    struct xb_conn *only = only_conn(e);
    uint64_t until = now + e->spin_ns, left = deadline > now ? deadline - now : 0;
    int n = 0, timeout = left > 100000000u ? 100 : (int)(left / 1000000u) + 1;

    while (e->spin_ns && now < until && n == 0) {
        e->stats.waits++;
        n = epoll_wait(e->epfd, events, TURN, 0);
        now = xb_now();
    }
    if (n == 0 && only) {
        if (xb_conn_readable(e, only, true) < 0)
            return -1;
        return wake_global(e, e->last_ns);
    }
    if (n == 0) {
        e->stats.waits++;
        n = epoll_wait(e->epfd, events, TURN, timeout);
    }
    return n > 0 ? serve(e, events, n) : 0;
}

/* Says who waits for what. */
static void explain_stall(struct xb_engine *e)
{
    uint32_t i, waiting = 0;

    for (i = 0; i < e->n_conns; i++) {
        const struct xb_conn *c = e->conns[i];
        const struct xb_step *step = c->pc < c->prog->n_steps ? &c->prog->steps[c->pc] : NULL;

        if (c->state != XB_RUNNING || c->background || c->deaf || waiting++)
            continue;
        snprintf(e->error, sizeof(e->error),
                 "connection %d (domain %u) waits at step %u (operation %u, path %.*s) with %u "
                 "requests unanswered%s%s",
                 c->index, c->domid, c->pc, step ? step->op : 255u,
                 step && step->op == XB_SEND ? (int)(step->len - XB_HEADER) : 0,
                 step ? (const char *)c->blob + step->off + XB_HEADER : "",
                 c->flight_head - c->flight_tail, c->waits_event ? ", for an event" : "",
                 c->want_out ? ", with bytes unsent" : "");
    }
    snprintf(e->error + strlen(e->error), sizeof(e->error) - strlen(e->error),
             "; %u connections wait", waiting);
}

int xb_run(struct xb_engine *e, uint64_t slice_ns)
{
    uint64_t start = xb_now(), now = start, cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    uint64_t deadline = start + slice_ns;
    int status = XB_MORE;
    uint32_t i;

    e->last_ns = start - e->idle_ns; /* only time in here counts as a stall */
    for (i = 0; i < e->n_conns && !e->failed; i++) {
        xb_conn_advance(e, e->conns[i], now);
        if ((i & 63) == 63)
            now = xb_now();
    }
    while (status == XB_MORE) {
        bool over = e->running == 0 && (!e->quiet_ns || now - e->last_ns >= e->quiet_ns);

        if (e->failed || (!over && wait_once(e, deadline, now) < 0)) {
            status = XB_FAILED;
        } else if (over) {
            status = XB_DONE;
        } else {
            now = xb_now();
            if (e->running && now - e->last_ns > e->stall_ns && now > e->last_ns)
                status = XB_STALLED;
            else if (now >= deadline)
                break;
        }
    }
    if (status == XB_STALLED)
        explain_stall(e);
    e->idle_ns = xb_now() - e->last_ns;
    e->stats.wall_ns += xb_now() - start;
    e->stats.cpu_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    return status;
}
