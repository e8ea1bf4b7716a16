#include "patch.h"

#include "../hal/hal.h"
#include "bytes.h"
#include "reason.h"

enum { COMPRESSION_NONE = 0, COMPRESSION_HEATSHRINK = 4 };
enum { HEAD_KIND, HEAD_SIZE, HEAD_PARAMETERS, HEAD_DONE };
enum { ENTRY_FORMAT, ENTRY_DIFFERENCE_SIZE, ENTRY_DIFFERENCE, ENTRY_EXTRA_SIZE, ENTRY_EXTRA, ENTRY_MOVE, ENTRY_END };
#define STREAM_SLACK 64u

void patch_begin(patch_t *p, uint32_t record_size, uint32_t target_size, uint32_t base_at, uint32_t base_size) {
    p->base_at = base_at;
    p->base_size = base_size;
    p->record_size = record_size;
    p->target_size = target_size;
    p->compression = COMPRESSION_NONE;
    p->taken = 0;
    p->made = 0;
    p->stream_left = 2 * target_size + STREAM_SLACK;
    p->reason = record_size >= 3 ? OTA_OK : OTA_DELTA_CORRUPT;
    p->rebuild_reason = OTA_OK;
    p->head_state = HEAD_KIND;
    p->entry_state = ENTRY_FORMAT;
    p->run_left = 0;
    p->size_shift = 0;
    p->size_negative = 0;
    p->size_value = 0;
    p->position = 0;
    p->cached_at = 0;
    p->cached_size = 0;
}

/* One byte of a size: 1 when it is complete, in size_value; 0: more follows; 2: too long. */
static uint32_t size_byte(patch_t *p, uint8_t byte) {
    if (p->size_shift == 0) {
        p->size_negative = byte & 0x40u;
        p->size_value = byte & 0x3F;
        p->size_shift = 6;
    } else {
        if (p->size_shift > 27) {
            return 2;
        }
        p->size_value |= (int64_t)(byte & 0x7F) << p->size_shift;
        p->size_shift += 7;
    }
    if (byte & 0x80u) {
        return 0;
    }
    p->size_shift = 0;
    if (p->size_negative) {
        p->size_value = -p->size_value;
    }
    return 1;
}

/* Byte of the base at the position, through a small cache. */
static uint32_t base_byte(patch_t *p, uint8_t *byte) {
    const uint32_t at = (uint32_t)p->position;
    if (p->cached_size == 0 || at - p->cached_at >= p->cached_size) {
        const uint32_t left = p->base_size - at;
        p->cached_at = at;
        p->cached_size = 0;
        const uint32_t piece = left < PATCH_BASE_PIECE ? left : PATCH_BASE_PIECE;
        if (hal_flash_read(p->base_at + at, p->cache, piece) != HAL_OK) {
            return OTA_FLASH_READ;
        }
        p->cached_size = piece;
    }
    *byte = p->cache[at - p->cached_at];
    return OTA_OK;
}

/* A length of an entry: in range, and for differences inside the base. */
static uint32_t begin_run(patch_t *p, uint32_t from_base) {
    if (p->size_value < 0 || p->size_value > (int64_t)(p->target_size - p->made)) {
        return OTA_DELTA_OUTPUT;
    }
    p->run_left = (uint32_t)p->size_value;
    if (from_base && p->run_left > 0) {
        if (p->position < 0 || p->position + p->size_value > (int64_t)p->base_size) {
            return OTA_DELTA_CORRUPT;
        }
    }
    return OTA_OK;
}

/* One decompressed byte. */
static uint32_t entry_byte(patch_t *p, uint8_t byte, uint8_t *block) {
    if (p->entry_state == ENTRY_DIFFERENCE || p->entry_state == ENTRY_EXTRA) {
        if (p->entry_state == ENTRY_DIFFERENCE) {
            uint8_t base = 0;
            const uint32_t reason = base_byte(p, &base);
            if (reason != OTA_OK) {
                return reason;
            }
            byte = (uint8_t)(byte + base);
            ++p->position;
        }
        block[p->made++] = byte;
        if (--p->run_left == 0) {
            p->entry_state = p->entry_state == ENTRY_DIFFERENCE ? ENTRY_EXTRA_SIZE : ENTRY_MOVE;
        }
        return OTA_OK;
    }
    if (p->entry_state == ENTRY_END) {
        return OTA_DELTA_CORRUPT; /* bytes after the last entry */
    }
    const uint32_t complete = size_byte(p, byte);
    if (complete != 1) {
        return complete == 0 ? OTA_OK : OTA_DELTA_CORRUPT;
    }
    uint32_t reason = OTA_OK;
    switch (p->entry_state) {
        case ENTRY_FORMAT:
            reason = p->size_value == 0 ? OTA_OK : OTA_DELTA_CODEC;
            p->entry_state = ENTRY_DIFFERENCE_SIZE;
            break;
        case ENTRY_DIFFERENCE_SIZE:
            reason = begin_run(p, 1);
            p->entry_state = p->run_left > 0 ? ENTRY_DIFFERENCE : ENTRY_EXTRA_SIZE;
            break;
        case ENTRY_EXTRA_SIZE:
            reason = begin_run(p, 0);
            p->entry_state = p->run_left > 0 ? ENTRY_EXTRA : ENTRY_MOVE;
            break;
        default: /* ENTRY_MOVE */
            p->position += p->size_value;
            p->entry_state = p->made < p->target_size ? ENTRY_DIFFERENCE_SIZE : ENTRY_END;
            break;
    }
    return reason;
}

static void stream_byte(patch_t *p, uint8_t byte, uint8_t *block) {
    if (p->stream_left == 0) {
        p->reason = OTA_DELTA_OUTPUT;
        return;
    }
    --p->stream_left;
    if (p->rebuild_reason == OTA_OK) {
        p->rebuild_reason = entry_byte(p, byte, block);
    }
}

static uint32_t head_byte(patch_t *p, uint8_t byte) {
    switch (p->head_state) {
        case HEAD_KIND:
            p->head_state = HEAD_SIZE;
            if (byte != COMPRESSION_NONE && byte != COMPRESSION_HEATSHRINK) {
                return OTA_DELTA_CODEC;
            }
            p->compression = byte;
            return OTA_OK;
        case HEAD_SIZE: {
            const uint32_t complete = size_byte(p, byte);
            if (complete == 2) {
                return OTA_DELTA_CORRUPT;
            }
            if (complete == 1) {
                if (p->size_value != (int64_t)p->target_size) {
                    return OTA_DELTA_OUTPUT;
                }
                if (p->compression == COMPRESSION_NONE) {
                    p->head_state = HEAD_DONE;
                    return p->record_size - p->taken <= p->stream_left ? OTA_OK : OTA_DELTA_OUTPUT;
                }
                p->head_state = HEAD_PARAMETERS;
            }
            return OTA_OK;
        }
        default: /* HEAD_PARAMETERS */
            p->head_state = HEAD_DONE;
            return heatshrink_begin(&p->heatshrink, (uint32_t)(byte >> 4) + 4u, (byte & 15u) + 3u);
    }
}

void patch_feed(patch_t *p, const uint8_t *data, uint32_t size, uint8_t *block) {
    for (uint32_t i = 0; i < size && p->reason == OTA_OK; ++i) {
        ++p->taken;
        if (p->head_state != HEAD_DONE) {
            p->reason = head_byte(p, data[i]);
        } else if (p->compression == COMPRESSION_NONE) {
            stream_byte(p, data[i], block);
        } else {
            uint8_t byte = 0;
            heatshrink_push(&p->heatshrink, data[i]);
            while (p->reason == OTA_OK && heatshrink_pull(&p->heatshrink, &byte)) {
                stream_byte(p, byte, block);
            }
        }
    }
}

uint32_t patch_end(const patch_t *p) {
    if (p->reason != OTA_OK) {
        return p->reason;
    }
    if (p->taken != p->record_size || p->head_state != HEAD_DONE) {
        return OTA_DELTA_CORRUPT;
    }
    if (p->compression != COMPRESSION_NONE) {
        const uint32_t reason = heatshrink_end(&p->heatshrink);
        if (reason != OTA_OK) {
            return reason;
        }
    }
    if (p->rebuild_reason != OTA_OK) {
        return p->rebuild_reason;
    }
    return p->entry_state == ENTRY_END ? OTA_OK : OTA_DELTA_CORRUPT;
}
