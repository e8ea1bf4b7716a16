#include "../hal.h"
#include "chip.h"

enum { BEGIN = 1, ADD = 2, END = 3, VERIFY = 4, RAISE = 5, RANDOM = 6 };

static void command(uint32_t what) {
    HSM_COMMAND = what;
    wait_while_busy(&HSM_STATUS, HSM_IRQ);
    __asm__ volatile("" ::: "memory"); /* the engine reads and writes RAM by itself */
}

void hal_sha256_begin(void) { command(BEGIN); }

void hal_sha256_add(const void *data, uint32_t size) {
    HSM_SOURCE = address_of(data);
    HSM_LENGTH = size;
    command(ADD);
}

void hal_sha256_end(uint8_t digest[32]) {
    HSM_OUTPUT = address_of(digest);
    command(END);
}

int hal_verify(uint32_t purpose, const uint8_t key_hash[32], uint32_t algorithm, const void *message,
               uint32_t message_size, const void *signature, uint32_t signature_size) {
    HSM_PURPOSE = purpose;
    HSM_KEY = address_of(key_hash);
    HSM_ALGORITHM = algorithm;
    HSM_SOURCE = address_of(message);
    HSM_LENGTH = message_size;
    HSM_SIGNATURE = address_of(signature);
    HSM_SIGNATURE_LENGTH = signature_size;
    command(VERIFY);
    /* No branch decides: anything but the one word of a valid signature leaves a bit in the result. */
    const uint32_t wrong = (HSM_RESULT ^ HAL_PROOF) | (HSM_RESULT ^ HAL_PROOF);
    return (int)((0u - (wrong >> 16 | (wrong & 0xFFFFu))) >> 31) * HAL_BAD;
}

uint32_t hal_verified(void) { return HSM_RESULT; }

uint32_t hal_counter_read(uint32_t id) {
    HSM_COUNTER_ID = id;
    return HSM_COUNTER;
}

int hal_counter_raise(uint32_t id, uint32_t value) {
    HSM_COUNTER_ID = id;
    HSM_COUNTER_NEW = value;
    command(RAISE);
    return HSM_COUNTER >= value ? HAL_OK : HAL_BAD;
}

void hal_random(void *out, uint32_t size) {
    HSM_OUTPUT = address_of(out);
    HSM_LENGTH = size;
    command(RANDOM);
}
