/* State of power: the largest constant power over 10 s and 60 s that keeps every group inside its limits of voltage,
 * current, charge and temperature, by the circuit of the filter.
 *
 * A power is tried by following it over the horizon in a few pieces: with constant power the current runs nearly along a
 * line within a piece, and the answer of both branches to a ramp is closed form. All limits are one-sided in the power, so
 * the largest one is found by bisection, first with one piece, then, in the neighbourhood of that, with four.
 */
#include "est.h"
#include "est_math.h"

enum { COARSE = 1, FINE = 4, COARSE_HALVINGS = 9, FINE_HALVINGS = 6 };
/* The neighbourhood, relative to the coarse power. */
#define BELOW 0.88f
#define ABOVE 1.06f

typedef struct {
    float horizon_s;
    float fixed_V;       /* of the open circuit: entropic term and slow error of the model */
    float scale;
    float delta;         /* of the group that meets its limit first */
    float sign;          /* 1 discharge, -1 charge */
    float tau1_s, tau2_s;
    /* of a piece: what a branch keeps, and share of a ramp that has arrived */
    float kept1, kept2, ramp1, ramp2;
    uint32_t pieces;
    /* at this temperature, over est_grid_soc: three numbers are looked up some hundred times */
    float r0_ohm[EST_SOC], r1_ohm[EST_SOC], r2_ohm[EST_SOC];
    uint32_t ocv_at, soc_at; /* where the last look-up was */
} horizon_t;

/* The piece of a growing grid that holds x, found from where the last one was: steps are small. */
static float walk(const float *grid, uint32_t n, float x, uint32_t *at) {
    uint32_t i = *at;
    while (i > 0 && grid[i] > x) {
        --i;
    }
    while (i < n - 2 && grid[i + 1] <= x) {
        ++i;
    }
    *at = i;
    return (x - grid[i]) / (grid[i + 1] - grid[i]);
}

static float open_circuit(const est_params_t *p, horizon_t *h, float soc) {
    const float share = walk(est_grid_ocv, EST_OCV, soc, &h->ocv_at);
    const float *v = &p->est_ocv_V[h->ocv_at];
    return v[0] + share * (v[1] - v[0]);
}

static float between(const float *table, uint32_t i, float share) { return table[i] + share * (table[i + 1] - table[i]); }

static void circuit(const est_params_t *p, horizon_t *h, float soc, est_circuit_t *c) {
    const float share = est_clip(walk(est_grid_soc, EST_SOC, soc, &h->soc_at), 0.0f, 1.0f);
    c->r0_ohm = between(h->r0_ohm, h->soc_at, share);
    c->r1_ohm = between(h->r1_ohm, h->soc_at, share);
    c->r2_ohm = between(h->r2_ohm, h->soc_at, share);
    c->hysteresis_V = between(p->est_hysteresis_V, h->soc_at, share);
}

static void cut(horizon_t *h, uint32_t pieces) {
    const float piece_s = h->horizon_s / (float)pieces;
    const float lost1 = est_one_minus_exp(piece_s / h->tau1_s), lost2 = est_one_minus_exp(piece_s / h->tau2_s);
    h->pieces = pieces;
    h->kept1 = 1.0f - lost1;
    h->kept2 = 1.0f - lost2;
    h->ramp1 = 1.0f - lost1 * h->tau1_s / piece_s;
    h->ramp2 = 1.0f - lost2 * h->tau2_s / piece_s;
}

/* Whether a constant power (W per group, magnitude) stays inside the limits; the largest current on the way. */
static uint32_t holds(const est_ctx_t *e, const est_params_t *p, const est_limits_t *l, horizon_t *h, float power_W,
                      float *current_A) {
    const float power = h->sign * power_W;
    const float piece_s = h->horizon_s / (float)h->pieces;
    float soc = e->x[EST_X_SOC], v1_V = e->x[EST_X_V1], v2_V = e->x[EST_X_V2], branch = e->x[EST_X_HYST];
    est_circuit_t c = {0};
    circuit(p, h, soc, &c);
    const float first_V = open_circuit(p, h, soc) + h->fixed_V + c.hysteresis_V * branch - h->scale * (v1_V + v2_V);
    const float root = first_V * first_V - 4.0f * h->scale * c.r0_ohm * power;
    if (first_V <= 0.0f || root <= 0.0f) {
        return 0;
    }
    float amps = power / (0.5f * (first_V + est_sqrt(root)));
    float drop_V = h->scale * (v1_V + v2_V + c.r0_ohm * amps);
    float end_V = 0.0f, open_V = 0.0f, heat_J = 0.0f;
    *current_A = est_abs(amps);
    for (uint32_t k = 0; k < h->pieces; ++k) {
        const float before_A = amps, before_drop_V = drop_V, before_soc = soc;
        float next1_V = v1_V, next2_V = v2_V, next_branch = branch;
        for (uint32_t pass = 0; pass < 2; ++pass) {
            const float moved = 0.5f * (before_A + amps) * piece_s / e->capacity_As;
            soc = before_soc - moved;
            circuit(p, h, before_soc - 0.5f * moved, &c);
            next1_V = h->kept1 * v1_V + c.r1_ohm * ((1.0f - h->kept1) * before_A + h->ramp1 * (amps - before_A));
            next2_V = h->kept2 * v2_V + c.r2_ohm * ((1.0f - h->kept2) * before_A + h->ramp2 * (amps - before_A));
            if (c.hysteresis_V > 0.0f) {
                next_branch = -h->sign + (branch + h->sign) * est_exp(-p->est_hysteresis_rate * est_abs(moved));
            }
            open_V = open_circuit(p, h, soc);
            /* power = (emf - R0 I) I, so that a stiff end needs no more passes */
            const float emf_V = open_V + h->fixed_V + c.hysteresis_V * next_branch - h->scale * (next1_V + next2_V);
            const float square_V2 = emf_V * emf_V - 4.0f * h->scale * c.r0_ohm * power;
            if (emf_V <= 0.0f || square_V2 <= 0.0f) {
                return 0;
            }
            end_V = 0.5f * (emf_V + est_sqrt(square_V2));
            amps = power / end_V;
        }
        v1_V = next1_V;
        v2_V = next2_V;
        branch = next_branch;
        drop_V = h->scale * (v1_V + v2_V + c.r0_ohm * amps);
        heat_J += 0.5f * piece_s * (before_drop_V * before_A + drop_V * amps);
        *current_A = est_max(*current_A, est_abs(amps));
    }
    const float outer_soc = soc + h->delta;
    const float outer_V = end_V + open_circuit(p, h, outer_soc) - open_V;
    const uint32_t cool = l->heat_J_per_K <= 0.0f || l->temperature_K + heat_J / l->heat_J_per_K <= l->temperature_max_K;
    if (h->sign > 0.0f) {
        return cool && outer_V >= l->voltage_min_V && *current_A <= l->discharge_A && outer_soc >= p->est_soc_low;
    }
    return cool && outer_V <= l->voltage_max_V && *current_A <= l->charge_A && outer_soc <= p->est_soc_high;
}

static void halve(const est_ctx_t *e, const est_params_t *p, const est_limits_t *l, horizon_t *h, uint32_t halvings,
                  float low, float high, est_power_t *out) {
    float amps = 0.0f;
    for (uint32_t i = 0; i < halvings; ++i) {
        const float middle = 0.5f * (low + high);
        if (holds(e, p, l, h, middle, &amps)) {
            low = middle;
            out->current_A = amps;
        } else {
            high = middle;
        }
    }
    out->power_W = low;
}

static void largest(const est_ctx_t *e, const est_params_t *p, const est_limits_t *l, float sign, float horizon_s,
                    est_power_t *out) {
    est_circuit_t c;
    est_circuit_at(p, e->x[EST_X_SOC], l->temperature_K, &c);
    horizon_t h = {0};
    h.horizon_s = horizon_s;
    h.fixed_V = c.entropic_V_per_K * (l->temperature_K - p->est_reference_K) + e->x[EST_X_ERROR];
    h.scale = 1.0f + e->x[EST_X_SCALE];
    h.delta = sign > 0.0f ? est_min(e->delta_min, 0.0f) : est_max(e->delta_max, 0.0f);
    h.sign = sign;
    h.tau1_s = c.tau1_s;
    h.tau2_s = c.tau2_s;
    uint32_t k = 0;
    const float y = est_clip(walk(est_grid_K, EST_KELVIN, l->temperature_K, &k), 0.0f, 1.0f);
    for (uint32_t i = 0; i < EST_SOC; ++i) {
        const uint32_t cold = k * EST_SOC + i, warm = cold + EST_SOC;
        h.r0_ohm[i] = p->est_resistance0_ohm[cold] + y * (p->est_resistance0_ohm[warm] - p->est_resistance0_ohm[cold]);
        h.r1_ohm[i] = p->est_resistance1_ohm[cold] + y * (p->est_resistance1_ohm[warm] - p->est_resistance1_ohm[cold]);
        h.r2_ohm[i] = p->est_resistance2_ohm[cold] + y * (p->est_resistance2_ohm[warm] - p->est_resistance2_ohm[cold]);
    }
    out->power_W = 0.0f;
    out->current_A = 0.0f;
    const float most_W = l->voltage_max_V * (sign > 0.0f ? l->discharge_A : l->charge_A);
    cut(&h, COARSE);
    halve(e, p, l, &h, COARSE_HALVINGS, 0.0f, most_W, out);
    float amps = 0.0f;
    const float low = BELOW * out->power_W, high = est_min(ABOVE * out->power_W + most_W * 0.004f, most_W);
    cut(&h, FINE);
    out->current_A = 0.0f;
    if (holds(e, p, l, &h, low, &amps)) {
        out->current_A = amps;
        halve(e, p, l, &h, FINE_HALVINGS, low, high, out);
    } else { /* far from a straight line: look everywhere */
        halve(e, p, l, &h, COARSE_HALVINGS, 0.0f, low, out);
    }
    out->power_W *= l->n_groups;
}

static const struct {
    float sign, horizon_s;
} horizons[EST_POWERS] = {{1.0f, 10.0f}, {1.0f, 60.0f}, {-1.0f, 10.0f}, {-1.0f, 60.0f}};

void est_power(est_ctx_t *e, const est_params_t *p, const est_limits_t *limits, est_power_t out[EST_POWERS]) {
    const uint32_t all = e->power_next >= EST_POWERS || e->dt_s > EST_POWER_S;
    for (uint32_t k = 0; k < EST_POWERS; ++k) {
        if (all || k == e->power_next) {
            largest(e, p, limits, horizons[k].sign, horizons[k].horizon_s, &e->power[k]);
        }
        out[k] = e->power[k];
    }
    e->power_next = all || e->power_next == EST_POWERS - 1 ? 0 : e->power_next + 1;
}
