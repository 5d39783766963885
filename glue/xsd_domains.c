/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Domain states of the glue, by libxenmanage or libxenctrl: contract in xsd_glue.h.
 * The only file that knows of libraries whose names or records change with Xen's version.
 */
#define _GNU_SOURCE
#include "glue_internal.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* libxenctrl has a new soname with each Xen */
    CTRL_NEWEST = 24,
    CTRL_OLDEST = 14,
    /* One record of xc_domain_getinfolist() has about 112 to 140 bytes, by version; all begin
     * with the domid and the flags. */
    CTRL_RECORD_MAX = 4096,
    CTRL_RECORD_MIN = 64,
};

/* How each record of xc_domain_getinfolist() begins. */
struct ctrl_head {
    uint16_t domid, pad;
    uint32_t flags;
};

/* Xen sets DOMINF_DYING only once a domain is dead.  libxenmanage also tells of the time before:
 * MANAGE_DYING alone means that the domain is being destroyed and its memory still in use. */
enum { DOMINF_DYING = 1U << 0, DOMINF_SHUTDOWN = 1U << 2 };
enum { DOMINF_CODE_SHIFT = 16, DOMINF_CODE_MASK = 255 };
enum { MANAGE_EXIST = 1, MANAGE_SHUTDOWN = 2, MANAGE_DEAD = 8 }; /* MANAGE_DYING is 4 */

static const struct symbol ctrl_symbols[] = {
    {"xc_interface_open", offsetof(struct ctrl_calls, open), 0},
    {"xc_interface_close", offsetof(struct ctrl_calls, close), 0},
    {"xc_domain_getinfolist", offsetof(struct ctrl_calls, getinfolist), 0},
    {"xc_evtchn_status", offsetof(struct ctrl_calls, evtchn_status), 1},
    {"xc_hvm_param_get", offsetof(struct ctrl_calls, hvm_param), 1},
    {NULL, 0, 0},
};

static const struct symbol manage_symbols[] = {
    {"xenmanage_open", offsetof(struct manage_calls, open), 0},
    {"xenmanage_close", offsetof(struct manage_calls, close), 0},
    {"xenmanage_get_domain_info", offsetof(struct manage_calls, info), 0},
    {"xenmanage_poll_changed_domain", offsetof(struct manage_calls, poll), 0},
    {NULL, 0, 0},
};

static void ctrl_told(uint32_t flags, struct xsd_glue_domain *out)
{
    if (flags & DOMINF_DYING) {
        out->state = XSD_GLUE_DEAD;
    } else if (flags & DOMINF_SHUTDOWN) {
        out->state = XSD_GLUE_SHUTDOWN;
        out->code = (int32_t)(flags >> DOMINF_CODE_SHIFT & DOMINF_CODE_MASK);
    } else {
        out->state = XSD_GLUE_RUNNING;
    }
}

static int ctrl_state(xsd_glue *g, uint32_t domid, struct xsd_glue_domain *out)
{
    union {
        struct ctrl_head head;
        uint64_t space[CTRL_RECORD_MAX / sizeof(uint64_t)];
    } record;
    int n;

    memset(&record.head, 0, sizeof(record.head));
    errno = 0;
    n = g->xc.getinfolist(g->ctrl, domid, 1, &record);
    if (n < 0 && errno != ESRCH)
        return glue_failed_at(g, errno, "xc_domain_getinfolist", "domain", domid);
    if (n <= 0 || record.head.domid != domid) /* the next higher domain is no answer */
        return 0;
    ctrl_told(record.head.flags, out);
    return 0;
}

/* The size of a record: the library writes all bytes of the one that is asked for, so that no byte
 * of it keeps both of two fillings.  0 where that gives no size that a record can have. */
static size_t ctrl_record_size(xsd_glue *g)
{
    union {
        struct ctrl_head head;
        unsigned char bytes[CTRL_RECORD_MAX];
        uint64_t align;
    } a, b;
    size_t n = sizeof(a.bytes);

    memset(&a, 0xa5, sizeof(a));
    memset(&b, 0x5a, sizeof(b));
    if (g->xc.getinfolist(g->ctrl, 0, 1, &a) != 1 || g->xc.getinfolist(g->ctrl, 0, 1, &b) != 1
        || a.head.domid != 0 || b.head.domid != 0)
        return 0;
    while (n && a.bytes[n - 1] == 0xa5 && b.bytes[n - 1] == 0x5a)
        n--;
    return n >= CTRL_RECORD_MIN && n <= GLUE_RECORD_MAX && n % sizeof(uint64_t) == 0 ? n : 0;
}

/* Asks for all domains, many a call.  Records that make no sense: -ENOSYS, for good. */
static int ctrl_fill(xsd_glue *g)
{
    struct domain_list *list = g->list;
    uint32_t first = 0;
    int n;

    memset(list->now, 0, sizeof(list->now));
    do {
        errno = 0;
        n = g->xc.getinfolist(g->ctrl, first, GLUE_RECORDS, list->records);
        if (n < 0 && errno != ESRCH)
            return glue_failed_at(g, errno, "xc_domain_getinfolist", "from domain", first);
        for (int i = 0; i < n && i < GLUE_RECORDS; i++) {
            struct xsd_glue_domain one = {.code = 0};
            struct ctrl_head head;

            memcpy(&head, (char *)list->records + (size_t)i * g->record_size, sizeof(head));
            if (head.domid < first || head.domid >= GLUE_DOMIDS) {
                g->record_size = 0;
                return glue_failed(g, ENOSYS, "xc_domain_getinfolist", "records of unknown size");
            }
            ctrl_told(head.flags, &one);
            list->now[head.domid] = (uint16_t)(one.state | (uint32_t)one.code << 8);
            first = head.domid + 1U;
        }
    } while (n >= GLUE_RECORDS && first < GLUE_DOMIDS);
    list->at = 0;
    list->filled = 1;
    return 0;
}

/* As changed_domain() of the table. */
static int ctrl_changed(xsd_glue *g, struct xsd_glue_domain *out)
{
    struct domain_list *list;
    int err;

    if (!g->record_size)
        return glue_failed(g, ENOSYS, "xc_domain_getinfolist", "records of unknown size");
    if (!g->list && !(g->list = calloc(1, sizeof(*g->list))))
        return glue_failed(g, ENOMEM, "xc_domain_getinfolist", NULL);
    list = g->list;
    err = list->filled ? 0 : ctrl_fill(g);
    if (err)
        return err;
    for (; list->at < GLUE_DOMIDS; list->at++) {
        uint32_t domid = list->at;

        if (list->now[domid] == list->told[domid])
            continue;
        list->told[domid] = list->now[domid];
        out->domid = domid;
        out->state = list->now[domid] & 255U;
        if (out->state == XSD_GLUE_SHUTDOWN)
            out->code = list->now[domid] >> 8;
        list->at++;
        return 1;
    }
    list->filled = 0;
    return 0;
}

/* domid NULL: which domain has changed?  1: answered, 0: there is none. */
static int manage_ask(xsd_glue *g, const uint32_t *domid, struct xsd_glue_domain *out)
{
    const uint64_t untouched = UINT64_MAX;
    const char *call = domid ? "xenmanage_get_domain_info" : "xenmanage_poll_changed_domain";
    uint64_t fourth = 0, fifth = untouched;
    unsigned state = 0, who = domid ? *domid : 0;
    int r;

    /* With `caps`, the fourth argument takes 32 bits of capabilities and the
     * fifth the id; in the first form the fourth takes the id, and the fifth,
     * which no calling convention minds, stays as it is. */
    errno = 0;
    r = domid ? g->mg.info(g->manage, who, &state, &fourth, &fifth)
              : g->mg.poll(g->manage, &who, &state, &fourth, &fifth);
    if (r < 0) {
        if (errno == ENOENT || errno == ESRCH)
            return 0;
        return domid ? glue_failed_at(g, errno, call, "domain", who)
                     : glue_failed(g, errno, call, NULL);
    }
    out->domid = who;
    out->unique_id = fifth == untouched ? fourth : fifth;
    if (state & MANAGE_DEAD)
        out->state = XSD_GLUE_DEAD;
    else if (!(state & MANAGE_EXIST))
        out->state = XSD_GLUE_UNKNOWN;
    else
        out->state = state & MANAGE_SHUTDOWN ? XSD_GLUE_SHUTDOWN : XSD_GLUE_RUNNING;
    return 1;
}

int glue_domain_state(xsd_glue *g, uint32_t domid, struct xsd_glue_domain *out)
{
    int r;

    memset(out, 0, sizeof(*out));
    out->domid = domid;
    out->code = -1;
    if (!g->manage && !g->ctrl)
        return glue_failed(g, EBADF, "xc_domain_getinfolist", "not open");
    if (domid >= GLUE_DOMIDS)
        return 0;
    if (g->ctrl)
        return ctrl_state(g, domid, out);
    r = manage_ask(g, &domid, out);
    return r < 0 ? r : 0;
}

int glue_changed_domain(xsd_glue *g, struct xsd_glue_domain *out)
{
    memset(out, 0, sizeof(*out));
    out->code = -1;
    if (g->ctrl)
        return ctrl_changed(g, out);
    if (!g->manage)
        return glue_failed(g, EBADF, "xenmanage_poll_changed_domain", "not open");
    return manage_ask(g, NULL, out);
}

static int open_manage(xsd_glue *g)
{
    int err = glue_load(g, "libxenmanage.so.1", manage_symbols, &g->mg, &g->domains_lib);
    struct xsd_glue_domain dom0;
    uint32_t domid = 0;

    if (err)
        return err;
    errno = 0;
    g->manage = g->mg.open(NULL, 0);
    err = g->manage ? 0 : glue_failed(g, errno, "xenmanage_open", NULL);
    if (!err) {
        /* A library newer than the hypervisor loads well, and then can do nothing. */
        err = manage_ask(g, &domid, &dom0);
        if (err >= 0)
            return 0;
        g->mg.close(g->manage);
        g->manage = NULL;
    }
    glue_unload(&g->domains_lib);
    return err;
}

static int open_ctrl(xsd_glue *g, const char *soname)
{
    struct xsd_glue_domain dom0;
    int err = glue_load(g, soname, ctrl_symbols, &g->xc, &g->domains_lib);

    if (err)
        return err;
    errno = 0;
    g->ctrl = g->xc.open(NULL, NULL, 0);
    err = g->ctrl ? 0 : glue_failed(g, errno, "xc_interface_open", soname);
    if (!err) {
        /* Of another version than the hypervisor: EACCES to every question. */
        memset(&dom0, 0, sizeof(dom0));
        err = ctrl_state(g, 0, &dom0);
        if (!err) {
            g->record_size = ctrl_record_size(g);
            return 0;
        }
        g->xc.close(g->ctrl);
        g->ctrl = NULL;
    }
    glue_unload(&g->domains_lib);
    return err;
}

/* The running Xen's minor version (of 4.x), or -1. */
static int xen_minor(void)
{
    int major = 0, minor = -1;
    FILE *f = fopen("/sys/hypervisor/version/major", "re");

    if (f) {
        if (fscanf(f, "%d", &major) != 1)
            major = 0;
        fclose(f);
    }
    f = major == 4 ? fopen("/sys/hypervisor/version/minor", "re") : NULL;
    if (f) {
        if (fscanf(f, "%d", &minor) != 1)
            minor = -1;
        fclose(f);
    }
    return minor;
}

int glue_open_control(xsd_glue *g)
{
    char soname[sizeof(g->source)], text[sizeof(g->last_text)], call[sizeof(g->last_call)];
    int running = xen_minor(), worst = 0, err;

    if (g->manage || g->ctrl)
        return glue_failed(g, EBUSY, "xc_interface_open", "is open");
    /* Of several failures the one to tell is that of a library that is there. */
    for (int n = running >= 0 ? CTRL_NEWEST + 1 : CTRL_NEWEST; n >= CTRL_OLDEST; n--) {
        int version = n == CTRL_NEWEST + 1 ? running : n;

        if (version == running && n <= CTRL_NEWEST && running >= 0)
            continue; /* was the first one tried */
        snprintf(soname, sizeof(soname), "libxenctrl.so.4.%d", version);
        err = open_ctrl(g, soname);
        if (!err) {
            strcpy(g->source, soname);
            return 0;
        }
        if (!worst || (!strcmp(call, "dlopen") && strcmp(g->last_call, "dlopen"))) {
            worst = err;
            memcpy(text, g->last_text, sizeof(text));
            memcpy(call, g->last_call, sizeof(call));
        }
    }
    if (!strcmp(call, "dlopen"))
        snprintf(text, sizeof(text), "dlopen: no libxenctrl.so.4.%d to 4.%d works: %s",
                 CTRL_OLDEST, CTRL_NEWEST, strerror(-worst));
    memcpy(g->last_text, text, sizeof(text));
    memcpy(g->last_call, call, sizeof(call));
    return worst;
}

int glue_open_domains(xsd_glue *g)
{
    int err;

    if (g->manage || g->ctrl)
        return glue_failed(g, EBUSY, "xc_interface_open", "is open");
    err = open_manage(g);
    if (!err) {
        strcpy(g->source, "libxenmanage.so.1");
        return 0;
    }
    err = glue_open_control(g);
    if (err && !strcmp(g->last_call, "dlopen"))
        snprintf(g->last_text, sizeof(g->last_text),
                 "dlopen: neither libxenmanage.so.1 nor a libxenctrl.so.4.%d to 4.%d works: %s",
                 CTRL_OLDEST, CTRL_NEWEST, strerror(-err));
    return err;
}

/* Xen's evtchn_status, by which a port of our own domain is looked up. */
struct evtchn_status {
    uint16_t dom, pad1;
    uint32_t port, status, vcpu;
    struct {
        uint16_t dom, pad2;
        uint32_t port;
    } remote; /* where status is EVTCHN_INTERDOMAIN */
};

enum { DOMID_SELF = 0x7ff0, EVTCHN_INTERDOMAIN = 2 };

int glue_remote_port(xsd_glue *g, uint32_t local, uint32_t *domid, uint32_t *remote)
{
    struct evtchn_status found;

    if (!g->ctrl)
        return glue_failed(g, EBADF, "xc_evtchn_status", "not open");
    if (!g->xc.evtchn_status)
        return glue_failed(g, ENOSYS, "xc_evtchn_status", "not in the library");
    memset(&found, 0, sizeof(found));
    found.dom = DOMID_SELF;
    found.port = local;
    errno = 0;
    if (g->xc.evtchn_status(g->ctrl, &found) < 0)
        return glue_failed_at(g, errno, "xc_evtchn_status", "port", local);
    if (found.status != EVTCHN_INTERDOMAIN)
        return glue_failed_at(g, ENOTCONN, "xc_evtchn_status", "port", local);
    *domid = found.remote.dom;
    *remote = found.remote.port;
    return 0;
}

int glue_hvm_param(xsd_glue *g, uint32_t domid, uint32_t number, uint64_t *value)
{
    if (!g->ctrl)
        return glue_failed(g, EBADF, "xc_hvm_param_get", "not open");
    if (!g->xc.hvm_param)
        return glue_failed(g, ENOSYS, "xc_hvm_param_get", "not in the library");
    errno = 0;
    if (g->xc.hvm_param(g->ctrl, domid, number, value) < 0)
        return glue_failed_at(g, errno, "xc_hvm_param_get", "domain", domid);
    return 0;
}

int glue_close_domains(xsd_glue *g)
{
    if (g->manage)
        g->mg.close(g->manage);
    if (g->ctrl)
        g->xc.close(g->ctrl);
    g->manage = g->ctrl = NULL;
    free(g->list);
    g->list = NULL;
    g->record_size = 0;
    g->source[0] = 0;
    glue_unload(&g->domains_lib);
    return 0;
}

const char *glue_domains_source(const xsd_glue *g)
{
    return g->source;
}
