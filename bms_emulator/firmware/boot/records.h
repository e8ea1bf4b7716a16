/* What the controller remembers about its two slots: journal, counters, blacklist.
 *
 * Same bytes as ota/mcu_model.py documents. Journal and counters have two sectors each, written alternately by the
 * lowest bit of the sequence number; the newest record with a valid CRC counts (serial-number comparison, so a
 * wrapped sequence is fine). One journal record switches firmware and parameters together.
 */
#ifndef BOOT_RECORDS_H
#define BOOT_RECORDS_H

#include <stdint.h>

enum { RECORD_CONFIRMED = 1, RECORD_TEST = 2 };
#define BOOT_ATTEMPTS_MAX 3u /* unconfirmed boots before going back; crashes of a confirmed set too */
#define BLACKLIST_MAX 8u

typedef struct {
    uint32_t sequence;
    uint8_t slot; /* 0, 1 */
    uint8_t parameters;
    uint8_t previous_slot;
    uint8_t previous_parameters;
    uint8_t state; /* RECORD_CONFIRMED or RECORD_TEST */
    uint8_t boots; /* of a set under test */
    uint16_t reason; /* why the set was left or failed (ota/errors.py), 0: nothing wrong */
    uint8_t manifest8[8];
} journal_t;

typedef struct {
    uint32_t sequence;
    uint32_t security;   /* least security counter of firmware */
    uint32_t parameters; /* of parameter sets */
    uint32_t manifest;   /* last manifest sequence */
} counters_t;

/* 1 if there is a valid record. All functions that write return HAL_OK or what the flash said. */
int journal_get(journal_t *row);
int journal_put(const journal_t *row);

/* Programs the newest record over itself: a bit that a cut left between 0 and 1 becomes firm, so that the next boot
 * reads what this one read. */
int journal_settle(void);

/* Flash record and HSM counters, the greater of each; zeros if nothing was written yet. */
void counters_get(counters_t *row);

/* Raises each counter to at least the given value; writes nothing if all are there already. */
int counters_raise(uint32_t security, uint32_t parameters, uint32_t manifest);

int blacklist_has(const uint8_t manifest8[8]);
int blacklist_add(const uint8_t manifest8[8]);

uint32_t crc32_of(const void *data, uint32_t size); /* as zlib's */

#endif
