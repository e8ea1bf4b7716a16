/* State of charge by counting, exact in integers; the open-circuit voltage sets it at start and after rest.
 *
 * Where the OCV curve is flatter than ocv_slope_min_uV (the plateau of LFP) a rested voltage says less than the
 * counter does, and the counter is left alone.
 */
#include "parts.h"

#define PPM 1000000

/* SoC in ppm at an open-circuit voltage, and the slope there in uV per permille. */
static uint32_t ocv_lookup(const bms_params_t *p, int32_t ocv_100uV, int32_t *slope_uV) {
    uint32_t right = 1;
    while (right < (uint32_t)p->ocv_n - 1 && p->ocv_100uV[right] < ocv_100uV) {
        ++right;
    }
    const int32_t v0 = p->ocv_100uV[right - 1], v1 = p->ocv_100uV[right];
    const int32_t s0 = p->ocv_soc_permille[right - 1], s1 = p->ocv_soc_permille[right];
    *slope_uV = (v1 - v0) * 100 / (s1 - s0);
    if (ocv_100uV <= v0) {
        return (uint32_t)s0 * 1000u;
    }
    if (ocv_100uV >= v1) {
        return (uint32_t)s1 * 1000u;
    }
    return (uint32_t)(s0 * 1000 + (int64_t)(s1 - s0) * 1000 * (ocv_100uV - v0) / (v1 - v0));
}

void bms_set_soc(bms_ctx_t *ctx, uint32_t soc_ppm) {
    const int64_t ppm = soc_ppm > PPM ? PPM : (int64_t)soc_ppm;
    ctx->charge_mAms = ctx->capacity_mAms * ppm / PPM;
    ctx->soc_started = 1;
    if (ctx->result.soc_estimate_ppm == 0) { /* until the estimator has spoken, the counted charge is what is known */
        ctx->result.soc_estimate_ppm = ctx->result.soc_min_ppm = ctx->result.soc_max_ppm = (uint32_t)ppm;
    }
}

uint32_t bms_soc_ppm(const bms_ctx_t *ctx) { return (uint32_t)(ctx->charge_mAms * PPM / ctx->capacity_mAms); }

static void calibrate(bms_ctx_t *ctx, uint32_t rested) {
    int32_t slope_uV = 0;
    const uint32_t soc_ppm = ocv_lookup(&ctx->params, ctx->measured.cell_mean_100uV, &slope_uV);
    const uint32_t steep = slope_uV >= ctx->params.ocv_slope_min_uV;
    if (ctx->soc_started && !steep) {
        return;
    }
    bms_set_soc(ctx, soc_ppm);
    ctx->soc_known |= (uint8_t)(rested && steep);
    ctx->soc_calibrations = (uint16_t)(ctx->soc_calibrations < UINT16_MAX ? ctx->soc_calibrations + 1 : UINT16_MAX);
}

void bms_soc_tick(bms_ctx_t *ctx, uint32_t tick_ms) {
    const bms_measured_t *m = &ctx->measured;
    ctx->rest_ms = m->resting ? add_saturating(ctx->rest_ms, tick_ms) : 0;
    ctx->soc_rest_ms = m->resting ? add_saturating(ctx->soc_rest_ms, tick_ms) : 0;
    if (m->cells_valid != 0) {
        const uint32_t rested = ctx->soc_rest_ms >= (uint32_t)ctx->params.soc_rest_ms;
        if (rested || !ctx->soc_started) {
            calibrate(ctx, rested);
        }
        if (rested) {
            ctx->soc_rest_ms = 0; /* the cell relaxes further: look again after as long */
        }
    }

    /* Unknown current counts as none; CURRENT_LOST opens the contactors before that matters. */
#ifdef BMS_FLAW_SOC_DRIFT
    /* The flaw of that release: an offset of 2 % of 1C, as of a sensor whose zero was never taken. */
    const int64_t offset_mA = ctx->params.capacity_mAh / 50;
#else
    const int64_t offset_mA = 0;
#endif
    const int64_t delta_mAms = (m->current_mA + offset_mA) * tick_ms;
    if (delta_mAms > 0) {
        ctx->discharged_mAms += (uint64_t)delta_mAms;
    } else {
        ctx->charged_mAms += (uint64_t)-delta_mAms;
    }
    const int64_t charge = ctx->charge_mAms - delta_mAms;
    ctx->charge_mAms = charge < 0 ? 0 : charge > ctx->capacity_mAms ? ctx->capacity_mAms : charge;
}
