/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts the system calls of another process with a perf event on the tracepoint
 * raw_syscalls:sys_enter.  Needs root (or CAP_PERFMON) and a mounted tracefs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "xb_load.h"

int xb_syscalls_open(int pid, uint64_t tracepoint_id)
{
    struct perf_event_attr attr;
    long fd;

    memset(&attr, 0, sizeof(attr));
    attr.size = sizeof(attr);
    attr.type = PERF_TYPE_TRACEPOINT;
    attr.config = tracepoint_id;
    fd = syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : (int)fd;
}

int64_t xb_syscalls_read(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return -errno;
    return (int64_t)count;
}
