#include "paramset.h"

#include "parts.h"

enum { TYPE_INT32 = 2, TYPE_FLOAT32 = 3 };

static uint32_t whole(const uint8_t *bytes, uint32_t size) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < size; ++i) {
        value |= (uint32_t)bytes[i] << (8 * i);
    }
    return value;
}

uint32_t bms_paramset_begin(bms_paramset_t *set, const uint8_t head[PARAMSET_HEAD], uint32_t size,
                            uint32_t counter_least, bms_params_t *params) {
    int32_t *words = (int32_t *)params;
    for (uint32_t i = 0; i < sizeof *params / sizeof *words; ++i) {
        words[i] = 0;
    }
    set->counter = whole(head + 8, 4);
    set->rows = whole(head + 6, 2);
    set->word = bms_params_next(0);
    if (head[0] != 'B' || head[1] != 'P' || head[2] != 'S' || head[3] != '1') {
        return PARAM_SET_FORMAT;
    }
    if (whole(head + 4, 2) != BMS_PARAM_SCHEMA) {
        return PARAM_SET_SCHEMA;
    }
    if (size != PARAMSET_HEAD + PARAMSET_ROW * set->rows) {
        return PARAM_SET_LENGTH;
    }
    if (set->counter < counter_least) {
        return PARAM_SET_COUNTER;
    }
    params->schema = BMS_PARAM_SCHEMA;
    return PARAM_OK;
}

uint32_t bms_paramset_row(bms_paramset_t *set, const uint8_t row[PARAMSET_ROW], bms_params_t *params) {
    const uint32_t id = whole(row, 2);
    const uint32_t type = row[2];
    if (set->rows == 0) {
        return PARAM_SET_LENGTH;
    }
    if (row[3] != 0 || type < 1 || type > TYPE_FLOAT32) {
        return PARAM_SET_FORMAT;
    }
    if (id != set->word) {
        return id < set->word ? PARAM_SET_ORDER : PARAM_SET_SCHEMA; /* again or earlier; unknown or one left out */
    }
    if (type != (bms_params_is_float(id) ? TYPE_FLOAT32 : TYPE_INT32)) {
        return PARAM_SET_SCHEMA;
    }
    ((int32_t *)params)[id] = (int32_t)whole(row + 4, 4);
    set->word = bms_params_next(id + 1);
    --set->rows;
    return PARAM_OK;
}

uint32_t bms_paramset_end(bms_paramset_t *set, const bms_params_t *params) {
    if (set->rows != 0) {
        return PARAM_SET_TRUNCATED;
    }
    if (set->word != UINT32_MAX) {
        return PARAM_SET_SCHEMA; /* rows are missing at the end */
    }
    set->verdict = bms_params_check(params);
    return set->verdict.reason;
}

uint32_t bms_paramset_read(bms_paramset_t *set, const uint8_t *body, uint32_t size, uint32_t counter_least,
                           bms_params_t *params) {
    if (size < PARAMSET_HEAD) {
        return PARAM_SET_TRUNCATED;
    }
    uint32_t reason = bms_paramset_begin(set, body, size, counter_least, params);
    for (uint32_t at = PARAMSET_HEAD; reason == PARAM_OK && at < size; at += PARAMSET_ROW) {
        reason = bms_paramset_row(set, body + at, params);
    }
    return reason != PARAM_OK ? reason : bms_paramset_end(set, params);
}
