/* Writing of frames and records: CRC-32 and variable-length integers. */
#ifndef BMS_WIRE_H
#define BMS_WIRE_H

#include <stdint.h>

/* CRC-32 (IEEE 802.3, as zlib's), continued from `so_far`, 0 at first. */
uint32_t bms_crc32(uint32_t so_far, const void *data, uint32_t size);

/* A bounded writer; once full it stays full and says so. */
typedef struct {
    uint8_t *bytes;
    uint32_t capacity;
    uint32_t used;
    uint32_t full;
    uint32_t reserved; /* no padding with pointers of eight bytes either */
} bms_writer_t;

void bms_put(bms_writer_t *writer, uint64_t value, uint32_t bytes); /* little-endian */
void bms_put_varint(bms_writer_t *writer, uint64_t value);         /* seven bits a byte, lowest first */

/* Small magnitudes to small codes: 0, -1, 1, -2, 2 ... become 0, 1, 2, 3, 4 ... */
static inline uint64_t bms_zigzag(int64_t value) {
    return value < 0 ? (((uint64_t)-(value + 1)) << 1) + 1 : (uint64_t)value << 1;
}

#endif
