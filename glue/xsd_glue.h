/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What pyxsd needs of Xen, behind one plain C interface: grants, event
 * channels, domain states, dom0's page.  Nothing of Xen is needed to compile
 * it; the libraries are found when they are opened, by soname, through the
 * dynamic loader:
 *
 *   evtchn   libxenevtchn.so.1
 *   gnttab   libxengnttab.so.1
 *   domains  libxenmanage.so.1 (Xen 4.21+), else libxenctrl.so.4.N of the
 *            running Xen
 *
 * The three parts are opened one by one, so that each can fail on its own.
 *
 * Errors: functions that return int return a value >= 0, or -errno; then
 * last_call() names the call that failed ("xengnttab_map_grant_ref") and
 * last_text() says more ("xengnttab_map_grant_ref(domain 7): Operation not
 * permitted").  A library or a symbol that is missing is -ENOENT or -ENOSYS; a
 * part that is not open -EBADF.  Both texts belong to the handle and hold until
 * its next failure.
 *
 * Not thread-safe; nothing blocks, except opening.
 *
 * Hot path: notify(), pending() and unmask() of struct xsd_glue_api may be
 * called without Python's lock; they allocate nothing.
 */
#ifndef XSD_GLUE_H
#define XSD_GLUE_H

#include <stdint.h>

#define XSD_GLUE_VERSION 2
#define XSD_GLUE_PAGE_SIZE 4096
#define XSD_GLUE_VIRQ_DOM_EXC 3

enum xsd_glue_state {
    XSD_GLUE_UNKNOWN = 0,  /* no such domain */
    XSD_GLUE_RUNNING = 1,  /* also paused, blocked, and being destroyed before it is dead */
    XSD_GLUE_SHUTDOWN = 2, /* the guest has shut down; see code */
    XSD_GLUE_DEAD = 3      /* destroyed; Xen still knows it while somebody holds its pages */
};

struct xsd_glue_domain {
    uint32_t domid;
    uint32_t state;     /* enum xsd_glue_state */
    int32_t code;       /* SHUTDOWN: Xen's SHUTDOWN_* code, -1: the source does not tell */
    uint32_t reserved;
    uint64_t unique_id; /* differs between domains with one domid; 0: the source does not tell */
};

typedef struct xsd_glue xsd_glue;

/*
 * The table.  Members are only ever added at its end; `version` changes when one
 * changes its meaning, `size` is the table's size in bytes as compiled.
 */
struct xsd_glue_api {
    uint32_t version;
    uint32_t size;

    xsd_glue *(*create)(void);   /* NULL: no memory.  Opens nothing. */
    void (*destroy)(xsd_glue *); /* closes what is open; pages must be unmapped before */

    const char *(*last_call)(const xsd_glue *);
    const char *(*last_text)(const xsd_glue *);

    int (*open_evtchn)(xsd_glue *);           /* /dev/xen/evtchn; non-blocking, close-on-exec */
    int (*fdopen_evtchn)(xsd_glue *, int fd); /* the same from a descriptor inherited over exec;
                                                 on failure the descriptor stays open */
    int (*open_gnttab)(xsd_glue *);
    int (*open_domains)(xsd_glue *);
    int (*close_evtchn)(xsd_glue *); /* unbinds all its ports */
    int (*close_gnttab)(xsd_glue *);
    int (*close_domains)(xsd_glue *);
    const char *(*domains_source)(const xsd_glue *); /* "libxenctrl.so.4.17", "" when not open */
    /* keep != 0: the descriptors of evtchn (with its bindings) and gnttab that are open survive an
     * exec from now on; 0: they do not.  Mapped pages never survive. */
    int (*keep_over_exec)(xsd_glue *, int keep);

    int (*map_page)(xsd_glue *, uint32_t domid, void **page); /* its xenstore page: grant ref 1 */
    int (*unmap_page)(xsd_glue *, void *page);
    int (*map_file)(xsd_glue *, const char *path, void **page); /* dom0's page, read and write */
    int (*unmap_file)(xsd_glue *, void *page);

    int (*evtchn_fd)(xsd_glue *); /* to wait on for reading */
    int (*bind_interdomain)(xsd_glue *, uint32_t domid, uint32_t remote_port); /* local port */
    int (*bind_virq)(xsd_glue *, uint32_t virq); /* local port */
    int (*unbind)(xsd_glue *, uint32_t port);
    int (*notify)(xsd_glue *, uint32_t port);
    /* Up to n pending ports, each masked until unmask(): their count, 0: none. */
    int (*pending)(xsd_glue *, uint32_t *ports, uint32_t n);
    int (*unmask)(xsd_glue *, const uint32_t *ports, uint32_t n);

    /* The state of one domid; UNKNOWN is an answer, not an error. */
    int (*domain_state)(xsd_glue *, uint32_t domid, struct xsd_glue_domain *out);
    /* One domain whose state differs from what this call told last of its domid: 1, 0: no more for
     * now, -ENOSYS: the source cannot tell (ask for each domain).  The first calls tell of all
     * domains.  Of a domain that came and went between two rounds libxenctrl tells nothing. */
    int (*changed_domain)(xsd_glue *, struct xsd_glue_domain *out);
    /* Empties the device's queue of pending ports, which the kernel refuses to be read (-EFBIG)
     * once it has overflowed.  Ports that were in it stay masked: unmask() all, and look at all. */
    int (*discard_pending)(xsd_glue *);

    /* Instead of open_domains(): libxenctrl, whatever else there is.  The two questions below need
     * it; it answers the others as well. */
    int (*open_control)(xsd_glue *);
    /* The other end of a local port; -ENOTCONN where it has none. */
    int (*remote_port)(xsd_glue *, uint32_t local, uint32_t *domid, uint32_t *remote);
    /* One of a domain's parameters, by its HVM_PARAM_ number. */
    int (*hvm_param)(xsd_glue *, uint32_t domid, uint32_t number, uint64_t *value);
};

/* The one table of this library; static. */
const struct xsd_glue_api *xsd_glue_api(void);
/* Its address as a number, for callers that pass it through Python. */
uintptr_t xsd_glue_api_address(void);

#endif
