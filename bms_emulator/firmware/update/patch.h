/* One block as a patch, decoded while it arrives: the format and the reasons of ota/delta/patch.py.
 *
 * Input comes in pieces of any size; the block grows in the caller's buffer; the base is read from flash a piece at a
 * time. The signed size of the block bounds everything: no byte is written behind it, the stream may not be longer
 * than twice the block plus 64 bytes. The verdict is given at the end, so that a damaged record gives the same reason
 * however it was cut into frames. */
#ifndef OTA_PATCH_H
#define OTA_PATCH_H

#include "heatshrink.h"

#define PATCH_BASE_PIECE 64u

typedef struct {
    int64_t size_value; /* the size being read, or last read */
    int64_t position;   /* in the base */
    heatshrink_t heatshrink;
    uint32_t base_at; /* place of the base file in flash, and its length */
    uint32_t base_size;
    uint32_t record_size;
    uint32_t target_size;
    uint32_t compression;
    uint32_t taken;          /* bytes of the record so far */
    uint32_t made;           /* bytes of the block so far */
    uint32_t stream_left;    /* decompressed bytes that are still permitted */
    uint32_t reason;         /* of record or compression: final */
    uint32_t rebuild_reason; /* of the decompressed entries: counts if the compression has none */
    uint32_t head_state;
    uint32_t entry_state;
    uint32_t run_left; /* bytes of the difference or extra under way */
    uint32_t size_shift;
    uint32_t size_negative;
    uint32_t cached_at; /* base bytes in `cache`; cached_size 0: none */
    uint32_t cached_size;
    uint8_t cache[PATCH_BASE_PIECE];
} patch_t;

void patch_begin(patch_t *p, uint32_t record_size, uint32_t target_size, uint32_t base_at, uint32_t base_size);
void patch_feed(patch_t *p, const uint8_t *data, uint32_t size, uint8_t *block);
uint32_t patch_end(const patch_t *p); /* reason; OK: the block is complete */

#endif
