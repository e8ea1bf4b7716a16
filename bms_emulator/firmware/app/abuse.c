/* L2: reduced electro-thermal abuse model per temperature sensor, and the State of Safety.
 *
 * Two nodes per zone: the surface is where the sensor sits, the core is where the reactions are. The core gains Joule
 * heat and the heat of four Arrhenius pathways and loses to the surface; the surface follows the sensor, or the model
 * while the sensor is silent. Kinetics after Hatchard et al. (2001) and Kim et al. (2007): reactant c left with
 * dc/dt = -k c for SEI and electrolyte, with exp(-z/z0) for the anode, a(1 - a) for the cathode; each is advanced
 * exactly over the step at fixed temperature, so no step length makes a conversion leave 0...1.
 *
 *     SoS = 1 - sum w_i alpha_i - lambda max(0, T - T_onset) / (T_inevitable - T_onset), clipped to 0...1
 *
 * alpha_i is the conversion since start, w_i the pathway's share of the heat, T the core temperature.
 */
#include "est_math.h"
#include "parts.h"

#define ZERO_CELSIUS_K 273.15f

/* est_exp is for x <= 0. */
static float exponential(float x) { return x > 0.0f ? 1.0f / est_exp(-x) : est_exp(x); }

static float clipped(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

void bms_abuse_start(bms_slow_t *slow, const bms_params_t *p) {
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        bms_zone_t *zone = &slow->abuse.zone[i];
        for (uint32_t k = 0; k < ABUSE_PATHWAYS; ++k) {
            zone->left[k] = p->abuse_start[k];
        }
        zone->layer = p->abuse_anode_z;
        zone->core_K = 298.15f;
        zone->surface_K = 298.15f;
    }
    slow->abuse.coolant_K = 298.15f;
    slow->result.safety_ppm = 1000000;
    slow->result.safety_q16 = 65536;
}

/* Advances the pathways at the core's temperature; returns the heat in W per kg of cell, mean over the step. */
static float react(bms_zone_t *zone, const bms_params_t *p, float dt_s) {
    const float per_K = 1.0f / zone->core_K;
    float heat_J_per_kg = 0.0f;
    for (uint32_t k = 0; k < ABUSE_PATHWAYS; ++k) {
        const float before = zone->left[k];
        float exponent = p->abuse_ln_A[k] - p->abuse_E_over_R_K[k] * per_K;
        if (k == ABUSE_ANODE) {
            exponent -= zone->layer / p->abuse_anode_z;
        }
        const float way = exponential(clipped(exponent, -80.0f, 30.0f)) * dt_s;
        float after;
        float span;
        if (k == ABUSE_CATHODE) {
            const float odds = before * exponential(clipped(way, 0.0f, 40.0f));
            after = clipped(odds / (1.0f - before + odds), before, 1.0f);
            span = 1.0f - p->abuse_start[k];
        } else {
            after = before * exponential(-way);
            span = p->abuse_start[k];
        }
        const float used = after > before ? after - before : before - after;
        zone->layer += k == ABUSE_ANODE ? used : 0.0f;
        zone->left[k] = after;
        heat_J_per_kg += span > 0.0f ? p->abuse_heat_J_per_kg[k] * used / span : 0.0f;
    }
    return heat_J_per_kg / dt_s;
}

static float safety(const bms_zone_t *zone, const bms_params_t *p) {
    float total = 0.0f, spent = 0.0f;
    for (uint32_t k = 0; k < ABUSE_PATHWAYS; ++k) {
        const float start = p->abuse_start[k];
        const float span = k == ABUSE_CATHODE ? 1.0f - start : start;
        const float gone = k == ABUSE_CATHODE ? zone->left[k] - start : start - zone->left[k];
        total += p->abuse_heat_J_per_kg[k];
        spent += span > 0.0f ? p->abuse_heat_J_per_kg[k] * gone / span : 0.0f;
    }
    const float beyond = zone->core_K > p->abuse_onset_K ? zone->core_K - p->abuse_onset_K : 0.0f;
    const float share = total > 0.0f ? spent / total : 0.0f;
    return clipped(1.0f - share - p->abuse_scale * beyond / (p->abuse_inevitable_K - p->abuse_onset_K), 0.0f, 1.0f);
}

static void advance(bms_zone_t *zone, const bms_params_t *p, float coolant_K, float seen_K, uint32_t seen,
                    float current_A, float dt_s) {
    const float heat_per_K = p->cell_mass_kg * p->cell_cp_J_per_kgK;
    const float core_J_per_K = heat_per_K * p->cell_core_share;
    const float surface_J_per_K = heat_per_K - core_J_per_K;
    const float cell_A = current_A / p->cell_parallel;
    const float joule_W = cell_A * cell_A * p->cell_resistance_ohm * p->cell_parallel;
    const float abuse_W = zone->core_K >= p->abuse_starts_K ? react(zone, p, dt_s) * p->cell_mass_kg : 0.0f;
    /* Implicit in the temperatures: stable for any step. */
    const float core_rate = dt_s / (core_J_per_K * p->cell_core_K_per_W);
    if (seen) {
        zone->surface_K = seen_K;
    } else {
        const float in = dt_s / (surface_J_per_K * p->cell_core_K_per_W);
        const float out = dt_s / (surface_J_per_K * p->cell_surface_K_per_W);
        zone->surface_K = (zone->surface_K + in * zone->core_K + out * coolant_K) / (1.0f + in + out);
    }
    const float gained_K = (joule_W + abuse_W) * dt_s / core_J_per_K;
    zone->core_K = clipped((zone->core_K + gained_K + core_rate * zone->surface_K) / (1.0f + core_rate), 200.0f, 1500.0f);
}

void bms_abuse_step(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s) {
    bms_abuse_t *abuse = &slow->abuse;
    if (s->dt_ms == 0) {
        return;
    }
    const float dt_s = (float)s->dt_ms * 0.001f;
    const float current_A = (float)s->current_mean_mA * 0.001f;
    const uint32_t known = s->measured.signal_valid & MASK(SIGNAL_CELL_T_MIN);
    if (known) {
        abuse->coolant_K = (float)s->measured.signal[SIGNAL_CELL_T_MIN] * 0.1f + ZERO_CELSIUS_K;
    }
    float worst = 1.0f;
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        bms_zone_t *zone = &abuse->zone[i];
        const int32_t ddegC = s->frame.cell_temperature_ddegC[i];
        const uint32_t seen = s->age_ms[1] <= (uint32_t)p->temperature_stale_ms + s->dt_ms &&
                              ddegC >= p->temperature_plausible_min_ddegC &&
                              ddegC <= p->temperature_plausible_max_ddegC;
        const float seen_K = (float)ddegC * 0.1f + ZERO_CELSIUS_K;
        if (!abuse->started && seen) {
            zone->core_K = seen_K;
            zone->surface_K = seen_K;
        }
        advance(zone, p, abuse->coolant_K, seen_K, seen, current_A, dt_s);
        const float zone_safety = safety(zone, p);
        if (zone_safety < worst) {
            worst = zone_safety;
            abuse->worst_zone = i;
        }
    }
    abuse->started |= known != 0;
    bms_result_t *result = &slow->result;
    result->safety_ppm = (uint32_t)(worst * 1.0e6f);
    result->safety_q16 = bms_ramp_q16((int32_t)result->safety_ppm, p->safety_zero_ppm, p->safety_full_ppm);
    result->safety_low = result->safety_ppm < (uint32_t)p->safety_warn_ppm;
}
