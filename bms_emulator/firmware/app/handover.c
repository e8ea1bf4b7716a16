/* From the real-time part to the other and back, without a lock: one tick copies, the other part has a second to read.
 *
 * The flag slow_pending says who owns snapshot, the closed trace buffer and bms_slow_t. If the other part is not done
 * when the next snapshot is due, that snapshot is left out and counted; ticks never wait. Results act from the next
 * snapshot on, so how long the other part took cannot be seen in any output: native and emulated runs agree bit by
 * bit although only one of them takes time.
 */
#include "parts.h"

enum { SLOW_MS = 1000 };

/* Seen by both sides of an interrupt: the compiler must not move reads or writes across. */
#define BARRIER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static uint32_t folded(uint64_t bits) { return (uint32_t)(bits ^ (bits >> 32)); }

/* A line per new sample, and one in a tick that changes what the controller does. */
void bms_trace_tick(bms_ctx_t *ctx, uint32_t fresh) {
    bms_trace_t *trace = &ctx->trace[ctx->trace_open];
    const uint32_t last = trace->n != 0 ? trace->n - 1 : 0;
    const bms_trace_row_t *before = &trace->row[last];
    const uint32_t faults = folded(ctx->diag_latched);
    const uint32_t changed = trace->n != 0 && (before->step != ctx->step || before->command != ctx->command ||
                                               before->fault_bits != faults ||
                                               before->runaway != ctx->runaway.flags);
    if (!fresh && !changed) {
        return;
    }
    if (trace->n >= BMS_TRACE_ROWS) {
        ++trace->lost;
        return;
    }
    const bms_measured_t *m = &ctx->measured;
    bms_trace_row_t *row = &trace->row[trace->n++];
    row->uptime_ms = (uint32_t)ctx->uptime_ms;
    row->current_mA = m->current_mA;
    row->pack_mV = ctx->frame.pack_voltage_mV;
    row->fault_bits = faults;
    row->rate_mK_per_s = ctx->runaway.rate_max_mK_per_s;
    row->mean_100uV = m->cell_mean_100uV;
    row->min_100uV = (uint16_t)m->signal[SIGNAL_CELL_V_MIN];
    row->max_100uV = (uint16_t)m->signal[SIGNAL_CELL_V_MAX];
    row->hottest_ddegC = (int16_t)m->signal[SIGNAL_CELL_T_MAX];
    row->pressure_daPa = ctx->frame.pressure_daPa;
    row->gas_ppm = ctx->frame.gas_ppm;
    row->insulation_kohm = ctx->frame.insulation_kohm;
    row->min_group = m->cell_min_index;
    row->step = ctx->step;
    row->command = ctx->command;
    row->cooling_percent = (uint8_t)bms_cooling_request(ctx);
    row->runaway = ctx->runaway.flags;
}

static void publish(bms_ctx_t *ctx) {
    bms_balancing_book(ctx);
    bms_snapshot_t *s = &ctx->snapshot;
    const uint64_t elapsed_ms = ctx->uptime_ms - ctx->snapshot_ms;
    const int64_t moved_mAms = (int64_t)(ctx->discharged_mAms - ctx->snapshot_discharged_mAms) -
                               (int64_t)(ctx->charged_mAms - ctx->snapshot_charged_mAms);
    ctx->snapshot_ms = ctx->uptime_ms;
    ctx->snapshot_charged_mAms = ctx->charged_mAms;
    ctx->snapshot_discharged_mAms = ctx->discharged_mAms;
    s->uptime_ms = ctx->uptime_ms;
    s->fault_active = ctx->diag_active;
    s->fault_latched = ctx->diag_latched;
    s->charge_mAms = ctx->charge_mAms;
    s->charged_mAms = ctx->charged_mAms;
    s->discharged_mAms = ctx->discharged_mAms;
    s->dt_ms = elapsed_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)elapsed_ms;
    s->current_mean_mA = s->dt_ms != 0 ? (int32_t)(moved_mAms / (int64_t)s->dt_ms) : 0;
    s->soc_ppm = bms_soc_ppm(ctx);
    s->soc_rest_ms = ctx->soc_rest_ms;
    s->rest_ms = ctx->rest_ms;
    for (uint32_t source = 0; source < 3; ++source) {
        const uint32_t age_ms = ctx->source_age_ms[source];
        s->age_ms[source] = age_ms > ctx->sample_age_ms ? age_ms : ctx->sample_age_ms;
    }
    s->overruns = add_saturating(ctx->rt_overruns, ctx->slow_overruns);
    s->rate_max_mK_per_s = ctx->runaway.rate_max_mK_per_s;
    s->openings_under_load = ctx->openings_under_load;
    s->soc_calibrations = ctx->soc_calibrations;
    s->step = ctx->step;
    s->command = ctx->command;
    s->cooling_percent = (uint8_t)bms_cooling_request(ctx);
    s->soc_known = ctx->soc_known;
    s->soc_started = ctx->soc_started;
    s->runaway = ctx->runaway.flags;
    s->asleep = ctx->asleep;
    s->requested = (uint8_t)(ctx->request_before & MASK(REQUEST_BIT_CLOSE));
    for (uint32_t group = 0; group < (uint32_t)ctx->params.n_groups; ++group) {
        s->bled_100uVms[group] = ctx->bled_100uVms[group];
    }
    s->measured = ctx->measured;
    s->frame = ctx->frame;
    s->trace = ctx->trace_open;
    ctx->asleep = 0;
    ctx->trace_open ^= 1u;
    ctx->trace[ctx->trace_open].n = 0;
    ctx->trace[ctx->trace_open].lost = 0;
}

void bms_handover_tick(bms_ctx_t *ctx, uint32_t tick_ms) {
    ctx->overrun_ms = ctx->overrun_ms > tick_ms ? ctx->overrun_ms - tick_ms : 0;
    if (ctx->slow_in_ms > tick_ms) {
        ctx->slow_in_ms -= tick_ms;
        return;
    }
    ctx->slow_in_ms = SLOW_MS;
    if (ctx->slow_pending) {
        ctx->slow_late = 1;
        ctx->slow_overruns = add_saturating(ctx->slow_overruns, 1);
        ctx->trace[ctx->trace_open].n = 0; /* its second is lost, and says so */
        ctx->trace[ctx->trace_open].lost = 1;
        return;
    }
    BARRIER();
    ctx->slow_late = 0;
    ctx->result = ctx->slow.result;
    publish(ctx);
    BARRIER();
    ctx->slow_pending = 1;
}

uint32_t bms_slow_due(const bms_ctx_t *ctx) {
    BARRIER();
    return ctx->slow_pending;
}

void bms_slow_step(bms_ctx_t *ctx, bms_sink_t *sink) {
    if (!bms_slow_due(ctx)) {
        return;
    }
    BARRIER();
    bms_slow_t *slow = &ctx->slow;
    const bms_snapshot_t *snapshot = &ctx->snapshot;
    const bms_params_t *params = &ctx->params;
    bms_estimate_step(slow, params, snapshot);
    bms_abuse_step(slow, params, snapshot);
    bms_parked_step(slow, params, snapshot);
    bms_blackbox_step(slow, snapshot);
    bms_telemetry_step(slow, params, snapshot, &ctx->trace[snapshot->trace], sink);
    BARRIER();
    ctx->slow_pending = 0;
}

void bms_slept(bms_ctx_t *ctx, uint32_t ms) {
    ms = ms > BMS_TICK_MS_MAX ? BMS_TICK_MS_MAX : ms;
    ctx->uptime_ms += ms;
    ctx->rest_ms = ctx->measured.resting ? add_saturating(ctx->rest_ms, ms) : 0;
    ctx->soc_rest_ms = ctx->measured.resting ? add_saturating(ctx->soc_rest_ms, ms) : 0;
    ctx->asleep = 1;
    ctx->slow_in_ms = 0;
}

void bms_note_overrun(bms_ctx_t *ctx) {
    enum { SHOWN_MS = 5000 };
    ctx->rt_overruns = add_saturating(ctx->rt_overruns, 1);
    ctx->overrun_ms = SHOWN_MS;
}
