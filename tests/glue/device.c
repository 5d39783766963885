/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A libxenevtchn.so.1 whose descriptor is the file named by $CHECK_DEVICE: a terminal in raw mode
 * stands for the character device that the real library opens.  Unmasking through the library
 * refuses port 7, and writes every other port to $CHECK_UNMASKED.  It is a libxengnttab.so.1, too.
 * Where $CHECK_CLOSE is there, closing fails, and does not say why.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct handle {
    int fd;
};

struct handle *xenevtchn_open(void *logger, unsigned flags);
int xenevtchn_close(struct handle *x);
int xenevtchn_fd(struct handle *x);
int xenevtchn_unmask(struct handle *x, uint32_t port);
int xenevtchn_bind_interdomain(struct handle *x, uint32_t domid, uint32_t port);
int xenevtchn_bind_virq(struct handle *x, unsigned virq);
int xenevtchn_unbind(struct handle *x, uint32_t port);
int xenevtchn_notify(struct handle *x, uint32_t port);
struct handle *xengnttab_open(void *logger, unsigned flags);
int xengnttab_close(struct handle *x);
void *xengnttab_map_grant_ref(struct handle *x, uint32_t domid, uint32_t ref, int prot);
int xengnttab_unmap(struct handle *x, void *page, uint32_t count);

struct handle *xenevtchn_open(void *logger, unsigned flags)
{
    static struct handle one;

    (void)logger;
    (void)flags;
    one.fd = open(getenv("CHECK_DEVICE"), O_RDWR | O_NOCTTY);
    return one.fd < 0 ? NULL : &one;
}

static int closed(int fd)
{
    int before = errno;

    if (fd >= 0)
        close(fd);
    errno = before;
    return getenv("CHECK_CLOSE") ? -1 : 0;
}

int xenevtchn_close(struct handle *x)
{
    return closed(x->fd);
}

int xenevtchn_fd(struct handle *x)
{
    return x->fd;
}

int xenevtchn_unmask(struct handle *x, uint32_t port)
{
    int fd, n;

    (void)x;
    if (port == 7) {
        errno = ENOTCONN;
        return -1;
    }
    fd = open(getenv("CHECK_UNMASKED"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    n = (int)write(fd, &port, sizeof(port));
    close(fd);
    return n == sizeof(port) ? 0 : -1;
}

int xenevtchn_bind_interdomain(struct handle *x, uint32_t domid, uint32_t port)
{
    (void)x;
    (void)domid;
    return (int)port;
}

int xenevtchn_bind_virq(struct handle *x, unsigned virq)
{
    (void)x;
    return (int)virq;
}

int xenevtchn_unbind(struct handle *x, uint32_t port)
{
    (void)x;
    (void)port;
    return 0;
}

int xenevtchn_notify(struct handle *x, uint32_t port)
{
    (void)x;
    (void)port;
    return 0;
}

struct handle *xengnttab_open(void *logger, unsigned flags)
{
    static struct handle one = {-1};

    (void)logger;
    (void)flags;
    return &one;
}

int xengnttab_close(struct handle *x)
{
    return closed(x->fd);
}

void *xengnttab_map_grant_ref(struct handle *x, uint32_t domid, uint32_t ref, int prot)
{
    (void)x;
    (void)domid;
    (void)ref;
    (void)prot;
    return NULL;
}

int xengnttab_unmap(struct handle *x, void *page, uint32_t count)
{
    (void)x;
    (void)page;
    (void)count;
    return -1;
}
