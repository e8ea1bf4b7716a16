/* Diagnoses: every condition that may matter is one bit; a table says how long it must last and what follows.
 *
 * The counter of a diagnosis goes up by the tick while its condition holds and down while not, so that a condition
 * that flickers more than half of the time is found as well. Active at set_ms, inactive again at zero.
 */
#include "parts.h"

#define FATAL_BIT(name, severity, ...) | (SEVERITY_##severity >= SEVERITY_FATAL ? BIT64(DIAG_##name) : 0)
#define SERVICE_BIT(name, severity, ...) | (SEVERITY_##severity >= SEVERITY_SERVICE ? BIT64(DIAG_##name) : 0)
const uint64_t bms_diag_fatal = 0 BMS_DIAG_LIST(FATAL_BIT);
const uint64_t bms_diag_service = 0 BMS_DIAG_LIST(SERVICE_BIT);

#define MSL_BIT(name, ...) | BIT64(LIMIT_##name * LEVEL_COUNT + LEVEL_MSL)
static const uint64_t limit_msl = 0 BMS_LIMIT_LIST(MSL_BIT);
#define DIAG_OF_LIMIT(name, ...) DIAG_##name,
static const uint8_t diag_of_limit[LIMIT_COUNT] = {BMS_LIMIT_LIST(DIAG_OF_LIMIT)};

/* Contactor bits are shifted onto their diagnoses. */
_Static_assert(DIAG_MAIN_PLUS_STUCK_OPEN + CONTACTOR_BIT_PRECHARGE == DIAG_PRECHARGE_STUCK_OPEN, "order");
_Static_assert(DIAG_MAIN_PLUS_WELDED + CONTACTOR_BIT_PRECHARGE == DIAG_PRECHARGE_WELDED, "order");

static uint32_t is_old(const bms_ctx_t *ctx, uint32_t source, int32_t stale_ms, uint32_t period_ms) {
    return ctx->source_age_ms[source] > add_saturating((uint32_t)stale_ms, period_ms);
}

uint64_t bms_diag_conditions(const bms_ctx_t *ctx, uint32_t period_ms) {
    const bms_measured_t *m = &ctx->measured;
    uint64_t nok = m->nok | ctx->sticky_nok;
    uint64_t exceeded = ctx->limit_active & limit_msl;
    while (exceeded != 0) {
        nok |= BIT64(diag_of_limit[(uint32_t)__builtin_ctzll(exceeded) / LEVEL_COUNT]);
        exceeded &= exceeded - 1;
    }
    nok |= ctx->sample_age_ms > period_ms ? BIT64(DIAG_SAMPLE_STALE) : 0;
    nok |= ctx->params_bad ? BIT64(DIAG_PARAMETERS_INVALID) : 0;
    nok |= bms_runaway_conditions(ctx);
    nok |= is_old(ctx, 0, ctx->params.voltage_stale_ms, period_ms) ? BIT64(DIAG_CELL_VOLTAGE_STALE) : 0;
    nok |= is_old(ctx, 1, ctx->params.temperature_stale_ms, period_ms) ? BIT64(DIAG_TEMPERATURE_STALE) : 0;
    nok |= is_old(ctx, 2, ctx->params.current_stale_ms, period_ms) ? BIT64(DIAG_CURRENT_STALE) : 0;
    nok |= ctx->result.safety_low ? BIT64(DIAG_SAFETY_LOW) : 0;
    nok |= ctx->overrun_ms != 0 ? BIT64(DIAG_RT_OVERRUN) : 0;
    nok |= ctx->slow_late ? BIT64(DIAG_SLOW_OVERRUN) : 0;
    if (ctx->step == STEP_RETRY_PAUSE && ctx->precharge_tries >= ctx->params.precharge_tries) {
        nok |= BIT64(DIAG_PRECHARGE_FAILED);
    }
    if (ctx->command_samples == 0) {
        return nok; /* the frame is older than the command: its feedback cannot know */
    }
    const uint32_t command = ctx->command;
    const uint32_t feedback = ctx->frame.contactor_feedback & (MASK(CONTACTOR_COUNT) - 1u);
    nok |= (uint64_t)(command & ~feedback) << DIAG_MAIN_PLUS_STUCK_OPEN;
    nok |= (uint64_t)(feedback & ~command) << DIAG_MAIN_PLUS_WELDED;
    if ((command | feedback) == 0 && magnitude(m->current_mA) > ctx->params.open_current_max_mA) {
        nok |= BIT64(DIAG_CURRENT_WHILE_OPEN);
    }
    if (ctx->step == STEP_RUN && feedback == command && m->link_valid && (m->signal_valid & MASK(SIGNAL_PACK_V)) &&
        distance(ctx->frame.pack_voltage_mV, ctx->frame.link_voltage_mV) >
            (uint32_t)ctx->params.link_tolerance_mV) {
        nok |= BIT64(DIAG_LINK_MISMATCH);
    }
    return nok;
}

static void latch(bms_ctx_t *ctx, uint32_t diag) {
    const uint64_t mask = BIT64(diag);
    if (ctx->diag_latched & mask) {
        return;
    }
    const uint32_t delay_ms = (uint32_t)ctx->params.diag_delay_ms[diag];
    if (ctx->diag_latched == 0) {
        ctx->first_fault = (uint8_t)diag;
        ctx->first_fault_ms = ctx->uptime_ms;
        ctx->open_in_ms = delay_ms;
    }
    ctx->open_in_ms = delay_ms < ctx->open_in_ms ? delay_ms : ctx->open_in_ms;
    ctx->diag_latched |= mask;
}

void bms_diag_tick(bms_ctx_t *ctx, uint64_t nok, uint32_t tick_ms) {
    ctx->open_in_ms = ctx->open_in_ms > tick_ms ? ctx->open_in_ms - tick_ms : 0;
    const uint64_t all = BIT64(DIAG_COUNT) - 1;
    uint64_t work = NAIVE ? all : nok | ctx->diag_running | ctx->diag_active;
    while (work != 0) {
        const uint32_t diag = (uint32_t)__builtin_ctzll(work);
        const uint64_t mask = BIT64(diag);
        work &= work - 1;
        const uint32_t set_ms = (uint32_t)ctx->params.diag_set_ms[diag];
        uint32_t counter = ctx->diag_counter_ms[diag];
        if (nok & mask) {
            counter = add_saturating(counter, tick_ms);
            counter = counter > set_ms ? set_ms : counter;
            if (counter >= set_ms) {
                ctx->diag_active |= mask;
                if (bms_diag_fatal & mask) {
                    latch(ctx, diag);
                }
            }
        } else {
            counter = counter > tick_ms ? counter - tick_ms : 0;
            if (counter == 0) {
                ctx->diag_active &= ~mask;
            }
        }
        ctx->diag_counter_ms[diag] = counter;
        ctx->diag_running = counter != 0 ? ctx->diag_running | mask : ctx->diag_running & ~mask;
    }
}

/* Rising edges of the reset bits clear what is no longer there; a fault that persists stays latched. */
void bms_diag_reset(bms_ctx_t *ctx, uint64_t nok, uint32_t request) {
    const uint32_t edges = request & ~(uint32_t)ctx->request_before;
    uint64_t may_clear = 0;
    if (edges & MASK(REQUEST_BIT_RESET_FAULT)) {
        may_clear = ~bms_diag_service;
    }
    if (edges & MASK(REQUEST_BIT_SERVICE_RESET)) {
        may_clear = UINT64_MAX;
    }
    ctx->diag_latched &= ~(may_clear & ~(nok | ctx->diag_active));
    if (ctx->diag_latched == 0) {
        ctx->first_fault = BMS_NO_FAULT;
        ctx->first_fault_ms = 0;
    }
}
