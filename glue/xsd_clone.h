/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child that shares this process's table of descriptors and nothing else, by
 * clone(2) without the C library, whose fork() cannot do that.
 *
 * What the C library's fork() does for its own thread id is done here in the
 * same way: the kernel writes the child's into the place where the library
 * keeps it, and clears it at the child's end.  The place is the one that the
 * library has given to set_tid_address(2); PR_GET_TID_ADDRESS tells it.  The
 * process must have one thread: the library's locks are not looked at.
 *
 * The functions return a value >= 0, or -errno: -ENOSYS where this processor
 * or this C library is not known here, -EOPNOTSUPP where the kernel or the
 * library does something else than is said above.
 */
#ifndef XSD_CLONE_H
#define XSD_CLONE_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

#if defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__arm__) || \
    defined(__riscv) || defined(__powerpc64__)
#define XSD_CLONE_KNOWN 1
#else
#define XSD_CLONE_KNOWN 0
#endif

/* Where the C library keeps the id of the calling thread. */
static inline int xsd_thread_id_place(int **place)
{
#if defined(__GLIBC__) && XSD_CLONE_KNOWN
    /* A kernel of 64 bits writes 8 bytes for a process of 32, too. */
    union {
        int *pointer;
        uint64_t room;
    } found = {.room = 0};

    if (prctl(PR_GET_TID_ADDRESS, (unsigned long)&found, 0UL, 0UL, 0UL) < 0)
        return -errno;
    if (!found.pointer || *found.pointer != (int)syscall(SYS_gettid))
        return -EOPNOTSUPP;
    *place = found.pointer;
    return 0;
#else
    (void)place;
    return -ENOSYS;
#endif
}

/* 0 in the child, its pid in the parent.  `thread_id` is that place. */
static inline int xsd_clone(int *thread_id)
{
    unsigned long flags = CLONE_FILES | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    /*
     * The place is the fourth argument on some processors and the fifth on the
     * others; what the other one says counts with CLONE_SETTLS alone.
     */
    long pid = syscall(SYS_clone, flags, 0UL, 0UL, thread_id, thread_id);

    return pid < 0 ? -errno : (int)pid;
}

/*
 * Tries it once: the child closes a descriptor of the parent's if its thread id
 * is right.  To be called with all signals blocked.
 */
static inline int xsd_clone_check(void)
{
    int *thread_id, pid, fd, error = xsd_thread_id_place(&thread_id);

    if (error < 0)
        return error;
    fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    pid = xsd_clone(thread_id);
    if (pid == 0) {
        if (*thread_id == (int)syscall(SYS_gettid) && getpid() == *thread_id)
            close(fd);
        _exit(0);
    }
    /* Where the parent has said that it ignores SIGCHLD, this waits all the same. */
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (fcntl(fd, F_GETFD) < 0)
        return 0;
    close(fd);
    return pid < 0 ? pid : -EOPNOTSUPP;
}

#endif
