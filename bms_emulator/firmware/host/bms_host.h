/* What native.py calls: many contexts at once, and the layout of the structs as data. */
#ifndef BMS_HOST_H
#define BMS_HOST_H

#include "../app/bms.h"

#define BMS_EXPORT __attribute__((visibility("default")))

typedef struct {
    const char *name;
    int32_t kind; /* size in bytes, negative when signed */
    uint32_t offset;
    uint32_t count; /* 0 = scalar */
    uint32_t is_float;
    double low; /* parameters only */
    double high;
} bms_field_t;

enum { BMS_STRUCT_PARAMS, BMS_STRUCT_INPUTS, BMS_STRUCT_OUTPUTS, BMS_STRUCT_CTX };

BMS_EXPORT uint32_t bms_host_size(uint32_t which);
BMS_EXPORT uint32_t bms_host_fields(uint32_t which, const bms_field_t **fields);
BMS_EXPORT void bms_host_default(bms_params_t *params);
BMS_EXPORT uint32_t bms_host_check(const bms_params_t *params, bms_param_verdict_t *verdict);
BMS_EXPORT uint32_t bms_host_init(bms_ctx_t *ctx, const bms_params_t *params);
BMS_EXPORT void bms_host_step(bms_ctx_t *ctx, const bms_inputs_t *in, bms_outputs_t *out, uint32_t n,
                              uint32_t n_ticks, uint32_t tick_ms, bms_sink_t *sinks);
/* A recording: frames[t * n + i], n_ticks each; outputs are those after the last. sinks: one each, or null. */
BMS_EXPORT void bms_host_play(bms_ctx_t *ctx, const bms_inputs_t *frames, bms_outputs_t *out, uint32_t n,
                              uint32_t n_frames, uint32_t n_ticks, uint32_t tick_ms, bms_sink_t *sinks);
BMS_EXPORT void bms_host_slept(bms_ctx_t *ctx, uint32_t ms);
BMS_EXPORT uint32_t bms_host_replace(bms_ctx_t *ctx, const bms_params_t *params);
/* What only a target does by itself: a tick that came late; seconds in which the other part did not get to run. */
BMS_EXPORT void bms_host_late(bms_ctx_t *ctx);
BMS_EXPORT void bms_host_starved(bms_ctx_t *ctx, const bms_inputs_t *in, uint32_t n_ticks, uint32_t tick_ms);
/* A parameter set by the bytes of its body; the reason. params is what it says, to be used only with PARAM_OK. */
BMS_EXPORT uint32_t bms_host_read_set(const uint8_t *body, uint32_t size, uint32_t counter_least, bms_params_t *params,
                                      bms_param_verdict_t *verdict);
/* This word of a set or the next that has a row; is it a float; which pairs (upper, lower) are ordered. */
BMS_EXPORT uint32_t bms_host_next_word(uint32_t word);
BMS_EXPORT uint32_t bms_host_is_float(uint32_t word);
BMS_EXPORT uint32_t bms_host_pair(uint32_t index, uint32_t *upper_word, uint32_t *lower_word);
/* Lines of the black box made since start. */
BMS_EXPORT uint32_t bms_host_records(const bms_ctx_t *ctx);
/* One line of the black box; 0 when it was never made or is overwritten. */
BMS_EXPORT uint32_t bms_host_record(const bms_ctx_t *ctx, uint32_t index, bms_record_t *record);
/* For tests of the arithmetic: which 0 exp(x), x <= 0; 1 1 - exp(-x), x >= 0; 2 square root. */
BMS_EXPORT void bms_host_fmath(uint32_t which, const float *x, float *y, uint32_t n);
BMS_EXPORT void bms_host_set_soc(bms_ctx_t *ctx, uint32_t soc_ppm);
/* 1 when every index inside a foreign context is in range, so that it may be run. */
BMS_EXPORT uint32_t bms_host_sane(const bms_ctx_t *ctx);

#endif
