#include "container.h"

#include "../boot/records.h"
#include "../hal/hal.h"
#include "bytes.h"
#include "manifest.h"
#include "reason.h"

#define TREE_DEPTH 10u /* of 2^10 blocks: 4 MiB */
#define READ_PIECE 256u

static const uint8_t magic[4] = {'B', 'T', 'D', '1'};

uint32_t flash_digest(uint32_t at, uint32_t size, uint32_t prefix, uint8_t digest[32]) {
    uint8_t piece[READ_PIECE];
    hal_sha256_begin();
    if (prefix != NO_PREFIX) {
        piece[0] = (uint8_t)prefix;
        hal_sha256_add(piece, 1);
    }
    for (uint32_t done = 0; done < size;) {
        const uint32_t n = size - done < READ_PIECE ? size - done : READ_PIECE;
        if (hal_flash_read(at + done, piece, n) != HAL_OK) {
            hal_sha256_end(digest); /* the engine is free again */
            return OTA_FLASH_READ;
        }
        hal_sha256_add(piece, n);
        done += n;
    }
    hal_sha256_end(digest);
    return OTA_OK;
}

uint32_t container_header(container_t *c, const uint8_t header[CONTAINER_HEADER]) {
    REQUIRE(bytes_equal(header, magic, sizeof(magic)), OTA_DELTA_CODEC);
    REQUIRE(crc32_of(header, CONTAINER_HEADER - 4) == get32(header + CONTAINER_HEADER - 4), OTA_CHECKSUM);
    REQUIRE(header[4] == 12 && header[5] == 0, OTA_DELTA_CODEC);
    c->n_blocks = get16(header + 6);
    c->base_length = get32(header + 8);
    c->target_length = get32(header + 12);
    c->body_size = get32(header + 16);
    REQUIRE(c->base_length <= MANIFEST_IMAGE_MAX, OTA_OVERSIZE);
    REQUIRE(c->target_length > 0 && c->target_length <= MANIFEST_IMAGE_MAX, OTA_OVERSIZE);
    REQUIRE(c->n_blocks == (c->target_length + BLOCK - 1) / BLOCK, OTA_DELTA_CORRUPT);
    return c->body_size <= c->target_length ? OTA_OK : OTA_OVERSIZE;
}

uint32_t container_block_size(const container_t *c, uint32_t block) {
    const uint32_t left = c->target_length - block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

void container_words(const container_t *c, const uint8_t *table, uint16_t *words) {
    for (uint32_t i = 0; i < c->n_blocks; ++i) {
        words[i] = get16(table + CONTAINER_HEADER + 2 * i);
    }
}

uint32_t container_table_size(const container_t *c, const uint16_t *words) {
    uint32_t size = CONTAINER_HEADER + 2 * c->n_blocks;
    for (uint32_t i = 0; i < c->n_blocks; ++i) {
        size += word_kind(words[i]) != KIND_UNCHANGED ? 32 : 0;
    }
    return size;
}

uint32_t container_check(const container_t *c, const uint16_t *words) {
    for (uint32_t i = 0; i < c->n_blocks; ++i) {
        REQUIRE(word_kind(words[i]) <= KIND_STORED, OTA_DELTA_CODEC);
    }
    uint32_t body = 0;
    for (uint32_t i = 0; i < c->n_blocks; ++i) {
        const uint32_t length = word_length(words[i]);
        if (word_kind(words[i]) == KIND_UNCHANGED) {
            const uint32_t end = i * BLOCK + container_block_size(c, i);
            REQUIRE(length == 0 && end <= c->base_length, OTA_DELTA_CORRUPT);
        } else {
            REQUIRE(length > 0 && length <= BLOCK, OTA_DELTA_CORRUPT);
        }
        body += length;
    }
    return body == c->body_size ? OTA_OK : OTA_DELTA_CORRUPT;
}

static void node(const uint8_t left[32], uint8_t right_and_result[32]) {
    const uint8_t prefix = 1;
    hal_sha256_begin();
    hal_sha256_add(&prefix, 1);
    hal_sha256_add(left, 32);
    hal_sha256_add(right_and_result, 32);
    hal_sha256_end(right_and_result);
}

/* Merkle root in one pass (RFC 9162): one subtree hash for each set bit of the number of leaves so far. */
static uint32_t merkle_root(const container_t *c, const uint16_t *words, const uint8_t *table, flash_file_t base,
                            uint8_t root[32]) {
    uint8_t stack[TREE_DEPTH + 1][32];
    uint32_t height = 0;
    const uint8_t *hashes = table + CONTAINER_HEADER + 2 * c->n_blocks;
    for (uint32_t i = 0; i < c->n_blocks; ++i) {
        uint8_t top[32];
        if (word_kind(words[i]) == KIND_UNCHANGED) {
            TRY(flash_digest(base.at + i * BLOCK, container_block_size(c, i), 0, top));
        } else {
            bytes_copy(top, hashes, 32);
            hashes += 32;
        }
        for (uint32_t n = i; n & 1u; n >>= 1) {
            node(stack[--height], top);
        }
        bytes_copy(stack[height++], top, 32);
    }
    bytes_copy(root, stack[--height], 32);
    while (height > 0) {
        node(stack[--height], root);
    }
    return OTA_OK;
}

uint32_t container_trust(const container_t *c, const uint16_t *words, const uint8_t *table, flash_file_t base,
                         const uint8_t target[32], const uint8_t root[32]) {
    uint8_t digest[32];
    if (c->base_length > 0) {
        REQUIRE(base.size == c->base_length, OTA_DELTA_BASE);
        TRY(flash_digest(base.at, base.size, NO_PREFIX, digest));
        REQUIRE(bytes_equal(digest, table + 20, 32), OTA_DELTA_BASE);
    }
    REQUIRE(bytes_equal(table + 52, target, 32), OTA_DIGEST);
    TRY(merkle_root(c, words, table, base, digest));
    return bytes_equal(digest, root, 32) && bytes_equal(root, table + 84, 32) ? OTA_OK : OTA_MERKLE;
}
