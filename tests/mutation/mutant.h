/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which of the mutants that are compiled in is the one that runs, and which ones were reached.
 * Both stand in the file that $PYXSD_MUTANTS names, so that all processes of a test share them:
 * the number of the chosen mutant, 0 for none, in 4 bytes; then a byte for each mutant.
 */
#ifndef PYXSD_MUTANT_H
#define PYXSD_MUTANT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PYXSD_MUTANTS_SIZE = 1 << 18 };

static struct {
    int chosen;
    unsigned char reached[PYXSD_MUTANTS_SIZE - 4];
} *pyxsd_mutants, pyxsd_no_mutants;

__attribute__((constructor)) static void pyxsd_find_mutants(void)
{
    const char *path = getenv("PYXSD_MUTANTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page = MAP_FAILED;

    if (fd >= 0) {
        page = mmap(NULL, PYXSD_MUTANTS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    pyxsd_mutants = page == MAP_FAILED ? (void *)&pyxsd_no_mutants : page;
}

static inline int pyxsd_is(int number)
{
    pyxsd_mutants->reached[number] = 1;
    return pyxsd_mutants->chosen == number;
}

#endif
