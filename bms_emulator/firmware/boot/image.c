#include "image.h"

#include <stddef.h>

#include "../hal/hal.h"
#include "regs.h"

#define MAGIC 0x96F3B83Du
#define HEADER 32u
#define HEADER_MAX 4096u
#define FLAG_NON_BOOTABLE 0x10u
#define FLAG_ROM_FIXED 0x100u
#define INFO_FREE 0x6907u
#define INFO_PROTECTED 0x6908u
#define TLV_AREA_MAX 4096u
#define TLV_COUNT_MAX 32u
#define CHUNK 1024u /* bytes hashed at once */
#define LEVELS 16u  /* subtrees of a Merkle tree of up to 2^16 blocks */

/* Types of TLV, as bits of a mask of those seen. */
enum {
    TLV_KEYHASH = 0x01,
    TLV_SHA256 = 0x10,
    TLV_ECDSA = 0x22,
    TLV_ED25519 = 0x24,
    TLV_DEPENDENCY = 0x40,
    TLV_COUNTER = 0x50,
    TLV_VENDOR = 0x74,
    TLV_CLASS = 0x75,
    TLV_SCHEMA = 0xA0,
    TLV_REVISIONS = 0xA1,
    TLV_ROOT = 0xA2,
    TLV_BUILD = 0xA3,
};

/* One row for each TLV that may occur: where, its size (0: any up to `most`), whether it may be repeated. */
typedef struct {
    uint16_t type;
    uint16_t area;
    uint16_t size;
    uint16_t most;
} tlv_row_t;
static const tlv_row_t rows[] = {
    {TLV_COUNTER, INFO_PROTECTED, 4, 4},      {TLV_DEPENDENCY, INFO_PROTECTED, 12, 12},
    {TLV_VENDOR, INFO_PROTECTED, 16, 16},     {TLV_CLASS, INFO_PROTECTED, 16, 16},
    {TLV_SCHEMA, INFO_PROTECTED, 4, 4},       {TLV_REVISIONS, INFO_PROTECTED, 0, 64},
    {TLV_ROOT, INFO_PROTECTED, 32, 32},       {TLV_BUILD, INFO_PROTECTED, 32, 32},
    {TLV_SHA256, INFO_FREE, 32, 32},          {TLV_KEYHASH, INFO_FREE, 32, 32},
    {TLV_ECDSA, INFO_FREE, 0, 72},            {TLV_ED25519, INFO_FREE, 64, 64},
};
#define N_ROWS (sizeof rows / sizeof rows[0])

/* Where the values of the TLVs stand in the flash, by row; 0: not there. */
typedef struct {
    uint32_t at[N_ROWS];
    uint32_t size[N_ROWS];
} found_t;

static uint32_t row_of(uint32_t type) {
    uint32_t row = 0;
    while (row < N_ROWS && rows[row].type != type) {
        ++row;
    }
    return row;
}

static uint32_t half(const uint8_t *bytes) { return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8; }
static uint32_t word(const uint8_t *bytes) { return half(bytes) | half(bytes + 2) << 16; }

static void version_of(const uint8_t *bytes, version_t *version) {
    version->major = bytes[0];
    version->minor = bytes[1];
    version->revision = (uint16_t)half(bytes + 2);
    version->build = word(bytes + 4);
}

int version_compare(const version_t *a, const version_t *b) {
    const uint32_t high_a = (uint32_t)a->major << 24 | (uint32_t)a->minor << 16 | a->revision;
    const uint32_t high_b = (uint32_t)b->major << 24 | (uint32_t)b->minor << 16 | b->revision;
    if (high_a != high_b) {
        return high_a < high_b ? -1 : 1;
    }
    return a->build == b->build ? 0 : a->build < b->build ? -1 : 1;
}

/* Bits that differ, over all bytes: no early end, one value to compare. */
static uint32_t difference(const uint8_t *a, const uint8_t *b, uint32_t size) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < size; ++i) {
        bits |= (uint32_t)(a[i] ^ b[i]);
    }
    return bits;
}

/* TLVs of the area at `at`, which ends inside `end`; the offset behind it in *next. */
static uint32_t walk(uint32_t at, uint32_t end, uint32_t magic, found_t *found, image_t *image, uint32_t *next) {
    uint8_t head[4];
    if (at + 4 > end) {
        return REASON_TRUNCATED;
    }
    if (hal_flash_read(at, head, 4) != HAL_OK) {
        return REASON_FLASH_READ;
    }
    const uint32_t size = half(head + 2);
    if (half(head) != magic) {
        return REASON_FORMAT;
    }
    if (size < 4 || size > TLV_AREA_MAX) {
        return REASON_OVERSIZE;
    }
    if (at + size > end) {
        return REASON_TRUNCATED;
    }
    *next = at + size;
    at += 4;
    for (uint32_t count = 0; at < *next; ++count) {
        if (at + 4 > *next) {
            return REASON_TRUNCATED;
        }
        if (hal_flash_read(at, head, 4) != HAL_OK) {
            return REASON_FLASH_READ;
        }
        const uint32_t length = half(head + 2), row = row_of(half(head));
        at += 4;
        if (length > *next - at) {
            return REASON_TRUNCATED;
        }
        if (row == N_ROWS || rows[row].area != magic) {
            return REASON_UNKNOWN_FIELD;
        }
        const uint32_t repeats = rows[row].type == TLV_DEPENDENCY;
        if (found->at[row] != 0 && !repeats) {
            return REASON_DUPLICATE_FIELD;
        }
        if (count >= TLV_COUNT_MAX) {
            return REASON_OVERSIZE;
        }
        if (rows[row].size != 0 ? length != rows[row].size : length > rows[row].most) {
            return REASON_FORMAT;
        }
        if (repeats) {
            uint8_t value[12];
            if (image->n_dependencies == IMAGE_DEPENDENCIES_MAX) {
                return REASON_OVERSIZE;
            }
            if (hal_flash_read(at, value, 12) != HAL_OK) {
                return REASON_FLASH_READ;
            }
            image->dependency_id[image->n_dependencies] = value[0];
            version_of(value + 4, &image->dependency_version[image->n_dependencies]);
            ++image->n_dependencies;
        }
        found->at[row] = at;
        found->size[row] = length;
        at += length;
    }
    return REASON_OK;
}

/* Value of a TLV of fixed size; HAL_BAD if it is not there. */
static int value_of(const found_t *found, uint32_t type, uint8_t *value) {
    const uint32_t row = row_of(type);
    return found->at[row] == 0 ? HAL_BAD : hal_flash_read(found->at[row], value, rows[row].size);
}

static int has(const found_t *found, uint32_t type) { return found->at[row_of(type)] != 0; }

/* SHA-256 of `size` bytes of flash; `prefix` < 0: none, else one byte before them. */
static uint32_t digest_of(uint32_t at, uint32_t size, int prefix, uint8_t digest[32]) {
    static uint8_t chunk[CHUNK];
    hal_sha256_begin();
    if (prefix >= 0) {
        const uint8_t first = (uint8_t)prefix;
        hal_sha256_add(&first, 1);
    }
    while (size > 0) {
        const uint32_t n = size < CHUNK ? size : CHUNK;
        if (hal_flash_read(at, chunk, n) != HAL_OK) {
            return REASON_FLASH_READ;
        }
        hal_sha256_add(chunk, n);
        at += n;
        size -= n;
    }
    hal_sha256_end(digest);
    return REASON_OK;
}

/* Parent of two hashes; left and right stand one behind the other. */
static void join(const uint8_t pair[64], uint8_t parent[32]) {
    const uint8_t node = 1;
    hal_sha256_begin();
    hal_sha256_add(&node, 1);
    hal_sha256_add(pair, 64);
    hal_sha256_end(parent);
}

/* Merkle root over the blocks of 4 KiB (ota/merkle.py) with one hash for each level. */
static uint32_t root_of(uint32_t at, uint32_t size, uint8_t root[32]) {
    uint8_t stack[LEVELS + 1u][32];
    uint32_t depth = 0, count = 0;
    while (size > 0) {
        const uint32_t n = size < HAL_SECTOR ? size : HAL_SECTOR;
        const uint32_t reason = digest_of(at, n, 0, stack[depth]);
        if (reason != REASON_OK) {
            return reason;
        }
        ++depth;
        for (uint32_t bits = count; bits & 1u; bits >>= 1) {
            --depth;
            join(stack[depth - 1], stack[depth - 1]);
        }
        ++count;
        at += n;
        size -= n;
    }
    while (depth > 1) {
        --depth;
        join(stack[depth - 1], stack[depth - 1]);
    }
    for (uint32_t i = 0; i < 32; ++i) {
        root[i] = stack[0][i];
    }
    return REASON_OK;
}

/* One INTEGER of an ECDSA signature in strict DER into 32 bytes; the offset behind it, 0 if malformed. */
static uint32_t der_integer(const uint8_t *der, uint32_t at, uint32_t end, uint8_t value[32]) {
    if (at + 3 > end || der[at] != 2) {
        return 0;
    }
    const uint32_t size = der[at + 1], padded = size == 33;
    const uint8_t *body = der + at + 2;
    if (size < 1 || size > 33 || at + 2 + size > end || body[0] >= 0x80 || (padded && body[0] != 0)) {
        return 0;
    }
    if (size > 1 && body[0] == 0 && body[1] < 0x80) {
        return 0;
    }
    for (uint32_t i = 0; i < 32; ++i) {
        value[i] = i + size - padded < 32 ? 0 : body[i + size - 32];
    }
    return at + 2 + size;
}

/* DER to r || s; size 0 if malformed. */
static uint32_t der_to_raw(const uint8_t *der, uint32_t size, uint8_t raw[64]) {
    if (size < 8 || der[0] != 0x30 || der[1] != size - 2) {
        return 0;
    }
    const uint32_t at = der_integer(der, 2, size, raw);
    return at != 0 && der_integer(der, at, size, raw + 32) == size ? 64 : 0;
}

/* The image's signature over its digest by a provisioned key. */
static uint32_t verify_signature(const found_t *found, const uint8_t digest[32]) {
    uint8_t key_hash[32], signature[72], raw[64];
    const uint32_t ed25519 = has(found, TLV_ED25519) != 0;
    if (!has(found, TLV_KEYHASH) || (!ed25519 && !has(found, TLV_ECDSA))) {
        return REASON_SIGNATURE_MISSING;
    }
    const uint32_t row = row_of(ed25519 ? TLV_ED25519 : TLV_ECDSA);
    if (value_of(found, TLV_KEYHASH, key_hash) != HAL_OK ||
        hal_flash_read(found->at[row], signature, found->size[row]) != HAL_OK) {
        return REASON_FLASH_READ;
    }
    if (!ed25519 && der_to_raw(signature, found->size[row], raw) != 64) {
        return REASON_SIGNATURE;
    }
    const uint32_t algorithm = ed25519 ? 1 : 3;
    const int verdict = hal_verify(0, key_hash, algorithm, digest, 32, ed25519 ? signature : raw, 64);
    /* No branch: any wrong bit of the verdict or of the engine's proof is a wrong bit of the reason. */
    const uint32_t wrong = (uint32_t)verdict | (hal_verified() ^ HAL_PROOF);
    return ((0u - (wrong >> 16 | (wrong & 0xFFFFu))) >> 31) * REASON_SIGNATURE;
}

typedef struct {
    uint32_t header_size;
    uint32_t protected_size;
    uint32_t body_size;
    uint32_t flags;
    uint32_t load;
} header_t;

static uint32_t read_header(uint32_t at, uint32_t size, header_t *header, version_t *version) {
    uint8_t raw[HEADER];
    if (hal_flash_read(at, raw, HEADER) != HAL_OK) {
        return REASON_FLASH_READ;
    }
    header->load = word(raw + 4);
    header->header_size = half(raw + 8);
    header->protected_size = half(raw + 10);
    header->body_size = word(raw + 12);
    header->flags = word(raw + 16);
    version_of(raw + 20, version);
    if (word(raw) != MAGIC || header->header_size < HEADER || header->header_size > HEADER_MAX) {
        return REASON_FORMAT;
    }
    if ((header->flags & ~(FLAG_NON_BOOTABLE | FLAG_ROM_FIXED)) != 0) {
        return REASON_UNKNOWN_FIELD;
    }
    if (word(raw + 28) != 0 || (!(header->flags & FLAG_ROM_FIXED) && header->load != 0)) {
        return REASON_FORMAT;
    }
    /* No sum of these can wrap: both sizes are below 2^16, and the body is compared before it is added. */
    if (header->body_size > size || header->header_size + header->body_size > size) {
        return REASON_TRUNCATED;
    }
    return REASON_OK;
}

uint32_t image_file_size(uint32_t at, uint32_t size) {
    header_t header;
    version_t version;
    uint8_t info[4];
    if (read_header(at, size, &header, &version) != REASON_OK) {
        return 0;
    }
    const uint32_t free = header.header_size + header.body_size + header.protected_size;
    if (free + 4 > size || hal_flash_read(at + free, info, 4) != HAL_OK || half(info) != INFO_FREE) {
        return 0;
    }
    const uint32_t end = free + half(info + 2);
    return end <= size ? end : 0;
}

/* Vendor, class, revision, load address: made for this device? */
static uint32_t check_device(const found_t *found, const header_t *header, uint32_t bootable,
                             const identity_t *identity) {
    uint8_t value[64];
    if (((header->flags & FLAG_NON_BOOTABLE) == 0) != bootable) {
        return REASON_NOT_BOOTABLE;
    }
    if (value_of(found, TLV_VENDOR, value) != HAL_OK || difference(value, identity->vendor, 16) != 0) {
        return REASON_VENDOR;
    }
    if (value_of(found, TLV_CLASS, value) != HAL_OK || difference(value, identity->class, 16) != 0) {
        return REASON_HARDWARE;
    }
    const uint32_t row = row_of(TLV_REVISIONS);
    if (found->at[row] != 0) {
        uint32_t known = 0;
        if (hal_flash_read(found->at[row], value, found->size[row]) != HAL_OK) {
            return REASON_FLASH_READ;
        }
        for (uint32_t i = 0; i + 1 < found->size[row]; i += 2) {
            known |= half(value + i) == identity->hardware_revision;
        }
        if (!known) {
            return REASON_HARDWARE_REVISION;
        }
    }
    if (bootable && (header->flags & FLAG_ROM_FIXED) && header->load != XIP_BASE) {
        return REASON_LOAD_ADDRESS;
    }
    return REASON_OK;
}

/* Values of the protected TLVs into the image. */
static uint32_t read_values(const found_t *found, image_t *image) {
    uint8_t value[4];
    const uint32_t revisions = row_of(TLV_REVISIONS);
    if (found->at[revisions] != 0 && (found->size[revisions] % 2 != 0 || found->size[revisions] == 0)) {
        return REASON_FORMAT;
    }
    if (has(found, TLV_SCHEMA)) {
        if (value_of(found, TLV_SCHEMA, value) != HAL_OK) {
            return REASON_FLASH_READ;
        }
        image->schema_least = (uint16_t)half(value);
        image->schema_greatest = (uint16_t)half(value + 2);
        image->has_schema = 1;
        if (image->schema_least > image->schema_greatest) {
            return REASON_FORMAT;
        }
    }
    if (has(found, TLV_COUNTER)) {
        if (value_of(found, TLV_COUNTER, value) != HAL_OK) {
            return REASON_FLASH_READ;
        }
        image->security_counter = word(value);
    }
    return REASON_OK;
}

static uint32_t check_counter(const found_t *found, const image_t *image, uint32_t least) {
    if (!has(found, TLV_COUNTER)) {
        return REASON_SECURITY_COUNTER_MISSING;
    }
    if (image->security_counter > SECURITY_COUNTER_MAX) {
        return REASON_SECURITY_COUNTER_CAPACITY;
    }
    return image->security_counter < least ? REASON_SECURITY_COUNTER_LOW : REASON_OK;
}

/* Digest and Merkle root over what stands in the flash. */
static uint32_t check_integrity(const found_t *found, uint32_t at, uint32_t head, uint32_t signed_size,
                                image_t *image) {
    uint8_t claimed[32], root[32];
    uint32_t reason = digest_of(at, signed_size, -1, image->sha256);
    if (reason != REASON_OK) {
        return reason;
    }
    if (value_of(found, TLV_SHA256, claimed) != HAL_OK || difference(claimed, image->sha256, 32) != 0) {
        return REASON_DIGEST;
    }
    if (!has(found, TLV_ROOT)) {
        return REASON_OK;
    }
    reason = root_of(at, head, root);
    if (reason != REASON_OK) {
        return reason;
    }
    const int read = value_of(found, TLV_ROOT, claimed);
    return read != HAL_OK || difference(claimed, root, 32) != 0 ? REASON_MERKLE : REASON_OK;
}

/* Each check multiplies what came before with a number of its own, and its reason spoils the product: the proof
 * cannot come out right if one of them was left out, taken twice or taken in another order. */
static uint32_t step(uint32_t proof, uint32_t number, uint32_t reason) {
    __asm__("" : "+r"(reason)); /* the compiler must not conclude from a branch behind it that it is 0 */
    return (proof * 0x01000193u + number) ^ (reason * 0x9E3779B1u);
}

/* The proof of a clean pass: steps 1 to 7, folded at compile time into IMAGE_PROOF by `spread`. */
#define STEP(proof, number) ((proof) * 0x01000193u + (number))
#define CLEAN STEP(STEP(STEP(STEP(STEP(STEP(STEP(0x811C9DC5u, 1u), 2u), 3u), 4u), 5u), 6u), 7u)

uint32_t image_verify(uint32_t at, uint32_t size, uint32_t bootable, uint32_t least_counter,
                      const identity_t *identity, image_t *image) {
    header_t header;
    found_t found;
    uint32_t next = 0, end = 0;
    for (uint32_t i = 0; i < N_ROWS; ++i) {
        found.at[i] = found.size[i] = 0;
    }
    image->proof = 0;
    image->security_counter = 0;
    image->has_schema = image->n_dependencies = 0;
    image->schema_least = image->schema_greatest = 0;
    uint32_t proof = 0x811C9DC5u;

    uint32_t reason = read_header(at, size, &header, &image->version);
    if (reason != REASON_OK) {
        return reason;
    }
    const uint32_t head = header.header_size + header.body_size;
    image->header_size = header.header_size;
    image->body_size = header.body_size;
    uint32_t signed_end = at + head;
    if (header.protected_size != 0) {
        reason = walk(signed_end, at + size, INFO_PROTECTED, &found, image, &next);
        if (reason == REASON_OK && next - signed_end != header.protected_size) {
            reason = REASON_FORMAT;
        }
        if (reason != REASON_OK) {
            return reason;
        }
        signed_end = next;
    }
    reason = walk(signed_end, at + size, INFO_FREE, &found, image, &end);
    if (reason != REASON_OK) {
        return reason;
    }
    image->file_size = end - at;
    if (!has(&found, TLV_SHA256)) {
        return REASON_MISSING_FIELD;
    }
    if (has(&found, TLV_ED25519) && has(&found, TLV_ECDSA)) {
        return REASON_DUPLICATE_FIELD;
    }
    proof = step(proof, 1, reason);

    /* Values of the TLVs, then in the order of ota/image.py: digest, signature, device, counter. */
    reason = read_values(&found, image);
    proof = step(proof, 2, reason);
    if (reason != REASON_OK) {
        return reason;
    }
    reason = check_integrity(&found, at, head, signed_end - at, image);
    proof = step(proof, 3, reason);
    if (reason != REASON_OK) {
        return reason;
    }
    reason = verify_signature(&found, image->sha256);
    proof = step(proof, 4, reason | (hal_verified() ^ HAL_PROOF));
    if (reason != REASON_OK) {
        return reason;
    }
    reason = check_device(&found, &header, bootable, identity);
    proof = step(proof, 5, reason);
    if (reason != REASON_OK) {
        return reason;
    }
    reason = check_counter(&found, image, least_counter);
    proof = step(proof, 6, reason);
    if (reason != REASON_OK) {
        return reason;
    }
    proof = step(proof, 7, reason);
    image->proof = proof ^ CLEAN ^ IMAGE_PROOF;
    return image->proof == IMAGE_PROOF ? REASON_OK : REASON_SIGNATURE;
}

static uint32_t check_dependencies(const image_t *image, const image_t *firmware, const image_t *parameters) {
    for (uint32_t i = 0; image != NULL && i < image->n_dependencies; ++i) {
        const image_t *other = image->dependency_id[i] == 1 ? parameters : firmware;
        if (other == NULL || version_compare(&other->version, &image->dependency_version[i]) < 0) {
            return REASON_DEPENDENCY;
        }
    }
    return REASON_OK;
}

uint32_t image_check_set(const image_t *firmware, const image_t *parameters) {
    uint32_t reason = check_dependencies(firmware, firmware, parameters);
    if (reason == REASON_OK) {
        reason = check_dependencies(parameters, firmware, parameters);
    }
    if (reason != REASON_OK || firmware == NULL || parameters == NULL || !firmware->has_schema) {
        return reason;
    }
    const int fits = parameters->has_schema && firmware->schema_least <= parameters->schema_least &&
                     parameters->schema_greatest <= firmware->schema_greatest;
    return fits ? REASON_OK : REASON_PARAMETER_SCHEMA;
}
