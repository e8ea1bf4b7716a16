/* What outlives a reset, over hal.h: parameter set, black box, state of charge.
 *
 * Called from the main loop only; the real-time part never waits for the flash. Safe against a cut of the supply at any
 * byte: a line counts only with its checksum, and nothing that is valid is erased before its successor is.
 */
#ifndef BMS_KEEP_H
#define BMS_KEEP_H

#include "../app/bms.h"
#include "../boot/image.h"

/* ---- parameters ---- */

/* The set of copy 0 or 1 if it is signed, fits this device and this firmware and is not older than the counter allows;
 * reason PARAM_*. params is what it says, of use only with PARAM_OK. */
uint32_t keep_read_parameters(uint32_t copy, const identity_t *identity, bms_params_t *params, uint32_t *counter);

/* The chosen copy, else the other, else what `params` holds already. Returns the reason for the chosen one. */
uint32_t keep_load_parameters(uint32_t chosen, const identity_t *identity, bms_params_t *params, uint32_t *counter);

/* ---- black box: a ring of lines in flash ---- */

typedef struct {
    uint32_t at; /* where the next line goes, offset in the partition */
    uint32_t stored; /* lines stored since start */
    uint32_t failed;
} keep_box_t;

/* Finds the end of the ring; next_sequence is one above the newest line. */
void keep_box_open(keep_box_t *box, uint32_t *next_sequence);
/* The next line; HAL_OK or what the flash said. */
int keep_box_put(keep_box_t *box, const bms_record_t *line);

/* ---- state of charge ---- */

enum { KEEP_SOC_NONE = 0xFFFFFFFF };
/* ppm as stored last, or KEEP_SOC_NONE. */
uint32_t keep_soc_get(void);
int keep_soc_put(uint32_t soc_ppm, uint32_t known);

#endif
