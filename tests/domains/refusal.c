/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loaded before all others into a daemon on the stand-in Xen: as often as the number in the file
 * $XSD_STANDIN_DIR/refuse says, reading a full batch of ports from the event channel device fails
 * with EFBIG, as Linux refuses it once its queue has overflowed.  The file goes with the last time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH = 1024 * 4 };

static int refused(int fd)
{
    static int left;
    const char *dir = getenv("XSD_STANDIN_DIR");
    char path[300];
    struct stat st;
    FILE *f;

    if (!dir || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
        return 0;
    snprintf(path, sizeof(path), "%s/refuse", dir);
    if (left == 0) {
        f = fopen(path, "re");
        if (!f)
            return 0;
        if (fscanf(f, "%d", &left) != 1)
            left = 0;
        fclose(f);
    }
    if (left > 0 && --left == 0)
        unlink(path);
    return 1;
}

ssize_t read(int fd, void *buf, size_t n)
{
    static ssize_t (*real)(int, void *, size_t);

    if (!real)
        real = (__extension__(ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read"));
    if (n == BATCH && refused(fd)) {
        errno = EFBIG;
        return -1;
    }
    return real(fd, buf, n);
}
