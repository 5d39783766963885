/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Contract: suite.h. A check is a row of the table at the end; it says what went wrong in
 * `suite.why`, empty when nothing did. The base directory is emptied before each.
 */
#include "suite.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATIENCE_MS = 20000, /* an emulated machine that shares its CPU may be slow */
    BURST = 16,
    WIDE = 130,
    ROUNDS = 200,
    BIG = 1900, /* longer than a ring; C xenstored counts the node's other parts, up to 2048 */
};

struct suite {
    struct xs *xs;
    const char *base;
    char why[512];
};

__attribute__((format(printf, 2, 3))) static void fail(struct suite *suite, const char *text, ...)
{
    va_list arguments;

    if (suite->why[0])
        return;
    va_start(arguments, text);
    vsnprintf(suite->why, sizeof suite->why, text, arguments);
    va_end(arguments);
}

#define EXPECT(condition)                                                              \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fail(suite, "line %d: %s (last error '%s')", __LINE__, #condition, xs->error); \
            return;                                                                    \
        }                                                                              \
    } while (0)

/* The path of a node below the base; each result lives until eight more were made. */
static const char *node(const struct suite *suite, const char *name)
{
    static char ring[8][256];
    static unsigned turn;
    char *path = ring[turn++ % 8];

    snprintf(path, sizeof ring[0], "%s/%s", suite->base, name);
    return path;
}

static bool holds(struct xs *xs, uint32_t tx, const char *path, const char *value)
{
    return xs_path(xs, XS_READ, tx, path) && xs->len == strlen(value) &&
           !memcmp(xs->data, value, xs->len);
}

static bool refused(struct xs *xs, bool done, const char *error)
{
    return !done && !strcmp(xs->error, error);
}

static void identity(struct suite *suite)
{
    struct xs *xs = suite->xs;
    char domid[32], path[64];

    EXPECT(xs_path(xs, XS_READ, 0, "domid"));
    snprintf(domid, sizeof domid, "%.31s", xs->data);
    snprintf(path, sizeof path, "/local/domain/%s", domid);
    EXPECT(xs_path(xs, XS_GET_DOMAIN_PATH, 0, domid));
    EXPECT(!strcmp(xs->data, path));
    snprintf(path, sizeof path, "/local/domain/%s/domid", domid);
    EXPECT(holds(xs, 0, path, domid));
}

static void values(struct suite *suite)
{
    static const char binary[] = "\0one\0\xff\x80two\0\0";
    static char big[BIG];
    struct xs *xs = suite->xs;

    EXPECT(xs_put(xs, 0, node(suite, "text"), "some text"));
    EXPECT(holds(xs, 0, node(suite, "text"), "some text"));
    EXPECT(xs_put(xs, 0, node(suite, "text"), ""));
    EXPECT(holds(xs, 0, node(suite, "text"), ""));
    EXPECT(xs_write(xs, 0, node(suite, "binary"), binary, sizeof binary));
    EXPECT(xs_path(xs, XS_READ, 0, node(suite, "binary")));
    EXPECT(xs->len == sizeof binary && !memcmp(xs->data, binary, sizeof binary));
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 256);
    EXPECT(xs_write(xs, 0, node(suite, "big"), big, sizeof big));
    EXPECT(xs_path(xs, XS_READ, 0, node(suite, "big")));
    EXPECT(xs->len == sizeof big && !memcmp(xs->data, big, sizeof big));
}

static void tree(struct suite *suite)
{
    struct xs *xs = suite->xs;

    EXPECT(refused(xs, xs_path(xs, XS_READ, 0, node(suite, "none")), "ENOENT"));
    EXPECT(refused(xs, xs_path(xs, XS_READ, 0, "bad//path"), "EINVAL"));
    EXPECT(xs_path(xs, XS_MKDIR, 0, node(suite, "d")));
    EXPECT(xs_put(xs, 0, node(suite, "d/x/deep/er"), "1"));
    EXPECT(xs_put(xs, 0, node(suite, "d/y"), "2"));
    EXPECT(xs_path(xs, XS_DIRECTORY, 0, node(suite, "d")));
    EXPECT(xs->len == 4 && (!memcmp(xs->data, "x\0y", 4) || !memcmp(xs->data, "y\0x", 4)));
    EXPECT(xs_path(xs, XS_RM, 0, node(suite, "d")));
    EXPECT(refused(xs, xs_path(xs, XS_READ, 0, node(suite, "d/x/deep/er")), "ENOENT"));
    EXPECT(refused(xs, xs_path(xs, XS_DIRECTORY, 0, node(suite, "d")), "ENOENT"));
}

static void permissions(struct suite *suite)
{
    struct xs *xs = suite->xs;
    char own[40];

    EXPECT(xs_path(xs, XS_READ, 0, "domid"));
    snprintf(own, sizeof own, "b%.31s", xs->data);
    EXPECT(xs_put(xs, 0, node(suite, "p"), "1"));
    EXPECT(xs_pair(xs, XS_SET_PERMS, node(suite, "p"), own));
    EXPECT(xs_path(xs, XS_GET_PERMS, 0, node(suite, "p")));
    EXPECT(xs->len == strlen(own) + 1 && !strcmp(xs->data, own));
    if (!strcmp(own, "b0"))
        return; /* nothing is denied to domain 0 */
    EXPECT(refused(xs, xs_put(xs, 0, "/local/domain/0/guest-was-here", "1"), "EACCES"));
    EXPECT(refused(xs, xs_path(xs, XS_DIRECTORY, 0, "/vm"), "EACCES"));
}

static void watches(struct suite *suite)
{
    struct xs *xs = suite->xs;
    const char *watched = node(suite, "w"), *fence = node(suite, "fence");
    struct xs_event event;

    EXPECT(xs_pair(xs, XS_WATCH, watched, "tok en"));
    EXPECT(xs_await_event(xs, PATIENCE_MS, watched, "tok en"));
    EXPECT(xs_put(xs, 0, node(suite, "w/x"), "1"));
    EXPECT(xs_await_event(xs, PATIENCE_MS, node(suite, "w/x"), "tok en"));
    EXPECT(xs_path(xs, XS_RM, 0, watched));
    EXPECT(xs_await_event(xs, PATIENCE_MS, watched, "tok en"));
    EXPECT(xs_pair(xs, XS_UNWATCH, watched, "tok en"));
    /* Events come in order: what the first write fired would come before the second's. */
    EXPECT(xs_pair(xs, XS_WATCH, fence, "f"));
    EXPECT(xs_await_event(xs, PATIENCE_MS, fence, "f"));
    EXPECT(xs_put(xs, 0, watched, "2"));
    EXPECT(xs_put(xs, 0, fence, "2"));
    EXPECT(xs_next_event(xs, PATIENCE_MS, &event));
    if (strcmp(event.path, fence) != 0)
        fail(suite, "an event of %s after unwatch", event.path);
    xs_free_event(&event);
    EXPECT(xs_pair(xs, XS_UNWATCH, fence, "f"));
}

static void transactions(struct suite *suite)
{
    struct xs *xs = suite->xs;
    const char *path = node(suite, "t");
    uint32_t tx;

    EXPECT(xs_put(xs, 0, path, "before"));
    EXPECT((tx = xs_begin(xs)) != 0);
    EXPECT(xs_put(xs, tx, path, "inside"));
    EXPECT(holds(xs, tx, path, "inside"));
    EXPECT(holds(xs, 0, path, "before"));
    EXPECT(xs_end(xs, tx, true));
    EXPECT(holds(xs, 0, path, "inside"));

    EXPECT((tx = xs_begin(xs)) != 0);
    EXPECT(xs_put(xs, tx, path, "dropped"));
    EXPECT(xs_end(xs, tx, false));
    EXPECT(holds(xs, 0, path, "inside"));

    EXPECT((tx = xs_begin(xs)) != 0);
    EXPECT(holds(xs, tx, path, "inside"));
    EXPECT(xs_put(xs, 0, path, "meanwhile"));
    EXPECT(xs_put(xs, tx, path, "lost"));
    EXPECT(refused(xs, xs_end(xs, tx, true), "EAGAIN"));
    EXPECT(holds(xs, 0, path, "meanwhile"));
}

static void transaction_events(struct suite *suite)
{
    struct xs *xs = suite->xs;
    const char *path = node(suite, "te"), *fence = node(suite, "fence");
    struct xs_event event;
    uint32_t tx;

    /* Both exist already: a new child would be a change of the parent, a conflict to some. */
    EXPECT(xs_put(xs, 0, path, "0"));
    EXPECT(xs_put(xs, 0, fence, "0"));
    EXPECT(xs_pair(xs, XS_WATCH, suite->base, "te"));
    EXPECT(xs_await_event(xs, PATIENCE_MS, suite->base, "te"));
    EXPECT((tx = xs_begin(xs)) != 0);
    EXPECT(xs_put(xs, tx, path, "1"));
    EXPECT(xs_put(xs, 0, fence, "1"));
    EXPECT(xs_next_event(xs, PATIENCE_MS, &event));
    if (strcmp(event.path, fence) != 0)
        fail(suite, "an event of %s before the commit", event.path);
    xs_free_event(&event);
    EXPECT(xs_end(xs, tx, true));
    EXPECT(xs_await_event(xs, PATIENCE_MS, path, "te"));
    EXPECT(xs_pair(xs, XS_UNWATCH, suite->base, "te"));
}

static void rounds(struct suite *suite)
{
    struct xs *xs = suite->xs;
    char value[300];

    for (int i = 0; i < ROUNDS; i++) {
        int len = snprintf(value, sizeof value, "%0*d", 1 + i, i);

        EXPECT(xs_write(xs, 0, node(suite, "r"), value, (size_t)len));
        EXPECT(holds(xs, 0, node(suite, "r"), value));
    }
}

static void burst(struct suite *suite)
{
    struct xs *xs = suite->xs;
    const char *path = node(suite, "burst");
    uint32_t ids[BURST];

    EXPECT(xs_put(xs, 0, path, "b"));
    for (int i = 0; i < BURST; i++)
        ids[i] = xs_send(xs, XS_READ, 0, path, strlen(path) + 1);
    for (int i = 0; i < BURST; i++) {
        EXPECT(xs_reply(xs));
        EXPECT(xs->req_id == ids[i] && !strcmp(xs->data, "b"));
    }
}

/* Walks a directory by parts; the count of its names, or -1. */
static int names_by_parts(struct xs *xs, const char *path)
{
    char payload[300], seen[64] = "";
    size_t offset = 0;
    int count = 0;

    for (;;) {
        int len = snprintf(payload, sizeof payload, "%s%c%zu", path, '\0', offset);
        const char *end, *at;

        if (!xs_call(xs, XS_DIRECTORY_PART, 0, payload, (size_t)len + 1))
            return -1;
        if (seen[0] && strcmp(seen, xs->data) != 0)
            return -1; /* the directory changed */
        snprintf(seen, sizeof seen, "%.63s", xs->data);
        end = xs->data + xs->len;
        for (at = xs->data + strlen(xs->data) + 1; at < end && *at; at += strlen(at) + 1) {
            offset += strlen(at) + 1;
            count++;
        }
        if (at < end)
            return count; /* an empty name ends the list */
    }
}

static void make_wide(struct suite *suite)
{
    struct xs *xs = suite->xs;
    char name[64];

    for (int i = 0; i < WIDE; i++) {
        snprintf(name, sizeof name, "wide/a-child-with-a-rather-long-name-%04d", i);
        EXPECT(xs_put(xs, 0, node(suite, name), ""));
    }
}

static void wide(struct suite *suite)
{
    struct xs *xs = suite->xs;

    make_wide(suite);
    EXPECT(refused(xs, xs_path(xs, XS_DIRECTORY, 0, node(suite, "wide")), "E2BIG"));
}

static void parts(struct suite *suite)
{
    struct xs *xs = suite->xs;

    make_wide(suite);
    EXPECT(names_by_parts(xs, node(suite, "wide")) == WIDE);
}

static const struct check {
    const char *name;
    void (*run)(struct suite *suite);
} checks[] = {
    {"identity", identity},
    {"values", values},
    {"tree", tree},
    {"permissions", permissions},
    {"watches", watches},
    {"transactions", transactions},
    {"transaction-events", transaction_events},
    {"rounds", rounds},
    {"burst", burst},
    {"wide", wide},
    {"parts", parts},
};

int suite_run(struct xs *xs, const char *label, const char *base, FILE *out)
{
    int failed = 0;

    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        struct suite suite = {.xs = xs, .base = base};

        xs_path(xs, XS_RM, 0, base);
        if (xs_path(xs, XS_MKDIR, 0, base))
            checks[i].run(&suite);
        else
            fail(&suite, "mkdir %s: %s", base, xs->error);
        xs_drop_events(xs);
        failed += suite.why[0] != '\0';
        fprintf(out, "CHECK %s.%s %s %s\n", label, checks[i].name, suite.why[0] ? "fail" : "ok",
                suite.why);
        fflush(out);
    }
    xs_path(xs, XS_RM, 0, base);
    return failed;
}
