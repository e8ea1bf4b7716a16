#include "keep.h"

#include "../app/paramset.h"
#include "../boot/records.h"
#include "../hal/hal.h"
#include "../include/regs.h"
#include "../update/agent.h"
#include "../update/reason.h"

static const uint32_t copies[2] = {FLASH_PARAMETERS_0_AT, FLASH_PARAMETERS_1_AT};

static uint32_t read_body(uint32_t at, uint32_t size, uint32_t counter_least, bms_params_t *params, uint32_t *counter) {
    enum { ROWS_AT_ONCE = 16 };
    bms_paramset_t set = {0};
    uint8_t bytes[ROWS_AT_ONCE * PARAMSET_ROW];
    if (size < PARAMSET_HEAD) {
        return PARAM_SET_TRUNCATED;
    }
    if (hal_flash_read(at, bytes, PARAMSET_HEAD) != HAL_OK) {
        return PARAM_STORE_DAMAGED;
    }
    uint32_t reason = bms_paramset_begin(&set, bytes, size, counter_least, params);
    for (uint32_t done = PARAMSET_HEAD; reason == PARAM_OK && done < size;) {
        const uint32_t left = size - done;
        const uint32_t chunk = left < sizeof bytes ? left : sizeof bytes;
        if (hal_flash_read(at + done, bytes, chunk) != HAL_OK) {
            return PARAM_STORE_DAMAGED;
        }
        for (uint32_t row = 0; row < chunk && reason == PARAM_OK; row += PARAMSET_ROW) {
            reason = bms_paramset_row(&set, bytes + row, params);
        }
        done += chunk;
    }
    *counter = set.counter;
    return reason != PARAM_OK ? reason : bms_paramset_end(&set, params);
}

uint32_t keep_read_parameters(uint32_t copy, const identity_t *identity, bms_params_t *params, uint32_t *counter) {
    counters_t counters;
    image_t image;
    counters_get(&counters);
    const uint32_t at = copies[copy & 1u];
    if (image_verify(at, FLASH_PARAMETERS_0_SIZE, 0, counters.parameters, identity, &image) != REASON_OK) {
        return PARAM_STORE_DAMAGED;
    }
    return read_body(at + image.header_size, image.body_size, counters.parameters, params, counter);
}

uint32_t keep_load_parameters(uint32_t chosen, const identity_t *identity, bms_params_t *params, uint32_t *counter) {
    static bms_params_t read; /* too large for the stack */
    uint32_t first = PARAM_STORE_DAMAGED;
    for (uint32_t try = 0; try < 2; ++try) {
        const uint32_t reason = keep_read_parameters(chosen ^ try, identity, &read, counter);
        first = try == 0 ? reason : first;
        if (reason == PARAM_OK) {
            *params = read;
            return first;
        }
    }
    *counter = 0;
    return first;
}

/* What the agent asks before it activates a set. A set for the firmware in the other slot is judged by that one at its
 * first start; here only its form is. */
uint32_t ota_app_check_parameters(uint32_t body_at, uint32_t body_size, uint32_t firmware_slot) {
    static bms_params_t params;
    journal_t journal;
    uint32_t counter;
    if (body_size == 0) {
        return OTA_OK;
    }
    const uint32_t other = journal_get(&journal) && journal.slot != firmware_slot;
    switch (read_body(body_at, body_size, 0, &params, &counter)) {
        case PARAM_OK:
            return OTA_OK;
        case PARAM_SET_SCHEMA:
            return other ? OTA_OK : OTA_PARAMETER_SCHEMA;
        case PARAM_SET_TRUNCATED:
            return OTA_TRUNCATED;
        case PARAM_SET_FORMAT:
            return OTA_FORMAT;
        case PARAM_SET_LENGTH:
            return OTA_LENGTH;
        case PARAM_SET_ORDER:
            return OTA_NOT_CANONICAL;
        case PARAM_STORE_DAMAGED:
            return OTA_FLASH_READ;
        case PARAM_PAIR_ORDER:
        case PARAM_LEVEL_ORDER:
        case PARAM_HYSTERESIS:
        case PARAM_OCV_NOT_RISING:
        case PARAM_OCV_WINDOW:
        case PARAM_RAMP_ORDER:
            return OTA_PARAMETER_PAIR;
        default:
            return OTA_PARAMETER_RANGE;
    }
}
