/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is this reply what its step expects?  Every reply and every event passes here: a scenario
 * that silently measured errors would be worth nothing.  Does no I/O.
 */
#include <stdio.h>
#include <string.h>

#include "xb_internal.h"

static bool payload_is(const struct xb_conn *c, const struct xb_step *step, const uint8_t *payload,
                       uint32_t len)
{
    return len == step->exp_len &&
           memcmp(payload, c->prog->expected + step->exp_off, len) == 0;
}

static int mismatch(struct xb_engine *e, const struct xb_conn *c, uint32_t index,
                    const struct xb_header *hdr, const uint8_t *payload)
{
    const struct xb_step *step = &c->prog->steps[index];
    struct xb_header sent;
    char text[64];
    uint32_t i, n = hdr->len < sizeof(text) - 1 ? hdr->len : (uint32_t)sizeof(text) - 1;

    memcpy(&sent, c->blob + step->off, sizeof(sent));
    for (i = 0; i < n; i++)
        text[i] = payload[i] >= 0x20 && payload[i] < 0x7f ? (char)payload[i] : '.';
    text[n] = '\0';
    return xb_fail(e, c,
                   "step %u sent type %u req_id %u tx_id %u: unexpected reply of type %u req_id %u "
                   "tx_id %u with %u bytes: %s",
                   index, sent.type, sent.req_id, sent.tx_id, hdr->type, hdr->req_id, hdr->tx_id,
                   hdr->len, text);
}

static bool parse_id(const uint8_t *payload, uint32_t len, uint32_t *id)
{
    uint64_t value = 0;
    uint32_t i;

    if (len < 2 || payload[len - 1] != '\0')
        return false;
    for (i = 0; i + 1 < len; i++) {
        if (payload[i] < '0' || payload[i] > '9' || value > 0xffffffffu / 10)
            return false;
        value = value * 10 + (uint64_t)(payload[i] - '0');
    }
    *id = (uint32_t)value;
    return value != 0;
}

/* WATCH and UNWATCH are answered with tx_id 0 by some daemons whatever came in; programs do not
 * send them in transactions, so the ids must always agree. */
static bool header_fits(const struct xb_conn *c, const struct xb_step *step,
                        const struct xb_header *hdr)
{
    struct xb_header sent;

    memcpy(&sent, c->blob + step->off, sizeof(sent));
    return hdr->req_id == sent.req_id && hdr->tx_id == sent.tx_id &&
           (hdr->type == sent.type || hdr->type == XB_TYPE_ERROR);
}

int xb_check_reply(struct xb_engine *e, struct xb_conn *c, const struct xb_header *hdr,
                   const uint8_t *payload, uint64_t now)
{
    const struct xb_flight *flight = &c->flight[c->flight_tail & c->flight_mask];
    uint32_t index = flight->step;
    const struct xb_step *step;
    bool is_error = hdr->type == XB_TYPE_ERROR, fits;

    if (c->flight_head == c->flight_tail)
        return xb_fail(e, c, "a reply of type %u req_id %u that nobody asked for", hdr->type,
                       hdr->req_id);
    step = &c->prog->steps[index];
    if (!header_fits(c, step, hdr))
        return mismatch(e, c, index, hdr, payload);
    c->flight_tail++;
    e->stats.requests++;
    xb_hist_add(e->hists[step->hist], now - flight->sent_ns);
    if (e->echo) {
        if (step->expect == XB_EXPECT_ID)
            c->tx_id = 1;
        return is_error ? mismatch(e, c, index, hdr, payload) : 0;
    }
    switch (step->expect) {
    case XB_EXPECT_OK:
        fits = !is_error && hdr->len == 3 && memcmp(payload, "OK", 3) == 0;
        break;
    case XB_EXPECT_ANY:
        fits = !is_error;
        break;
    case XB_EXPECT_EXACT:
        fits = !is_error && payload_is(c, step, payload, hdr->len);
        break;
    case XB_EXPECT_LEN:
        fits = !is_error && hdr->len == step->exp_len;
        break;
    case XB_EXPECT_ERROR:
        fits = is_error && payload_is(c, step, payload, hdr->len);
        break;
    case XB_EXPECT_ID:
        fits = !is_error && parse_id(payload, hdr->len, &c->tx_id);
        break;
    case XB_EXPECT_COMMIT:
        if (is_error && hdr->len == 7 && memcmp(payload, "EAGAIN", 7) == 0) {
            e->stats.retries++;
            e->stats.conflicts++;
            c->pc = step->arg;
            return 1;
        }
        fits = !is_error && hdr->len == 3 && memcmp(payload, "OK", 3) == 0;
        break;
    default:
        fits = step->expect == XB_EXPECT_EITHER;
        break;
    }
    if (fits)
        return 0;
    if (step->flags & XB_UNTIL) {
        bool missing = is_error && hdr->len == 7 && memcmp(payload, "ENOENT", 7) == 0;

        if (!is_error || missing) {
            e->stats.retries++;
            c->pc = index;
            c->waits_event = c->events[step->slot] == 0;
            return 1;
        }
    }
    return mismatch(e, c, index, hdr, payload);
}

int xb_check_event(struct xb_engine *e, struct xb_conn *c, const uint8_t *payload, uint32_t len,
                   uint64_t now)
{
    const uint8_t *token, *end;
    uint32_t slot = 0;

    token = len ? memchr(payload, '\0', len) : NULL;
    end = token ? memchr(token + 1, '\0', len - (uint32_t)(token + 1 - payload)) : NULL;
    if (!end || end != payload + len - 1)
        return xb_fail(e, c, "a watch event of %u bytes without path and token", len);
    for (token++; *token >= '0' && *token <= '9' && slot < XB_SLOTS; token++)
        slot = slot * 10 + (uint32_t)(*token - '0');
    if (*token == '\0' && slot < XB_SLOTS) {
        c->events[slot]++;
        c->waits_event = false;
    }
    e->stats.events++;
    e->global_events++;
    e->wake = true;
    if (e->publish_ns)
        xb_hist_add(e->hists[XB_EVENT_CLASS], now - e->publish_ns);
    return 0;
}
