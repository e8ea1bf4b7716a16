/* Cooling request: on with hysteresis by the hottest sensor, then in proportion; full when no sensor is left
 * and while an early warning is latched. */
#include "parts.h"

void bms_cooling(bms_ctx_t *ctx) {
    const bms_params_t *p = &ctx->params;
    if ((ctx->measured.signal_valid & MASK(SIGNAL_CELL_T_MAX)) == 0) {
        ctx->cooling_percent = 100;
        return;
    }
    const int32_t hottest = ctx->measured.signal[SIGNAL_CELL_T_MAX];
    if (hottest >= p->cooling_on_ddegC) {
        ctx->cooling_on = 1;
    } else if (hottest <= p->cooling_off_ddegC) {
        ctx->cooling_on = 0;
    }
    const int32_t factor = bms_ramp_q16(hottest, p->cooling_on_ddegC, p->cooling_full_ddegC);
    const int32_t percent = p->cooling_min_percent + (100 - p->cooling_min_percent) * factor / 65536;
    ctx->cooling_percent = (uint8_t)(ctx->cooling_on ? percent : 0);
}

uint32_t bms_cooling_request(const bms_ctx_t *ctx) {
    const uint64_t alarm = BIT64(DIAG_RUNAWAY) | BIT64(DIAG_RUNAWAY_EARLY);
    return ctx->diag_latched & alarm ? 100 : ctx->cooling_percent;
}
