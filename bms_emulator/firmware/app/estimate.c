/* The estimators (est.h) on the snapshots of the real-time part: units in, parts per million and watts out.
 *
 * BMS_COUNTING is the release without them: the counted state of charge is the estimate, and no sigma is stated.
 */
#include "parts.h"

#ifndef BMS_COUNTING
static uint32_t ppm(float fraction) {
    return fraction <= 0.0f ? 0 : fraction >= 4.0f ? 4000000u : (uint32_t)(fraction * 1.0e6f);
}

static uint32_t whole(float value) { return value <= 0.0f ? 0 : value >= 4.0e9f ? 4000000000u : (uint32_t)value; }

static const est_params_t *rows_of(const bms_params_t *p) { return (const est_params_t *)&p->est_ocv_V; }

static void start(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s) {
    est_start_t from = {0};
    from.soc = (float)s->soc_ppm * 1.0e-6f;
    /* At start the voltage was taken for the open circuit, whatever flowed. */
    from.soc_sigma = s->soc_known ? 0.02f : 0.1f;
    from.capacity_Ah = (float)p->capacity_mAh * 0.001f;
    est_init(&slow->est, rows_of(p), &from);
    slow->estimating = 1;
}

static void predict_power(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s) {
    est_power_t power[EST_POWERS];
    est_limits_t limits = {0};
    limits.voltage_min_V = (float)p->limit_trip[LIMIT_CELL_UNDERVOLTAGE * LEVEL_COUNT + LEVEL_RSL] * 1.0e-4f;
    limits.voltage_max_V = (float)p->limit_trip[LIMIT_CELL_OVERVOLTAGE * LEVEL_COUNT + LEVEL_RSL] * 1.0e-4f;
    limits.discharge_A = (float)p->current_max_discharge_mA * 0.001f;
    limits.charge_A = (float)p->current_max_charge_mA * 0.001f;
    limits.temperature_max_K =
        (float)p->limit_trip[LIMIT_OVERTEMPERATURE_DISCHARGE * LEVEL_COUNT + LEVEL_RSL] * 0.1f + 273.15f;
    limits.heat_J_per_K = p->cell_mass_kg * p->cell_cp_J_per_kgK * p->cell_parallel;
    limits.temperature_K = (float)s->measured.signal[SIGNAL_CELL_T_MAX] * 0.1f + 273.15f;
    limits.n_groups = (float)p->n_groups;
    est_power(&slow->est, rows_of(p), &limits, power);
    slow->result.sop_W[0] = whole(power[EST_DISCHARGE_10S].power_W);
    slow->result.sop_W[1] = whole(power[EST_DISCHARGE_60S].power_W);
    slow->result.sop_W[2] = whole(power[EST_CHARGE_10S].power_W);
    slow->result.sop_W[3] = whole(power[EST_CHARGE_60S].power_W);
}

static void filter(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s) {
    const uint32_t thermometers = s->measured.signal_valid & MASK(SIGNAL_CELL_T_MIN);
    if (!slow->estimating) {
        if (!s->soc_started) {
            return;
        }
        start(slow, p, s);
    }
    uint32_t bled_mAs[EST_CELLS];
    const uint32_t n = p->n_groups <= EST_CELLS ? (uint32_t)p->n_groups : 0;
    const uint64_t per_mAs = 10u * (uint64_t)p->balancing_resistance_mohm;
    for (uint32_t group = 0; group < n; ++group) {
        const uint64_t bled = s->bled_100uVms[group];
        bled_mAs[group] = bled ? (uint32_t)(bled / per_mAs) : 0;
    }
    est_input_t in = {0};
    const uint32_t fresh = s->age_ms[0] <= (uint32_t)p->voltage_stale_ms + s->dt_ms;
    in.dt_s = (float)s->dt_ms * 0.001f;
    in.current_A = (float)s->current_mean_mA * 0.001f;
    in.current_now_A = (float)s->measured.current_mA * 0.001f;
    in.mean_V = fresh && s->measured.cells_valid ? (float)s->measured.cell_mean_100uV * 1.0e-4f : 0.0f;
    in.temperature_K = thermometers ? (float)s->measured.peers_ddegC * 0.1f + 273.15f : 298.15f;
    in.n_cells = fresh ? n : 0;
    in.cell_100uV = s->frame.cell_voltage_100uV;
    in.bled_mAs = bled_mAs;
    est_step(&slow->est, rows_of(p), &in);

    bms_result_t *r = &slow->result;
    r->soc_estimate_ppm = ppm(est_soc(&slow->est));
    r->soc_sigma_ppm = ppm(est_soc_sigma(&slow->est));
    r->soc_min_ppm = ppm(est_soc(&slow->est) + slow->est.delta_min);
    r->soc_max_ppm = ppm(est_soc(&slow->est) + slow->est.delta_max);
    r->soh_capacity_ppm = slow->est.anchor_sigma > 0.0f ? ppm(slow->est.capacity_ratio) : 0;
    r->soh_resistance_ppm = slow->est.step_n > 0.0f ? ppm(slow->est.resistance_ratio) : 0;
    if (thermometers) {
        predict_power(slow, p, s);
    }
}
#endif

void bms_estimate_step(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s) {
    bms_result_t *r = &slow->result;
    r->soc_estimate_ppm = s->soc_ppm;
    r->soc_min_ppm = s->soc_ppm;
    r->soc_max_ppm = s->soc_ppm;
#ifdef BMS_COUNTING
    (void)p;
#else
    filter(slow, p, s);
#endif
}
