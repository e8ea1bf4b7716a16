/* Body of a signed parameter set ("BPS1", ota/parameters.py) into a parameter set, a row at a time.
 *
 *     0   4   "BPS1"
 *     4   2   schema version, BMS_PARAM_SCHEMA
 *     6   2   number of rows n
 *     8   4   parameter counter
 *     12  8·n rows, ascending by id: id u16, type u8 (2 int32, 3 float32), zero u8, value 4 bytes
 *
 * The id is the word of bms_params_t; every word in use has its row, no other has. A signed set can still be wrong, so
 * everything is judged again here; on any reason but PARAM_OK the target is not to be used.
 */
#ifndef BMS_PARAMSET_H
#define BMS_PARAMSET_H

#include "bms.h"

enum { PARAMSET_HEAD = 12, PARAMSET_ROW = 8 };

typedef struct {
    uint32_t counter;
    uint32_t rows; /* to come */
    uint32_t word; /* id that the next row must have */
    bms_param_verdict_t verdict; /* of the check at the end */
} bms_paramset_t;

/* size: of the whole body. counter_least: a set with a lower counter is refused. */
uint32_t bms_paramset_begin(bms_paramset_t *set, const uint8_t head[PARAMSET_HEAD], uint32_t size,
                            uint32_t counter_least, bms_params_t *params);
uint32_t bms_paramset_row(bms_paramset_t *set, const uint8_t row[PARAMSET_ROW], bms_params_t *params);
uint32_t bms_paramset_end(bms_paramset_t *set, const bms_params_t *params);

/* All of it from memory. */
uint32_t bms_paramset_read(bms_paramset_t *set, const uint8_t *body, uint32_t size, uint32_t counter_least,
                           bms_params_t *params);

#endif
