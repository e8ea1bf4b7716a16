/* The estimators alone over a recording, for `twin estimate soc --estimator firmware` and the tests. */
#include "bms_host.h"

#include "../app/est.h"

BMS_EXPORT uint32_t est_host_size(uint32_t which);
BMS_EXPORT void est_host_default(est_params_t *params, float capacity_Ah);
BMS_EXPORT uint32_t est_host_fault(const est_params_t *params);
BMS_EXPORT void est_host_init(est_ctx_t *ctx, const est_params_t *params, const est_start_t *start);
BMS_EXPORT void est_host_play(est_ctx_t *ctx, const est_params_t *params, const float *frames, uint32_t n, float *out);
BMS_EXPORT void est_host_step(est_ctx_t *ctx, const est_params_t *params, const float frame[5], uint32_t n_cells,
                              const uint16_t *cell_100uV, const uint32_t *bled_mAs);
BMS_EXPORT void est_host_power(est_ctx_t *ctx, const est_params_t *params, const est_limits_t *limits,
                               est_power_t out[EST_POWERS]);

uint32_t est_host_size(uint32_t which) {
    const uint32_t sizes[] = {sizeof(est_params_t), sizeof(est_ctx_t), sizeof(est_limits_t)};
    return which < sizeof sizes / sizeof sizes[0] ? sizes[which] : 0;
}

void est_host_default(est_params_t *params, float capacity_Ah) { est_params_default(params, capacity_Ah); }

uint32_t est_host_fault(const est_params_t *params) { return est_params_fault(params); }

void est_host_init(est_ctx_t *ctx, const est_params_t *params, const est_start_t *start) {
    est_init(ctx, params, start);
}

static void step(est_ctx_t *ctx, const est_params_t *params, const float *frame, uint32_t n_cells,
                 const uint16_t *cell_100uV, const uint32_t *bled_mAs) {
    est_input_t in = {0};
    in.dt_s = frame[0];
    in.current_A = frame[1];
    in.current_now_A = frame[2];
    in.mean_V = frame[3];
    in.temperature_K = frame[4];
    in.n_cells = n_cells;
    in.cell_100uV = cell_100uV;
    in.bled_mAs = bled_mAs;
    est_step(ctx, params, &in);
}

/* frames[n][5]: dt, mean current, current now, mean voltage, temperature; out[n][2 + EST_STATES]: state of charge,
 * its sigma, states. */
void est_host_play(est_ctx_t *ctx, const est_params_t *params, const float *frames, uint32_t n, float *out) {
    for (uint32_t i = 0; i < n; ++i) {
        step(ctx, params, &frames[5u * i], 0, 0, 0);
        float *row = &out[(2u + EST_STATES) * i];
        row[0] = est_soc(ctx);
        row[1] = est_soc_sigma(ctx);
        for (uint32_t k = 0; k < EST_STATES; ++k) {
            row[2u + k] = ctx->x[k];
        }
    }
}

void est_host_step(est_ctx_t *ctx, const est_params_t *params, const float frame[5], uint32_t n_cells,
                   const uint16_t *cell_100uV, const uint32_t *bled_mAs) {
    step(ctx, params, frame, n_cells, cell_100uV, bled_mAs);
}

void est_host_power(est_ctx_t *ctx, const est_params_t *params, const est_limits_t *limits,
                    est_power_t out[EST_POWERS]) {
    est_power(ctx, params, limits, out);
}
