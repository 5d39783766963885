/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loaded before all others: after refuse_after(n) the next n requests for memory are granted and the
 * one behind them is not.  was_refused() says whether it has come to that, and ends it.
 */
#define _GNU_SOURCE
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static long left = -1;
static int refused;

void refuse_after(long n)
{
    refused = 0;
    left = n;
}

int was_refused(void)
{
    left = -1;
    return refused;
}

static int refuse(void)
{
    if (left < 0 || left-- > 0)
        return 0;
    refused = 1;
    return 1;
}

void *malloc(size_t n)
{
    return refuse() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return refuse() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return refuse() ? NULL : __libc_realloc(p, n);
}
