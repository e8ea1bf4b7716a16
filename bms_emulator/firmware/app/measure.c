/* From a frame to signals: which channels can be believed, extremes, cross checks.
 *
 * bms_evaluate depends on the frame and the parameters alone, so it runs once per sample, however many ticks the
 * sample is held. What needs the previous sample as well is found in bms_sample_arrived and lasts until the next.
 */
#include "parts.h"

/* All ones where the condition holds. */
static inline uint16_t mask16(uint32_t condition) { return (uint16_t)-(uint16_t)condition; }

/* A channel that repeats itself exactly while the mean of its peers moves is stuck. Time alone proves nothing:
 * at rest a healthy channel repeats itself for hours. The mean leaves out what cannot be believed and the two
 * extremes, so that one failing channel does not make the resting others look stuck; if half of the channels or
 * more seem stuck, several outliers moved the mean and nobody is accused. */
static uint32_t stuck_voltages(bms_ctx_t *ctx, const bms_inputs_t *in) {
    const bms_params_t *p = &ctx->params;
    const uint32_t n = (uint32_t)p->n_groups;
    const uint32_t low = (uint32_t)p->cell_plausible_min_100uV;
    const uint32_t high = (uint32_t)p->cell_plausible_max_100uV;
    const uint16_t shift = (uint16_t)p->stuck_voltage_100uV;
    const uint16_t enough = (uint16_t)p->stuck_samples;
    uint32_t sum = 0, usable = 0, min = UINT16_MAX, max = 0;
    for (uint32_t i = 0; i < n; ++i) {
        const uint32_t v = in->cell_voltage_100uV[i];
        const uint32_t good = (v >= low) & (v <= high);
        usable += good;
        sum += good ? v : 0;
        const uint32_t for_min = good ? v : UINT16_MAX;
        const uint32_t for_max = good ? v : 0;
        min = for_min < min ? for_min : min;
        max = for_max > max ? for_max : max;
    }
    if (usable < 3) {
        return 0;
    }
    const uint16_t mean = (uint16_t)((sum - min - max) / (usable - 2));
    /* All in 16 bits, masks instead of branches, no aliases: eight channels fit one step of a vector unit. */
    const uint16_t *restrict now = in->cell_voltage_100uV;
    const uint16_t *restrict before = ctx->frame.cell_voltage_100uV;
    uint16_t *restrict counts = ctx->stuck_voltage_count;
    uint16_t *restrict anchors = ctx->stuck_mean_100uV;
    uint16_t stuck = 0;
    for (uint32_t i = 0; i < n; ++i) {
        const uint16_t same = mask16(now[i] == before[i]) & mask16(now[i] != BMS_CELL_VOLTAGE_INVALID);
        const uint16_t counted = (uint16_t)(counts[i] - mask16(counts[i] != UINT16_MAX));
        const uint16_t count = counted & same;
        const uint16_t anchor = (uint16_t)((anchors[i] & same) | (mean & ~same));
        const uint16_t moved = (uint16_t)((anchor > mean ? anchor - mean : 0) + (mean > anchor ? mean - anchor : 0));
        counts[i] = count;
        anchors[i] = anchor;
        stuck = (uint16_t)(stuck - (mask16(count >= enough) & mask16(moved > shift)));
    }
    return 2u * stuck < n ? stuck : 0;
}

static uint32_t stuck_temperatures(bms_ctx_t *ctx, const bms_inputs_t *in) {
    const bms_params_t *p = &ctx->params;
    const uint32_t n = (uint32_t)p->n_temps;
    const int32_t low = p->temperature_plausible_min_ddegC;
    const int32_t high = p->temperature_plausible_max_ddegC;
    const int32_t shift = p->stuck_temperature_ddegC;
    const uint16_t enough = (uint16_t)p->stuck_samples;
    int32_t sum = 0, usable = 0, min = INT16_MAX, max = INT16_MIN;
    for (uint32_t i = 0; i < n; ++i) {
        const int32_t t = in->cell_temperature_ddegC[i];
        const int32_t good = (t >= low) & (t <= high);
        usable += good;
        sum += good ? t : 0;
        const int32_t for_min = good ? t : INT16_MAX;
        const int32_t for_max = good ? t : INT16_MIN;
        min = for_min < min ? for_min : min;
        max = for_max > max ? for_max : max;
    }
    if (usable < 3) {
        return 0;
    }
    const int16_t mean = (int16_t)((sum - min - max) / (usable - 2));
    const int16_t *restrict now = in->cell_temperature_ddegC;
    const int16_t *restrict before = ctx->frame.cell_temperature_ddegC;
    uint16_t *restrict counts = ctx->stuck_temperature_count;
    int16_t *restrict anchors = ctx->stuck_mean_ddegC;
    uint16_t stuck = 0;
    for (uint32_t i = 0; i < n; ++i) {
        const uint16_t same = mask16(now[i] == before[i]) & mask16(now[i] != BMS_TEMPERATURE_INVALID);
        const uint16_t counted = (uint16_t)(counts[i] - mask16(counts[i] != UINT16_MAX));
        const uint16_t count = counted & same;
        const int16_t anchor = same ? anchors[i] : mean;
        const int32_t moved = magnitude(mean - anchor);
        counts[i] = count;
        anchors[i] = anchor;
        stuck = (uint16_t)(stuck - (mask16(count >= enough) & mask16(moved > shift)));
    }
    return 2u * stuck < n ? stuck : 0;
}

/* More current than was on offer when this sample was taken. */
static uint32_t limit_ignored(const bms_ctx_t *ctx, const bms_inputs_t *in) {
    const int64_t current = in->pack_current_mA;
    const int64_t tolerance = ctx->params.limit_tolerance_mA;
    return in->pack_current_mA != BMS_CURRENT_INVALID &&
           (current > ctx->limit_at_sample_mA[DISCHARGE] + tolerance ||
            -current > ctx->limit_at_sample_mA[CHARGE] + tolerance);
}

void bms_sample_arrived(bms_ctx_t *ctx, const bms_inputs_t *in) {
    ctx->limit_at_sample_mA[CHARGE] = (int32_t)(ctx->limit_uA[CHARGE] / 1000);
    ctx->limit_at_sample_mA[DISCHARGE] = (int32_t)(ctx->limit_uA[DISCHARGE] / 1000);
    uint64_t sticky = 0;
    if (ctx->have_sample) {
        sticky |= (uint16_t)(in->sample_counter - ctx->frame.sample_counter) != 1 ? BIT64(DIAG_SAMPLE_LOST) : 0;
        sticky |= limit_ignored(ctx, in) ? BIT64(DIAG_CURRENT_LIMIT_IGNORED) : 0;
    }
    sticky |= stuck_voltages(ctx, in) ? BIT64(DIAG_CELL_VOLTAGE_STUCK) : 0;
    sticky |= stuck_temperatures(ctx, in) ? BIT64(DIAG_TEMPERATURE_STUCK) : 0;
    ctx->sticky_nok = sticky;
    /* A frame that comes with a source's old counter brings nothing new of that source. */
    const uint8_t counter[3] = {in->voltage_sample, in->temperature_sample, in->current_sample};
    for (uint32_t source = 0; source < 3; ++source) {
        if (counter[source] == 0 || counter[source] != ctx->source_counter[source]) {
            ctx->source_age_ms[source] = 0;
        }
        ctx->source_counter[source] = counter[source];
    }
    ctx->frame = *in;
    ctx->have_sample = 1;
    ctx->command_samples = (uint8_t)(ctx->command_samples < 255 ? ctx->command_samples + 1 : 255);
    ctx->step_samples = (uint8_t)(ctx->step_samples < 255 ? ctx->step_samples + 1 : 255);
}

static uint64_t cell_voltages(const bms_params_t *p, const bms_inputs_t *frame, bms_measured_t *m) {
    const uint32_t n = (uint32_t)p->n_groups;
    const uint32_t low = (uint32_t)p->cell_plausible_min_100uV;
    const uint32_t high = (uint32_t)p->cell_plausible_max_100uV;
    uint32_t missing = 0, usable = 0, sum = 0, min = UINT16_MAX, max = 0;
    for (uint32_t i = 0; i < n; ++i) {
        const uint32_t v = frame->cell_voltage_100uV[i];
        const uint32_t good = (v >= low) & (v <= high);
        missing += v == BMS_CELL_VOLTAGE_INVALID;
        usable += good;
        sum += good ? v : 0;
        const uint32_t for_min = good ? v : UINT16_MAX;
        const uint32_t for_max = good ? v : 0;
        min = for_min < min ? for_min : min;
        max = for_max > max ? for_max : max;
    }
    m->cells_valid = (uint16_t)usable;
    m->cell_sum_mV = (sum + 5u) / 10u;
    uint64_t nok = 0;
    nok |= missing != 0 ? BIT64(DIAG_CELL_VOLTAGE_MISSING) : 0;
    nok |= usable + missing != n ? BIT64(DIAG_CELL_VOLTAGE_IMPLAUSIBLE) : 0;
    nok |= n - usable > (uint32_t)p->groups_lost_max || usable == 0 ? BIT64(DIAG_CELL_VOLTAGE_LOST) : 0;
    if (usable == 0) {
        return nok;
    }
    /* Lowest channel number among equals; the value exists, so both searches end. */
    uint32_t min_index = 0, max_index = 0;
    while (min_index < n - 1 && frame->cell_voltage_100uV[min_index] != min) {
        ++min_index;
    }
    while (max_index < n - 1 && frame->cell_voltage_100uV[max_index] != max) {
        ++max_index;
    }
    m->cell_min_index = (uint16_t)min_index;
    m->cell_max_index = (uint16_t)max_index;
    m->cell_mean_100uV = (uint16_t)(sum / usable);
    m->peers_100uV = (uint16_t)(usable > 2 ? (sum - min - max) / (usable - 2) : sum / usable);
    m->signal[SIGNAL_CELL_V_MIN] = (int32_t)min;
    m->signal[SIGNAL_CELL_V_MAX] = (int32_t)max;
    m->signal[SIGNAL_CELL_V_SPREAD] = (int32_t)(max - min);
    m->signal_valid |= MASK(SIGNAL_CELL_V_MIN) | MASK(SIGNAL_CELL_V_MAX) | MASK(SIGNAL_CELL_V_SPREAD);
    nok |= (int32_t)min < p->deep_discharge_100uV ? BIT64(DIAG_DEEP_DISCHARGE) : 0;
    return nok;
}

static uint64_t cell_temperatures(const bms_params_t *p, const bms_inputs_t *frame, bms_measured_t *m) {
    const uint32_t n = (uint32_t)p->n_temps;
    uint32_t missing = 0, usable = 0, min_index = 0, max_index = 0;
    int32_t min = INT32_MAX, max = INT32_MIN, sum = 0;
    for (uint32_t i = 0; i < n; ++i) {
        const int32_t t = frame->cell_temperature_ddegC[i];
        if (t == BMS_TEMPERATURE_INVALID) {
            ++missing;
        } else if (t >= p->temperature_plausible_min_ddegC && t <= p->temperature_plausible_max_ddegC) {
            ++usable;
            sum += t;
            if (t < min) {
                min = t;
                min_index = i;
            }
            if (t > max) {
                max = t;
                max_index = i;
            }
        }
    }
    uint64_t nok = 0;
    nok |= missing != 0 ? BIT64(DIAG_TEMPERATURE_MISSING) : 0;
    nok |= usable + missing != n ? BIT64(DIAG_TEMPERATURE_IMPLAUSIBLE) : 0;
    nok |= n - usable > (uint32_t)p->temps_lost_max || usable == 0 ? BIT64(DIAG_TEMPERATURE_LOST) : 0;
    if (usable == 0) {
        return nok;
    }
    m->temp_min_index = (uint8_t)min_index;
    m->temp_max_index = (uint8_t)max_index;
    m->signal[SIGNAL_CELL_T_MIN] = min;
    m->signal[SIGNAL_CELL_T_MAX] = max;
    m->signal[SIGNAL_CELL_T_SPREAD] = max - min;
    m->peers_ddegC = (int16_t)(usable > 2 ? (sum - min - max) / (int32_t)(usable - 2) : sum / (int32_t)usable);
    nok |= usable > 2 && min < m->peers_ddegC - p->temperature_outlier_ddegC ? BIT64(DIAG_TEMPERATURE_OUTLIER) : 0;
    m->signal_valid |= MASK(SIGNAL_CELL_T_MIN) | MASK(SIGNAL_CELL_T_MAX) | MASK(SIGNAL_CELL_T_SPREAD);
    return nok;
}

static uint64_t pack_signals(const bms_params_t *p, const bms_inputs_t *frame, bms_measured_t *m) {
    uint64_t nok = 0;
    const int32_t current = frame->pack_current_mA;
    if (current >= -p->current_plausible_mA && current <= p->current_plausible_mA) {
        m->current_mA = current;
        m->current_valid = 1;
        m->charging = current < -p->rest_current_mA;
        m->resting = magnitude(current) <= p->rest_current_mA;
        m->signal[SIGNAL_CURRENT_DISCHARGE] = current;
        m->signal[SIGNAL_CURRENT_CHARGE] = -current;
        m->signal_valid |= MASK(SIGNAL_CURRENT_DISCHARGE) | MASK(SIGNAL_CURRENT_CHARGE);
        const int64_t disagreement = (int64_t)current - frame->pack_current_redundant_mA;
        if (frame->pack_current_redundant_mA != BMS_CURRENT_INVALID &&
            (disagreement > p->current_redundancy_mA || -disagreement > p->current_redundancy_mA)) {
            nok |= BIT64(DIAG_CURRENT_REDUNDANCY);
        }
    } else {
        nok |= BIT64(DIAG_CURRENT_LOST);
    }
    /* The invalid sentinel is above every plausible voltage. */
    if (frame->pack_voltage_mV <= (uint32_t)p->pack_plausible_max_mV) {
        m->signal[SIGNAL_PACK_V] = (int32_t)frame->pack_voltage_mV;
        m->signal_valid |= MASK(SIGNAL_PACK_V);
        if (m->cells_valid == p->n_groups &&
            distance(frame->pack_voltage_mV, m->cell_sum_mV) > (uint32_t)p->cell_sum_tolerance_mV) {
            nok |= BIT64(DIAG_CELL_SUM_MISMATCH);
        }
    } else {
        nok |= BIT64(DIAG_PACK_VOLTAGE_LOST);
    }
    m->link_valid = frame->link_voltage_mV <= (uint32_t)p->pack_plausible_max_mV;
    nok |= m->link_valid ? 0 : BIT64(DIAG_LINK_VOLTAGE_LOST);
    nok |= frame->condition & MASK(CONDITION_BIT_INTERLOCK_OPEN) ? BIT64(DIAG_INTERLOCK_OPEN) : 0;
    nok |= frame->condition & MASK(CONDITION_BIT_EMERGENCY_STOP) ? BIT64(DIAG_EMERGENCY_STOP) : 0;
    return nok;
}

/* Sensors that not every pack has; the sentinel says so, and only what the parameters require is missed. */
static uint64_t other_sensors(const bms_params_t *p, const bms_inputs_t *frame, bms_measured_t *m) {
    const uint16_t value[3] = {frame->insulation_kohm, frame->pressure_daPa, frame->gas_ppm};
    const uint32_t signal[3] = {SIGNAL_INSULATION, SIGNAL_PRESSURE, SIGNAL_GAS};
    uint64_t nok = 0;
    for (uint32_t i = 0; i < 3; ++i) {
        if (value[i] != BMS_SENSOR_INVALID) {
            m->signal[signal[i]] = value[i];
            m->signal_valid |= MASK(signal[i]);
        } else if (p->sensors_required & (int32_t)MASK(i)) {
            nok |= BIT64(DIAG_SENSOR_MISSING);
        }
    }
    return nok;
}

void bms_evaluate(bms_ctx_t *ctx) {
    bms_measured_t m = {0};
    m.nok |= cell_voltages(&ctx->params, &ctx->frame, &m);
    m.nok |= cell_temperatures(&ctx->params, &ctx->frame, &m);
    m.nok |= pack_signals(&ctx->params, &ctx->frame, &m);
    m.nok |= other_sensors(&ctx->params, &ctx->frame, &m);
    bms_limits_evaluate(&ctx->params, &m);
    bms_derate_evaluate(&ctx->params, &m);
    ctx->measured = m;
}
