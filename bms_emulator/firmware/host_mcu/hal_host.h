/* hal.h on the host: one controller is one block of memory, many can live in a process (one at a time runs).
 *
 * Flash is an array with the faults that matter: the supply fails before an operation or inside it after k bytes, the
 * word under way stays unstable, sectors wear out or lose their ECC. Digests, signatures and the application's view of
 * parameter sets are asked of the caller (Python: hashlib, cryptography). Functions return a HOST_* outcome; a power
 * cut or a reset leaves the C code by longjmp, as it leaves the firmware on the chip. */
#ifndef HAL_HOST_H
#define HAL_HOST_H

#include "../boot/rom.h"
#include "../hal/hal.h"
#include "../update/agent.h"
#include "regs.h"

#define HOST_EXPORT __attribute__((visibility("default")))
#define HOST_SECTORS (FLASH_SIZE / HAL_SECTOR)
#define HOST_OUT_MAX 2048u
#define HOST_LENGTHS_MAX 4096u

enum { HOST_DONE = 0, HOST_CUT = 1, HOST_RESET = 2 };
enum { SECTOR_GOOD = 0, SECTOR_PROGRAM_FAILS = 1, SECTOR_ERASE_FAILS = 2, SECTOR_ECC = 3 };
#define HOST_NO_CUT 0xFFFFFFFFu

typedef struct {
    ota_ctx_t agent;
    decision_t decision;
    identity_t identity; /* of the ROM */
    uint64_t handle;     /* given to the callbacks */
    uint64_t time_us;
    uint64_t random;
    uint32_t operations; /* erase and program calls since host_arm */
    uint32_t cut_at;     /* operation that the supply fails in, HOST_NO_CUT: none */
    uint32_t cut_inside; /* bytes done of it, HOST_NO_CUT: stops before it */
    uint32_t unstable_at; /* word that reads differently each time in the bits of the mask */
    uint32_t unstable_mask;
    uint32_t n_protected;
    uint32_t protected_at[8];
    uint32_t protected_size[8];
    uint32_t counter[8];
    uint32_t keep;
    uint32_t cause;
    uint32_t why;
    uint32_t in_size;
    uint32_t out_size;
    uint8_t in[FRAME_MAX];
    uint8_t out[HOST_OUT_MAX]; /* frames sent: size u16, bytes */
    uint32_t erases[HOST_SECTORS];
    uint8_t sector_fault[HOST_SECTORS];
    uint32_t length[HOST_LENGTHS_MAX]; /* bytes of the operations since host_arm */
    uint8_t flash[FLASH_SIZE];
} host_mcu_t;

typedef void (*host_digest_t)(const uint8_t *data, uint32_t size, uint8_t *digest);
typedef int (*host_verify_t)(uint64_t handle, uint32_t purpose, const uint8_t *key_hash, uint32_t algorithm,
                             const uint8_t *message, uint32_t message_size, const uint8_t *signature,
                             uint32_t signature_size);
typedef uint32_t (*host_parameters_t)(uint64_t handle, uint32_t body_at, uint32_t body_size, uint32_t slot);

HOST_EXPORT uint32_t host_size(void);
HOST_EXPORT void host_callbacks(host_digest_t digest, host_verify_t verify, host_parameters_t parameters);
/* Field offsets for the caller: flash, in, out, erases, sector_fault, length, in this order. */
HOST_EXPORT uint32_t host_offset(uint32_t which);
HOST_EXPORT void host_init(host_mcu_t *m, uint64_t handle, uint64_t seed, const identity_t *identity);
/* Plan a cut, counted from now. */
HOST_EXPORT void host_arm(host_mcu_t *m, uint32_t cut_at, uint32_t cut_inside);
HOST_EXPORT uint32_t host_operations(const host_mcu_t *m);

/* One pass of the boot ROM after a reset. RAM and protection are lost; `power`: the supply had failed, which also
 * clears what survives other resets. */
HOST_EXPORT uint32_t host_rom(host_mcu_t *m, uint32_t cause, uint32_t why);
HOST_EXPORT const decision_t *host_decision(const host_mcu_t *m);
/* Start of the agent in the firmware that the ROM chose. */
HOST_EXPORT uint32_t host_start(host_mcu_t *m, const ota_identity_t *identity, uint32_t self_test_passed,
                                uint32_t conditions);
/* The frame of in_size bytes in `in` to the agent; its answers stand in `out`. */
HOST_EXPORT uint32_t host_step(host_mcu_t *m, uint32_t in_size);
/* The STATUS frame as of now into `out`. */
HOST_EXPORT void host_status(host_mcu_t *m);
HOST_EXPORT uint32_t host_out_size(const host_mcu_t *m);
HOST_EXPORT uint32_t host_why(const host_mcu_t *m);
HOST_EXPORT void host_conditions(host_mcu_t *m, uint32_t conditions, uint64_t clock_s, uint64_t time_us);
HOST_EXPORT void host_counters(host_mcu_t *m, uint32_t values[4]);
HOST_EXPORT uint32_t host_journal(host_mcu_t *m, journal_t *row);
HOST_EXPORT uint32_t host_protected(host_mcu_t *m, uint32_t at);
/* A plain write through the HAL, as a fault in the firmware would do it: what the HAL said. */
HOST_EXPORT int host_program(host_mcu_t *m, uint32_t at, const uint8_t *data, uint32_t size);
HOST_EXPORT int host_erase(host_mcu_t *m, uint32_t at);

/* The parsers alone, for fuzzing: reason. */
HOST_EXPORT uint32_t host_cbor(const uint8_t *data, uint32_t size);
HOST_EXPORT uint32_t host_manifest(host_mcu_t *m, uint8_t *data, uint32_t size, const ota_identity_t *identity,
                                   uint32_t *sequence);
HOST_EXPORT uint32_t host_frame(const uint8_t *data, uint32_t size, uint32_t *type);
/* A record against a base that stands at the start of slot 0; fed in pieces of `piece` bytes. */
HOST_EXPORT uint32_t host_patch(host_mcu_t *m, const uint8_t *record, uint32_t size, uint32_t base_size,
                                uint32_t target_size, uint32_t piece, uint8_t *block);
/* Header and words of a container. */
HOST_EXPORT uint32_t host_container(const uint8_t *data, uint32_t size);
/* The image in slot 0 or parameter copy 0. */
HOST_EXPORT uint32_t host_image(host_mcu_t *m, uint32_t bootable, uint32_t least_counter, image_t *image);

#endif
