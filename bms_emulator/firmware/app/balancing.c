/* Passive balancing: bleed what lies above the lowest group, at rest or while charging.
 *
 * A group starts above lowest + start and stops at lowest + stop. What each group was bled is booked as voltage * time,
 * without a division and without rounding: it is a primary signal for internal shorts. The resistance comes in
 * when somebody reads it.
 */
#include "parts.h"

/* Booked when the mask or the voltages change and before anybody reads: exact, since both are constant between. */
void bms_balancing_book(bms_ctx_t *ctx) {
    const uint64_t pending_ms = ctx->balancing_pending_ms;
    if (pending_ms == 0) {
        return;
    }
    ctx->balancing_pending_ms = 0;
    const uint32_t bytes = ((uint32_t)ctx->params.n_groups + 7u) / 8u;
    for (uint32_t byte = 0; byte < bytes; ++byte) {
        uint32_t bits = ctx->balancing_mask[byte];
        while (bits != 0) {
            const uint32_t group = byte * 8u + (uint32_t)__builtin_ctz(bits);
            bits &= bits - 1u;
            ctx->bled_100uVms[group] += ctx->frame.cell_voltage_100uV[group] * pending_ms;
        }
    }
}

static uint32_t is_allowed(const bms_ctx_t *ctx) {
    const bms_params_t *p = &ctx->params;
    const bms_measured_t *m = &ctx->measured;
    const uint32_t connected_or_idle = ctx->step == STEP_RUN || ctx->step == STEP_STANDBY;
    const uint32_t quiet = (m->resting && ctx->rest_ms >= (uint32_t)p->balancing_rest_ms) || m->charging;
    return connected_or_idle && quiet && m->cells_valid == p->n_groups && ctx->diag_latched == 0 &&
           (m->signal_valid & MASK(SIGNAL_CELL_T_MAX)) && m->signal[SIGNAL_CELL_T_MAX] <= p->balancing_t_max_ddegC;
}

static uint32_t choose(bms_ctx_t *ctx, uint32_t allowed) {
    const bms_params_t *p = &ctx->params;
    const int32_t lowest = ctx->measured.signal[SIGNAL_CELL_V_MIN];
    const uint32_t n = (uint32_t)p->n_groups;
    uint32_t any = 0;
    for (uint32_t byte = 0; byte < BMS_MAX_GROUPS / 8; ++byte) {
        const uint32_t before = ctx->balancing_mask[byte];
        uint32_t now = 0;
        for (uint32_t bit = 0; allowed && bit < 8 && byte * 8 + bit < n; ++bit) {
            const int32_t voltage = ctx->frame.cell_voltage_100uV[byte * 8 + bit];
            const int32_t excess = voltage - lowest;
            const int32_t needed =
                before & MASK(bit) ? p->balancing_stop_100uV : p->balancing_start_100uV;
            now |= (uint32_t)(excess > needed && voltage >= p->balancing_min_100uV) << bit;
        }
        ctx->balancing_mask[byte] = (uint8_t)now;
        any |= now;
    }
    return any;
}

void bms_balancing_tick(bms_ctx_t *ctx, uint32_t fresh, uint32_t tick_ms) {
    const uint32_t allowed = is_allowed(ctx);
    if (fresh || NAIVE || allowed != ctx->balancing_allowed) {
        bms_balancing_book(ctx);
        ctx->balancing_active = (uint8_t)(choose(ctx, allowed) != 0);
        ctx->balancing_allowed = (uint8_t)allowed;
    }
    if (ctx->balancing_active) {
        ctx->balancing_pending_ms = add_saturating(ctx->balancing_pending_ms, tick_ms);
    }
}
