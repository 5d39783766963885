/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection: runs its program, keeps its window full, moves its bytes.
 * Requests that follow one another in the program lie side by side in its blob, so a full
 * window leaves with one system call, and one recv takes all replies that are there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "xb_internal.h"

#define CONNECT_TIMEOUT_S 10

int xb_fail(struct xb_engine *e, const struct xb_conn *c, const char *format, ...)
{
    va_list args;
    int n;

    if (e->failed)
        return -1;
    e->failed = true;
    n = snprintf(e->error, sizeof(e->error), "connection %d: ", c->index);
    va_start(args, format);
    vsnprintf(e->error + n, sizeof(e->error) - (size_t)n, format, args);
    va_end(args);
    return -1;
}

static int interest(struct xb_engine *e, struct xb_conn *c)
{
    struct epoll_event ev = {.data.ptr = c};
    int op = c->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (c->guest)
        return 0;
    ev.events = (c->deaf ? 0u : (uint32_t)EPOLLIN) | (c->want_out ? (uint32_t)EPOLLOUT : 0u);
    if (epoll_ctl(e->epfd, op, c->fd, &ev) < 0)
        return xb_fail(e, c, "epoll_ctl: %s", strerror(errno));
    c->registered = true;
    return 0;
}

static int open_socket(struct xb_engine *e, struct xb_conn *c)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = CONNECT_TIMEOUT_S};

    if (c->fd < 0) {
        c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0)
            return xb_fail(e, c, "socket: %s", strerror(errno));
        memcpy(addr.sun_path, c->path, strlen(c->path) + 1);
        /* A full backlog blocks the connect; the limit makes a hung daemon an error. */
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        if (connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
            return xb_fail(e, c, "connect: %s",
                           errno == EAGAIN ? "not accepted in time" : strerror(errno));
        e->stats.connects++;
    }
    e->open++;
    limit.tv_sec = 0;
    limit.tv_usec = 100000; /* blocking reads come back to look at the clock */
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    c->in_len = 0;
    c->n_out = 0;
    c->want_out = false;
    c->registered = false;
    memset(c->events, 0, sizeof(c->events));
    return interest(e, c);
}

static void close_socket(struct xb_engine *e, struct xb_conn *c)
{
    if (c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
    e->open--;
}

/* A deaf connection is always written to where there is room, one turn's worth at a time. */
static int deaf_advance(struct xb_engine *e, struct xb_conn *c)
{
    if (c->fd < 0 && !c->guest && open_socket(e, c) < 0)
        return -1;
    if (!c->want_out && !c->n_out) {
        c->out[0].iov_base = (uint8_t *)(uintptr_t)c->blob;
        c->out[0].iov_len = c->prog->blob_len;
        c->n_out = 1;
        c->want_out = true;
        return c->guest ? xb_ring_flush(e, c) : interest(e, c);
    }
    return 0;
}

/* Sends what is queued; the rest waits for EPOLLOUT. */
int xb_conn_flush(struct xb_engine *e, struct xb_conn *c)
{
    if (c->guest)
        return xb_ring_flush(e, c);
    while (c->n_out) {
        struct msghdr msg = {.msg_iov = c->out, .msg_iovlen = c->n_out};
        ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

        e->stats.sends++;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                return xb_fail(e, c, "send: %s", strerror(errno));
            if (!c->want_out) {
                c->want_out = true;
                return interest(e, c);
            }
            return 0;
        }
        e->stats.bytes_out += (uint64_t)n;
        while (c->n_out && (size_t)n >= c->out[0].iov_len) {
            n -= (ssize_t)c->out[0].iov_len;
            c->out[0] = c->out[1];
            c->n_out--;
        }
        if (c->n_out && n) {
            c->out[0].iov_base = (uint8_t *)c->out[0].iov_base + n;
            c->out[0].iov_len -= (size_t)n;
        }
    }
    if (c->want_out) {
        c->want_out = false;
        return interest(e, c);
    }
    return 0;
}

/* Adds a step's bytes to the queue; false where it does not fit. */
static bool queue_bytes(struct xb_conn *c, const struct xb_step *step)
{
    uint8_t *from = (uint8_t *)(uintptr_t)(c->blob + step->off);
    struct iovec *last = c->n_out ? &c->out[c->n_out - 1] : NULL;

    if (last && (uint8_t *)last->iov_base + last->iov_len == from) {
        last->iov_len += step->len;
        return true;
    }
    if (c->n_out == 2)
        return false;
    c->out[c->n_out].iov_base = from;
    c->out[c->n_out++].iov_len = step->len;
    return true;
}

static void ended(struct xb_engine *e, struct xb_conn *c)
{
    c->state = XB_PASSIVE;
    e->running -= c->background ? 0 : 1;
}

/* The end of the program: again, or rest.  True: go on. */
static bool next_loop(struct xb_engine *e, struct xb_conn *c)
{
    bool last = e->draining || (!c->endless && c->loops_left <= 1);

    if (last && c->flight_head != c->flight_tail)
        return false; /* called again when the last reply is in */
    e->stats.loops++;
    if (last) {
        ended(e, c);
        return false;
    }
    if (!c->endless)
        c->loops_left--;
    c->pc = 0;
    return true;
}

static uint32_t in_flight(const struct xb_conn *c)
{
    return c->flight_head - c->flight_tail;
}

/* One step; 1: go on, 0: wait, -1: failed. */
static int send_step(struct xb_engine *e, struct xb_conn *c, const struct xb_step *step,
                     uint64_t now)
{
    struct xb_flight *flight;

    if (c->waits_event || in_flight(c) >= c->window)
        return 0;
    if ((step->flags & XB_UNTIL) && in_flight(c))
        return 0;
    if (step->flags & XB_IN_TX)
        memcpy(c->own_blob + step->off + 8, &c->tx_id, sizeof(c->tx_id));
    if (!queue_bytes(c, step))
        return 0;
    if (step->flags & XB_UNTIL)
        c->events[step->slot] = 0;
    if (step->flags & XB_PUBLISH)
        e->publish_ns = now;
    flight = &c->flight[c->flight_head++ & c->flight_mask];
    flight->step = c->pc;
    flight->sent_ns = now;
    c->at_barrier = (step->flags & (XB_BARRIER | XB_UNTIL)) != 0;
    c->pc++;
    return 1;
}

/* Counts a connection among those that others may wake, until its turn has come. */
static bool wait_global(struct xb_engine *e, struct xb_conn *c, bool ready)
{
    if (c->waits_global == ready)
        e->global_waiters += ready ? -1u : 1u;
    c->waits_global = !ready;
    return !ready;
}

static int other_step(struct xb_engine *e, struct xb_conn *c, const struct xb_step *step)
{
    if (in_flight(c))
        return 0; /* all of these begin after the replies before them */
    switch (step->op) {
    case XB_AWAIT:
        if (c->events[step->slot] < step->arg)
            return 0;
        c->events[step->slot] -= step->arg;
        break;
    case XB_AWAIT_ALL:
        if (wait_global(e, c, e->global_events >= step->arg))
            return 0;
        e->global_events -= step->arg;
        break;
    case XB_GATE:
        if (wait_global(e, c, e->gates[step->arg] != 0))
            return 0;
        e->gates[step->arg] = 0;
        break;
    case XB_OPEN:
        e->gates[step->arg] = 1;
        e->wake = true;
        break;
    case XB_CONNECT:
        if (c->fd < 0 && !c->guest && open_socket(e, c) < 0)
            return -1;
        break;
    case XB_CLOSE:
        close_socket(e, c);
        break;
    case XB_MARK:
        c->mark_ns = xb_now();
        break;
    case XB_LAP:
        xb_hist_add(e->hists[step->hist], xb_now() - c->mark_ns);
        break;
    case XB_REACT:
        if (c->events[step->slot] == 0) {
            e->running -= c->background ? 0 : 1;
            c->background = true;
            return 0;
        }
        c->events[step->slot]--;
        break;
    case XB_JUMP:
        c->pc = step->arg;
        return 1;
    case XB_IDLE:
        ended(e, c);
        return 0;
    default:
        return xb_fail(e, c, "step %u has unknown operation %u", c->pc, step->op);
    }
    c->pc++;
    return 1;
}

int xb_conn_advance(struct xb_engine *e, struct xb_conn *c, uint64_t now)
{
    int go;

    if (c->deaf)
        return deaf_advance(e, c);
    if (c->fd < 0 && !c->guest && c->state == XB_RUNNING && c->pc == 0 && c->prog->n_steps &&
        c->prog->steps[0].op != XB_CONNECT && open_socket(e, c) < 0)
        return -1;
    do {
        go = 0;
        if (c->state != XB_RUNNING || c->at_barrier || c->want_out)
            break;
        if (c->pc >= c->prog->n_steps) {
            go = next_loop(e, c);
        } else {
            const struct xb_step *step = &c->prog->steps[c->pc];

            go = step->op == XB_SEND ? send_step(e, c, step, now) : other_step(e, c, step);
        }
        if (go < 0)
            return -1;
        if (!go && c->n_out == 2 && in_flight(c) < c->window) {
            if (xb_conn_flush(e, c) < 0)
                return -1;
            go = c->n_out == 0;
        }
    } while (go);
    return c->n_out && !c->want_out ? xb_conn_flush(e, c) : 0;
}

static int parse(struct xb_engine *e, struct xb_conn *c, uint64_t now)
{
    uint32_t at = 0;

    while (c->in_len - at >= XB_HEADER) {
        struct xb_header hdr;

        memcpy(&hdr, c->in + at, sizeof(hdr));
        if (hdr.len > XB_PAYLOAD_MAX)
            return xb_fail(e, c, "a packet of %u bytes", hdr.len);
        if (c->in_len - at - XB_HEADER < hdr.len)
            break;
        if (hdr.type == XB_TYPE_EVENT) {
            if (xb_check_event(e, c, c->in + at + XB_HEADER, hdr.len, now) < 0)
                return -1;
        } else if (xb_check_reply(e, c, &hdr, c->in + at + XB_HEADER, now) < 0) {
            return -1;
        }
        at += XB_HEADER + hdr.len;
    }
    c->in_len -= at;
    if (c->in_len)
        memmove(c->in, c->in + at, c->in_len);
    if (!in_flight(c))
        c->at_barrier = false;
    return 0;
}

int xb_conn_received(struct xb_engine *e, struct xb_conn *c, uint32_t n)
{
    uint64_t now = xb_now();

    if (!c->deaf)
        e->last_ns = now;
    e->stats.bytes_in += n;
    if (n && parse(e, c, now) < 0)
        return -1;
    return xb_conn_advance(e, c, now);
}

int xb_conn_readable(struct xb_engine *e, struct xb_conn *c, bool block)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, XB_IN_SIZE - c->in_len, block ? 0 : MSG_DONTWAIT);

    e->stats.recvs++;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : xb_fail(e, c, "recv: %s", strerror(errno));
    if (n == 0)
        return xb_fail(e, c, "the daemon closed the connection");
    c->in_len += (uint32_t)n;
    return xb_conn_received(e, c, (uint32_t)n);
}
