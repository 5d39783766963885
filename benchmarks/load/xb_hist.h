/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A histogram of durations with a fixed relative error, after the idea of HDR histograms.
 *
 * Values are nanoseconds.  Below 64 each has a counter of its own; above, every power of two is
 * cut into 64 equal parts, so a value is known to 1/64 (1.6 %).  Values over 2^40 ns (18 minutes)
 * land in the last counter.  Knows nothing of Xenstore.
 */
#ifndef XB_HIST_H
#define XB_HIST_H

#include <stdint.h>

#define XB_HIST_SUB 64u
#define XB_HIST_SUB_BITS 6
#define XB_HIST_MAX_BITS 40
#define XB_HIST_BUCKETS ((XB_HIST_MAX_BITS - XB_HIST_SUB_BITS + 1) * 64 + 64)

struct xb_hist {
    uint64_t count;
    uint64_t max_ns;
    uint64_t sum_ns;
    uint64_t buckets[XB_HIST_BUCKETS];
};

static inline uint32_t xb_hist_index(uint64_t ns)
{
    uint32_t shift;

    if (ns < XB_HIST_SUB)
        return (uint32_t)ns;
    if (ns >> XB_HIST_MAX_BITS)
        return XB_HIST_BUCKETS - 1;
    shift = 63u - (uint32_t)__builtin_clzll(ns) - XB_HIST_SUB_BITS;
    return (shift + 1) * XB_HIST_SUB + (uint32_t)(ns >> shift) - XB_HIST_SUB;
}

/* The lowest value that falls into a bucket. */
static inline uint64_t xb_hist_floor(uint32_t index)
{
    uint32_t shift;

    if (index < XB_HIST_SUB)
        return index;
    shift = index / XB_HIST_SUB - 1;
    return (uint64_t)(index % XB_HIST_SUB + XB_HIST_SUB) << shift;
}

static inline void xb_hist_add(struct xb_hist *hist, uint64_t ns)
{
    hist->count++;
    hist->sum_ns += ns;
    if (ns > hist->max_ns)
        hist->max_ns = ns;
    hist->buckets[xb_hist_index(ns)]++;
}

#endif
