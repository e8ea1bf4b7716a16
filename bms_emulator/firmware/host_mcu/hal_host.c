#include "hal_host.h"

#include <setjmp.h>
#include <stddef.h>
#include <string.h>

#include "../update/cbor.h"
#include "../update/reason.h"

static host_mcu_t *now; /* the controller that runs */
static jmp_buf leave;   /* out of its code */
static host_digest_t ask_digest;
static host_verify_t ask_verify;
static host_parameters_t ask_parameters;
/* The hash under way: gathered here, so that a digest is one question. */
static uint8_t gathered[FLASH_SIZE + 64];
static uint32_t gathered_size;
static uint32_t verified; /* what the last verification has proved */

/* Runs a statement as the controller's code; gives HOST_DONE, or how the code was left. */
#define RUN(m, statement)                  \
    do {                                   \
        now = (m);                         \
        const int how_left = setjmp(leave); \
        if (how_left != 0) {               \
            return (uint32_t)how_left;     \
        }                                  \
        statement;                         \
        return HOST_DONE;                  \
    } while (0)

static uint32_t chance(void) {
    /* xorshift64*: cuts must repeat from their seed. */
    now->random ^= now->random >> 12;
    now->random ^= now->random << 25;
    now->random ^= now->random >> 27;
    return (uint32_t)((now->random * UINT64_C(0x2545F4914F6CDD1D)) >> 32);
}

/* ---- flash ------------------------------------------------------------------------------------------------- */

static int permitted(uint32_t at, uint32_t size, uint32_t fault) {
    if (at > FLASH_SIZE || size > FLASH_SIZE - at) {
        return HAL_RANGE;
    }
    for (uint32_t i = 0; i < now->n_protected; ++i) {
        if (at < now->protected_at[i] + now->protected_size[i] && now->protected_at[i] < at + size) {
            return HAL_PROTECTED;
        }
    }
    for (uint32_t sector = at / HAL_SECTOR; sector * HAL_SECTOR < at + size; ++sector) {
        if (now->sector_fault[sector] == fault) {
            return HAL_WORN;
        }
    }
    return HAL_OK;
}

/* Bytes to do of the next operation; all of them unless the supply fails in it. */
static uint32_t next_operation(uint32_t size) {
    const uint32_t number = now->operations++;
    if (number < HOST_LENGTHS_MAX) {
        now->length[number] = size;
    }
    if (number != now->cut_at) {
        return size;
    }
    if (now->cut_inside == HOST_NO_CUT) {
        longjmp(leave, HOST_CUT);
    }
    return now->cut_inside < size ? now->cut_inside : size;
}

int hal_flash_erase(uint32_t at) {
    const uint32_t start = at / HAL_SECTOR * HAL_SECTOR;
    const int status = permitted(start, HAL_SECTOR, SECTOR_ERASE_FAILS);
    if (status != HAL_OK) {
        return status;
    }
    const uint32_t cut = now->operations == now->cut_at;
    const uint32_t part = next_operation(HAL_SECTOR);
    if (now->unstable_at - start < HAL_SECTOR) {
        now->unstable_mask = 0;
    }
    for (uint32_t i = 0; i < HAL_SECTOR; ++i) {
        if (!cut || i < part || chance() & 1u) {
            now->flash[start + i] = 0xFF; /* an erase that stops leaves a mixture */
        }
    }
    if (cut) {
        longjmp(leave, HOST_CUT);
    }
    ++now->erases[start / HAL_SECTOR];
    return HAL_OK;
}

int hal_flash_program(uint32_t at, const void *data, uint32_t size) {
    const uint8_t *bytes = data;
    if (at % 4 != 0 || size % 4 != 0) {
        return HAL_RANGE;
    }
    const int status = permitted(at, size, SECTOR_PROGRAM_FAILS);
    if (status != HAL_OK) {
        return status;
    }
    const uint32_t cut = now->operations == now->cut_at;
    const uint32_t part = next_operation(size);
    if (now->unstable_at - at < part) {
        now->unstable_mask = 0;
    }
    int good = 1;
    for (uint32_t i = 0; i < part; ++i) {
        now->flash[at + i] &= bytes[i];
        good &= now->flash[at + i] == bytes[i];
    }
    if (cut) {
        if (part < size) {
            /* The word under way: bits on their way to 0 read as they like until it is programmed or erased. */
            now->unstable_at = (at + part) & ~3u;
            now->unstable_mask = 0;
            for (uint32_t i = (at + part) & 3u; i < 4; ++i) {
                const uint32_t place = now->unstable_at + i;
                const uint32_t moving = now->flash[place] & ~(uint32_t)bytes[place - at];
                now->unstable_mask |= (moving & chance()) << (8 * i);
            }
        }
        longjmp(leave, HOST_CUT);
    }
    return good ? HAL_OK : HAL_BAD;
}

int hal_flash_read(uint32_t at, void *data, uint32_t size) {
    if (at > FLASH_SIZE || size > FLASH_SIZE - at) {
        return HAL_RANGE;
    }
    for (uint32_t sector = at / HAL_SECTOR; sector * HAL_SECTOR < at + size; ++sector) {
        if (now->sector_fault[sector] == SECTOR_ECC) {
            return HAL_ECC;
        }
    }
    memcpy(data, now->flash + at, size);
    if (now->unstable_mask != 0 && now->unstable_at < at + size && at < now->unstable_at + 4) {
        const uint32_t noise = now->unstable_mask & chance();
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t place = now->unstable_at + i;
            if (place >= at && place < at + size) {
                ((uint8_t *)data)[place - at] &= (uint8_t)~(noise >> (8 * i));
            }
        }
    }
    return HAL_OK;
}

void hal_flash_protect(uint32_t at, uint32_t size) {
    if (now->n_protected < 8) {
        now->protected_at[now->n_protected] = at;
        now->protected_size[now->n_protected] = size;
        ++now->n_protected;
    }
}

/* ---- crypto ------------------------------------------------------------------------------------------------ */

void hal_sha256_begin(void) {
    gathered_size = 0;
    verified = 0;
}

void hal_sha256_add(const void *data, uint32_t size) {
    if (size <= sizeof(gathered) - gathered_size) {
        memcpy(gathered + gathered_size, data, size);
        gathered_size += size;
    }
}

void hal_sha256_end(uint8_t digest[32]) { ask_digest(gathered, gathered_size, digest); }

int hal_verify(uint32_t purpose, const uint8_t key_hash[32], uint32_t algorithm, const void *message,
               uint32_t message_size, const void *signature, uint32_t signature_size) {
    const int verdict =
        ask_verify(now->handle, purpose, key_hash, algorithm, message, message_size, signature, signature_size);
    verified = verdict == HAL_OK ? HAL_PROOF : ~HAL_PROOF;
    return verdict;
}

uint32_t hal_verified(void) { return verified; }

uint32_t hal_counter_read(uint32_t id) { return id < 8 ? now->counter[id] : 0; }

int hal_counter_raise(uint32_t id, uint32_t value) {
    if (id >= 8) {
        return HAL_RANGE;
    }
    if (value > now->counter[id]) {
        /* Atomic under power failure, as hal.h promises: a cut inside comes before it. */
        const uint32_t cut = now->operations == now->cut_at;
        if (next_operation(4) < 4 || cut) {
            longjmp(leave, HOST_CUT);
        }
        now->counter[id] = value;
    }
    return HAL_OK;
}

void hal_random(void *out, uint32_t size) {
    for (uint32_t i = 0; i < size; ++i) {
        ((uint8_t *)out)[i] = (uint8_t)chance();
    }
}

/* ---- mailbox, time, reset ---------------------------------------------------------------------------------- */

uint32_t hal_mailbox_receive(void *frame, uint32_t capacity) {
    const uint32_t size = now->in_size;
    now->in_size = 0;
    if (size > capacity) {
        return 0;
    }
    memcpy(frame, now->in, size);
    return size;
}

int hal_mailbox_send(const void *frame, uint32_t size) {
    if (size + 2 > HOST_OUT_MAX - now->out_size) {
        return HAL_BUSY;
    }
    now->out[now->out_size] = (uint8_t)size;
    now->out[now->out_size + 1] = (uint8_t)(size >> 8);
    memcpy(now->out + now->out_size + 2, frame, size);
    now->out_size += 2 + size;
    return HAL_OK;
}

uint64_t hal_time_us(void) { return now->time_us; }
void hal_watchdog_feed(void) {}
uint32_t hal_reset_cause(void) { return now->cause; }

_Noreturn void hal_reset(uint32_t why) {
    now->cause = HAL_CAUSE_SOFTWARE;
    now->why = why;
    longjmp(leave, HOST_RESET);
}

void hal_console(const char *text, uint32_t size) {
    (void)text;
    (void)size;
}

uint32_t ota_app_check_parameters(uint32_t body_at, uint32_t body_size, uint32_t firmware_slot) {
    return ask_parameters(now->handle, body_at, body_size, firmware_slot);
}

/* ---- for the caller ---------------------------------------------------------------------------------------- */

uint32_t host_size(void) { return sizeof(host_mcu_t); }

void host_callbacks(host_digest_t digest, host_verify_t verify, host_parameters_t parameters) {
    ask_digest = digest;
    ask_verify = verify;
    ask_parameters = parameters;
}

uint32_t host_offset(uint32_t which) {
    static const uint32_t offsets[] = {
        offsetof(host_mcu_t, flash),        offsetof(host_mcu_t, in),     offsetof(host_mcu_t, out),
        offsetof(host_mcu_t, erases),       offsetof(host_mcu_t, length), offsetof(host_mcu_t, counter),
        offsetof(host_mcu_t, sector_fault),
    };
    return which < sizeof(offsets) / sizeof(offsets[0]) ? offsets[which] : sizeof(ota_ctx_t);
}

void host_init(host_mcu_t *m, uint64_t handle, uint64_t seed, const identity_t *identity) {
    memset(m, 0, sizeof(*m));
    memset(m->flash, 0xFF, sizeof(m->flash));
    m->handle = handle;
    m->random = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    m->identity = *identity;
    m->cut_at = HOST_NO_CUT;
    m->cause = HAL_CAUSE_POWER_ON;
}

void host_arm(host_mcu_t *m, uint32_t cut_at, uint32_t cut_inside) {
    m->operations = 0;
    m->cut_at = cut_at;
    m->cut_inside = cut_inside;
}

uint32_t host_operations(const host_mcu_t *m) { return m->operations; }

uint32_t host_rom(host_mcu_t *m, uint32_t cause, uint32_t why) {
    m->cause = cause;
    m->why = why;
    m->n_protected = 0;
    m->in_size = 0;
    m->out_size = 0;
    m->decision.run = 0;
    if (cause == HAL_CAUSE_POWER_ON || cause == HAL_CAUSE_BROWN_OUT) {
        m->keep = 0;
    }
    memset(&m->agent, 0xA5, sizeof(m->agent));
    RUN(m, rom_decide(rom_by_image(cause, why), &m->keep, &m->identity, &m->decision));
}

const decision_t *host_decision(const host_mcu_t *m) { return &m->decision; }

uint32_t host_start(host_mcu_t *m, const ota_identity_t *identity, uint32_t self_test_passed, uint32_t conditions) {
    RUN(m, {
        ota_init(&m->agent, identity, conditions);
        m->agent.self_test_passed = self_test_passed;
    });
}

uint32_t host_step(host_mcu_t *m, uint32_t in_size) {
    m->in_size = in_size;
    m->out_size = 0;
    RUN(m, while (ota_step(&m->agent)) {});
}

void host_status(host_mcu_t *m) {
    now = m;
    m->out_size = 0;
    ota_send_status(&m->agent);
}

uint32_t host_out_size(const host_mcu_t *m) { return m->out_size; }
uint32_t host_why(const host_mcu_t *m) { return m->why; }

void host_conditions(host_mcu_t *m, uint32_t conditions, uint64_t clock_s, uint64_t time_us) {
    m->agent.conditions = conditions;
    m->agent.clock_s = clock_s;
    m->time_us = time_us;
}

void host_counters(host_mcu_t *m, uint32_t values[4]) {
    counters_t row;
    now = m;
    counters_get(&row);
    values[0] = row.security;
    values[1] = row.parameters;
    values[2] = row.manifest;
    values[3] = row.sequence;
}

uint32_t host_journal(host_mcu_t *m, journal_t *row) {
    now = m;
    return (uint32_t)journal_get(row);
}

uint32_t host_protected(host_mcu_t *m, uint32_t at) {
    now = m;
    return permitted(at, 1, SECTOR_GOOD + 99u) == HAL_PROTECTED;
}

int host_program(host_mcu_t *m, uint32_t at, const uint8_t *data, uint32_t size) {
    now = m;
    return hal_flash_program(at, data, size);
}

int host_erase(host_mcu_t *m, uint32_t at) {
    now = m;
    return hal_flash_erase(at);
}

/* ---- parsers alone ----------------------------------------------------------------------------------------- */

uint32_t host_cbor(const uint8_t *data, uint32_t size) { return cbor_check(data, size); }

uint32_t host_manifest(host_mcu_t *m, uint8_t *data, uint32_t size, const ota_identity_t *identity,
                       uint32_t *sequence) {
    manifest_t manifest;
    now = m;
    const uint32_t reason = manifest_verify(&manifest, data, size, identity);
    *sequence = reason == OTA_OK ? manifest.sequence : 0;
    return reason;
}

uint32_t host_frame(const uint8_t *data, uint32_t size, uint32_t *type) {
    uint32_t payload = 0;
    return frame_check(data, size, type, &payload);
}

uint32_t host_patch(host_mcu_t *m, const uint8_t *record, uint32_t size, uint32_t base_size, uint32_t target_size,
                    uint32_t piece, uint8_t *block) {
    now = m;
    patch_begin(&m->agent.patch, size, target_size, FLASH_SLOT_0_AT, base_size);
    for (uint32_t at = 0; at < size; at += piece) {
        patch_feed(&m->agent.patch, record + at, size - at < piece ? size - at : piece, block);
    }
    return patch_end(&m->agent.patch);
}

uint32_t host_container(const uint8_t *data, uint32_t size) {
    container_t head;
    uint16_t words[OTA_BLOCKS_MAX];
    if (size < CONTAINER_HEADER) {
        return OTA_TRUNCATED;
    }
    const uint32_t reason = container_header(&head, data);
    if (reason != OTA_OK) {
        return reason;
    }
    if (head.n_blocks > OTA_BLOCKS_MAX) {
        return OTA_SLOT_SIZE;
    }
    if (size < CONTAINER_HEADER + 2 * head.n_blocks) {
        return OTA_TRUNCATED;
    }
    container_words(&head, data, words);
    return container_check(&head, words);
}

uint32_t host_image(host_mcu_t *m, uint32_t bootable, uint32_t least_counter, image_t *image) {
    now = m;
    memset(image, 0, sizeof(*image));
    const uint32_t at = bootable ? FLASH_SLOT_0_AT : FLASH_PARAMETERS_0_AT;
    const uint32_t size = bootable ? FLASH_SLOT_0_SIZE : FLASH_PARAMETERS_0_SIZE;
    return image_verify(at, size, bootable, least_counter, &m->identity, image);
}
