/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One fault of each kind that the sanitized runs must see: the proof that they would. */

/* Pointers are volatile so that the compiler does not see the faults first. */

#include <limits.h>
#include <stdlib.h>

int broken_leak(void)
{
    char *volatile lost = malloc(1234);

    lost[0] = 1;
    lost = NULL;
    return lost != NULL;
}

int broken_overflow(void)
{
    char *volatile block = malloc(10);
    int value = block[10];

    free(block);
    return value;
}

int broken_use_after_free(void)
{
    char *volatile block = malloc(10);

    free(block);
    return block[0];
}

int broken_undefined(void)
{
    volatile int most = INT_MAX;

    return most + 1;
}

int broken_nothing(void)
{
    return 0;
}
