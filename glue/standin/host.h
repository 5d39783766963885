/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stand-in's "hypervisor": one directory, shared by every process of one
 * pretended host.  Each stand-in library links this file in.
 *
 *   DIR/host.shm       struct host: domains, ports, handles (sparse file)
 *   DIR/pages/<domid>  the domain's xenstore page, 4096 bytes
 *   DIR/evt/<i>.<gen>  FIFO of one opened event channel handle: u32 ports
 *   DIR/xsd_kva        hard link to pages/0, as /proc/xen/xsd_kva
 *   DIR/xsd_port       dom0's unbound xenstore port in decimal
 *   DIR/faults         optional: errors to play, see host_fault()
 *
 * Rules kept here, from Xen's event channel code:
 *   - an event that arrives is delivered once and masks its port; one that
 *     arrives on a masked port stays pending and is delivered by the unmask;
 *   - bind_interdomain leaves the new local port pending (events sent while
 *     the other side was unbound may have been lost);
 *   - closing one end of a channel leaves the other end unbound, for the same
 *     remote domain; a dying domain loses all its ports;
 *   - a global VIRQ has one port.
 * The control plane runs under one robust process-shared mutex; notify and
 * unmask are atomics and at most one write(2) of four bytes.
 * Liveness of a handle is a flock(2) on its FIFO: the lock belongs to the open
 * file description, so it survives fork and exec and vanishes with the last
 * copy of the descriptor, as the bindings of the real device do.
 *
 * Everything returns 0 or a value >= 0, or -errno.
 */
#ifndef XSD_STANDIN_HOST_H
#define XSD_STANDIN_HOST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HOST_MAGIC = 0x58534454,
    HOST_LAYOUT = 1,
    HOST_PAGE_SIZE = 4096,
    HOST_DOMAINS = 32752,   /* DOMID_FIRST_RESERVED */
    HOST_DOM0_PORTS = 4096, /* port numbers of dom0; 0 is never used */
    HOST_GUEST_PORTS = 16,
    HOST_HANDLES = 8192,
    HOST_VIRQS = 24,
    HOST_VIRQ_DOM_EXC = 3,
    HOST_DOM0_KERNEL_PORT = 1, /* dom0's end of its own ring, always there */
    HOST_XENSTORE_REF = 1, /* GNTTAB_RESERVED_XENSTORE */
};

enum dom_state { DOM_NONE, DOM_RUNNING, DOM_SHUTDOWN, DOM_DYING, DOM_DEAD };
enum port_state { PORT_FREE, PORT_UNBOUND, PORT_INTERDOMAIN, PORT_VIRQ };
enum handle_kind { HANDLE_FREE, HANDLE_DEVICE, HANDLE_GUEST };
enum { PORT_PENDING = 1, PORT_MASKED = 2 };

struct port {
    _Atomic uint32_t bits;   /* PORT_PENDING | PORT_MASKED */
    _Atomic uint32_t state;  /* enum port_state */
    _Atomic uint32_t handle; /* index + 1 of the handle that gets the events; 0: none */
    _Atomic uint32_t rdom;   /* UNBOUND: who may bind; INTERDOMAIN: the other end */
    _Atomic uint32_t rport;  /* INTERDOMAIN: its port; VIRQ: the number */
    uint32_t spare[3];
};

struct domain {
    _Atomic uint32_t state;   /* enum dom_state */
    _Atomic uint32_t code;    /* shutdown code, where state is DOM_SHUTDOWN */
    _Atomic uint64_t uid;     /* unique over the life of the host */
    _Atomic uint32_t changed; /* not yet told by poll_changed_domain */
    _Atomic uint32_t was_shut_down; /* it has shut down, and did not run since */
    uint32_t spare[10];
};

struct handle {
    _Atomic uint32_t kind; /* enum handle_kind */
    _Atomic uint32_t gen;
    _Atomic uint32_t pid;
    uint32_t spare;
};

struct host {
    uint32_t magic, layout;
    pthread_mutex_t lock;
    uint64_t next_uid;
    uint32_t domid_hint; /* no domain above this was ever made */
    uint32_t handle_hint;
    _Atomic uint32_t virq_port[HOST_VIRQS]; /* dom0's port, 0: not bound */
    struct handle handles[HOST_HANDLES];
    struct domain domains[HOST_DOMAINS];
    struct port dom0_ports[HOST_DOM0_PORTS];
    struct port guest_ports[HOST_DOMAINS][HOST_GUEST_PORTS];
};

/* One process's view of a host. */
struct hostmap {
    struct host *h;
    char dir[200];
    struct {
        uint32_t gen;
        int fd;
    } writers[HOST_HANDLES]; /* FIFOs opened for writing */
    pthread_mutex_t writers_lock;
};

/* dir NULL: $XSD_STANDIN_DIR.  Makes the host (with dom0) where there is none.
 * ENOENT: no directory, as on a machine without Xen. */
int host_open(const char *dir, struct hostmap **out);
void host_close(struct hostmap *m);

/* The error that DIR/faults asks for, as -errno, or 0.  Lines:
 * `<call> <domid or *> <errno name or number>`, calls: open-evtchn,
 * open-gnttab, open-ctrl, open-manage, map, bind, virq, unbind, info, param. */
int host_fault(struct hostmap *m, const char *call, int domid);

/* The handle that a library with one of Xen's names hands out: the opaque type of its API. */
struct device {
    struct hostmap *m;
    int index; /* evtchn: of its host handle */
    int fd;    /* evtchn: its FIFO; gnttab: an eventfd */
};

/* A new one on the host of $XSD_STANDIN_DIR, unless DIR/faults refuses `call`; NULL with errno. */
struct device *host_device_open(const char *call);
void host_device_close(struct device *d); /* its fd is the caller's; NULL: nothing */
/* For an open that failed later on: closes, sets errno to -err, returns NULL. */
void *host_device_refuse(struct device *d, int err);
/* The domain's page, mapped; NULL with errno. */
void *host_device_map(struct device *d, uint32_t domid, int prot);
/* What a C library's function returns: a value >= 0, or -1 with errno. */
int host_result(int r);

int host_domain_create(struct hostmap *m, uint32_t domid);
/* New state; DOM_NONE removes the domain.  From DOM_DYING on it has no ports and its page cannot
 * be mapped.  Raises VIRQ_DOM_EXC. */
int host_domain_set(struct hostmap *m, uint32_t domid, enum dom_state state, uint32_t code);
int host_map_page(struct hostmap *m, uint32_t domid, int prot, void **out);

/* A new handle: its index; *fd is its FIFO, opened with O_CLOEXEC unless keep. */
int host_handle_open(struct hostmap *m, enum handle_kind kind, bool keep, bool nonblock, int *fd);
int host_handle_from_fd(struct hostmap *m, int fd); /* the index behind an inherited FIFO */
int host_handle_close(struct hostmap *m, int index, int fd);
/* Frees what closed descriptors left behind; all: guests' handles too. */
void host_reap(struct hostmap *m, bool all);

/* Ports of domid; a handle is an index, or -1: nobody listens yet. */
int host_alloc_unbound(struct hostmap *m, uint32_t domid, uint32_t rdom, int handle);
int host_bind_interdomain(struct hostmap *m, int handle, uint32_t rdom, uint32_t rport);
int host_bind_virq(struct hostmap *m, int handle, uint32_t virq);
int host_unbind(struct hostmap *m, uint32_t domid, int handle, uint32_t port);
/* The port's enum port_state, and its other end where it has one. */
int host_remote(struct hostmap *m, uint32_t domid, uint32_t port, uint32_t *rdom, uint32_t *rport);
int host_listen(struct hostmap *m, uint32_t domid, uint32_t port, int handle);
int host_notify(struct hostmap *m, uint32_t domid, int handle, uint32_t port);
int host_unmask(struct hostmap *m, uint32_t domid, int handle, uint32_t port);
/* Ports in use by a domain; dom0's own kernel port is not counted. */
int host_ports_in_use(struct hostmap *m, uint32_t domid);

/* For the files of the host itself.  The lock is taken over from an owner that crashed. */
void host_lock(struct hostmap *m);
void host_unlock(struct hostmap *m);
void host_raise(struct hostmap *m, uint32_t domid, uint32_t port); /* an event at a port */
void host_close_ports(struct hostmap *m, uint32_t domid);          /* all of a domain; locked */

/* What a FIFO carries: the port for dom0, domid << 16 | port for guests. */
static inline uint32_t host_event(uint32_t domid, uint32_t port)
{
    return domid << 16 | port;
}

#endif
