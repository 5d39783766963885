/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The program that guests and dom0 of the system test talk to Xenstore with.
 * `-d DEVICE` names a socket or a xenbus device; each mode is a row of the table at the end.
 * Exit status: 0 done, 1 not (a check failed, a wait ran out), 2 usage, 3 connection lost.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "xs.h"

enum { WATCH_FOREVER_MS = 1000000000 };

static char token[] = "await";

/* Watches `path` until `satisfied`; false when `seconds` passed before. */
static bool wait_until(struct xs *xs, const char *path, const char *seconds,
                       bool (*satisfied)(struct xs *xs, const char *path, const char *value),
                       const char *value)
{
    long deadline = xs_now_ms() + strtol(seconds, NULL, 10) * 1000;
    bool done = false;

    if (!xs_pair(xs, XS_WATCH, path, token))
        return false;
    while (!done && xs_await_event(xs, (int)(deadline - xs_now_ms()), NULL, token))
        done = satisfied(xs, path, value);
    xs_pair(xs, XS_UNWATCH, path, token);
    return done;
}

static bool begins_with(struct xs *xs, const char *path, const char *value)
{
    return xs_path(xs, XS_READ, 0, path) && !strncmp(xs->data, value, strlen(value));
}

static bool is_gone(struct xs *xs, const char *path, const char *value)
{
    (void)value;
    return !xs_path(xs, XS_READ, 0, path) && !strcmp(xs->error, "ENOENT");
}

/* suite LABEL BASE */
static int run_suite(struct xs *xs, char **arguments)
{
    return suite_run(xs, arguments[0], arguments[1], stdout) ? 1 : 0;
}

/* await PATH PREFIX SECONDS: until the node's value begins so; prints the value. */
static int await_value(struct xs *xs, char **arguments)
{
    if (!wait_until(xs, arguments[0], arguments[2], begins_with, arguments[1])) {
        fprintf(stderr, "xsprobe: %s did not become '%s'\n", arguments[0], arguments[1]);
        return 1;
    }
    xs_path(xs, XS_READ, 0, arguments[0]);
    puts(xs->data);
    return 0;
}

/* gone PATH SECONDS: until there is no such node. */
static int await_gone(struct xs *xs, char **arguments)
{
    return wait_until(xs, arguments[0], arguments[1], is_gone, NULL) ? 0 : 1;
}

/* event PATH TOKEN READY-FILE SECONDS: one more event after the watch's own; prints its path.
 * The file is made when the watch stands. */
static int await_one(struct xs *xs, char **arguments)
{
    struct xs_event event;
    FILE *ready;

    if (!xs_pair(xs, XS_WATCH, arguments[0], arguments[1]) ||
        !xs_await_event(xs, 10000, NULL, arguments[1]))
        return 1;
    ready = fopen(arguments[2], "w");
    if (!ready || fclose(ready) != 0)
        return 1;
    if (!xs_next_event(xs, atoi(arguments[3]) * 1000, &event))
        return 1;
    puts(event.path);
    xs_free_event(&event);
    return 0;
}

/* hold PATH TOKEN SECONDS: sets a watch, prints a line, and keeps it that long. */
static int hold_watch(struct xs *xs, char **arguments)
{
    bool set = xs_pair(xs, XS_WATCH, arguments[0], arguments[1]);

    puts(set ? "holding" : xs->error);
    fflush(stdout);
    while (set && xs_await_event(xs, atoi(arguments[2]) * 1000, "never", NULL))
        ;
    return set ? 0 : 1;
}

/* One command of dom0, `<number> <verb> <argument>`; the answer is `<number> <text>`. */
static void obey(struct xs *xs, const char *command, const char *label)
{
    char number[16] = "", verb[16] = "", argument[128] = "", answer[160];
    static const char base[] = "data/probe";

    if (sscanf(command, "%15s %15s %127s", number, verb, argument) < 2)
        return;
    if (!strcmp(verb, "echo"))
        snprintf(answer, sizeof answer, "%s %s", number, argument);
    else if (!strcmp(verb, "suite")) {
        suite_run(xs, argument, base, stdout);
        snprintf(answer, sizeof answer, "%s ran", number);
    } else if (!strcmp(verb, "put"))
        snprintf(answer, sizeof answer, "%s %s", number,
                 xs_put(xs, 0, argument, number) ? "ok" : xs->error);
    else
        snprintf(answer, sizeof answer, "%s unknown", number);
    printf("PROBE %s obeyed %s -> %s\n", label, command, answer);
    fflush(stdout);
    xs_put(xs, 0, "data/answer", answer);
}

/* serve LABEL: a guest's life. Reports itself in data/answer, then obeys data/command. */
static int serve(struct xs *xs, char **arguments)
{
    char last[XS_PAYLOAD_MAX + 1] = "";

    if (!xs_pair(xs, XS_WATCH, "data/command", "command") ||
        !xs_put(xs, 0, "data/answer", "0 ready")) {
        fprintf(stderr, "xsprobe: %s\n", xs->error);
        return 1;
    }
    while (xs_await_event(xs, WATCH_FOREVER_MS, "data/command", "command")) {
        if (!xs_path(xs, XS_READ, 0, "data/command") || !strcmp(last, xs->data))
            continue;
        snprintf(last, sizeof last, "%s", xs->data);
        obey(xs, last, arguments[0]);
    }
    return 1;
}

static const struct mode {
    const char *name;
    int arguments;
    int (*run)(struct xs *xs, char **arguments);
} modes[] = {
    {"suite", 2, run_suite}, {"await", 3, await_value}, {"gone", 2, await_gone},
    {"event", 4, await_one}, {"hold", 3, hold_watch},   {"serve", 1, serve},
};

int main(int argc, char **argv)
{
    static struct xs xs;

    for (size_t i = 0; argc > 3 && i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(argv[1], "-d") || strcmp(argv[3], modes[i].name) ||
            argc != 4 + modes[i].arguments)
            continue;
        xs_open(&xs, argv[2]);
        int status = modes[i].run(&xs, argv + 4);

        xs_close(&xs);
        return status;
    }
    fprintf(stderr, "usage: xsprobe -d DEVICE MODE ARGUMENT...; modes:");
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        fprintf(stderr, " %s(%d)", modes[i].name, modes[i].arguments);
    fputc('\n', stderr);
    return 2;
}
