/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The glue from C, on the stand-in, for the sanitizers: every call once with
 * success and once with failure, then a thousand domains' lives.  `make check`.
 */
#include "xsd_glue.h"
#include "xsd_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                              \
    do {                                                                         \
        if (!(what)) {                                                           \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #what,       \
                    api->last_text(g));                                          \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

enum { ROUNDS = 1000 };

int main(void)
{
    const struct xsd_glue_api *api = xsd_glue_api();
    xsd_glue *g = api->create();
    xsd_host *host = xsd_host_open(NULL);
    xsd_events *events;
    struct xsd_glue_domain state;
    uint32_t ports[64], domids[64];
    char path[256];
    void *page;
    int virq;

    if (!g || !host || !(events = xsd_events_open(host)))
        return 2;
    CHECK(api->notify(g, 1) < 0 && strlen(api->last_text(g)) > 0);
    CHECK(api->open_evtchn(g) == 0 && api->open_gnttab(g) == 0 && api->open_domains(g) == 0);
    CHECK(api->keep_over_exec(g, 1) == 0 && api->keep_over_exec(g, 0) == 0);
    CHECK((virq = api->bind_virq(g, XSD_GLUE_VIRQ_DOM_EXC)) > 0);
    snprintf(path, sizeof(path), "%s/xsd_kva", getenv("XSD_STANDIN_DIR"));
    CHECK(api->map_file(g, path, &page) == 0 && api->unmap_file(g, page) == 0);
    CHECK(api->map_file(g, "/nonexistent", &page) < 0);
    CHECK(api->map_page(g, 99, &page) < 0);
    CHECK(api->bind_interdomain(g, 99, 1) < 0);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t domid = 1 + (uint32_t)i % 7;
        int remote = xsd_domain_create(host, domid), port, n;
        xsd_guest *guest = xsd_guest_open(events, domid, 0);

        CHECK(remote > 0 && guest);
        CHECK(api->map_page(g, domid, &page) == 0);
        CHECK((port = api->bind_interdomain(g, domid, (uint32_t)remote)) > 0);
        CHECK(xsd_guest_write(guest, "ping", 4) == 4 && xsd_guest_kick(guest) == 0);
        CHECK(!memcmp(page, "ping", 4));
        CHECK((n = api->pending(g, ports, 64)) == 1 && ports[0] == (uint32_t)port);
        CHECK(api->unmask(g, ports, (uint32_t)n) == 0);
        CHECK(api->notify(g, (uint32_t)port) == 0);
        CHECK(xsd_events_wait(events, -1, domids, 64) == 1 && domids[0] == domid);
        CHECK(api->unbind(g, (uint32_t)port) == 0);
        CHECK((port = api->bind_interdomain(g, domid, (uint32_t)remote)) > 0);
        CHECK(api->domain_state(g, domid, &state) == 0 && state.state == XSD_GLUE_RUNNING);
        while ((n = api->changed_domain(g, &state)) > 0)
            CHECK(state.domid <= 7);
        CHECK(n == 0 && xsd_domain_set(host, domid, XSD_GONE, 0) == 0);
        CHECK(api->domain_state(g, domid, &state) == 0 && state.state == XSD_GLUE_UNKNOWN);
        CHECK(api->unbind(g, (uint32_t)port) == 0 && api->unmap_page(g, page) == 0);
        while ((n = api->pending(g, ports, 64)) > 0)
            CHECK(api->unmask(g, ports, (uint32_t)n) == 0);
        CHECK(n == 0 && api->discard_pending(g) == 0);
        xsd_guest_close(guest);
    }
    CHECK(api->unbind(g, (uint32_t)virq) == 0);
    CHECK(xsd_ports_in_use(host, 0) == 0);
    api->destroy(g);
    xsd_events_close(events);
    xsd_host_close(host);
    puts("glue_check: ok");
    return 0;
}
