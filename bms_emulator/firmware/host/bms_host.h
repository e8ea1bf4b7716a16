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
    int32_t low;    /* parameters only */
    int32_t high;
    int32_t reserved;
} bms_field_t;

enum { BMS_STRUCT_PARAMS, BMS_STRUCT_INPUTS, BMS_STRUCT_OUTPUTS, BMS_STRUCT_CTX };

BMS_EXPORT uint32_t bms_host_size(uint32_t which);
BMS_EXPORT uint32_t bms_host_fields(uint32_t which, const bms_field_t **fields);
BMS_EXPORT void bms_host_default(bms_params_t *params);
BMS_EXPORT uint32_t bms_host_check(const bms_params_t *params, bms_param_verdict_t *verdict);
BMS_EXPORT uint32_t bms_host_init(bms_ctx_t *ctx, const bms_params_t *params);
BMS_EXPORT void bms_host_step(bms_ctx_t *ctx, const bms_inputs_t *in, bms_outputs_t *out, uint32_t n,
                              uint32_t n_ticks, uint32_t tick_ms);
/* A recording: frames[t * n + i], n_ticks each; outputs are those after the last. */
BMS_EXPORT void bms_host_play(bms_ctx_t *ctx, const bms_inputs_t *frames, bms_outputs_t *out, uint32_t n,
                              uint32_t n_frames, uint32_t n_ticks, uint32_t tick_ms);
BMS_EXPORT void bms_host_set_soc(bms_ctx_t *ctx, uint32_t soc_ppm);
/* 1 when every index inside a foreign context is in range, so that it may be run. */
BMS_EXPORT uint32_t bms_host_sane(const bms_ctx_t *ctx);

#endif
