/* The door of the firmware's real-time part. Pure: no registers, no allocation, no other state than the context.
 *
 * Per tick: bms_tick(ctx, frame, tick_ms); whenever somebody wants to know: bms_read(ctx, &outputs).
 * tick_ms is 10 on the target; a planning run may call with seconds or minutes, all timers count in ms.
 */
#ifndef BMS_H
#define BMS_H

#include "bms_types.h"

/* Longest tick; keeps every product of current and time far inside 64 bits. */
#define BMS_TICK_MS_MAX 3600000u

typedef struct {
    uint32_t reason; /* PARAM_OK or why not */
    uint32_t field;  /* row of BMS_PARAM_FIELDS */
    int32_t index;   /* element of that row */
    int32_t value;
    int32_t low; /* allowed range */
    int32_t high;
} bms_param_verdict_t;

/* First violation in the order of the fields, then of the relations between them. */
bms_param_verdict_t bms_params_check(const bms_params_t *params);

/* Fills every field from the first seven (groups, sensors, capacity, cell window, currents), which the caller has
 * set; currents of 0 become 1C charge and 2C discharge. The OCV table is that of an NMC/graphite cell. */
void bms_params_default(bms_params_t *params);

/* Starts a BMS at uptime 0. With refused parameters it still runs, but stays in ERROR with
 * PARAMETERS_INVALID latched and never closes a contactor. Returns the reason (PARAM_OK). */
uint32_t bms_init(bms_ctx_t *ctx, const bms_params_t *params);

void bms_tick(bms_ctx_t *ctx, const bms_inputs_t *in, uint32_t tick_ms);

/* Books what balancing has bled since the mask last changed; call before reading or saving the context. */
void bms_settle(bms_ctx_t *ctx);

void bms_read(const bms_ctx_t *ctx, bms_outputs_t *out);

/* Sets the charge, e.g. from what was stored before the last power-down. */
void bms_set_soc(bms_ctx_t *ctx, uint32_t soc_ppm);

#endif
