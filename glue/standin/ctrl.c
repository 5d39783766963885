/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenctrl.so.4.N of the stand-in: what a xenstored asks of it (domain
 * states, the page of a domain by frame number), with the records of Xen 4.17.
 * The rest of what Debian's oxenstored is linked against fails with ENOSYS.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SHUTDOWN_CRASH = 3 };
enum { DOMINF_DYING = 1 << 0, DOMINF_SHUTDOWN = 1 << 2, DOMINF_RUNNING = 1 << 5 };

typedef struct device xc_interface;

/* The record of the list call: 112 bytes in 4.17. */
struct domaininfo {
    uint16_t domid, pad1;
    uint32_t flags;
    uint64_t tot_pages, max_pages, outstanding_pages, shr_pages, paged_pages;
    uint64_t shared_info_frame, cpu_time;
    uint32_t nr_online_vcpus, max_vcpu_id, ssidref;
    uint8_t handle[16];
    uint32_t cpupool;
    uint8_t gpaddr_bits, pad2[7];
    uint32_t arch_config[2];
};

/* The unpacked record of xc_domain_getinfo(), gone in 4.18. */
struct dominfo {
    uint32_t domid, ssidref;
    unsigned dying : 1, crashed : 1, shutdown : 1, paused : 1, blocked : 1, running : 1;
    unsigned shutdown_reason;
    unsigned long pages[5];
    uint64_t cpu_time;
    unsigned long max_memkb;
    unsigned nr_online_vcpus, max_vcpu_id;
    uint8_t handle[16];
    unsigned cpupool;
    uint8_t gpaddr_bits;
    uint32_t arch_config[2];
};

struct xc_error {
    int code;
    char message[1024];
};

/* The record of EVTCHNOP_status; the end is that of an interdomain channel. */
struct evtchn_status {
    uint16_t dom, pad1;
    uint32_t port, status, vcpu;
    uint16_t remote_dom, pad2;
    uint32_t remote_port;
};

enum { DOMID_SELF = 0x7ff0, HVM_PARAM_STORE_PFN = 1, STORE_PFN = 0xfefff };

_Static_assert(sizeof(struct domaininfo) == 112, "xc_domaininfo_t of Xen 4.17");
_Static_assert(sizeof(void *) != 8 || sizeof(struct dominfo) == 112, "xc_dominfo_t of Xen 4.17");

EXPORT xc_interface *xc_interface_open(void *logger, void *dombuild, unsigned flags);
EXPORT int xc_interface_close(xc_interface *x);
EXPORT int xc_domain_getinfolist(xc_interface *x, uint32_t first, unsigned max,
                                 struct domaininfo *info);
EXPORT int xc_domain_getinfo(xc_interface *x, uint32_t first, unsigned max, struct dominfo *info);
EXPORT void *xc_map_foreign_range(xc_interface *x, uint32_t domid, int size, int prot,
                                  unsigned long mfn);
EXPORT int xc_evtchn_status(xc_interface *x, struct evtchn_status *status);
EXPORT int xc_hvm_param_get(xc_interface *x, uint32_t domid, uint32_t number, uint64_t *value);
EXPORT const struct xc_error *xc_get_last_error(xc_interface *x);
EXPORT const char *xc_error_code_to_desc(int code);

xc_interface *xc_interface_open(void *logger, void *dombuild, unsigned flags)
{
    (void)logger;
    (void)dombuild;
    (void)flags;
    return host_device_open("open-ctrl");
}

int xc_interface_close(xc_interface *x)
{
    host_device_close(x);
    return 0;
}

int xc_domain_getinfolist(xc_interface *x, uint32_t first, unsigned max, struct domaininfo *info)
{
    int err = host_fault(x->m, "info", (int)first);
    unsigned n = 0;

    if (err)
        return host_result(err);
    for (uint32_t d = first; d <= x->m->h->domid_hint && n < max; d++) {
        struct domain *dom = &x->m->h->domains[d];
        uint32_t state = dom->state;

        if (state == DOM_NONE)
            continue;
        memset(&info[n], 0, sizeof(info[n]));
        info[n].domid = (uint16_t)d;
        /* The flag called "dying" is set once the domain is dead, as in Xen. */
        info[n].flags = state == DOM_RUNNING ? DOMINF_RUNNING : state == DOM_DEAD ? DOMINF_DYING : 0;
        if (dom->was_shut_down)
            info[n].flags |= DOMINF_SHUTDOWN | dom->code << 16;
        info[n].nr_online_vcpus = 1;
        n++;
    }
    return (int)n;
}

int xc_domain_getinfo(xc_interface *x, uint32_t first, unsigned max, struct dominfo *info)
{
    unsigned n = 0;

    for (; n < max; n++) {
        struct domaininfo raw;
        int got = xc_domain_getinfolist(x, first, 1, &raw);

        if (got <= 0) {
            if (n || got == 0)
                break;
            return -1;
        }
        memset(&info[n], 0, sizeof(info[n]));
        info[n].domid = raw.domid;
        info[n].dying = !!(raw.flags & DOMINF_DYING);
        info[n].shutdown = !!(raw.flags & DOMINF_SHUTDOWN);
        info[n].running = !!(raw.flags & DOMINF_RUNNING);
        info[n].shutdown_reason = raw.flags >> 16 & 255;
        if (info[n].shutdown && info[n].shutdown_reason == SHUTDOWN_CRASH) {
            info[n].shutdown = 0;
            info[n].crashed = 1;
        }
        info[n].nr_online_vcpus = 1;
        first = raw.domid + 1U;
    }
    return n == 0 && max ? host_result(-ESRCH) : (int)n;
}

/* Any frame number names the one page a domain has here. */
void *xc_map_foreign_range(xc_interface *x, uint32_t domid, int size, int prot, unsigned long mfn)
{
    (void)mfn;
    if (size == HOST_PAGE_SIZE)
        return host_device_map(x, domid, prot);
    errno = EINVAL;
    return NULL;
}

/* The states have Xen's numbers: closed, unbound, interdomain; a VIRQ's is another one. */
int xc_evtchn_status(xc_interface *x, struct evtchn_status *status)
{
    uint32_t rdom = 0, rport = 0;
    int state = host_remote(x->m, status->dom == DOMID_SELF ? 0 : status->dom, status->port, &rdom,
                            &rport);

    if (state < 0)
        return host_result(state);
    status->status = (uint32_t)state;
    status->remote_dom = (uint16_t)rdom;
    status->remote_port = rport;
    return 0;
}

/* The frame of the xenstore page; each domain has the same here. */
int xc_hvm_param_get(xc_interface *x, uint32_t domid, uint32_t number, uint64_t *value)
{
    int err = host_fault(x->m, "param", (int)domid);

    if (!err && (domid >= HOST_DOMAINS || x->m->h->domains[domid].state == DOM_NONE))
        err = -ESRCH;
    if (!err && number != HVM_PARAM_STORE_PFN)
        err = -EINVAL;
    if (!err)
        *value = STORE_PFN;
    return host_result(err);
}

/* Code 0: none kept here; the caller falls back on errno. */
const struct xc_error *xc_get_last_error(xc_interface *x)
{
    static const struct xc_error none;

    (void)x;
    return &none;
}

const char *xc_error_code_to_desc(int code)
{
    return code ? "stand-in error" : "No error details";
}

#define STUB(name)            \
    EXPORT int name(void);    \
    int name(void)            \
    {                         \
        errno = ENOSYS;       \
        return -1;            \
    }

STUB(xc_assign_device)
STUB(xc_cpumap_alloc)
STUB(xc_deassign_device)
STUB(xc_domain_create)
STUB(xc_domain_destroy)
STUB(xc_domain_increase_reservation_exact)
STUB(xc_domain_iomem_permission)
STUB(xc_domain_ioport_permission)
STUB(xc_domain_irq_permission)
STUB(xc_domain_max_vcpus)
STUB(xc_domain_pause)
STUB(xc_domain_resume)
STUB(xc_domain_set_memmap_limit)
STUB(xc_domain_sethandle)
STUB(xc_domain_setmaxmem)
STUB(xc_domain_shutdown)
STUB(xc_domain_unpause)
STUB(xc_evtchn_alloc_unbound)
STUB(xc_evtchn_reset)
STUB(xc_get_cpu_featureset)
STUB(xc_get_max_cpus)
STUB(xc_getcpuinfo)
STUB(xc_physinfo)
STUB(xc_readconsolering)
STUB(xc_sched_credit_domain_get)
STUB(xc_sched_credit_domain_set)
STUB(xc_sched_id)
STUB(xc_send_debug_keys)
STUB(xc_shadow_control)
STUB(xc_test_assign_device)
STUB(xc_vcpu_getaffinity)
STUB(xc_vcpu_getcontext)
STUB(xc_vcpu_getinfo)
STUB(xc_vcpu_setaffinity)
STUB(xc_version)
STUB(xc_watchdog)
