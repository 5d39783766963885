/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Plays the service manager's side of sd_notify: `notifyd SOCKET LOG` binds a datagram socket,
 * then appends every message to LOG, a line `pid <sender> <message>` each, until it is killed.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0), on = 1;
    char text[1024], control[CMSG_SPACE(sizeof(struct ucred))];
    FILE *log;

    if (argc != 3 || fd < 0)
        return 2;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) {
        perror(argv[1]);
        return 1;
    }
    log = fopen(argv[2], "a");
    if (!log)
        return 1;
    for (;;) {
        struct iovec part = {text, sizeof text - 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                 .msg_controllen = sizeof control};
        ssize_t len = recvmsg(fd, &message, 0);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        struct ucred sender = {0};

        if (len < 0)
            return 1;
        if (header && header->cmsg_type == SCM_CREDENTIALS)
            memcpy(&sender, CMSG_DATA(header), sizeof sender);
        text[len] = '\0';
        for (char *at = text; *at; at++)
            if (*at == '\n')
                *at = ' ';
        fprintf(log, "pid %d %s\n", sender.pid, text);
        fflush(log);
    }
}
