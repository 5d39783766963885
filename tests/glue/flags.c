/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A library that says of every domain what $CHECK_FLAGS holds, a number, and refuses to speak of
 * others than domain 0 where $CHECK_REFUSE is there.  With -DMANAGE it is libxenmanage.so.1, else a
 * libxenctrl.so.4.<n>, whose lists have one domain: $CHECK_DOMID, else the one asked for.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static char one;

static int refused(unsigned domid)
{
    errno = EPERM;
    return domid && getenv("CHECK_REFUSE");
}

static uint32_t flags_of(unsigned domid)
{
    return domid ? (uint32_t)strtoul(getenv("CHECK_FLAGS"), NULL, 0) : 1;
}

#ifdef MANAGE

void *xenmanage_open(void *logger, unsigned flags);
int xenmanage_close(void *x);
int xenmanage_get_domain_info(void *x, unsigned domid, unsigned *state, unsigned *caps,
                              uint64_t *id);
int xenmanage_poll_changed_domain(void *x, unsigned *domid, unsigned *state, unsigned *caps,
                                  uint64_t *id);

void *xenmanage_open(void *logger, unsigned flags)
{
    (void)logger;
    (void)flags;
    return &one;
}

int xenmanage_close(void *x)
{
    (void)x;
    return 0;
}

int xenmanage_get_domain_info(void *x, unsigned domid, unsigned *state, unsigned *caps,
                              uint64_t *id)
{
    (void)x;
    if (refused(domid))
        return -1;
    *state = flags_of(domid);
    *caps = 0;
    *id = 7;
    return 0;
}

int xenmanage_poll_changed_domain(void *x, unsigned *domid, unsigned *state, unsigned *caps,
                                  uint64_t *id)
{
    *domid = 5;
    return xenmanage_get_domain_info(x, 5, state, caps, id);
}

#else

struct record {
    uint16_t domid, pad;
    uint32_t flags;
    uint64_t more[14];
};

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags);
int xc_interface_close(void *x);
int xc_domain_getinfolist(void *x, uint32_t first, unsigned max, struct record *records);

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags)
{
    (void)logger;
    (void)dombuild_logger;
    (void)flags;
    return &one;
}

int xc_interface_close(void *x)
{
    (void)x;
    return 0;
}

int xc_domain_getinfolist(void *x, uint32_t first, unsigned max, struct record *records)
{
    const char *domid = getenv("CHECK_DOMID");

    (void)x;
    (void)max;
    if (refused(first))
        return -1;
    memset(records, 0, sizeof(*records));
    records->domid = (uint16_t)(domid ? strtoul(domid, NULL, 0) : first);
    records->flags = flags_of(first);
    return 1;
}

#endif
