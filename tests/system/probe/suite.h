/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The checks that one connection can make by itself, run alike in a guest and in dom0.
 */
#ifndef PROBE_SUITE_H
#define PROBE_SUITE_H

#include <stdio.h>

#include "xs.h"

/* Runs the checks on nodes below `base`, which must be writable, and leaves it empty.
 * Prints `CHECK <label>.<name> ok|fail <detail>` for each to `out`. Returns how many failed. */
int suite_run(struct xs *xs, const char *label, const char *base, FILE *out);

#endif
