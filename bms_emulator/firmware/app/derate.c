/* What load and charger may take: maximum times the smallest ramp factor, reduced at RSL, slewed, zero when open. */
#include "parts.h"

typedef struct {
    uint8_t signal;
    uint8_t derates; /* bit 0 charge, bit 1 discharge */
} derate_row_t;

#define RAMP_ROW(name, signal, derates, falling) {SIGNAL_##signal, derates},
static const derate_row_t ramps[RAMP_COUNT] = {BMS_RAMP_LIST(RAMP_ROW)};

#define RSL_BIT(name, direction, derates) \
    | (((derates) >> (direction)) & 1 ? BIT64(LIMIT_##name * LEVEL_COUNT + LEVEL_RSL) : 0)
#define RSL_CHARGE(name, signal, side, gate, derates, low, high) RSL_BIT(name, CHARGE, derates)
#define RSL_DISCHARGE(name, signal, side, gate, derates, low, high) RSL_BIT(name, DISCHARGE, derates)
static const uint64_t rsl_mask[2] = {0 BMS_LIMIT_LIST(RSL_CHARGE), 0 BMS_LIMIT_LIST(RSL_DISCHARGE)};

int32_t bms_ramp_q16(int32_t value, int32_t zero, int32_t full) {
    const int64_t span = (int64_t)full - zero;
    const int64_t way = (int64_t)value - zero;
    if (way == 0 || (way < 0) != (span < 0)) {
        return 0;
    }
    return (span < 0 ? way <= span : way >= span) ? 65536 : (int32_t)(way * 65536 / span);
}

static int32_t lowest_factor(const bms_params_t *p, uint32_t ramp, int32_t value, int32_t so_far) {
    const int32_t factor = bms_ramp_q16(value, p->ramp_zero[ramp], p->ramp_full[ramp]);
    return factor < so_far ? factor : so_far;
}

void bms_derate_evaluate(const bms_params_t *p, bms_measured_t *m) {
    for (uint32_t direction = 0; direction < 2; ++direction) {
        int32_t factor = 65536;
        for (uint32_t ramp = 0; ramp < RAMP_COUNT; ++ramp) {
            const derate_row_t *row = &ramps[ramp];
            if (((row->derates >> direction) & 1) == 0 || row->signal == SIGNAL_SOC) {
                continue; /* the state of charge moves between samples, see below */
            }
            factor = m->signal_valid & MASK(row->signal)
                         ? lowest_factor(p, ramp, m->signal[row->signal], factor)
                         : 0; /* blind: offer nothing */
        }
        m->factor_q16[direction] = factor;
    }
}

static int64_t slewed(int64_t now_uA, int64_t target_uA, const bms_params_t *p, uint32_t tick_ms) {
    const int64_t up = (int64_t)p->slew_up_mA_per_s * tick_ms;
    const int64_t down = (int64_t)p->slew_down_mA_per_s * tick_ms;
    if (target_uA > now_uA + up) {
        return now_uA + up;
    }
    return target_uA < now_uA - down ? now_uA - down : target_uA;
}

void bms_derate_tick(bms_ctx_t *ctx, uint32_t tick_ms) {
    if (ctx->step != STEP_RUN) {
        ctx->limit_uA[CHARGE] = 0;
        ctx->limit_uA[DISCHARGE] = 0;
        return;
    }
    const bms_params_t *p = &ctx->params;
    const int32_t soc_ppm = (int32_t)bms_soc_ppm(ctx);
    const int64_t maximum_mA[2] = {p->current_max_charge_mA, p->current_max_discharge_mA};
    const uint32_t soc_ramp[2] = {RAMP_CHARGE_BY_SOC, RAMP_DISCHARGE_BY_SOC};
    for (uint32_t direction = 0; direction < 2; ++direction) {
        const int32_t safe = ctx->result.safety_q16;
        const int32_t measured = ctx->measured.factor_q16[direction];
        const int32_t factor = lowest_factor(p, soc_ramp[direction], soc_ppm, safe < measured ? safe : measured);
        int64_t target_uA = maximum_mA[direction] * 1000 * factor / 65536;
        if (ctx->limit_active & rsl_mask[direction]) {
            target_uA = target_uA * p->rsl_factor_permille / 1000;
        }
        ctx->limit_uA[direction] = slewed(ctx->limit_uA[direction], target_uA, p, tick_ms);
    }
}
