/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenguest.so.4.N of the stand-in: Debian's oxenstored is linked to it by
 * name; what it would use of it is in the stand-in's libxenctrl.
 */
__attribute__((visibility("default"))) int xc_standin_guest_library(void);

int xc_standin_guest_library(void)
{
    return 1;
}
