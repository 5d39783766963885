/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child that shares this process's table of descriptors and nothing else, by
 * clone(2) without the C library, whose fork() cannot do that.
 *
 * What the C library's fork() does for its thread is done here in the same way:
 *
 *   thread id     the kernel writes the child's into the place where the library
 *                 keeps it, and clears it at the child's end.  The place is the
 *                 one that the library has given to set_tid_address(2);
 *                 PR_GET_TID_ADDRESS tells it.
 *   robust list   the kernel marks the robust mutexes of a thread that dies as
 *                 those of a dead owner, where it knows the list of them.  It
 *                 forgets at a clone where that is, so the child tells it anew;
 *                 get_robust_list(2) has told it of the parent.
 *
 * The registration for restartable sequences goes along with every clone that
 * copies the memory.  What else fork() does is not needed: the process must have
 * one thread, so none of the library's locks is held and none of its lists is
 * half changed; POSIX timers, message queues that notify, and pthread_atfork()
 * are not used.
 *
 * The functions return a value >= 0, or -errno: -ENOSYS where this processor
 * or this C library is not known here, -EOPNOTSUPP where the kernel or the
 * library does something else than is said above.
 */
#ifndef XSD_CLONE_H
#define XSD_CLONE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
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

/* What the C library has told the kernel of the calling thread. */
struct xsd_thread {
    int *id;                         /* where its id is kept */
    struct robust_list_head *robust; /* NULL: it has no robust mutexes */
    size_t robust_size;
};

static inline int xsd_thread_here(struct xsd_thread *thread)
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
    thread->id = found.pointer;
    if (syscall(SYS_get_robust_list, 0, &thread->robust, &thread->robust_size) < 0)
        return -errno;
    return 0;
#else
    (void)thread;
    return -ENOSYS;
#endif
}

/* 0 in the child, its pid in the parent. */
static inline int xsd_clone(const struct xsd_thread *thread)
{
    unsigned long flags = CLONE_FILES | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    /*
     * The place is the fourth argument on some processors and the fifth on the
     * others; what the other one says counts with CLONE_SETTLS alone.
     */
    long pid = syscall(SYS_clone, flags, 0UL, 0UL, thread->id, thread->id);

    if (pid == 0 && thread->robust) {
        thread->robust->list.next = &thread->robust->list; /* the parent's are not its own */
        syscall(SYS_set_robust_list, thread->robust, thread->robust_size);
    }
    return pid < 0 ? -errno : (int)pid;
}

/*
 * Tries it once: the child closes a descriptor of the parent's if its thread id
 * and its robust list are right.  To be called with all signals blocked.
 */
static inline int xsd_clone_check(void)
{
    struct xsd_thread thread, child;
    int pid, fd, error = xsd_thread_here(&thread);

    if (error < 0)
        return error;
    fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    pid = xsd_clone(&thread);
    if (pid == 0) {
        if (xsd_thread_here(&child) == 0 && child.id == thread.id && *child.id == getpid() &&
            child.robust == thread.robust)
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
