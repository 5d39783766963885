/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LD_PRELOAD for daemons whose paths are built in (Debian's oxenstored and
 * xenstored), so that they run in a private directory:
 *
 *   /proc/xen/X                          ->  $XSD_STANDIN_DIR/X
 *   /var/run/xenstored/..., /run/...     ->  $XSD_STANDIN_RUNDIR/...
 *   /var/log/xen/..., /var/run/xen/...   ->  $XSD_STANDIN_RUNDIR/...
 *
 * in open, stat, mkdir, unlink, rename, chmod, bind and connect.  setrlimit is
 * cut down to the hard limit: oxenstored dies when it may not raise it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct path {
    char buf[300];
};

static const char *moved(const char *path, struct path *p)
{
    static const struct {
        const char *from, *env;
    } table[] = {
        {"/proc/xen", "XSD_STANDIN_DIR"},        {"/var/run/xenstored", "XSD_STANDIN_RUNDIR"},
        {"/run/xenstored", "XSD_STANDIN_RUNDIR"}, {"/var/run/xen", "XSD_STANDIN_RUNDIR"},
        {"/run/xen", "XSD_STANDIN_RUNDIR"},       {"/var/log/xen", "XSD_STANDIN_RUNDIR"},
    };

    for (size_t i = 0; path && i < sizeof(table) / sizeof(table[0]); i++) {
        size_t n = strlen(table[i].from);
        const char *to = getenv(table[i].env);

        if (!to || strncmp(path, table[i].from, n) || (path[n] != '/' && path[n] != 0))
            continue;
        snprintf(p->buf, sizeof(p->buf), "%s%s", to, path + n);
        return p->buf;
    }
    return path;
}

#define REAL(name) (__extension__(__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN_BODY(name)                            \
    {                                              \
        struct path p;                             \
        mode_t mode = 0;                           \
        va_list ap;                                \
                                                   \
        if (flags & (O_CREAT | O_TMPFILE)) {       \
            va_start(ap, flags);                   \
            mode = va_arg(ap, mode_t);             \
            va_end(ap);                            \
        }                                          \
        return REAL(name)(moved(path, &p), flags, mode); \
    }

int open(const char *path, int flags, ...) OPEN_BODY(open)
int open64(const char *path, int flags, ...) OPEN_BODY(open64)

FILE *fopen(const char *path, const char *mode)
{
    struct path p;

    return REAL(fopen)(moved(path, &p), mode);
}

int mkdir(const char *path, mode_t mode)
{
    struct path p;

    return REAL(mkdir)(moved(path, &p), mode);
}

int unlink(const char *path)
{
    struct path p;

    return REAL(unlink)(moved(path, &p));
}

int rename(const char *from, const char *to)
{
    struct path p, q;

    return REAL(rename)(moved(from, &p), moved(to, &q));
}

int chmod(const char *path, mode_t mode)
{
    struct path p;

    return REAL(chmod)(moved(path, &p), mode);
}

int access(const char *path, int mode)
{
    struct path p;

    return REAL(access)(moved(path, &p), mode);
}

int stat(const char *path, struct stat *st)
{
    struct path p;

    return REAL(stat)(moved(path, &p), st);
}

int stat64(const char *path, struct stat64 *st)
{
    struct path p;

    return REAL(stat64)(moved(path, &p), st);
}

typedef int address_call(int, const struct sockaddr *, socklen_t);

static int with_address(const char *name, int fd, const struct sockaddr *sa, socklen_t len)
{
    address_call *call = __extension__(address_call *)dlsym(RTLD_NEXT, name);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char path[sizeof(un.sun_path) + 1] = "";
    const char *to;
    struct path p;

    if (!sa || sa->sa_family != AF_UNIX || len > sizeof(un))
        return call(fd, sa, len);
    memcpy(path, ((const struct sockaddr_un *)(const void *)sa)->sun_path,
           len - offsetof(struct sockaddr_un, sun_path));
    to = moved(path, &p);
    if (to == path)
        return call(fd, sa, len);
    if (strlen(to) >= sizeof(un.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(un.sun_path, to);
    return call(fd, (const struct sockaddr *)&un, sizeof(un));
}

int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
    return with_address("bind", fd, sa, len);
}

int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    return with_address("connect", fd, sa, len);
}

static int clamped(int resource, const struct rlimit *want, struct rlimit *out)
{
    struct rlimit now;

    if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
        return -1;
    *out = *want;
    if (out->rlim_max > now.rlim_max)
        out->rlim_max = now.rlim_max;
    if (out->rlim_cur > out->rlim_max)
        out->rlim_cur = out->rlim_max;
    return 0;
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *want)
{
    struct rlimit lim;

    return clamped((int)resource, want, &lim) < 0 ? -1 : REAL(setrlimit)(resource, &lim);
}

/* The same structure where long has 64 bits; elsewhere nobody here uses it. */
int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *want)
{
    struct rlimit lim, w = {(rlim_t)want->rlim_cur, (rlim_t)want->rlim_max};

    return clamped((int)resource, &w, &lim) < 0 ? -1 : REAL(setrlimit)(resource, &lim);
}
