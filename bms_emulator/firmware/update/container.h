/* The BTD1 container: header, block words, leaf hashes; the layout and the reasons of ota/delta/container.py. */
#ifndef OTA_CONTAINER_H
#define OTA_CONTAINER_H

#include <stdint.h>

#define BLOCK 4096u
#define CONTAINER_HEADER 120u
enum { KIND_PATCH, KIND_UNCHANGED, KIND_STORED };

/* The header, read. */
typedef struct {
    uint32_t n_blocks;
    uint32_t base_length; /* 0: a full image */
    uint32_t target_length;
    uint32_t body_size;
} container_t;

/* A file in flash; size 0: none. */
typedef struct {
    uint32_t at;
    uint32_t size;
} flash_file_t;

/* All functions take at most OTA_BLOCKS_MAX blocks; `words` has one entry for each. */
uint32_t container_header(container_t *c, const uint8_t header[CONTAINER_HEADER]);
void container_words(const container_t *c, const uint8_t *table, uint16_t *words);
uint32_t container_table_size(const container_t *c, const uint16_t *words);
uint32_t container_check(const container_t *c, const uint16_t *words); /* structure; reason */
/* Digests: of the base (before anything is erased), of the target, and of all leaves against the signed root.
 * `table` has header, words and hashes. */
uint32_t container_trust(const container_t *c, const uint16_t *words, const uint8_t *table, flash_file_t base,
                         const uint8_t target[32], const uint8_t root[32]);

static inline uint32_t word_kind(uint16_t word) { return word >> 14; }
static inline uint32_t word_length(uint16_t word) { return word & 0x3FFFu; }
uint32_t container_block_size(const container_t *c, uint32_t block);

/* SHA-256 over a range of the flash, with `prefix` 0x00 for a leaf of the tree, NO_PREFIX for a plain digest. */
#define NO_PREFIX 256u
uint32_t flash_digest(uint32_t at, uint32_t size, uint32_t prefix, uint8_t digest[32]);

#endif
