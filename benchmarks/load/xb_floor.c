/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The floor: the least that a single-threaded daemon on epoll can spend for a request.
 * One recv and one send for each readable descriptor and turn, the bytes sent back as they came.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "xb_load.h"

#define TURN 256
#define CHUNK (64 * 1024)

/* Echoes what is there; false: the connection is gone. */
static bool echo(int fd, char *buffer)
{
    ssize_t n = recv(fd, buffer, CHUNK, MSG_DONTWAIT);
    ssize_t at = 0;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    while (at < n) {
        /* The generator always reads, so a full buffer empties: sleeping in send is safe. */
        ssize_t sent = send(fd, buffer + at, (size_t)(n - at), MSG_NOSIGNAL);

        if (sent < 0)
            return false;
        at += sent;
    }
    return n > 0;
}

static void add(int epfd, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
        close(fd);
}

int xb_echo_serve(int listen_fd, uint64_t poll_ns)
{
    char *buffer = malloc(CHUNK);
    struct epoll_event events[TURN];
    int epfd = epoll_create1(EPOLL_CLOEXEC), i, n;
    uint64_t last = 0;

    if (epfd < 0 || !buffer)
        return -(epfd < 0 ? errno : ENOMEM);
    add(epfd, listen_fd);
    for (;;) {
        bool awake = poll_ns && xb_now() - last < poll_ns;

        n = epoll_wait(epfd, events, TURN, awake ? 0 : -1);
        if (n < 0 && errno != EINTR)
            return -errno;
        for (i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == listen_fd) {
                fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
                if (fd >= 0)
                    add(epfd, fd);
            } else if (!echo(fd, buffer)) {
                close(fd);
            }
        }
        if (n > 0 && poll_ns)
            last = xb_now();
    }
}
