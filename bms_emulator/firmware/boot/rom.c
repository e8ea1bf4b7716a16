/* Choose, verify, lock: the rules of ota/mcu_model.py (`_rom`, `_give_up_confirmed`), hardened.
 *
 * A new set boots at most BOOT_ATTEMPTS_MAX times without confirmation, then the set before it runs again. Counters
 * rise after confirmation only; a cut between the two is made good here. Lost power uses up boots (they must be
 * bounded) but does not blacklist a set that never failed by itself.
 *
 * One skipped instruction must not boot an unverified image: what runs is verified twice, each time with a proof that
 * is the product of all its checks; the jump wants both.
 */
#include "rom.h"

#include <stddef.h>

#include "../hal/hal.h"
#include "regs.h"

#define KEEP_SAFE 0x5AFE0000u /* safe mode until the power goes */
#define ENTRY 0x80u           /* reset entry behind the vectors, which stand at the start of the body */

typedef struct {
    image_t firmware;
    image_t parameters;
    uint32_t has_parameters;
    uint32_t reason;
    uint32_t slot;
} pair_t;

static const uint32_t slot_at[2] = {FLASH_SLOT_0_AT, FLASH_SLOT_1_AT};
static const uint32_t parameters_at[2] = {FLASH_PARAMETERS_0_AT, FLASH_PARAMETERS_1_AT};

uint32_t rom_by_image(uint32_t cause, uint32_t why) {
    return cause == HAL_CAUSE_WATCHDOG || cause == HAL_CAUSE_LOCKUP ||
           (cause == HAL_CAUSE_SOFTWARE && why != HAL_WHY_ACTIVATE);
}

/* Everything that has to hold before this pair may run. */
static uint32_t check(uint32_t slot, uint32_t copy, const identity_t *identity, pair_t *pair) {
    counters_t counters;
    pair->firmware.proof = 0;
    pair->has_parameters = 0;
    pair->reason = REASON_NOT_BOOTABLE;
    if (slot > 1 || copy > 1) {
        return REASON_NOT_BOOTABLE;
    }
    counters_get(&counters);
    uint32_t reason =
        image_verify(slot_at[slot], FLASH_SLOT_0_SIZE, 1, counters.security, identity, &pair->firmware);
    if (reason == REASON_OK && image_file_size(parameters_at[copy], FLASH_PARAMETERS_0_SIZE) != 0) {
        pair->has_parameters = 1;
        reason = image_verify(parameters_at[copy], FLASH_PARAMETERS_0_SIZE, 0, counters.parameters, identity,
                              &pair->parameters);
    }
    if (reason == REASON_OK && pair->firmware.has_schema && !pair->has_parameters) {
        reason = REASON_INCOMPLETE_SET; /* it was built to read a set */
    }
    if (reason == REASON_OK) {
        reason = image_check_set(&pair->firmware, pair->has_parameters ? &pair->parameters : NULL);
    }
    pair->slot = slot;
    pair->reason = reason;
    return reason;
}

/* 0 only if every check of the pair was passed. */
static uint32_t wrong_of(const pair_t *pair) {
    const uint32_t parameters = pair->has_parameters ? pair->parameters.proof ^ IMAGE_PROOF : 0;
    return pair->reason | (pair->firmware.proof ^ IMAGE_PROOF) | parameters;
}

/* The pair that verifies and has the highest versions; 0 if there is none. */
static int any_valid(const identity_t *identity, journal_t *row) {
    static pair_t pair, best;
    int found = 0;
    for (uint32_t choice = 0; choice < 4; ++choice) {
        const uint32_t slot = choice >> 1, copy = choice & 1u;
        if (check(slot, copy, identity, &pair) != REASON_OK) {
            continue;
        }
        static const version_t none;
        int order = version_compare(&pair.firmware.version, &best.firmware.version);
        if (order == 0) {
            order = version_compare(pair.has_parameters ? &pair.parameters.version : &none,
                                    best.has_parameters ? &best.parameters.version : &none);
        }
        if (!found || order > 0) {
            best = pair;
            row->slot = row->previous_slot = (uint8_t)slot;
            row->parameters = row->previous_parameters = (uint8_t)copy;
            found = 1;
        }
    }
    return found;
}

static void revert(journal_t *row, uint32_t reason, uint32_t blacklist) {
    if (blacklist) {
        (void)blacklist_add(row->manifest8);
    }
    row->sequence += 1u;
    row->slot = row->previous_slot;
    row->parameters = row->previous_parameters;
    row->state = RECORD_CONFIRMED;
    row->boots = 0;
    row->reason = (uint16_t)reason;
    (void)journal_put(row);
}

/* A set under test: count this boot, or go back. */
static void boot_test(journal_t *row, uint32_t by_image, const identity_t *identity) {
    static pair_t pair;
    const uint32_t failed = row->reason != 0 || (by_image && row->boots > 0);
    if (check(row->slot, row->parameters, identity, &pair) != REASON_OK) {
        revert(row, REASON_SIGNATURE, 1);
    } else if (row->boots >= BOOT_ATTEMPTS_MAX) {
        revert(row, REASON_BOOT_ATTEMPTS, failed);
    } else {
        row->sequence += 1u;
        row->boots += 1u;
        row->reason = failed ? REASON_SELF_TEST : REASON_OK;
        if (journal_put(row) != HAL_OK) {
            /* A boot that cannot be counted would be tried for ever: the set before it, without a record. */
            row->slot = row->previous_slot;
            row->parameters = row->previous_parameters;
            row->state = RECORD_CONFIRMED;
            row->reason = REASON_FLASH_PROGRAM;
        }
    }
}

/* A confirmed firmware keeps crashing: the other slot, if it may still run; else only the update agent of this one
 * runs, to take a newer image. A downgrade below the counters is never possible. */
static void give_up_confirmed(journal_t *row, uint32_t *keep, const identity_t *identity) {
    static pair_t pair;
    const uint32_t other = 1u - (row->slot & 1u);
    if (check(other, row->parameters, identity, &pair) != REASON_OK) {
        *keep = KEEP_SAFE;
        return;
    }
    *keep = 0;
    row->sequence += 1u;
    row->slot = row->previous_slot = (uint8_t)other;
    row->previous_parameters = row->parameters;
    row->state = RECORD_CONFIRMED;
    row->boots = 0;
    row->reason = REASON_BOOT_ATTEMPTS;
    (void)journal_put(row);
}

void rom_decide(uint32_t by_image, uint32_t *keep, const identity_t *identity, decision_t *decision) {
    static pair_t first, second;
    static const journal_t none;
    journal_t row = none;
    decision->run = 0;
    decision->proof[0] = decision->proof[1] = 0;
    decision->slot = decision->not_slot = 0;

    (void)journal_settle();
    int known = journal_get(&row);
    if (known && by_image && row.state == RECORD_CONFIRMED && *keep < KEEP_SAFE) {
        *keep += 1u;
        if (*keep >= BOOT_ATTEMPTS_MAX) {
            give_up_confirmed(&row, keep, identity);
        }
    }
    if (!known) {
        /* Both records lost: the newest pair that verifies, whatever was there. */
        if (!any_valid(identity, &row)) {
            return;
        }
        row.sequence = 1;
        row.state = RECORD_CONFIRMED;
        row.reason = REASON_FLASH_READ;
        (void)journal_put(&row);
    }
    if (row.state == RECORD_TEST) {
        *keep = 0; /* a new set is tried as a whole, not only its update agent */
        boot_test(&row, by_image, identity);
    }
    uint32_t verdict = check(row.slot, row.parameters, identity, &first);
    if (verdict != REASON_OK) {
        if (!any_valid(identity, &row)) {
            return;
        }
        row.sequence += 1u;
        row.state = RECORD_CONFIRMED;
        row.boots = 0;
        row.reason = REASON_DIGEST;
        (void)journal_put(&row);
        verdict = check(row.slot, row.parameters, identity, &first);
    }

    /* Locked, then verified again: what runs is what was verified. */
    hal_flash_protect(slot_at[row.slot & 1u], FLASH_SLOT_0_SIZE);
    hal_flash_protect(parameters_at[row.parameters & 1u], FLASH_PARAMETERS_0_SIZE);
    const uint32_t again = check(row.slot, row.parameters, identity, &second);
    decision->slot = row.slot & 1u;
    decision->parameters = second.has_parameters ? row.parameters & 1u : 2u;
    decision->safe_mode = *keep == KEEP_SAFE;
    decision->entry = second.firmware.header_size + ENTRY;
    decision->reason = row.reason;
    /* 0 only if both passed; each term is wrong on its own if its call or its check was left out. */
    const uint32_t wrong = verdict | again | wrong_of(&first) | wrong_of(&second);
    if (row.state == RECORD_CONFIRMED && wrong == 0) {
        (void)counters_raise(second.firmware.security_counter,
                             second.has_parameters ? second.parameters.security_counter : 0, 0);
    }
    decision->proof[0] = first.firmware.proof;
    decision->proof[1] = second.firmware.proof;
    decision->not_slot = ~second.slot;
    decision->run = wrong == 0 ? ROM_RUN : wrong & ~ROM_RUN;
}
