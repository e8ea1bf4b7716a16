#include "bms_host.h"

#include "../app/est_math.h"
#include "../app/paramset.h"
#include "../app/parts.h"

#include <stddef.h>

#define KIND(type) ((int32_t)sizeof(type) * ((type)-1 < (type)1 ? -1 : 1))
#define PARAM_SCALAR_ROW(name, low, high) {#name, -4, offsetof(bms_params_t, name), 0, 0, low, high},
#define PARAM_ARRAY_ROW(name, count, low, high) {#name, -4, offsetof(bms_params_t, name), count, 0, low, high},
#define FLOAT_ROW(name, low, high) {#name, 4, offsetof(bms_params_t, name), 0, 1, (double)(low), (double)(high)},
#define FLOAT_ARRAY_ROW(name, count, low, high) \
    {#name, 4, offsetof(bms_params_t, name), count, 1, (double)(low), (double)(high)},
#define IN_SCALAR_ROW(type, name) {#name, KIND(type), offsetof(bms_inputs_t, name), 0, 0, 0, 0},
#define IN_ARRAY_ROW(type, name, count) {#name, KIND(type), offsetof(bms_inputs_t, name), count, 0, 0, 0},
#define OUT_SCALAR_ROW(type, name) {#name, KIND(type), offsetof(bms_outputs_t, name), 0, 0, 0, 0},
#define OUT_ARRAY_ROW(type, name, count) {#name, KIND(type), offsetof(bms_outputs_t, name), count, 0, 0, 0},

static const bms_field_t param_fields[] = {
    BMS_PARAM_FIELDS(PARAM_SCALAR_ROW, PARAM_ARRAY_ROW)
    BMS_PARAM_FLOATS(FLOAT_ROW, FLOAT_ARRAY_ROW)
    PARAM_SCALAR_ROW(schema, BMS_PARAM_SCHEMA, BMS_PARAM_SCHEMA)
};
static const bms_field_t input_fields[] = {BMS_INPUT_FIELDS(IN_SCALAR_ROW, IN_ARRAY_ROW)};
static const bms_field_t output_fields[] = {BMS_OUTPUT_FIELDS(OUT_SCALAR_ROW, OUT_ARRAY_ROW)};

#define LENGTH(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

uint32_t bms_host_size(uint32_t which) {
    const uint32_t sizes[] = {sizeof(bms_params_t), sizeof(bms_inputs_t), sizeof(bms_outputs_t), sizeof(bms_ctx_t)};
    return which < LENGTH(sizes) ? sizes[which] : 0;
}

uint32_t bms_host_fields(uint32_t which, const bms_field_t **fields) {
    switch (which) {
        case BMS_STRUCT_PARAMS:
            *fields = param_fields;
            return LENGTH(param_fields);
        case BMS_STRUCT_INPUTS:
            *fields = input_fields;
            return LENGTH(input_fields);
        case BMS_STRUCT_OUTPUTS:
            *fields = output_fields;
            return LENGTH(output_fields);
        default:
            return 0;
    }
}

void bms_host_default(bms_params_t *params) { bms_params_default(params); }

uint32_t bms_host_check(const bms_params_t *params, bms_param_verdict_t *verdict) {
    *verdict = bms_params_check(params);
    return verdict->reason;
}

uint32_t bms_host_init(bms_ctx_t *ctx, const bms_params_t *params) { return bms_init(ctx, params); }

/* Flawed releases: what their fault looks like where there is no chip to crash. 1 when this tick does not happen. */
static uint32_t flaw(bms_ctx_t *ctx) {
#if defined(BMS_FLAW_CRASH_AT_BOOT)
    (void)ctx;
    return 1; /* traps before its first tick, every time */
#elif defined(BMS_FLAW_HANG)
    /* The watchdog bites a second after ten minutes. */
    if (ctx->uptime_ms >= 601000u) {
        const bms_params_t params = ctx->params;
        (void)bms_init(ctx, &params);
    }
    return 0;
#elif defined(BMS_FLAW_CONFIRM_THEN_CRASH)
    if (ctx->uptime_ms >= 30000u) {
        const bms_params_t params = ctx->params;
        (void)bms_init(ctx, &params);
    }
    return 0;
#elif defined(BMS_FLAW_RT_OVERRUN)
    if (ctx->uptime_ms / 10u % 50u == 49u) {
        bms_note_overrun(ctx);
    }
    return 0;
#else
    (void)ctx;
    return 0;
#endif
}

/* As on the target, but the other part always finishes at once; its results act from the next snapshot on anyway. */
static void run(bms_ctx_t *ctx, const bms_inputs_t *in, uint32_t n_ticks, uint32_t tick_ms, bms_sink_t *sink) {
    for (uint32_t tick = 0; tick < n_ticks; ++tick) {
        if (flaw(ctx)) {
            continue;
        }
        bms_tick(ctx, in, tick_ms);
        if (bms_slow_due(ctx)) {
            bms_slow_step(ctx, sink);
        }
    }
}

void bms_host_step(bms_ctx_t *ctx, const bms_inputs_t *in, bms_outputs_t *out, uint32_t n, uint32_t n_ticks,
                   uint32_t tick_ms, bms_sink_t *sinks) {
    for (uint32_t i = 0; i < n; ++i) {
        run(&ctx[i], &in[i], n_ticks, tick_ms, sinks ? &sinks[i] : 0);
        bms_settle(&ctx[i]);
        bms_read(&ctx[i], &out[i]);
    }
}

void bms_host_play(bms_ctx_t *ctx, const bms_inputs_t *frames, bms_outputs_t *out, uint32_t n, uint32_t n_frames,
                   uint32_t n_ticks, uint32_t tick_ms, bms_sink_t *sinks) {
    for (uint32_t i = 0; i < n; ++i) {
        for (uint32_t t = 0; t < n_frames; ++t) {
            run(&ctx[i], &frames[(size_t)t * n + i], n_ticks, tick_ms, sinks ? &sinks[i] : 0);
        }
        bms_settle(&ctx[i]);
        bms_read(&ctx[i], &out[i]);
    }
}

void bms_host_slept(bms_ctx_t *ctx, uint32_t ms) { bms_slept(ctx, ms); }

void bms_host_late(bms_ctx_t *ctx) { bms_note_overrun(ctx); }

void bms_host_starved(bms_ctx_t *ctx, const bms_inputs_t *in, uint32_t n_ticks, uint32_t tick_ms) {
    for (uint32_t tick = 0; tick < n_ticks; ++tick) {
        bms_tick(ctx, in, tick_ms);
    }
}

uint32_t bms_host_replace(bms_ctx_t *ctx, const bms_params_t *params) { return bms_params_replace(ctx, params); }

uint32_t bms_host_read_set(const uint8_t *body, uint32_t size, uint32_t counter_least, bms_params_t *params,
                           bms_param_verdict_t *verdict) {
    bms_paramset_t set = {0};
    const uint32_t reason = bms_paramset_read(&set, body, size, counter_least, params);
    *verdict = set.verdict;
    return reason;
}

uint32_t bms_host_next_word(uint32_t word) { return bms_params_next(word); }

uint32_t bms_host_is_float(uint32_t word) { return bms_params_is_float(word); }

uint32_t bms_host_pair(uint32_t index, uint32_t *upper_word, uint32_t *lower_word) {
    return bms_params_pair(index, upper_word, lower_word);
}

uint32_t bms_host_records(const bms_ctx_t *ctx) { return ctx->slow.blackbox.made; }

uint32_t bms_host_record(const bms_ctx_t *ctx, uint32_t index, bms_record_t *record) {
    const bms_blackbox_t *box = &ctx->slow.blackbox;
    if (index >= box->made || box->made - index > BMS_RECORD_QUEUE) {
        return 0;
    }
    *record = box->queue[index % BMS_RECORD_QUEUE];
    return 1;
}

void bms_host_fmath(uint32_t which, const float *x, float *y, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) {
        y[i] = which == 0 ? est_exp(x[i]) : which == 1 ? est_one_minus_exp(x[i]) : est_sqrt(x[i]);
    }
}

void bms_host_set_soc(bms_ctx_t *ctx, uint32_t soc_ppm) { bms_set_soc(ctx, soc_ppm); }

uint32_t bms_host_sane(const bms_ctx_t *ctx) {
    return bms_params_check(&ctx->params).reason == PARAM_OK && ctx->step < STEP_COUNT && ctx->capacity_mAms > 0 &&
           ctx->capacity_mAms == (int64_t)ctx->params.capacity_mAh * 3600000 && ctx->charge_mAms >= 0 &&
           ctx->charge_mAms <= ctx->capacity_mAms && ctx->trace_open < 2 && ctx->snapshot.trace < 2 &&
           ctx->trace[0].n <= BMS_TRACE_ROWS && ctx->trace[1].n <= BMS_TRACE_ROWS &&
           ctx->runaway.fast_at < BMS_SLOPE_FAST && ctx->runaway.fast_n <= BMS_SLOPE_FAST &&
           ctx->runaway.slow_at < BMS_SLOPE_SLOW && ctx->runaway.slow_n <= BMS_SLOPE_SLOW &&
           ctx->runaway.pulse_at < BMS_PULSE_RING && ctx->runaway.pulse_n <= BMS_PULSE_RING;
}
