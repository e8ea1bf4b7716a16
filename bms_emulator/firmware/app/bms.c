/* One tick, told in order; each line is a part with its own file. */
#include "parts.h"

static void clear(void *memory, uint32_t size) {
    uint8_t *byte = memory;
    for (uint32_t i = 0; i < size; ++i) {
        byte[i] = 0;
    }
}

uint32_t bms_init(bms_ctx_t *ctx, const bms_params_t *params) {
    const uint32_t reason = bms_params_check(params).reason;
    clear(ctx, sizeof *ctx);
    if (reason == PARAM_OK) {
        ctx->params = *params;
    } else {
        /* A known-good set, so that no later line has to distrust an index; the latch keeps it open. */
        ctx->params.n_groups = 1;
        ctx->params.n_temps = 1;
        ctx->params.capacity_mAh = 1000;
        ctx->params.cell_min_100uV = 25000;
        ctx->params.cell_max_100uV = 42000;
        bms_params_default(&ctx->params);
    }
    ctx->params_bad = reason;
    ctx->capacity_mAms = (int64_t)ctx->params.capacity_mAh * 3600000;
    ctx->step = STEP_OFF;
    ctx->close_armed = 1;
    ctx->first_fault = BMS_NO_FAULT;
    ctx->slow_in_ms = 50; /* between two evaluations of slopes: the longest tick counts */
    bms_abuse_start(&ctx->slow, &ctx->params);
    ctx->result = ctx->slow.result;
    return reason;
}

uint32_t bms_params_replace(bms_ctx_t *ctx, const bms_params_t *params) {
    const uint32_t reason = bms_params_check(params).reason;
    if (reason != PARAM_OK) {
        return reason;
    }
    if (params->n_groups != ctx->params.n_groups || params->n_temps != ctx->params.n_temps) {
        return PARAM_SET_DESIGN; /* wiring is no parameter of a running pack */
    }
    const uint32_t soc_ppm = bms_soc_ppm(ctx);
    ctx->params = *params;
    ctx->capacity_mAms = (int64_t)params->capacity_mAh * 3600000;
    ctx->charge_mAms = ctx->capacity_mAms * (int64_t)soc_ppm / 1000000;
    bms_evaluate(ctx); /* limits and ramps of the present frame by the new set */
    return PARAM_OK;
}

void bms_tick(bms_ctx_t *ctx, const bms_inputs_t *in, uint32_t tick_ms) {
    tick_ms = tick_ms == 0 ? 1 : tick_ms > BMS_TICK_MS_MAX ? BMS_TICK_MS_MAX : tick_ms;
    ctx->uptime_ms += tick_ms;

    const uint32_t fresh = ctx->have_sample == 0 || in->sample_counter != ctx->frame.sample_counter;
    if (fresh) {
        bms_balancing_book(ctx); /* with the voltages it was bled at */
        bms_sample_arrived(ctx, in);
    }
    ctx->sample_age_ms = fresh ? tick_ms : add_saturating(ctx->sample_age_ms, tick_ms);
    for (uint32_t source = 0; source < 3; ++source) {
        ctx->source_age_ms[source] = add_saturating(ctx->source_age_ms[source], tick_ms);
    }
    if (fresh || NAIVE) {
        bms_evaluate(ctx);
        bms_cooling(ctx);
    }
    if (fresh) {
        bms_runaway_sample(ctx);
    }

    /* Bounded, so that a garbage period cannot switch the staleness check off for good. */
    const uint32_t period = ctx->frame.sample_period_ticks;
    const uint32_t period_ticks = period == 0 ? 1 : period > 360000u ? 360000u : period;
    const uint64_t period_ms = (uint64_t)period_ticks * tick_ms;

    bms_limits_tick(ctx, tick_ms);
    bms_runaway_tick(ctx, tick_ms);
    const uint64_t nok = bms_diag_conditions(ctx, period_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)period_ms);
    bms_diag_tick(ctx, nok, tick_ms);
    bms_diag_reset(ctx, nok, in->request);
    bms_contactor_tick(ctx, nok, in->request, tick_ms);
    bms_soc_tick(ctx, tick_ms);
    bms_balancing_tick(ctx, fresh, tick_ms);
    bms_derate_tick(ctx, tick_ms);
    ctx->request_before = in->request;
    bms_trace_tick(ctx, fresh);
    bms_handover_tick(ctx, tick_ms);
}

void bms_settle(bms_ctx_t *ctx) { bms_balancing_book(ctx); }

/* Levels of all limits as one bit per limit. */
static uint32_t level_mask(uint64_t active, uint32_t level) {
    uint32_t mask = 0;
    for (uint32_t limit = 0; limit < LIMIT_COUNT; ++limit) {
        mask |= (uint32_t)((active >> (limit * LEVEL_COUNT + level)) & 1u) << limit;
    }
    return mask;
}

void bms_read(const bms_ctx_t *ctx, bms_outputs_t *out) {
    const bms_measured_t *m = &ctx->measured;
    const uint32_t n_groups = (uint32_t)ctx->params.n_groups;
    const uint32_t voltage_known = m->signal_valid & MASK(SIGNAL_CELL_V_MIN);
    const uint32_t temperature_known = m->signal_valid & MASK(SIGNAL_CELL_T_MIN);

    /* 1 mAs at R mohm = 10 R * 100 uV ms */
    const uint64_t per_mAs = 10u * (uint64_t)ctx->params.balancing_resistance_mohm;

    out->uptime_ms = ctx->uptime_ms;
    out->fault_latched = ctx->diag_latched;
    out->fault_active = ctx->diag_active;
    out->first_fault_ms = ctx->first_fault_ms;
    out->contactor_change_ms = ctx->contactor_change_ms;
    out->remaining_charge_mAs = (uint64_t)(ctx->charge_mAms / 1000);
    out->charged_mAs = ctx->charged_mAms / 1000u;
    out->discharged_mAs = ctx->discharged_mAms / 1000u;
    out->charge_limit_mA = (int32_t)(ctx->limit_uA[CHARGE] / 1000);
    out->discharge_limit_mA = (int32_t)(ctx->limit_uA[DISCHARGE] / 1000);
    out->soc_ppm = bms_soc_ppm(ctx);
    out->cell_sum_mV = m->cell_sum_mV;
    out->mol_active = level_mask(ctx->limit_active, LEVEL_MOL);
    out->rsl_active = level_mask(ctx->limit_active, LEVEL_RSL);
    out->msl_active = level_mask(ctx->limit_active, LEVEL_MSL);
    for (uint32_t group = 0; group < n_groups; ++group) {
        const uint64_t bled = ctx->bled_100uVms[group];
        out->balancing_charge_mAs[group] = bled ? (uint32_t)(bled / per_mAs) : 0;
    }
    for (uint32_t byte = 0; byte < BMS_MAX_GROUPS / 8; ++byte) {
        out->balancing_mask[byte] = ctx->balancing_mask[byte];
    }
    out->cell_voltage_min_100uV =
        voltage_known ? (uint16_t)m->signal[SIGNAL_CELL_V_MIN] : BMS_CELL_VOLTAGE_INVALID;
    out->cell_voltage_max_100uV =
        voltage_known ? (uint16_t)m->signal[SIGNAL_CELL_V_MAX] : BMS_CELL_VOLTAGE_INVALID;
    out->cell_voltage_mean_100uV = voltage_known ? m->cell_mean_100uV : BMS_CELL_VOLTAGE_INVALID;
    out->cell_voltage_min_index = m->cell_min_index;
    out->cell_voltage_max_index = m->cell_max_index;
    out->cell_temperature_min_ddegC =
        temperature_known ? (int16_t)m->signal[SIGNAL_CELL_T_MIN] : BMS_TEMPERATURE_INVALID;
    out->cell_temperature_max_ddegC =
        temperature_known ? (int16_t)m->signal[SIGNAL_CELL_T_MAX] : BMS_TEMPERATURE_INVALID;
    out->cell_temperature_min_index = m->temp_min_index;
    out->cell_temperature_max_index = m->temp_max_index;
    out->soc_calibrations = ctx->soc_calibrations;
    out->openings_under_load = ctx->openings_under_load;
    out->state = (uint8_t)bms_step_state(ctx->step);
    out->step = ctx->step;
    out->contactor_command = ctx->command;
    out->cooling_percent = (uint8_t)bms_cooling_request(ctx);
    out->first_fault = ctx->first_fault;
    out->soc_known = ctx->soc_known;
    const bms_result_t *result = &ctx->result;
    out->parked = result->park && ctx->step == STEP_STANDBY && !(ctx->request_before & MASK(REQUEST_BIT_CLOSE));
    out->runaway = ctx->runaway.flags;
    out->safety_ppm = result->safety_ppm;
    out->soc_estimate_ppm = result->soc_estimate_ppm;
    out->soc_sigma_ppm = result->soc_sigma_ppm;
    out->soc_min_ppm = result->soc_min_ppm;
    out->soc_max_ppm = result->soc_max_ppm;
    out->soh_capacity_ppm = result->soh_capacity_ppm;
    out->soh_resistance_ppm = result->soh_resistance_ppm;
    out->sop_discharge_10s_W = result->sop_W[0];
    out->sop_discharge_60s_W = result->sop_W[1];
    out->sop_charge_10s_W = result->sop_W[2];
    out->sop_charge_60s_W = result->sop_W[3];
    out->wake_in_s = out->parked ? result->wake_in_s : 0;
    out->rate_max_mK_per_s = ctx->runaway.rate_max_mK_per_s;
    out->telemetry_sequence = result->telemetry_sequence;
    out->overruns = add_saturating(ctx->rt_overruns, ctx->slow_overruns);
    out->release = BMS_RELEASE;
}
