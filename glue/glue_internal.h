/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the glue's C files share; nobody else includes it. */
#ifndef XSD_GLUE_INTERNAL_H
#define XSD_GLUE_INTERNAL_H

#include "xsd_glue.h"

#include <stddef.h>

/* A handle of one of Xen's libraries; never looked into. */
typedef struct xen_handle xen_handle;

/* The functions' types are those of the libraries, with handles and loggers untyped. */
struct evtchn_calls {
    xen_handle *(*open)(void *logger, unsigned flags);
    xen_handle *(*fdopen)(void *logger, int fd, unsigned flags);
    int (*close)(xen_handle *);
    int (*fd)(xen_handle *);
    int (*bind_interdomain)(xen_handle *, uint32_t domid, uint32_t port);
    int (*bind_virq)(xen_handle *, unsigned virq);
    int (*unbind)(xen_handle *, uint32_t port);
    int (*notify)(xen_handle *, uint32_t port);
    int (*unmask)(xen_handle *, uint32_t port);
};

struct gnttab_calls {
    xen_handle *(*open)(void *logger, unsigned flags);
    int (*close)(xen_handle *);
    int (*fd)(xen_handle *);
    void *(*map)(xen_handle *, uint32_t domid, uint32_t ref, int prot);
    int (*unmap)(xen_handle *, void *addr, uint32_t count);
};

struct ctrl_calls {
    xen_handle *(*open)(void *logger, void *dombuild_logger, unsigned flags);
    int (*close)(xen_handle *);
    int (*getinfolist)(xen_handle *, uint32_t first, unsigned max, void *records);
    int (*evtchn_status)(xen_handle *, void *status);
    int (*hvm_param)(xen_handle *, uint32_t domid, uint32_t number, uint64_t *value);
};

/*
 * The library's first form had no `caps`: (handle, domid, state, unique_id).
 * Both forms have one soname, so the calls are made with both places for the
 * unique id at hand: see manage_ask().
 */
struct manage_calls {
    xen_handle *(*open)(void *logger, unsigned flags);
    int (*close)(xen_handle *);
    int (*info)(xen_handle *, unsigned domid, unsigned *state, void *caps_or_id, uint64_t *id);
    int (*poll)(xen_handle *, unsigned *domid, unsigned *state, void *caps_or_id, uint64_t *id);
};

/* What libxenctrl's list of all domains said, now and when it was last told; by domid.  An entry
 * is an enum xsd_glue_state, with the shutdown code in the upper eight bits. */
enum { GLUE_DOMIDS = 0x7ff0, GLUE_RECORDS = 64, GLUE_RECORD_MAX = 512 };

struct domain_list {
    uint16_t now[GLUE_DOMIDS];
    uint16_t told[GLUE_DOMIDS];
    uint32_t at; /* where the search for differences goes on */
    int filled;  /* `now` is of this round */
    uint64_t records[GLUE_RECORDS * GLUE_RECORD_MAX / sizeof(uint64_t)];
};

struct xsd_glue {
    void *evtchn_lib, *gnttab_lib, *domains_lib;
    xen_handle *evtchn, *gnttab, *ctrl, *manage;
    struct evtchn_calls ev;
    struct gnttab_calls gt;
    struct ctrl_calls xc;
    struct manage_calls mg;
    int evtchn_fd;
    int unmask_by_write; /* the fd is the real device */
    size_t record_size;  /* bytes of one record of xc_domain_getinfolist(); 0: not known */
    struct domain_list *list;
    char source[40];
    char last_call[64];
    char last_text[256];
};

struct symbol {
    const char *name;
    size_t offset; /* of the pointer in its struct of calls */
    int optional;
};

/* Notes the call and why, gives -err; err 0 (a library that set no errno): EIO. */
int glue_failed(xsd_glue *g, int err, const char *call, const char *detail);
/* The same with "what n" for detail. */
int glue_failed_at(xsd_glue *g, int err, const char *call, const char *what, uint32_t n);

/* Loads a library and fills its struct of calls from a table that ends with a NULL name. */
int glue_load(xsd_glue *g, const char *soname, const struct symbol *symbols, void *calls,
              void **lib);
void glue_unload(void **lib);

int glue_open_domains(xsd_glue *g);
int glue_open_control(xsd_glue *g);
int glue_remote_port(xsd_glue *g, uint32_t local, uint32_t *domid, uint32_t *remote);
int glue_hvm_param(xsd_glue *g, uint32_t domid, uint32_t number, uint64_t *value);
int glue_close_domains(xsd_glue *g);
const char *glue_domains_source(const xsd_glue *g);
int glue_domain_state(xsd_glue *g, uint32_t domid, struct xsd_glue_domain *out);
int glue_changed_domain(xsd_glue *g, struct xsd_glue_domain *out);

#endif
