/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Contract: xs.h.
 */
#define _GNU_SOURCE
#include "xs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct header {
    uint32_t type, req_id, tx_id, len;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "xsprobe: %s: %s\n", what, strerror(errno));
    exit(3);
}

long xs_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static int open_socket(const char *where)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", where);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die(where);
    return fd;
}

void xs_open(struct xs *xs, const char *where)
{
    struct stat info;

    memset(xs, 0, sizeof *xs);
    xs->next_id = 1;
    if (stat(where, &info) < 0)
        die(where);
    xs->fd = S_ISSOCK(info.st_mode) ? open_socket(where) : open(where, O_RDWR | O_CLOEXEC);
    if (xs->fd < 0)
        die(where);
}

void xs_close(struct xs *xs)
{
    xs_drop_events(xs);
    close(xs->fd);
}

static void get_bytes(int fd, void *to, size_t len)
{
    char *at = to;

    while (len > 0) {
        ssize_t got = read(fd, at, len);

        if (got == 0) {
            errno = ECONNRESET;
            die("read");
        }
        if (got < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            die("read");
        }
        at += got;
        len -= (size_t)got;
    }
}

uint32_t xs_send(struct xs *xs, enum xs_type type, uint32_t tx, const void *payload, size_t len)
{
    struct header header = {type, xs->next_id++, tx, (uint32_t)len};
    char packet[sizeof header + XS_PAYLOAD_MAX];
    size_t done = 0;

    if (len > XS_PAYLOAD_MAX) {
        errno = E2BIG;
        die("request");
    }
    memcpy(packet, &header, sizeof header);
    memcpy(packet + sizeof header, payload, len);
    while (done < sizeof header + len) {
        ssize_t put = write(xs->fd, packet + done, sizeof header + len - done);

        if (put < 0) {
            if (errno == EINTR)
                continue;
            die("write");
        }
        done += (size_t)put;
    }
    return header.req_id;
}

static void keep_event(struct xs *xs, const char *payload, size_t len)
{
    size_t path_len = strnlen(payload, len);

    if (xs->event_count == XS_EVENTS_MAX) {
        errno = ENOBUFS;
        die("events");
    }
    if (path_len + 1 >= len || payload[len - 1] != '\0') {
        errno = EPROTO;
        die("event");
    }
    xs->events[xs->event_count].path = strdup(payload);
    xs->events[xs->event_count].token = strdup(payload + path_len + 1);
    xs->event_count++;
}

/* Reads one packet; true when it was an event. */
static bool take_packet(struct xs *xs)
{
    struct header header;
    uint32_t kept;

    get_bytes(xs->fd, &header, sizeof header);
    if (header.type == XS_WATCH_EVENT) {
        char payload[XS_PAYLOAD_MAX + 1];

        if (header.len > XS_PAYLOAD_MAX) {
            errno = EPROTO;
            die("event");
        }
        get_bytes(xs->fd, payload, header.len);
        payload[header.len] = '\0';
        keep_event(xs, payload, header.len);
        return true;
    }
    kept = header.len <= XS_PAYLOAD_MAX ? header.len : XS_PAYLOAD_MAX;
    get_bytes(xs->fd, xs->data, kept);
    xs->data[kept] = '\0';
    xs->len = kept;
    xs->req_id = header.req_id;
    xs->error[0] = '\0';
    if (header.type == XS_ERROR)
        snprintf(xs->error, sizeof xs->error, "%.31s", xs->data);
    if (header.len > kept) { /* no answer may be so long */
        char rest;

        while (kept++ < header.len)
            get_bytes(xs->fd, &rest, 1);
        snprintf(xs->error, sizeof xs->error, "%s", "TOO-LONG");
    }
    return false;
}

bool xs_reply(struct xs *xs)
{
    while (take_packet(xs))
        ;
    return xs->error[0] == '\0';
}

bool xs_call(struct xs *xs, enum xs_type type, uint32_t tx, const void *payload, size_t len)
{
    uint32_t id = xs_send(xs, type, tx, payload, len);

    if (!xs_reply(xs))
        return false;
    if (xs->req_id != id) {
        errno = EPROTO;
        die("req_id");
    }
    return true;
}

bool xs_path(struct xs *xs, enum xs_type type, uint32_t tx, const char *path)
{
    return xs_call(xs, type, tx, path, strlen(path) + 1);
}

bool xs_pair(struct xs *xs, enum xs_type type, const char *first, const char *second)
{
    char payload[XS_PAYLOAD_MAX];
    int len = snprintf(payload, sizeof payload, "%s%c%s", first, '\0', second);

    return xs_call(xs, type, 0, payload, (size_t)len + 1);
}

bool xs_write(struct xs *xs, uint32_t tx, const char *path, const void *value, size_t len)
{
    char payload[XS_PAYLOAD_MAX];
    size_t path_len = strlen(path) + 1;

    memcpy(payload, path, path_len);
    memcpy(payload + path_len, value, len);
    return xs_call(xs, XS_WRITE, tx, payload, path_len + len);
}

bool xs_put(struct xs *xs, uint32_t tx, const char *path, const char *value)
{
    return xs_write(xs, tx, path, value, strlen(value));
}

uint32_t xs_begin(struct xs *xs)
{
    return xs_path(xs, XS_TRANSACTION_START, 0, "") ? (uint32_t)strtoul(xs->data, NULL, 10) : 0;
}

bool xs_end(struct xs *xs, uint32_t tx, bool commit)
{
    return xs_path(xs, XS_TRANSACTION_END, tx, commit ? "T" : "F");
}

void xs_free_event(struct xs_event *event)
{
    free(event->path);
    free(event->token);
}

bool xs_next_event(struct xs *xs, int ms, struct xs_event *event)
{
    long deadline = xs_now_ms() + ms;

    while (xs->event_count == 0) {
        struct pollfd ready = {.fd = xs->fd, .events = POLLIN};
        long left = deadline - xs_now_ms();

        if (left <= 0)
            return false;
        if (poll(&ready, 1, (int)left) > 0 && !take_packet(xs)) {
            errno = EPROTO;
            die("a reply that nobody asked for");
        }
    }
    *event = xs->events[0];
    xs->event_count--;
    memmove(xs->events, xs->events + 1, xs->event_count * sizeof *xs->events);
    return true;
}

bool xs_await_event(struct xs *xs, int ms, const char *path, const char *token)
{
    long deadline = xs_now_ms() + ms;
    struct xs_event event;
    bool found = false;

    while (!found && xs_next_event(xs, (int)(deadline - xs_now_ms()), &event)) {
        found = (!path || !strcmp(path, event.path)) && (!token || !strcmp(token, event.token));
        xs_free_event(&event);
    }
    return found;
}

void xs_drop_events(struct xs *xs)
{
    for (size_t i = 0; i < xs->event_count; i++)
        xs_free_event(&xs->events[i]);
    xs->event_count = 0;
}
