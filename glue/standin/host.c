/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shared host: opening, faults, devices, domains.  Contract and rules in host.h. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void host_lock(struct hostmap *m)
{
    if (pthread_mutex_lock(&m->h->lock) == EOWNERDEAD) /* its owner crashed */
        pthread_mutex_consistent(&m->h->lock);
}

void host_unlock(struct hostmap *m)
{
    pthread_mutex_unlock(&m->h->lock);
}

/* ---- opening ---------------------------------------------------------- */

static int make_page(const char *dir, uint32_t domid)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/pages/%u", dir, domid);
    unlink(path); /* who still maps the page of a dead namesake keeps that one */
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, HOST_PAGE_SIZE) < 0) {
        int err = -errno;

        close(fd);
        return err;
    }
    close(fd);
    return 0;
}

/* Fills a new host under a private name; the caller links it into place. */
static int make_host(const char *dir, const char *tmp)
{
    pthread_mutexattr_t attr;
    char path[256], page[256];
    struct host *h;
    FILE *f;
    int fd, err;

    snprintf(path, sizeof(path), "%s/pages", dir);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    snprintf(path, sizeof(path), "%s/evt", dir);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    snprintf(page, sizeof(page), "%s/pages/0", dir);
    if (access(page, F_OK) < 0) {
        err = make_page(dir, 0);
        if (err < 0 && err != -EEXIST)
            return err;
    }
    snprintf(path, sizeof(path), "%s/xsd_kva", dir);
    if (link(page, path) < 0 && errno != EEXIST)
        return -errno;
    snprintf(path, sizeof(path), "%s/xsd_port", dir);
    f = fopen(path, "we");
    if (!f)
        return -errno;
    fprintf(f, "%u", (unsigned)HOST_DOM0_KERNEL_PORT);
    if (fclose(f) != 0)
        return -errno;

    fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof(*h)) < 0) {
        err = -errno;
        close(fd);
        return err;
    }
    h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    err = h == MAP_FAILED ? -errno : 0;
    close(fd);
    if (err)
        return err;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&h->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    h->next_uid = 1;
    h->domains[0].uid = h->next_uid++;
    h->domains[0].state = DOM_RUNNING;
    h->dom0_ports[HOST_DOM0_KERNEL_PORT].state = PORT_UNBOUND;
    h->dom0_ports[HOST_DOM0_KERNEL_PORT].rdom = 0;
    h->layout = HOST_LAYOUT;
    h->magic = HOST_MAGIC;
    munmap(h, sizeof(*h));
    return 0;
}

int host_open(const char *dir, struct hostmap **out)
{
    char path[256], tmp[280];
    struct hostmap *m;
    struct stat st;
    int fd = -1, err;

    if (!dir)
        dir = getenv("XSD_STANDIN_DIR");
    if (!dir || strlen(dir) >= sizeof(m->dir))
        return -ENOENT;
    snprintf(path, sizeof(path), "%s/host.shm", dir);
    for (int tries = 0; fd < 0 && tries < 2; tries++) {
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0)
            break;
        if (errno != ENOENT)
            return -errno;
        snprintf(tmp, sizeof(tmp), "%s.%d", path, getpid());
        err = make_host(dir, tmp);
        if (err == 0 && link(tmp, path) < 0 && errno != EEXIST) /* another process won: fine */
            err = -errno;
        unlink(tmp);
        if (err < 0)
            return err;
    }
    if (fd < 0)
        return -ENOENT;
    m = calloc(1, sizeof(*m));
    if (!m) {
        close(fd);
        return -ENOMEM;
    }
    strcpy(m->dir, dir);
    pthread_mutex_init(&m->writers_lock, NULL);
    if (fstat(fd, &st) < 0 || (size_t)st.st_size != sizeof(struct host))
        m->h = MAP_FAILED;
    else
        m->h = mmap(NULL, sizeof(struct host), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (m->h == MAP_FAILED || m->h->magic != HOST_MAGIC || m->h->layout != HOST_LAYOUT) {
        if (m->h != MAP_FAILED)
            munmap(m->h, sizeof(struct host));
        free(m);
        return -EINVAL;
    }
    *out = m;
    return 0;
}

void host_close(struct hostmap *m)
{
    for (int i = 0; i < HOST_HANDLES; i++)
        if (m->writers[i].gen)
            close(m->writers[i].fd);
    pthread_mutex_destroy(&m->writers_lock);
    munmap(m->h, sizeof(struct host));
    free(m);
}

/* ---- faults ----------------------------------------------------------- */

static int errno_by_name(const char *s)
{
    static const struct {
        const char *name;
        int value;
    } names[] = {
        {"EPERM", EPERM},   {"ENOENT", ENOENT}, {"ESRCH", ESRCH},   {"EIO", EIO},
        {"ENXIO", ENXIO},   {"EBADF", EBADF},   {"EAGAIN", EAGAIN}, {"ENOMEM", ENOMEM},
        {"EACCES", EACCES}, {"EFAULT", EFAULT}, {"EBUSY", EBUSY},   {"EEXIST", EEXIST},
        {"ENODEV", ENODEV}, {"EINVAL", EINVAL}, {"EMFILE", EMFILE}, {"ENOSPC", ENOSPC},
        {"ENOSYS", ENOSYS},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(s, names[i].name))
            return names[i].value;
    return atoi(s) > 0 ? atoi(s) : EIO;
}

int host_fault(struct hostmap *m, const char *call, int domid)
{
    char path[256], line[128], what[32], who[16], err[16];
    int found = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%s/faults", m->dir);
    f = fopen(path, "re");
    if (!f)
        return 0;
    while (!found && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%31s %15s %15s", what, who, err) != 3 || strcmp(what, call))
            continue;
        if (!strcmp(who, "*") || atoi(who) == domid)
            found = -errno_by_name(err);
    }
    fclose(f);
    return found;
}

/* ---- devices ---------------------------------------------------------- */

struct device *host_device_open(const char *call)
{
    struct device *d = calloc(1, sizeof(*d));
    int err = d ? host_open(NULL, &d->m) : -ENOMEM;

    if (!err)
        err = host_fault(d->m, call, -1);
    return err ? host_device_refuse(d, err) : d;
}

void host_device_close(struct device *d)
{
    if (!d)
        return;
    if (d->m)
        host_close(d->m);
    free(d);
}

void *host_device_refuse(struct device *d, int err)
{
    host_device_close(d);
    errno = -err;
    return NULL;
}

void *host_device_map(struct device *d, uint32_t domid, int prot)
{
    void *page = NULL;

    return host_result(host_map_page(d->m, domid, prot, &page)) < 0 ? NULL : page;
}

int host_result(int r)
{
    if (r >= 0)
        return r;
    errno = -r;
    return -1;
}

/* ---- domains ---------------------------------------------------------- */

int host_domain_create(struct hostmap *m, uint32_t domid)
{
    struct domain *d;
    int err;

    if (domid == 0 || domid >= HOST_DOMAINS)
        return -EINVAL;
    host_lock(m);
    d = &m->h->domains[domid];
    err = d->state != DOM_NONE ? -EEXIST : make_page(m->dir, domid);
    if (!err) {
        d->uid = m->h->next_uid++;
        d->code = 0;
        d->was_shut_down = 0;
        d->state = DOM_RUNNING;
        d->changed = 1;
        if (domid > m->h->domid_hint)
            m->h->domid_hint = domid;
    }
    host_unlock(m);
    return err;
}

int host_domain_set(struct hostmap *m, uint32_t domid, enum dom_state state, uint32_t code)
{
    struct domain *d;
    uint32_t virq;
    char path[256];

    if (domid == 0 || domid >= HOST_DOMAINS)
        return -EINVAL;
    host_lock(m);
    d = &m->h->domains[domid];
    if (d->state == DOM_NONE) {
        host_unlock(m);
        return -ESRCH;
    }
    d->code = code;
    if (state == DOM_RUNNING || state == DOM_SHUTDOWN)
        d->was_shut_down = state == DOM_SHUTDOWN;
    d->state = state;
    d->changed = 1;
    if (state != DOM_RUNNING && state != DOM_SHUTDOWN)
        host_close_ports(m, domid);
    if (state == DOM_NONE) {
        snprintf(path, sizeof(path), "%s/pages/%u", m->dir, domid);
        unlink(path);
    }
    virq = m->h->virq_port[HOST_VIRQ_DOM_EXC];
    host_unlock(m);
    if (virq)
        host_raise(m, 0, virq);
    return 0;
}

int host_map_page(struct hostmap *m, uint32_t domid, int prot, void **out)
{
    char path[256];
    uint32_t state;
    int fd, err = host_fault(m, "map", (int)domid);

    if (err)
        return err;
    if (domid >= HOST_DOMAINS)
        return -EINVAL;
    state = m->h->domains[domid].state;
    if (state != DOM_RUNNING && state != DOM_SHUTDOWN)
        return -EINVAL;
    snprintf(path, sizeof(path), "%s/pages/%u", m->dir, domid);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -EINVAL;
    *out = mmap(NULL, HOST_PAGE_SIZE, prot, MAP_SHARED, fd, 0);
    err = *out == MAP_FAILED ? -errno : 0;
    close(fd);
    return err;
}
