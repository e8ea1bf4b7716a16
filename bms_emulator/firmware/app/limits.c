/* Three levels per limit: MOL informs, RSL warns and derates, MSL is a diagnosis that opens the contactors.
 *
 * A level trips in the tick in which its signal has been beyond `trip` for hold_ms without a break, and clears
 * after hold_ms without a break at or behind `clear`. Between trip and clear it keeps what it is.
 */
#include "parts.h"

enum { BELOW = 0, ABOVE = 1 };
enum { ALWAYS, CHARGING, NOT_CHARGING };

typedef struct {
    uint8_t signal;
    uint8_t side;
    uint8_t gate;
} limit_row_t;

#define LIMIT_ROW(name, signal, side, gate, derates, low, high) {SIGNAL_##signal, side, gate},
static const limit_row_t rows[LIMIT_COUNT] = {BMS_LIMIT_LIST(LIMIT_ROW)};

void bms_limits_evaluate(const bms_params_t *p, bms_measured_t *m) {
    for (uint32_t limit = 0; limit < LIMIT_COUNT; ++limit) {
        const limit_row_t *row = &rows[limit];
        const uint32_t first = limit * LEVEL_COUNT;
        if ((m->signal_valid & MASK(row->signal)) == 0) {
            continue; /* unknown: neither beyond nor behind; its own diagnosis deals with it */
        }
        if ((row->gate == CHARGING && !m->charging) || (row->gate == NOT_CHARGING && m->charging)) {
            m->behind |= UINT64_C(7) << first;
            continue;
        }
        const int32_t value = m->signal[row->signal];
        for (uint32_t level = 0; level < LEVEL_COUNT; ++level) {
            const int32_t trip = p->limit_trip[first + level];
            const int32_t clear = p->limit_clear[first + level];
            const uint32_t beyond = row->side == ABOVE ? value > trip : value < trip;
            const uint32_t behind = row->side == ABOVE ? value <= clear : value >= clear;
            m->beyond |= (uint64_t)beyond << (first + level);
            m->behind |= (uint64_t)behind << (first + level);
        }
    }
}

void bms_limits_tick(bms_ctx_t *ctx, uint32_t tick_ms) {
    const uint64_t beyond = ctx->measured.beyond;
    const uint64_t behind = ctx->measured.behind;
    const uint64_t all = BIT64(LIMIT_COUNT * LEVEL_COUNT) - 1;
    uint64_t work = NAIVE ? all : (beyond & ~ctx->limit_active) | (behind & ctx->limit_active) | ctx->limit_running;
    while (work != 0) {
        const uint32_t bit = (uint32_t)__builtin_ctzll(work);
        const uint64_t mask = BIT64(bit);
        work &= work - 1;
        const uint64_t towards_change = ctx->limit_active & mask ? behind & mask : beyond & mask;
        uint32_t timer = towards_change ? add_saturating(ctx->limit_timer_ms[bit], tick_ms) : 0;
        if (towards_change && timer >= (uint32_t)ctx->params.limit_hold_ms[bit]) {
            ctx->limit_active ^= mask;
            timer = 0;
        }
        ctx->limit_timer_ms[bit] = timer;
        ctx->limit_running = timer != 0 ? ctx->limit_running | mask : ctx->limit_running & ~mask;
    }
}
