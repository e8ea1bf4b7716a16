/* MCUboot-format images (ota/image.py): parsed strictly, verified against what is provisioned.
 *
 * Results are the reason codes of ota/errors.py; 0 is accepted. `image_verify` reads the flash through the HAL only.
 */
#ifndef BOOT_IMAGE_H
#define BOOT_IMAGE_H

#include <stdint.h>

enum {
    REASON_OK = 0,
    REASON_FORMAT = 100,
    REASON_TRUNCATED = 101,
    REASON_OVERSIZE = 103,
    REASON_DUPLICATE_FIELD = 106,
    REASON_MISSING_FIELD = 107,
    REASON_UNKNOWN_FIELD = 108,
    REASON_SIGNATURE = 200,
    REASON_SIGNATURE_MISSING = 201,
    REASON_DIGEST = 206,
    REASON_MERKLE = 217,
    REASON_HARDWARE = 300,
    REASON_HARDWARE_REVISION = 301,
    REASON_VENDOR = 302,
    REASON_LOAD_ADDRESS = 303,
    REASON_SECURITY_COUNTER_LOW = 304,
    REASON_SECURITY_COUNTER_MISSING = 305,
    REASON_SECURITY_COUNTER_CAPACITY = 306,
    REASON_DEPENDENCY = 309,
    REASON_PARAMETER_SCHEMA = 310,
    REASON_INCOMPLETE_SET = 316,
    REASON_NOT_BOOTABLE = 317,
    REASON_FLASH_PROGRAM = 500,
    REASON_FLASH_READ = 502,
    REASON_SELF_TEST = 503,
    REASON_BOOT_ATTEMPTS = 504,
};

#define SECURITY_COUNTER_MAX 0xFFFFu
#define IMAGE_DEPENDENCIES_MAX 4u

/* What is fixed at manufacture; lies in the last bytes of the ROM. */
typedef struct {
    uint8_t vendor[16];
    uint8_t class[16];
    uint32_t hardware_revision;
} identity_t;
_Static_assert(sizeof(identity_t) == 36, "as board.py writes it");

typedef struct {
    uint8_t major;
    uint8_t minor;
    uint16_t revision;
    uint32_t build;
} version_t;

typedef struct {
    uint32_t file_size; /* header to the end of the last TLV */
    uint32_t header_size;
    uint32_t body_size;
    uint32_t security_counter;
    version_t version;
    uint16_t schema_least; /* parameter schema, if has_schema */
    uint16_t schema_greatest;
    uint8_t has_schema;
    uint8_t n_dependencies;
    uint8_t dependency_id[IMAGE_DEPENDENCIES_MAX];
    uint16_t zero;
    version_t dependency_version[IMAGE_DEPENDENCIES_MAX];
    uint8_t sha256[32]; /* digest of what is signed */
    uint32_t proof;     /* IMAGE_PROOF only if every check was passed, one after the other */
} image_t;

#define IMAGE_PROOF 0x6B8E2D47u

/* Verifies the image at `at` (flash offset) in a partition of `size` bytes. bootable: 1 firmware, 0 parameter set.
 * Fills `image` as far as it got. */
uint32_t image_verify(uint32_t at, uint32_t size, uint32_t bootable, uint32_t least_counter,
                      const identity_t *identity, image_t *image);

/* Whether firmware and parameter set (either may be NULL: not there) may run together. */
uint32_t image_check_set(const image_t *firmware, const image_t *parameters);

/* Size of the file at `at` by its own lengths, 0 if there is none; trusts nothing. */
uint32_t image_file_size(uint32_t at, uint32_t size);

/* Negative, 0, positive as a is lower than, equal to, higher than b. */
int version_compare(const version_t *a, const version_t *b);

#endif
