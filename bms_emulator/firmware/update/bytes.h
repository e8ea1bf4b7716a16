/* Bytes: copies, comparison, little-endian fields. No alignment is assumed, no libc is used. */
#ifndef OTA_BYTES_H
#define OTA_BYTES_H

#include <stdint.h>

static inline void bytes_copy(uint8_t *to, const uint8_t *from, uint32_t size) {
    for (uint32_t i = 0; i < size; ++i) {
        to[i] = from[i];
    }
}

static inline void bytes_fill(uint8_t *to, uint8_t value, uint32_t size) {
    for (uint32_t i = 0; i < size; ++i) {
        to[i] = value;
    }
}

static inline uint32_t bytes_equal(const uint8_t *a, const uint8_t *b, uint32_t size) {
    uint8_t difference = 0;
    for (uint32_t i = 0; i < size; ++i) {
        difference |= (uint8_t)(a[i] ^ b[i]);
    }
    return difference == 0;
}

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void put32(uint8_t *p, uint32_t value) {
    put16(p, value);
    put16(p + 2, value >> 16);
}

#endif
