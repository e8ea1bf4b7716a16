/* State of power: the largest constant power over 10 s and 60 s that keeps every group inside its limits of voltage,
 * current, charge and temperature, by the circuit of the filter.
 *
 * A power is tried by looking at the end of the horizon: with constant power the current runs nearly along a line
 * from power over the first voltage to power over the last, and the answer of both branches to such a ramp is closed
 * form. All limits are one-sided in the power, so the largest one is found by bisection.
 */
#include "est.h"
#include "est_math.h"

enum { HALVINGS = 14 };

typedef struct {
    float v1_V, v2_V;    /* now */
    float kept1, kept2;  /* over the horizon: decay, and share of a ramp that has arrived */
    float ramp1, ramp2;
    float horizon_s;
    float fixed_V;       /* of the open circuit: entropic term and slow error of the model */
    float scale;
    float delta;         /* of the group that meets its limit first */
    float sign;          /* 1 discharge, -1 charge */
} horizon_t;

static float share_of_ramp(float lost, float tau_s, float horizon_s) { return 1.0f - lost * tau_s / horizon_s; }

/* Whether a constant power (W per group, magnitude) stays inside the limits; the largest current on the way. */
static uint32_t holds(const est_ctx_t *e, const est_params_t *p, const est_limits_t *l, const horizon_t *h, float power_W,
                      float *current_A) {
    const float soc = e->x[EST_X_SOC];
    est_circuit_t c;
    float slope_V;
    est_circuit_at(p, soc, l->temperature_K, &c);
    const float hysteresis = e->x[EST_X_HYST];
    const float first_V = est_ocv_at(p, soc, &slope_V) + h->fixed_V + c.hysteresis_V * hysteresis -
                          h->scale * (h->v1_V + h->v2_V);
    const float power = h->sign * power_W;
    const float r0_ohm = h->scale * c.r0_ohm;
    const float root = first_V * first_V - 4.0f * r0_ohm * power;
    if (first_V <= 0.0f || root <= 0.0f) {
        return 0;
    }
    const float start_V = 0.5f * (first_V + est_sqrt(root));
    const float start_A = power / start_V;
    const float start_drop_V = h->scale * (h->v1_V + h->v2_V + c.r0_ohm * start_A);
    float end_A = start_A, end_V = start_V, end_drop_V = 0.0f, end_soc = soc, open_V = 0.0f;
    for (uint32_t pass = 0; pass < 3; ++pass) {
        const float moved = 0.5f * (start_A + end_A) * h->horizon_s / e->capacity_As;
        end_soc = soc - moved;
        est_circuit_at(p, soc - 0.5f * moved, l->temperature_K, &c);
        const float more_A = end_A - start_A;
        const float v1_V = h->kept1 * h->v1_V + c.r1_ohm * ((1.0f - h->kept1) * start_A + h->ramp1 * more_A);
        const float v2_V = h->kept2 * h->v2_V + c.r2_ohm * ((1.0f - h->kept2) * start_A + h->ramp2 * more_A);
        const float branch = -h->sign + (hysteresis + h->sign) * est_exp(-p->est_hysteresis_rate * est_abs(moved));
        open_V = est_ocv_at(p, end_soc, &slope_V);
        end_drop_V = h->scale * (v1_V + v2_V + c.r0_ohm * end_A);
        end_V = open_V + h->fixed_V + c.hysteresis_V * branch - end_drop_V;
        if (end_V <= 0.1f) {
            return 0;
        }
        end_A = power / end_V;
    }
    const float outer_soc = end_soc + h->delta;
    const float outer_V = end_V + est_ocv_at(p, outer_soc, &slope_V) - open_V;
    const float heat_J = 0.5f * h->horizon_s * (start_drop_V * start_A + end_drop_V * end_A);
    *current_A = est_max(est_abs(start_A), est_abs(end_A));
    const uint32_t cool = l->heat_J_per_K <= 0.0f || l->temperature_K + heat_J / l->heat_J_per_K <= l->temperature_max_K;
    if (h->sign > 0.0f) {
        return cool && outer_V >= l->voltage_min_V && *current_A <= l->discharge_A && outer_soc >= p->est_soc_low;
    }
    return cool && outer_V <= l->voltage_max_V && *current_A <= l->charge_A && outer_soc <= p->est_soc_high;
}

static void largest(const est_ctx_t *e, const est_params_t *p, const est_limits_t *l, float sign, float horizon_s,
                    est_power_t *out) {
    est_circuit_t c;
    est_circuit_at(p, e->x[EST_X_SOC], l->temperature_K, &c);
    const float lost1 = est_one_minus_exp(horizon_s / c.tau1_s), lost2 = est_one_minus_exp(horizon_s / c.tau2_s);
    const horizon_t h = {
        .v1_V = e->x[EST_X_V1],
        .v2_V = e->x[EST_X_V2],
        .kept1 = 1.0f - lost1,
        .kept2 = 1.0f - lost2,
        .ramp1 = share_of_ramp(lost1, c.tau1_s, horizon_s),
        .ramp2 = share_of_ramp(lost2, c.tau2_s, horizon_s),
        .horizon_s = horizon_s,
        .fixed_V = c.entropic_V_per_K * (l->temperature_K - p->est_reference_K) + e->x[EST_X_ERROR],
        .scale = 1.0f + e->x[EST_X_SCALE],
        .delta = sign > 0.0f ? est_min(e->delta_min, 0.0f) : est_max(e->delta_max, 0.0f),
        .sign = sign,
    };
    float low = 0.0f, high = sign > 0.0f ? l->voltage_max_V * l->discharge_A : l->voltage_max_V * l->charge_A;
    float amps = 0.0f, current_A = 0.0f;
    for (uint32_t i = 0; i < HALVINGS; ++i) {
        const float middle = 0.5f * (low + high);
        if (holds(e, p, l, &h, middle, &amps)) {
            low = middle;
            current_A = amps;
        } else {
            high = middle;
        }
    }
    out->power_W = low * l->n_groups;
    out->current_A = current_A;
}

void est_power(const est_ctx_t *e, const est_params_t *p, const est_limits_t *limits, est_power_t out[EST_POWERS]) {
    largest(e, p, limits, 1.0f, 10.0f, &out[EST_DISCHARGE_10S]);
    largest(e, p, limits, 1.0f, 60.0f, &out[EST_DISCHARGE_60S]);
    largest(e, p, limits, -1.0f, 10.0f, &out[EST_CHARGE_10S]);
    largest(e, p, limits, -1.0f, 60.0f, &out[EST_CHARGE_60S]);
}
