#include "records.h"

#include "../hal/hal.h"
#include "regs.h"

#define JOURNAL_MAGIC 0x31544C53u  /* "SLT1" */
#define COUNTERS_MAGIC 0x31525443u /* "CTR1" */
#define JOURNAL_WORDS 6u           /* without the CRC */
#define COUNTERS_WORDS 5u
#define WORDS_MAX 8u

enum { COUNTER_SECURITY = 0, COUNTER_PARAMETERS = 1, COUNTER_MANIFEST = 2 };

static const uint32_t journal_at[2] = {FLASH_JOURNAL_0_AT, FLASH_JOURNAL_1_AT};
static const uint32_t counters_at[2] = {FLASH_COUNTERS_0_AT, FLASH_COUNTERS_1_AT};

uint32_t crc32_of(const void *data, uint32_t size) {
    const uint8_t *byte = data;
    uint32_t crc = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < size; ++i) {
        crc ^= byte[i];
        for (uint32_t bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

/* Newest valid record of two copies into `words` (CRC last); its address, or 0xFFFFFFFF if there is none. */
static uint32_t newest(const uint32_t at[2], uint32_t magic, uint32_t n, uint32_t words[WORDS_MAX]) {
    uint32_t best = 0xFFFFFFFFu;
    for (uint32_t copy = 0; copy < 2; ++copy) {
        uint32_t raw[WORDS_MAX];
        if (hal_flash_read(at[copy], raw, 4 * (n + 1)) != HAL_OK) {
            continue;
        }
        if (raw[0] != magic || raw[n] != crc32_of(raw, 4 * n)) {
            continue;
        }
        const uint32_t ahead = raw[1] - words[1];
        if (best != 0xFFFFFFFFu && (ahead == 0 || ahead >= 0x80000000u)) {
            continue;
        }
        best = at[copy];
        for (uint32_t i = 0; i <= n; ++i) {
            words[i] = raw[i];
        }
    }
    return best;
}

/* Writes a record into the copy that does not hold the newest one. */
static int put(const uint32_t at[2], uint32_t n, uint32_t words[WORDS_MAX]) {
    words[n] = crc32_of(words, 4 * n);
    const uint32_t to = at[words[1] & 1u];
    const int status = hal_flash_erase(to);
    return status != HAL_OK ? status : hal_flash_program(to, words, 4 * (n + 1));
}

int journal_get(journal_t *row) {
    uint32_t w[WORDS_MAX] = {0};
    if (newest(journal_at, JOURNAL_MAGIC, JOURNAL_WORDS, w) == 0xFFFFFFFFu) {
        return 0;
    }
    row->sequence = w[1];
    row->slot = w[2] & 0xFFu;
    row->parameters = (w[2] >> 8) & 0xFFu;
    row->previous_slot = (w[2] >> 16) & 0xFFu;
    row->previous_parameters = (w[2] >> 24) & 0xFFu;
    row->state = w[3] & 0xFFu;
    row->boots = (w[3] >> 8) & 0xFFu;
    row->reason = (w[3] >> 16) & 0xFFFFu;
    for (uint32_t i = 0; i < 8; ++i) {
        row->manifest8[i] = (uint8_t)(w[4 + i / 4] >> (8 * (i % 4)));
    }
    return 1;
}

int journal_put(const journal_t *row) {
    uint32_t w[WORDS_MAX] = {JOURNAL_MAGIC, row->sequence};
    w[2] = (uint32_t)row->slot | (uint32_t)row->parameters << 8 | (uint32_t)row->previous_slot << 16 |
           (uint32_t)row->previous_parameters << 24;
    w[3] = (uint32_t)row->state | (uint32_t)row->boots << 8 | (uint32_t)row->reason << 16;
    for (uint32_t i = 0; i < 8; ++i) {
        w[4 + i / 4] |= (uint32_t)row->manifest8[i] << (8 * (i % 4));
    }
    return put(journal_at, JOURNAL_WORDS, w);
}

int journal_settle(void) {
    uint32_t w[WORDS_MAX] = {0};
    const uint32_t at = newest(journal_at, JOURNAL_MAGIC, JOURNAL_WORDS, w);
    return at == 0xFFFFFFFFu ? HAL_BAD : hal_flash_program(at, w, 4 * (JOURNAL_WORDS + 1u));
}

static uint32_t greater(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* As in flash, without the HSM: what decides whether a record has to be written. */
static void counters_in_flash(counters_t *row) {
    uint32_t w[WORDS_MAX] = {0};
    (void)newest(counters_at, COUNTERS_MAGIC, COUNTERS_WORDS, w);
    row->sequence = w[1];
    row->security = w[2];
    row->parameters = w[3];
    row->manifest = w[4];
}

void counters_get(counters_t *row) {
    counters_in_flash(row);
    row->security = greater(row->security, hal_counter_read(COUNTER_SECURITY));
    row->parameters = greater(row->parameters, hal_counter_read(COUNTER_PARAMETERS));
    row->manifest = greater(row->manifest, hal_counter_read(COUNTER_MANIFEST));
}

int counters_raise(uint32_t security, uint32_t parameters, uint32_t manifest) {
    counters_t have, want;
    counters_in_flash(&have);
    counters_get(&want);
    want.security = greater(want.security, security);
    want.parameters = greater(want.parameters, parameters);
    want.manifest = greater(want.manifest, manifest);
    if (want.security != have.security || want.parameters != have.parameters || want.manifest != have.manifest) {
        uint32_t w[WORDS_MAX] = {COUNTERS_MAGIC, have.sequence + 1u, want.security, want.parameters, want.manifest};
        const int status = put(counters_at, COUNTERS_WORDS, w);
        if (status != HAL_OK) {
            return status;
        }
    }
    /* The HSM follows the flash: it is the anchor if both records are ever lost. */
    const uint32_t wanted[3] = {want.security, want.parameters, want.manifest};
    for (uint32_t id = 0; id < 3; ++id) {
        if (hal_counter_read(id) < wanted[id]) {
            const int status = hal_counter_raise(id, wanted[id]);
            if (status != HAL_OK) {
                return status;
            }
        }
    }
    return HAL_OK;
}

/* Place of a set in the list, of the first free row (`free` = 1), or BLACKLIST_MAX. */
static uint32_t listed(const uint8_t manifest8[8], int free) {
    for (uint32_t row = 0; row < BLACKLIST_MAX; ++row) {
        uint8_t known[8];
        if (hal_flash_read(FLASH_BLACKLIST_AT + 8 * row, known, 8) != HAL_OK) {
            continue;
        }
        uint32_t same = 0;
        for (uint32_t i = 0; i < 8; ++i) {
            same += known[i] == (free ? 0xFFu : manifest8[i]);
        }
        if (same == 8) {
            return row;
        }
    }
    return BLACKLIST_MAX;
}

int blacklist_has(const uint8_t manifest8[8]) { return listed(manifest8, 0) < BLACKLIST_MAX; }

int blacklist_add(const uint8_t manifest8[8]) {
    if (blacklist_has(manifest8)) {
        return HAL_OK;
    }
    uint32_t row = listed(manifest8, 1);
    if (row == BLACKLIST_MAX) {
        const int status = hal_flash_erase(FLASH_BLACKLIST_AT);
        if (status != HAL_OK) {
            return status;
        }
        row = 0;
    }
    uint32_t words[2] = {0, 0}; /* aligned for the engine that reads them */
    for (uint32_t i = 0; i < 8; ++i) {
        words[i / 4] |= (uint32_t)manifest8[i] << (8 * (i % 4));
    }
    return hal_flash_program(FLASH_BLACKLIST_AT + 8 * row, words, 8);
}
