/* What the parts of the tick share among themselves, in the order in which bms.c calls them. */
#ifndef BMS_PARTS_H
#define BMS_PARTS_H

#include "bms.h"

#define BIT64(position) (UINT64_C(1) << (position))
#define MASK(bit) (1u << (bit))

/* BMS_NAIVE evaluates everything in every tick. The tests hold the ordinary build, which reacts to change only,
 * equal to it bit by bit. */
#ifdef BMS_NAIVE
enum { NAIVE = 1 };
#else
enum { NAIVE = 0 };
#endif

enum { CHARGE = 0, DISCHARGE = 1 };

/* Diagnoses of severity FATAL and above. */
extern const uint64_t bms_diag_fatal;
extern const uint64_t bms_diag_service;

static inline uint32_t add_saturating(uint32_t a, uint32_t b) {
    const uint32_t sum = a + b;
    return sum < a ? UINT32_MAX : sum;
}

static inline int32_t magnitude(int32_t value) { return value < 0 ? -value : value; }

static inline uint32_t distance(uint32_t a, uint32_t b) { return a > b ? a - b : b - a; }

/* params.c */
uint32_t bms_params_next(uint32_t word); /* this word or the next that has a row in a set; UINT32_MAX: none */
uint32_t bms_params_is_float(uint32_t word);
uint32_t bms_params_pair(uint32_t index, uint32_t *upper_word, uint32_t *lower_word); /* 0: no such pair */
/* measure.c */
void bms_sample_arrived(bms_ctx_t *ctx, const bms_inputs_t *in);
void bms_evaluate(bms_ctx_t *ctx);
int32_t bms_ramp_q16(int32_t value, int32_t zero, int32_t full);
/* limits.c */
void bms_limits_evaluate(const bms_params_t *params, bms_measured_t *measured);
void bms_limits_tick(bms_ctx_t *ctx, uint32_t tick_ms);
/* diag.c */
uint64_t bms_diag_conditions(const bms_ctx_t *ctx, uint32_t period_ms);
void bms_diag_tick(bms_ctx_t *ctx, uint64_t nok, uint32_t tick_ms);
void bms_diag_reset(bms_ctx_t *ctx, uint64_t nok, uint32_t request);
/* contactor.c */
void bms_contactor_tick(bms_ctx_t *ctx, uint64_t nok, uint32_t request, uint32_t tick_ms);
uint32_t bms_step_state(uint32_t step);
/* soc.c */
void bms_soc_tick(bms_ctx_t *ctx, uint32_t tick_ms);
uint32_t bms_soc_ppm(const bms_ctx_t *ctx);
/* balancing.c */
void bms_balancing_book(bms_ctx_t *ctx);
void bms_balancing_tick(bms_ctx_t *ctx, uint32_t fresh, uint32_t tick_ms);
/* derate.c */
void bms_derate_evaluate(const bms_params_t *params, bms_measured_t *measured);
void bms_derate_tick(bms_ctx_t *ctx, uint32_t tick_ms);
/* cooling.c */
void bms_cooling(bms_ctx_t *ctx);
/* runaway.c */
void bms_runaway_sample(bms_ctx_t *ctx);
void bms_runaway_tick(bms_ctx_t *ctx, uint32_t tick_ms);
uint64_t bms_runaway_conditions(const bms_ctx_t *ctx);
/* handover.c */
void bms_trace_tick(bms_ctx_t *ctx, uint32_t fresh);
void bms_handover_tick(bms_ctx_t *ctx, uint32_t tick_ms);
/* estimate.c */
void bms_estimate_step(bms_slow_t *slow, const bms_params_t *params, const bms_snapshot_t *snapshot);
/* abuse.c */
void bms_abuse_start(bms_slow_t *slow, const bms_params_t *params);
void bms_abuse_step(bms_slow_t *slow, const bms_params_t *params, const bms_snapshot_t *snapshot);
/* telemetry.c */
void bms_telemetry_step(bms_slow_t *slow, const bms_params_t *params, const bms_snapshot_t *snapshot,
                        const bms_trace_t *trace, bms_sink_t *sink);
/* blackbox.c */
void bms_blackbox_step(bms_slow_t *slow, const bms_snapshot_t *snapshot);
/* parked.c */
void bms_parked_step(bms_slow_t *slow, const bms_params_t *params, const bms_snapshot_t *snapshot);

#endif
