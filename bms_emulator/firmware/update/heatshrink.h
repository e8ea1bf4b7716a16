/* Streaming heatshrink decoder: bytes in, decoded bytes out through a callback-free pull.
 *
 * The format and its strictness are those of ota/delta/heatshrink.py: windows 2^4 ... 2^11, references before the
 * beginning read zeros, at the end fewer than 8 unused bits, all zero. State 2 KiB + 24 bytes. */
#ifndef OTA_HEATSHRINK_H
#define OTA_HEATSHRINK_H

#include <stdint.h>

#define HEATSHRINK_WINDOW_MIN 4u
#define HEATSHRINK_WINDOW_MAX 11u
#define HEATSHRINK_LOOKAHEAD_MIN 3u

typedef struct {
    uint32_t bits; /* not yet used bits, right-aligned */
    uint32_t n_bits;
    uint32_t window;    /* exponents */
    uint32_t lookahead;
    uint32_t head; /* next place in the ring */
    uint32_t copy_left; /* bytes of a copy that are still to be put out */
    uint32_t copy_back;
    uint8_t ring[1u << HEATSHRINK_WINDOW_MAX];
} heatshrink_t;

/* DELTA_CODEC for parameters outside the language. */
uint32_t heatshrink_begin(heatshrink_t *h, uint32_t window, uint32_t lookahead);
void heatshrink_push(heatshrink_t *h, uint8_t byte); /* only when heatshrink_pull has returned 0 */
uint32_t heatshrink_pull(heatshrink_t *h, uint8_t *byte); /* 1: a byte, 0: more input is needed */
uint32_t heatshrink_end(const heatshrink_t *h); /* OK or DELTA_CORRUPT: the stream ends inside a token */

#endif
