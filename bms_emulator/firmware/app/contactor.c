/* Closing: minus, precharge, plus, release precharge. Opening: wait for low current, plus, minus.
 *
 * One row per step; the code below only walks them. In every tick a latched fault is looked at first, then a
 * withdrawn close request, then whether the step is done, then its timeout. Up to four steps may follow in one
 * tick, so that a fault without delay opens the contactor in the tick that finds it.
 */
#include "parts.h"

enum { PLUS = MASK(CONTACTOR_BIT_MAIN_PLUS), MINUS = MASK(CONTACTOR_BIT_MAIN_MINUS) };
enum { PRECHARGING = MASK(CONTACTOR_BIT_PRECHARGE), MAX_STEPS_PER_TICK = 4 };

typedef enum {
    DONE_NEVER,
    DONE_HEALTHY,    /* a sample is there and nothing fatal in sight */
    DONE_ASKED,      /* healthy, close requested, and released since the last error */
    DONE_FEEDBACK,   /* a frame younger than the step shows the commanded positions */
    DONE_PRECHARGED, /* feedback, link voltage near pack voltage, charging current gone, minimum time over */
    DONE_PAUSED,
    DONE_LOW_CURRENT, /* low current, or the delay of the latched fault is over */
    DONE_RESET
} done_t;

typedef enum { NO_TIMEOUT, CLOSING, CHARGING_LINK, UNLOADING, OPENING_CONTACT } timeout_t;

typedef struct {
    uint8_t state;
    uint8_t command;
    uint8_t done;
    uint8_t timeout;
    uint8_t on_done;
    uint8_t on_timeout;
    uint8_t on_withdrawn; /* close request gone; the step itself = go on */
    uint8_t on_fault;
} step_row_t;

#define ROW(step, state, command, done, timeout, on_done, on_timeout, on_withdrawn, on_fault) \
    [STEP_##step] = {STATE_##state, command, done, timeout, STEP_##on_done, STEP_##on_timeout, \
                     STEP_##on_withdrawn, STEP_##on_fault}
/* clang-format off */
static const step_row_t rows[STEP_COUNT] = {
    /*  step               state      command                    done              timeout          on_done            on_timeout   on_withdrawn       on_fault */
    ROW(OFF,               OFF,       0,                         DONE_HEALTHY,     NO_TIMEOUT,      STANDBY,           OFF,         OFF,               ERROR),
    ROW(STANDBY,           STANDBY,   0,                         DONE_ASKED,       NO_TIMEOUT,      CLOSE_MINUS,       STANDBY,     STANDBY,           ERROR),
    ROW(CLOSE_MINUS,       PRECHARGE, MINUS,                     DONE_FEEDBACK,    CLOSING,         CLOSE_PRECHARGE,   RETRY_PAUSE, OPEN_PLUS,         OPEN_PLUS),
    ROW(CLOSE_PRECHARGE,   PRECHARGE, MINUS | PRECHARGING,       DONE_PRECHARGED,  CHARGING_LINK,   CLOSE_PLUS,        RETRY_PAUSE, OPEN_PLUS,         OPEN_PLUS),
    ROW(CLOSE_PLUS,        PRECHARGE, MINUS | PRECHARGING | PLUS, DONE_FEEDBACK,   CLOSING,         RELEASE_PRECHARGE, RETRY_PAUSE, OPEN_WAIT,         OPEN_WAIT),
    ROW(RELEASE_PRECHARGE, PRECHARGE, MINUS | PLUS,              DONE_FEEDBACK,    CLOSING,         RUN,               OPEN_WAIT,   OPEN_WAIT,         OPEN_WAIT),
    ROW(RETRY_PAUSE,       PRECHARGE, 0,                         DONE_PAUSED,      NO_TIMEOUT,      CLOSE_MINUS,       RETRY_PAUSE, STANDBY,           ERROR),
    ROW(RUN,               RUN,       MINUS | PLUS,              DONE_NEVER,       NO_TIMEOUT,      RUN,               RUN,         OPEN_WAIT,         OPEN_WAIT),
    ROW(OPEN_WAIT,         OPENING,   MINUS | PLUS,              DONE_LOW_CURRENT, UNLOADING,       OPEN_PLUS,         OPEN_PLUS,   OPEN_WAIT,         OPEN_WAIT),
    ROW(OPEN_PLUS,         OPENING,   MINUS,                     DONE_FEEDBACK,    OPENING_CONTACT, OPEN_MINUS,        OPEN_MINUS,  OPEN_PLUS,         OPEN_PLUS),
    ROW(OPEN_MINUS,        OPENING,   0,                         DONE_FEEDBACK,    OPENING_CONTACT, STANDBY,           STANDBY,     OPEN_MINUS,        OPEN_MINUS),
    ROW(ERROR,             ERROR,     0,                         DONE_RESET,       NO_TIMEOUT,      STANDBY,           ERROR,       ERROR,             ERROR),
};
/* clang-format on */

uint32_t bms_step_state(uint32_t step) { return rows[step].state; }

static uint32_t is_done(const bms_ctx_t *ctx, const step_row_t *row, uint64_t nok, uint32_t request) {
    const bms_params_t *p = &ctx->params;
    const bms_measured_t *m = &ctx->measured;
    const uint32_t healthy = ((nok | ctx->diag_running | ctx->diag_latched) & bms_diag_fatal) == 0;
    const uint32_t seen = ctx->step_samples != 0 && ctx->frame.contactor_feedback == row->command;
    switch ((done_t)row->done) {
        case DONE_HEALTHY:
            return healthy;
        case DONE_ASKED:
            return healthy && ctx->close_armed && (request & MASK(REQUEST_BIT_CLOSE));
        case DONE_FEEDBACK:
            return seen;
        case DONE_PRECHARGED:
            return seen && ctx->step_ms >= (uint32_t)p->precharge_min_ms && m->link_valid && m->current_valid &&
                   (m->signal_valid & MASK(SIGNAL_PACK_V)) && magnitude(m->current_mA) <= p->precharge_current_mA &&
                   distance(ctx->frame.pack_voltage_mV, ctx->frame.link_voltage_mV) <= (uint32_t)p->precharge_dv_mV;
        case DONE_PAUSED:
            return ctx->step_ms >= (uint32_t)p->precharge_pause_ms && ctx->precharge_tries < p->precharge_tries;
        case DONE_LOW_CURRENT:
            return (m->current_valid && magnitude(m->current_mA) <= p->opening_current_mA) ||
                   (ctx->diag_latched != 0 && ctx->open_in_ms == 0);
        case DONE_RESET:
            return ctx->diag_latched == 0;
        case DONE_NEVER:
            break;
    }
    return 0;
}

static uint32_t is_late(const bms_ctx_t *ctx, const step_row_t *row) {
    const bms_params_t *p = &ctx->params;
    /* Closing is judged by a frame younger than the step; a long-held frame must not fail it. Opening goes on
     * by time alone. */
    switch ((timeout_t)row->timeout) {
        case CLOSING:
            return ctx->step_samples != 0 && ctx->step_ms >= (uint32_t)p->contactor_timeout_ms;
        case CHARGING_LINK:
            return ctx->step_samples != 0 && ctx->step_ms >= (uint32_t)p->precharge_timeout_ms;
        case UNLOADING:
            return ctx->step_ms >= (uint32_t)p->opening_timeout_ms;
        case OPENING_CONTACT:
            return ctx->step_ms >= (uint32_t)p->contactor_timeout_ms;
        case NO_TIMEOUT:
            break;
    }
    return 0;
}

static void enter(bms_ctx_t *ctx, uint32_t step) {
    const uint8_t command = rows[step].command;
    const uint32_t loaded = magnitude(ctx->measured.current_mA) > ctx->params.opening_current_mA;
    if ((ctx->command & PLUS) && !(command & PLUS) && loaded && ctx->openings_under_load < UINT16_MAX) {
        ++ctx->openings_under_load;
    }
    if (command != ctx->command) {
        ctx->command = command;
        ctx->command_samples = 0;
        ctx->contactor_change_ms = ctx->uptime_ms;
    }
    ctx->step = (uint8_t)step;
    ctx->step_ms = 0;
    ctx->step_samples = 0;
    if (step == STEP_RETRY_PAUSE) {
        ++ctx->precharge_tries; /* bounded by precharge_tries, which is at most 20 */
    } else if (step == STEP_RUN || step == STEP_STANDBY) {
        ctx->precharge_tries = 0;
    } else if (step == STEP_ERROR) {
        ctx->close_armed = 0; /* reconnecting after an error takes a new request */
    }
}

void bms_contactor_tick(bms_ctx_t *ctx, uint64_t nok, uint32_t request, uint32_t tick_ms) {
    ctx->step_ms = add_saturating(ctx->step_ms, tick_ms);
    const uint32_t wanted = request & MASK(REQUEST_BIT_CLOSE);
    if (!wanted) {
        ctx->close_armed = 1;
    }
    for (uint32_t i = 0; i < MAX_STEPS_PER_TICK; ++i) {
        const step_row_t *row = &rows[ctx->step];
        uint32_t next = ctx->diag_latched != 0 ? row->on_fault : wanted ? ctx->step : row->on_withdrawn;
        if (next == ctx->step) {
            next = is_done(ctx, row, nok, request) ? row->on_done : is_late(ctx, row) ? row->on_timeout : next;
        }
        if (next == ctx->step) {
            return;
        }
        enter(ctx, next);
    }
}
