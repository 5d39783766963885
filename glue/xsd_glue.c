/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Libraries, event channels, grants, and the table: contract in xsd_glue.h. */
#define _GNU_SOURCE
#include "glue_internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { XENSTORE_GRANT_REF = 1 /* GNTTAB_RESERVED_XENSTORE */ };

/* Of the kernel's event channel device (linux/include/uapi/xen/evtchn.h): empties its queue. */
#define EVTCHN_RESET _IO('E', 5)


/* ---- errors ----------------------------------------------------------- */

/* Notes the call and why, gives -err; err 0 (a library that set no errno): EIO. */
int glue_failed(xsd_glue *g, int err, const char *call, const char *detail)
{
    if (err <= 0)
        err = EIO;
    snprintf(g->last_call, sizeof(g->last_call), "%s", call);
    snprintf(g->last_text, sizeof(g->last_text), "%s%s%s%s: %s", call, detail ? "(" : "",
             detail ? detail : "", detail ? ")" : "", strerror(err));
    return -err;
}

int glue_failed_at(xsd_glue *g, int err, const char *call, const char *what, uint32_t n)
{
    char detail[40];

    snprintf(detail, sizeof(detail), "%s %u", what, n);
    return glue_failed(g, err, call, detail);
}

static const char *last_call(const xsd_glue *g)
{
    return g->last_call;
}

static const char *last_text(const xsd_glue *g)
{
    return g->last_text;
}

/* ---- libraries -------------------------------------------------------- */

static const struct symbol evtchn_symbols[] = {
    {"xenevtchn_open", offsetof(struct evtchn_calls, open), 0},
    {"xenevtchn_fdopen", offsetof(struct evtchn_calls, fdopen), 1}, /* Xen 4.15+ */
    {"xenevtchn_close", offsetof(struct evtchn_calls, close), 0},
    {"xenevtchn_fd", offsetof(struct evtchn_calls, fd), 0},
    {"xenevtchn_bind_interdomain", offsetof(struct evtchn_calls, bind_interdomain), 0},
    {"xenevtchn_bind_virq", offsetof(struct evtchn_calls, bind_virq), 0},
    {"xenevtchn_unbind", offsetof(struct evtchn_calls, unbind), 0},
    {"xenevtchn_notify", offsetof(struct evtchn_calls, notify), 0},
    {"xenevtchn_unmask", offsetof(struct evtchn_calls, unmask), 0},
    {NULL, 0, 0},
};

static const struct symbol gnttab_symbols[] = {
    {"xengnttab_open", offsetof(struct gnttab_calls, open), 0},
    {"xengnttab_close", offsetof(struct gnttab_calls, close), 0},
    {"xengnttab_fd", offsetof(struct gnttab_calls, fd), 1},
    {"xengnttab_map_grant_ref", offsetof(struct gnttab_calls, map), 0},
    {"xengnttab_unmap", offsetof(struct gnttab_calls, unmap), 0},
    {NULL, 0, 0},
};

void glue_unload(void **lib)
{
    if (*lib)
        dlclose(*lib);
    *lib = NULL;
}

/* Loads a library and fills its struct of calls. */
int glue_load(xsd_glue *g, const char *soname, const struct symbol *symbols, void *calls,
                void **lib)
{
    void *handle = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

    if (!handle) {
        const char *why = dlerror();

        /* "not found" and "of another architecture" look alike in errno: keep the loader's text */
        glue_failed(g, ENOENT, "dlopen", soname);
        if (why)
            snprintf(g->last_text, sizeof(g->last_text), "dlopen: %s", why);
        return -ENOENT;
    }
    for (const struct symbol *s = symbols; s->name; s++) {
        void *address = dlsym(handle, s->name);

        if (!address && !s->optional) {
            dlclose(handle);
            return glue_failed(g, ENOSYS, s->name, soname);
        }
        memcpy((char *)calls + s->offset, &address, sizeof(address));
    }
    *lib = handle;
    return 0;
}

/* ---- life ------------------------------------------------------------- */

static int close_evtchn(xsd_glue *g);
static int close_gnttab(xsd_glue *g);

static xsd_glue *create(void)
{
    xsd_glue *g = calloc(1, sizeof(*g));

    if (g)
        g->evtchn_fd = -1;
    return g;
}

static void destroy(xsd_glue *g)
{
    if (!g)
        return;
    close_evtchn(g);
    close_gnttab(g);
    glue_close_domains(g);
    free(g);
}

/* ---- event channels --------------------------------------------------- */

static int set_cloexec(xsd_glue *g, int fd, int on)
{
    int flags = fcntl(fd, F_GETFD);

    if (flags < 0 || fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC) < 0)
        return glue_failed(g, errno, "fcntl", "F_SETFD");
    return 0;
}

/* Takes over a fresh library handle; closes it again where that fails. */
static int adopt_evtchn(xsd_glue *g, xen_handle *handle)
{
    int fd = g->ev.fd(handle), flags, err;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        err = glue_failed(g, errno, "xenevtchn_fd", NULL);
        goto fail;
    }
    /* pending() reads until the device is empty and must not wait then */
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        err = glue_failed(g, errno, "fcntl", "F_SETFL");
        goto fail;
    }
    /* By hand: the library's flag for it came with Xen 4.15 */
    err = set_cloexec(g, fd, 1);
    if (err)
        goto fail;
    g->evtchn = handle;
    g->evtchn_fd = fd;
    g->unmask_by_write = S_ISCHR(st.st_mode);
    return 0;
fail:
    g->ev.close(handle);
    glue_unload(&g->evtchn_lib);
    return err;
}

static int open_evtchn(xsd_glue *g)
{
    xen_handle *handle;
    int err;

    if (g->evtchn)
        return glue_failed(g, EBUSY, "xenevtchn_open", "is open");
    err = glue_load(g, "libxenevtchn.so.1", evtchn_symbols, &g->ev, &g->evtchn_lib);
    if (err)
        return err;
    errno = 0;
    handle = g->ev.open(NULL, 0);
    if (!handle) {
        err = glue_failed(g, errno, "xenevtchn_open", NULL);
        glue_unload(&g->evtchn_lib);
        return err;
    }
    return adopt_evtchn(g, handle);
}

static int fdopen_evtchn(xsd_glue *g, int fd)
{
    xen_handle *handle = NULL;
    int err;

    if (g->evtchn)
        return glue_failed(g, EBUSY, "xenevtchn_fdopen", "is open");
    err = glue_load(g, "libxenevtchn.so.1", evtchn_symbols, &g->ev, &g->evtchn_lib);
    if (err)
        return err;
    errno = ENOSYS;
    if (fcntl(fd, F_GETFD) < 0) /* the library looks at it late */
        ;
    else if (g->ev.fdopen)
        handle = g->ev.fdopen(NULL, fd, 0);
    else
        errno = ENOSYS;
    if (!handle) {
        err = glue_failed_at(g, errno, "xenevtchn_fdopen", "descriptor", (uint32_t)fd);
        glue_unload(&g->evtchn_lib);
        return err;
    }
    return adopt_evtchn(g, handle);
}

static int close_evtchn(xsd_glue *g)
{
    int r = 0;

    if (!g->evtchn)
        return 0;
    errno = 0;
    if (g->ev.close(g->evtchn) < 0)
        r = glue_failed(g, errno, "xenevtchn_close", NULL);
    g->evtchn = NULL;
    g->evtchn_fd = -1;
    glue_unload(&g->evtchn_lib);
    return r;
}

static int evtchn_fd(xsd_glue *g)
{
    return g->evtchn ? g->evtchn_fd : glue_failed(g, EBADF, "xenevtchn_fd", "not open");
}

static int bind_interdomain(xsd_glue *g, uint32_t domid, uint32_t remote_port)
{
    char detail[48];
    int port;

    if (!g->evtchn)
        return glue_failed(g, EBADF, "xenevtchn_bind_interdomain", "not open");
    errno = 0;
    port = g->ev.bind_interdomain(g->evtchn, domid, remote_port);
    if (port >= 0)
        return port;
    snprintf(detail, sizeof(detail), "domain %u, port %u", domid, remote_port);
    return glue_failed(g, errno, "xenevtchn_bind_interdomain", detail);
}

static int bind_virq(xsd_glue *g, uint32_t virq)
{
    int port;

    if (!g->evtchn)
        return glue_failed(g, EBADF, "xenevtchn_bind_virq", "not open");
    errno = 0;
    port = g->ev.bind_virq(g->evtchn, virq);
    return port >= 0 ? port : glue_failed_at(g, errno, "xenevtchn_bind_virq", "VIRQ", virq);
}

static int unbind(xsd_glue *g, uint32_t port)
{
    if (!g->evtchn)
        return glue_failed(g, EBADF, "xenevtchn_unbind", "not open");
    errno = 0;
    if (g->ev.unbind(g->evtchn, port) < 0)
        return glue_failed_at(g, errno, "xenevtchn_unbind", "port", port);
    return 0;
}

static int notify(xsd_glue *g, uint32_t port)
{
    if (!g->evtchn)
        return glue_failed(g, EBADF, "xenevtchn_notify", "not open");
    errno = 0;
    if (g->ev.notify(g->evtchn, port) < 0)
        return glue_failed_at(g, errno, "xenevtchn_notify", "port", port);
    return 0;
}

static int pending(xsd_glue *g, uint32_t *ports, uint32_t n)
{
    ssize_t got;

    if (!g->evtchn)
        return glue_failed(g, EBADF, "xenevtchn_pending", "not open");
    if (n == 0)
        return 0;
    do
        got = read(g->evtchn_fd, ports, n * sizeof(*ports));
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return (int)((size_t)got / sizeof(*ports));
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return 0;
    return glue_failed(g, errno, "read", "event channel device");
}

static int unmask(xsd_glue *g, const uint32_t *ports, uint32_t n)
{
    const char *data = (const char *)ports;
    size_t left = n * sizeof(*ports);

    if (!g->evtchn)
        return glue_failed(g, EBADF, "xenevtchn_unmask", "not open");
    if (!g->unmask_by_write) {
        int err = 0;

        /* A port may have been unbound since it was pending: the others still want it. */
        for (uint32_t i = 0; i < n; i++) {
            errno = 0;
            if (g->ev.unmask(g->evtchn, ports[i]) < 0)
                err = glue_failed_at(g, errno, "xenevtchn_unmask", "port", ports[i]);
        }
        return err;
    }
    while (left >= sizeof(*ports)) { /* the device takes a page's worth at once */
        ssize_t done = write(g->evtchn_fd, data, left);

        if (done > 0) {
            data += done;
            left -= (size_t)done;
        } else if (done == 0 || errno != EINTR) {
            return glue_failed(g, errno, "write", "event channel device");
        }
    }
    return 0;
}

static int discard_pending(xsd_glue *g)
{
    uint32_t ports[1024];
    int n;

    if (!g->evtchn)
        return glue_failed(g, EBADF, "IOCTL_EVTCHN_RESET", "not open");
    if (g->unmask_by_write)
        return ioctl(g->evtchn_fd, EVTCHN_RESET) < 0
                   ? glue_failed(g, errno, "IOCTL_EVTCHN_RESET", NULL) : 0;
    do /* a pipe is full with 16 times as many */
        n = pending(g, ports, sizeof(ports) / sizeof(ports[0]));
    while (n == (int)(sizeof(ports) / sizeof(ports[0])));
    return n < 0 ? n : 0;
}

/* ---- grants and dom0's page ------------------------------------------- */

static int open_gnttab(xsd_glue *g)
{
    int err, fd;

    if (g->gnttab)
        return glue_failed(g, EBUSY, "xengnttab_open", "is open");
    err = glue_load(g, "libxengnttab.so.1", gnttab_symbols, &g->gt, &g->gnttab_lib);
    if (err)
        return err;
    errno = 0;
    g->gnttab = g->gt.open(NULL, 0);
    if (!g->gnttab) {
        err = glue_failed(g, errno, "xengnttab_open", NULL);
        glue_unload(&g->gnttab_lib);
        return err;
    }
    fd = g->gt.fd ? g->gt.fd(g->gnttab) : -1;
    return fd < 0 ? 0 : set_cloexec(g, fd, 1);
}

static int close_gnttab(xsd_glue *g)
{
    int r = 0;

    if (!g->gnttab)
        return 0;
    errno = 0;
    if (g->gt.close(g->gnttab) < 0)
        r = glue_failed(g, errno, "xengnttab_close", NULL);
    g->gnttab = NULL;
    glue_unload(&g->gnttab_lib);
    return r;
}

static int map_page(xsd_glue *g, uint32_t domid, void **page)
{
    if (!g->gnttab)
        return glue_failed(g, EBADF, "xengnttab_map_grant_ref", "not open");
    errno = 0;
    *page = g->gt.map(g->gnttab, domid, XENSTORE_GRANT_REF, PROT_READ | PROT_WRITE);
    if (!*page)
        return glue_failed_at(g, errno, "xengnttab_map_grant_ref", "domain", domid);
    return 0;
}

static int unmap_page(xsd_glue *g, void *page)
{
    if (!g->gnttab)
        return glue_failed(g, EBADF, "xengnttab_unmap", "not open");
    errno = 0;
    return g->gt.unmap(g->gnttab, page, 1) < 0 ? glue_failed(g, errno, "xengnttab_unmap", NULL) : 0;
}

/* Whether the first byte can be read; a plain access to a page behind the end of
 * a file would be a SIGBUS, a system call just says EFAULT. */
static int readable(const void *page)
{
    int fds[2], err = 0;

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    if (write(fds[1], page, 1) < 0)
        err = -errno;
    close(fds[0]);
    close(fds[1]);
    return err;
}

/* xenfs says that its file has no bytes, so the size means nothing. */
static int map_file(xsd_glue *g, const char *path, void **page)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err;

    *page = NULL;
    if (fd < 0)
        return glue_failed(g, errno, "open", path);
    *page = mmap(NULL, XSD_GLUE_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    err = *page == MAP_FAILED ? errno : 0;
    close(fd);
    if (err) {
        *page = NULL;
        return glue_failed(g, err, "mmap", path);
    }
    err = readable(*page);
    if (err) {
        munmap(*page, XSD_GLUE_PAGE_SIZE);
        *page = NULL;
        return glue_failed(g, -err, "mmap", path);
    }
    return 0;
}

static int unmap_file(xsd_glue *g, void *page)
{
    return munmap(page, XSD_GLUE_PAGE_SIZE) < 0 ? glue_failed(g, errno, "munmap", NULL) : 0;
}

static int keep_over_exec(xsd_glue *g, int keep)
{
    int err = 0, fd;

    if (g->evtchn)
        err = set_cloexec(g, g->evtchn_fd, !keep);
    if (!err && g->gnttab) {
        fd = g->gt.fd ? g->gt.fd(g->gnttab) : -1;
        if (fd >= 0)
            err = set_cloexec(g, fd, !keep);
    }
    return err;
}

/* ---- the table -------------------------------------------------------- */

const struct xsd_glue_api *xsd_glue_api(void)
{
    static const struct xsd_glue_api api = {
        .version = XSD_GLUE_VERSION,
        .size = sizeof(api),
        .create = create,
        .destroy = destroy,
        .last_call = last_call,
        .last_text = last_text,
        .open_evtchn = open_evtchn,
        .fdopen_evtchn = fdopen_evtchn,
        .open_gnttab = open_gnttab,
        .open_domains = glue_open_domains,
        .close_evtchn = close_evtchn,
        .close_gnttab = close_gnttab,
        .close_domains = glue_close_domains,
        .domains_source = glue_domains_source,
        .keep_over_exec = keep_over_exec,
        .map_page = map_page,
        .unmap_page = unmap_page,
        .map_file = map_file,
        .unmap_file = unmap_file,
        .evtchn_fd = evtchn_fd,
        .bind_interdomain = bind_interdomain,
        .bind_virq = bind_virq,
        .unbind = unbind,
        .notify = notify,
        .pending = pending,
        .unmask = unmask,
        .domain_state = glue_domain_state,
        .changed_domain = glue_changed_domain,
        .discard_pending = discard_pending,
        .open_control = glue_open_control,
        .remote_port = glue_remote_port,
        .hvm_param = glue_hvm_param,
    };

    return &api;
}

uintptr_t xsd_glue_api_address(void)
{
    return (uintptr_t)xsd_glue_api();
}
