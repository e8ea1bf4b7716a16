#include "heatshrink.h"

#include "bytes.h"
#include "reason.h"

uint32_t heatshrink_begin(heatshrink_t *h, uint32_t window, uint32_t lookahead) {
    if (window < HEATSHRINK_WINDOW_MIN || window > HEATSHRINK_WINDOW_MAX) {
        return OTA_DELTA_CODEC;
    }
    if (lookahead < HEATSHRINK_LOOKAHEAD_MIN || lookahead >= window) {
        return OTA_DELTA_CODEC;
    }
    h->bits = 0;
    h->n_bits = 0;
    h->window = window;
    h->lookahead = lookahead;
    h->head = 0;
    h->copy_left = 0;
    h->copy_back = 0;
    bytes_fill(h->ring, 0, 1u << window);
    return OTA_OK;
}

void heatshrink_push(heatshrink_t *h, uint8_t byte) {
    /* At most 21 bits wait for the rest of a token, so 32 are enough. */
    h->bits = h->bits << 8 | byte;
    h->n_bits += 8;
}

static uint32_t take(heatshrink_t *h, uint32_t n) {
    h->n_bits -= n;
    const uint32_t value = h->bits >> h->n_bits;
    h->bits &= (1u << h->n_bits) - 1u;
    return value;
}

uint32_t heatshrink_pull(heatshrink_t *h, uint8_t *byte) {
    const uint32_t mask = (1u << h->window) - 1u;
    if (h->copy_left == 0) {
        if (h->n_bits == 0) {
            return 0;
        }
        if (h->bits >> (h->n_bits - 1u) & 1u) {
            if (h->n_bits < 9) {
                return 0;
            }
            *byte = (uint8_t)take(h, 9);
            h->ring[h->head & mask] = *byte;
            h->head = (h->head + 1u) & mask;
            return 1;
        }
        if (h->n_bits < 1u + h->window + h->lookahead) {
            return 0;
        }
        const uint32_t token = take(h, 1u + h->window + h->lookahead);
        h->copy_left = (token & ((1u << h->lookahead) - 1u)) + 1u;
        h->copy_back = (token >> h->lookahead & mask) + 1u;
    }
    *byte = h->ring[(h->head - h->copy_back) & mask];
    h->ring[h->head & mask] = *byte;
    h->head = (h->head + 1u) & mask;
    --h->copy_left;
    return 1;
}

uint32_t heatshrink_end(const heatshrink_t *h) {
    return h->n_bits < 8 && h->bits == 0 ? OTA_OK : OTA_DELTA_CORRUPT;
}
