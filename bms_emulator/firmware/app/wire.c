#include "wire.h"

uint32_t bms_crc32(uint32_t so_far, const void *data, uint32_t size) {
    /* Half a byte at a time: sixteen words of table, as fast as the flash and small. */
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    const uint8_t *byte = data;
    uint32_t crc = ~so_far;
    for (uint32_t i = 0; i < size; ++i) {
        crc = table[(crc ^ byte[i]) & 15u] ^ (crc >> 4);
        crc = table[(crc ^ (uint32_t)(byte[i] >> 4)) & 15u] ^ (crc >> 4);
    }
    return ~crc;
}

void bms_put(bms_writer_t *writer, uint64_t value, uint32_t bytes) {
    if (writer->full || writer->capacity - writer->used < bytes) {
        writer->full = 1;
        return;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        writer->bytes[writer->used++] = (uint8_t)(value >> (8 * i));
    }
}

void bms_put_varint(bms_writer_t *writer, uint64_t value) {
    while (value >= 128 && !writer->full) {
        bms_put(writer, (value & 127u) | 128u, 1);
        value >>= 7;
    }
    bms_put(writer, value, 1);
}
