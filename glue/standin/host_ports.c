/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shared host: event channel ports and handles.  Contract and rules in host.h. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- ports ------------------------------------------------------------ */

static struct port *port_at(struct hostmap *m, uint32_t domid, uint32_t port)
{
    if (port == 0 || domid >= HOST_DOMAINS)
        return NULL;
    if (domid == 0)
        return port < HOST_DOM0_PORTS ? &m->h->dom0_ports[port] : NULL;
    return port < HOST_GUEST_PORTS ? &m->h->guest_ports[domid][port] : NULL;
}

static uint32_t port_limit(uint32_t domid)
{
    return domid ? HOST_GUEST_PORTS : HOST_DOM0_PORTS;
}

static void fifo_path(struct hostmap *m, uint32_t index, uint32_t gen, char *path, size_t len)
{
    snprintf(path, len, "%s/evt/%u.%u", m->dir, index, gen);
}

/* Opened for reading too, so that a dead owner raises no SIGPIPE here. */
static int writer_fd(struct hostmap *m, uint32_t index)
{
    uint32_t gen = m->h->handles[index].gen;
    char path[256];
    int fd;

    if (m->writers[index].gen == gen)
        return m->writers[index].fd;
    pthread_mutex_lock(&m->writers_lock);
    if (m->writers[index].gen != gen) {
        if (m->writers[index].gen)
            close(m->writers[index].fd);
        m->writers[index].gen = 0;
        fifo_path(m, index, gen, path, sizeof(path));
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) {
            pthread_mutex_unlock(&m->writers_lock);
            return -1;
        }
        m->writers[index].fd = fd;
        m->writers[index].gen = gen;
    }
    fd = m->writers[index].fd;
    pthread_mutex_unlock(&m->writers_lock);
    return fd;
}

/* Puts a pending, unmasked port into its owner's FIFO, and masks it. */
static void deliver(struct hostmap *m, struct port *p, uint32_t domid, uint32_t port)
{
    uint32_t bits = p->bits, handle, event = host_event(domid, port);
    int fd;

    for (;;) {
        handle = p->handle;
        if (!(bits & PORT_PENDING) || (bits & PORT_MASKED) || !handle)
            return;
        if (atomic_compare_exchange_weak(&p->bits, &bits, PORT_MASKED))
            break;
    }
    fd = writer_fd(m, handle - 1);
    if (fd < 0 || write(fd, &event, sizeof(event)) != (ssize_t)sizeof(event))
        p->bits = 0; /* nobody reads any more, or 16,384 stale entries: the next event tries anew */
}

void host_raise(struct hostmap *m, uint32_t domid, uint32_t port)
{
    struct port *p = port_at(m, domid, port);

    if ((atomic_fetch_or(&p->bits, PORT_PENDING) & PORT_MASKED) == 0)
        deliver(m, p, domid, port);
}

/* Under the lock. */
static int free_port(struct hostmap *m, uint32_t domid)
{
    for (uint32_t port = 1; port < port_limit(domid); port++)
        if (port_at(m, domid, port)->state == PORT_FREE)
            return (int)port;
    return -ENOSPC;
}

static void set_port(struct port *p, enum port_state state, int handle, uint32_t rdom,
                     uint32_t rport)
{
    p->bits = 0;
    p->handle = (uint32_t)(handle + 1);
    p->rdom = rdom;
    p->rport = rport;
    p->state = state;
}

/* Under the lock: closes one end; the other is left unbound for this domain. */
static void close_port(struct hostmap *m, uint32_t domid, uint32_t port)
{
    struct port *p = port_at(m, domid, port), *other;

    if (p->state == PORT_VIRQ)
        m->h->virq_port[p->rport] = 0;
    if (p->state == PORT_INTERDOMAIN) {
        other = port_at(m, p->rdom, p->rport);
        if (other->state == PORT_INTERDOMAIN && other->rdom == domid && other->rport == port) {
            other->state = PORT_UNBOUND;
            other->rdom = domid;
            other->rport = 0;
        }
    }
    set_port(p, PORT_FREE, -1, 0, 0);
    if (domid == 0 && port == HOST_DOM0_KERNEL_PORT) /* the kernel's end outlives its player */
        p->state = PORT_UNBOUND;
}

void host_close_ports(struct hostmap *m, uint32_t domid)
{
    for (uint32_t port = 1; port < port_limit(domid); port++)
        if (port_at(m, domid, port)->state != PORT_FREE)
            close_port(m, domid, port);
}

int host_alloc_unbound(struct hostmap *m, uint32_t domid, uint32_t rdom, int handle)
{
    int port;

    if (domid >= HOST_DOMAINS || rdom >= HOST_DOMAINS)
        return -EINVAL;
    host_lock(m);
    if (m->h->domains[domid].state == DOM_NONE) {
        host_unlock(m);
        return -ESRCH;
    }
    port = free_port(m, domid);
    if (port > 0)
        set_port(port_at(m, domid, (uint32_t)port), PORT_UNBOUND, handle, rdom, 0);
    host_unlock(m);
    return port;
}

int host_bind_interdomain(struct hostmap *m, int handle, uint32_t rdom, uint32_t rport)
{
    struct port *remote;
    int port, err = host_fault(m, "bind", (int)rdom);

    if (err)
        return err;
    if (rdom >= HOST_DOMAINS)
        return -ESRCH;
    host_lock(m);
    remote = port_at(m, rdom, rport);
    if (m->h->domains[rdom].state == DOM_NONE) {
        port = -ESRCH;
    } else if (!remote || remote->state != PORT_UNBOUND || remote->rdom != 0) {
        port = -EINVAL;
    } else {
        port = free_port(m, 0);
        if (port > 0) {
            set_port(port_at(m, 0, (uint32_t)port), PORT_INTERDOMAIN, handle, rdom, rport);
            remote->rdom = 0;
            remote->rport = (uint32_t)port;
            remote->state = PORT_INTERDOMAIN;
        }
    }
    host_unlock(m);
    if (port > 0)
        host_raise(m, 0, (uint32_t)port);
    return port;
}

int host_bind_virq(struct hostmap *m, int handle, uint32_t virq)
{
    int port, err = host_fault(m, "virq", 0);

    if (err)
        return err;
    if (virq >= HOST_VIRQS)
        return -EINVAL;
    host_lock(m);
    if (m->h->virq_port[virq]) {
        port = -EEXIST;
    } else {
        port = free_port(m, 0);
        if (port > 0) {
            set_port(port_at(m, 0, (uint32_t)port), PORT_VIRQ, handle, 0, virq);
            m->h->virq_port[virq] = (uint32_t)port;
            if (virq == HOST_VIRQ_DOM_EXC) /* a new listener is told of everybody */
                for (uint32_t d = 0; d <= m->h->domid_hint; d++)
                    if (m->h->domains[d].state != DOM_NONE)
                        m->h->domains[d].changed = 1;
        }
    }
    host_unlock(m);
    return port;
}

static struct port *own_port(struct hostmap *m, uint32_t domid, int handle, uint32_t port)
{
    struct port *p = port_at(m, domid, port);

    return p && p->state != PORT_FREE && p->handle == (uint32_t)(handle + 1) ? p : NULL;
}

int host_unbind(struct hostmap *m, uint32_t domid, int handle, uint32_t port)
{
    int err = host_fault(m, "unbind", (int)domid);

    if (err)
        return err;
    if (!port_at(m, domid, port))
        return -EINVAL;
    host_lock(m);
    err = own_port(m, domid, handle, port) ? 0 : -ENOTCONN;
    if (!err)
        close_port(m, domid, port);
    host_unlock(m);
    return err;
}

int host_remote(struct hostmap *m, uint32_t domid, uint32_t port, uint32_t *rdom, uint32_t *rport)
{
    struct port *p = port_at(m, domid, port);
    int state;

    if (!p)
        return -EINVAL;
    host_lock(m);
    state = (int)p->state;
    *rdom = p->rdom;
    *rport = p->rport;
    host_unlock(m);
    return state;
}

int host_listen(struct hostmap *m, uint32_t domid, uint32_t port, int handle)
{
    struct port *p = port_at(m, domid, port);

    if (!p || p->state == PORT_FREE)
        return -EINVAL;
    p->handle = (uint32_t)(handle + 1);
    atomic_fetch_and(&p->bits, (uint32_t)~PORT_MASKED); /* its old reader took the mask along */
    deliver(m, p, domid, port);
    return 0;
}

int host_notify(struct hostmap *m, uint32_t domid, int handle, uint32_t port)
{
    struct port *p = own_port(m, domid, handle, port), *other;

    if (!p)
        return -ENOTCONN;
    if (p->state != PORT_INTERDOMAIN) /* unbound: dropped in silence, as Xen does */
        return p->state == PORT_UNBOUND ? 0 : -EINVAL;
    other = port_at(m, p->rdom, p->rport);
    if (other)
        host_raise(m, p->rdom, p->rport);
    return 0;
}

int host_unmask(struct hostmap *m, uint32_t domid, int handle, uint32_t port)
{
    struct port *p = own_port(m, domid, handle, port);

    if (p && (atomic_fetch_and(&p->bits, (uint32_t)~PORT_MASKED) & PORT_PENDING))
        deliver(m, p, domid, port);
    return 0; /* the device ignores ports that are not the caller's */
}

int host_ports_in_use(struct hostmap *m, uint32_t domid)
{
    int n = 0;

    if (domid >= HOST_DOMAINS)
        return -EINVAL;
    host_reap(m, true);
    for (uint32_t port = domid ? 1 : HOST_DOM0_KERNEL_PORT + 1; port < port_limit(domid); port++)
        n += port_at(m, domid, port)->state != PORT_FREE;
    return n;
}

/* ---- handles ---------------------------------------------------------- */

/* Under the lock. */
static void drop_handle(struct hostmap *m, uint32_t index)
{
    struct handle *h = &m->h->handles[index];
    char path[256];

    for (uint32_t port = 1; port < HOST_DOM0_PORTS; port++)
        if (m->h->dom0_ports[port].handle == index + 1)
            close_port(m, 0, port);
    if (h->kind == HANDLE_GUEST) /* a guest's port is its domain's: only nobody listens now */
        for (uint32_t d = 1; d <= m->h->domid_hint; d++)
            for (uint32_t port = 1; port < HOST_GUEST_PORTS; port++)
                if (m->h->guest_ports[d][port].handle == index + 1)
                    m->h->guest_ports[d][port].handle = 0;
    fifo_path(m, index, h->gen, path, sizeof(path));
    unlink(path);
    h->kind = HANDLE_FREE;
}

/* Whether some process still has the handle's descriptor open. */
static bool handle_alive(struct hostmap *m, uint32_t index)
{
    char path[256];
    bool alive;
    int fd;

    fifo_path(m, index, m->h->handles[index].gen, path, sizeof(path));
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    alive = flock(fd, LOCK_EX | LOCK_NB) < 0;
    close(fd);
    return alive;
}

static void reap_locked(struct hostmap *m, bool all)
{
    for (uint32_t i = 0; i < m->h->handle_hint; i++) {
        uint32_t kind = m->h->handles[i].kind;

        if (kind == HANDLE_DEVICE || (kind == HANDLE_GUEST && all))
            if (!handle_alive(m, i))
                drop_handle(m, i);
    }
}

void host_reap(struct hostmap *m, bool all)
{
    host_lock(m);
    reap_locked(m, all);
    host_unlock(m);
}

int host_handle_open(struct hostmap *m, enum handle_kind kind, bool keep, bool nonblock, int *fd)
{
    char path[256];
    uint32_t i;
    int err = 0;

    host_lock(m);
    if (kind == HANDLE_DEVICE)
        reap_locked(m, false);
    for (i = 0; i < HOST_HANDLES && m->h->handles[i].kind != HANDLE_FREE; i++)
        ;
    if (i == HOST_HANDLES) {
        host_unlock(m);
        return -EMFILE;
    }
    fifo_path(m, i, m->h->handles[i].gen + 1, path, sizeof(path));
    unlink(path);
    *fd = -1;
    if (mkfifo(path, 0600) < 0)
        err = -errno;
    if (!err) {
        *fd = open(path, O_RDWR | (keep ? 0 : O_CLOEXEC) | (nonblock ? O_NONBLOCK : 0));
        if (*fd < 0 || flock(*fd, LOCK_EX | LOCK_NB) < 0)
            err = -errno;
    }
    if (err) {
        if (*fd >= 0)
            close(*fd);
        unlink(path);
    } else {
        m->h->handles[i].gen++;
        m->h->handles[i].pid = (uint32_t)getpid();
        m->h->handles[i].kind = kind;
        if (i >= m->h->handle_hint)
            m->h->handle_hint = i + 1;
    }
    host_unlock(m);
    return err ? err : (int)i;
}

int host_handle_from_fd(struct hostmap *m, int fd)
{
    char link_path[64], target[256];
    unsigned index, gen;
    const char *name;
    ssize_t n;

    snprintf(link_path, sizeof(link_path), "/proc/self/fd/%d", fd);
    n = readlink(link_path, target, sizeof(target) - 1);
    if (n < 0)
        return -EBADF;
    target[n] = 0;
    name = strrchr(target, '/');
    if (!name || sscanf(name, "/%u.%u", &index, &gen) != 2 || index >= HOST_HANDLES)
        return -EINVAL;
    if (m->h->handles[index].kind == HANDLE_FREE || m->h->handles[index].gen != gen)
        return -EINVAL;
    return (int)index;
}

int host_handle_close(struct hostmap *m, int index, int fd)
{
    int err = close(fd) < 0 ? -errno : 0;

    host_lock(m);
    if (!handle_alive(m, (uint32_t)index)) /* a forked copy may hold it yet */
        drop_handle(m, (uint32_t)index);
    host_unlock(m);
    return err;
}
