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

/* Percent; 100 while an early warning is latched. */
uint32_t bms_cooling_request(const bms_ctx_t *ctx);

/* ---- the part without a deadline ---- */

/* Frames of telemetry, each after its length as 16 bits, little-endian. A frame that does not fit is dropped and
 * counted; the firmware's own state does not depend on the sink. */
typedef struct {
    uint8_t *bytes;
    uint32_t capacity;
    uint32_t used;
    uint32_t frames;
    uint32_t dropped;
} bms_sink_t;

/* 1 when a snapshot waits: once per second on the target, once per tick when ticks are longer. */
uint32_t bms_slow_due(const bms_ctx_t *ctx);

/* Estimates, State of Safety, telemetry, black box, parking from the waiting snapshot. May be interrupted by
 * bms_tick at any point. Its results act from the next snapshot on. sink may be null. */
void bms_slow_step(bms_ctx_t *ctx, bms_sink_t *sink);

/* Time that passed asleep, without a measurement: clocks and rests go on, no limit counts it. */
void bms_slept(bms_ctx_t *ctx, uint32_t ms);

/* A line of the black box that the caller knows of, before the first tick. */
void bms_blackbox_note(bms_blackbox_t *box, const bms_snapshot_t *snapshot, uint32_t kind, uint32_t id, int32_t a,
                       int32_t b);

/* The caller found that a tick came late. */
void bms_note_overrun(bms_ctx_t *ctx);

/* A checked set takes the place of the present one; what was learnt is kept, capacity scales the charge. Between two
 * ticks only. Returns the reason when refused (nothing changes). */
uint32_t bms_params_replace(bms_ctx_t *ctx, const bms_params_t *params);

/* Sets the charge, e.g. from what was stored before the last power-down. */
void bms_set_soc(bms_ctx_t *ctx, uint32_t soc_ppm);

#endif
