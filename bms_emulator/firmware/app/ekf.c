/* State of charge of the mean group by an extended Kalman filter, and of each group by its deviation from the mean.
 *
 * The same filter as `ekf` of twin/analytics/soc.py, where model, states and the choice of noise are explained; a
 * test holds the two together sample by sample. Two things differ because of float32: charge is added as a
 * compensated sum (a small current adds less than half an ulp per second), and 1 - exp(-x) is a series for small x.
 */
#include "est.h"
#include "est_math.h"

enum { X_SOC = EST_X_SOC, X_OFFSET = EST_X_OFFSET, X_V1 = EST_X_V1, X_V2 = EST_X_V2, X_HYST = EST_X_HYST,
       X_ERROR = EST_X_ERROR, X_SCALE = EST_X_SCALE, N = EST_STATES };

#define SLOPE_FLOOR_V 0.01f /* as in soc.py */
#define SOC_MARGIN 0.05f
#define WATCH_S 60.0f
#define ADMITTED 0.05f
#define SIGMA_MAX 0.4f
#define WIDE 0.1f
/* Beyond these an input is no cell's: kept away from the squares of the covariance. */
#define CURRENT_MAX_C 100.0f
#define STEP_MAX_S 86400.0f
#define TEMPERATURE_MIN_K 200.0f
#define TEMPERATURE_MAX_K 500.0f
#define VOLTAGE_MAX_V 6.5f
#define RELAXING1_V 0.003f
#define RELAXING2_V 0.01f
/* How long a group's deviation in voltage that is not charge lasts; it must not be averaged away. */
#define DELTA_LASTS_S 600.0f
#define DELTA_SIGMA_V 0.0015f /* channel to channel: offset of the converter, contact */
#define DELTA_START 0.02f

const float est_grid_ocv[EST_OCV] = {
    0.0f,   0.0025f, 0.005f, 0.01f, 0.02f,  0.03f, 0.04f,  0.05f, 0.06f,  0.08f, 0.1f,   0.125f, 0.15f,
    0.175f, 0.2f,    0.225f, 0.25f, 0.275f, 0.3f,  0.325f, 0.35f, 0.375f, 0.4f,  0.425f, 0.45f,  0.475f,
    0.5f,   0.525f,  0.55f,  0.575f, 0.6f,  0.625f, 0.65f, 0.675f, 0.7f,  0.725f, 0.75f, 0.775f, 0.8f,
    0.825f, 0.85f,   0.875f, 0.9f,  0.92f,  0.94f, 0.96f,  0.97f, 0.98f,  0.985f, 0.99f, 0.995f, 1.0f};
const float est_grid_soc[EST_SOC] = {0.0f, 0.05f, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f, 0.9f, 0.95f, 1.0f};
const float est_grid_K[EST_KELVIN] = {253.15f, 263.15f, 273.15f, 283.15f, 298.15f, 313.15f, 328.15f};
_Static_assert(EST_TABLE == EST_SOC * EST_KELVIN, "a table has a value for each charge and temperature");

/* ---- the model -------------------------------------------------------------------------------------------- */

static uint32_t place(const float *grid, uint32_t n, float x, float *share) {
    uint32_t left = 0;
    while (left < n - 2 && grid[left + 1] <= x) {
        ++left;
    }
    *share = (x - grid[left]) / (grid[left + 1] - grid[left]);
    return left;
}

static float piece(const est_params_t *p, uint32_t i) {
    return (p->est_ocv_V[i + 1] - p->est_ocv_V[i]) / (est_grid_ocv[i + 1] - est_grid_ocv[i]);
}

/* Slope at a node: that of the parabola through it and its neighbours. */
static float node_slope(const est_params_t *p, uint32_t i) {
    if (i == 0) {
        return piece(p, 0);
    }
    if (i == EST_OCV - 1) {
        return piece(p, EST_OCV - 2);
    }
    const float left = est_grid_ocv[i] - est_grid_ocv[i - 1], right = est_grid_ocv[i + 1] - est_grid_ocv[i];
    return (piece(p, i - 1) * right + piece(p, i) * left) / (left + right);
}

float est_ocv_at(const est_params_t *p, float soc, float *slope_V) {
    float share;
    const uint32_t i = place(est_grid_ocv, EST_OCV, soc, &share);
    const float inside = est_clip(share, 0.0f, 1.0f);
    const float at = node_slope(p, i);
    *slope_V = at + inside * (node_slope(p, i + 1) - at);
    return p->est_ocv_V[i] + share * (p->est_ocv_V[i + 1] - p->est_ocv_V[i]);
}

float est_ocv_value(const est_params_t *p, float soc) {
    float share;
    const uint32_t i = place(est_grid_ocv, EST_OCV, soc, &share);
    return p->est_ocv_V[i] + share * (p->est_ocv_V[i + 1] - p->est_ocv_V[i]);
}

float est_soc_of_ocv(const est_params_t *p, float voltage_V) {
    uint32_t i = 0;
    while (i < EST_OCV - 2 && p->est_ocv_V[i + 1] < voltage_V) {
        ++i;
    }
    const float share = (voltage_V - p->est_ocv_V[i]) / (p->est_ocv_V[i + 1] - p->est_ocv_V[i]);
    return est_clip(est_grid_ocv[i] + share * (est_grid_ocv[i + 1] - est_grid_ocv[i]), 0.0f, 1.0f);
}

static float bilinear(const float *table, uint32_t i, float x, uint32_t k, float y, float *slope) {
    const float *cold_row = table + k * EST_SOC + i, *warm_row = cold_row + EST_SOC;
    float cold = cold_row[1] - cold_row[0], warm = warm_row[1] - warm_row[0];
    *slope = (cold + y * (warm - cold)) / (est_grid_soc[i + 1] - est_grid_soc[i]);
    cold = cold_row[0] + x * cold;
    warm = warm_row[0] + x * warm;
    return cold + y * (warm - cold);
}

static float linear(const float *table, uint32_t i, float x) { return table[i] + x * (table[i + 1] - table[i]); }

void est_circuit_at(const est_params_t *p, float soc, float temperature_K, est_circuit_t *c) {
    float x, y;
    const uint32_t i = place(est_grid_soc, EST_SOC, soc, &x);
    const uint32_t k = place(est_grid_K, EST_KELVIN, temperature_K, &y);
    x = est_clip(x, 0.0f, 1.0f);
    y = est_clip(y, 0.0f, 1.0f);
    c->r0_ohm = bilinear(p->est_resistance0_ohm, i, x, k, y, &c->r0_slope);
    c->r1_ohm = bilinear(p->est_resistance1_ohm, i, x, k, y, &c->r1_slope);
    c->r2_ohm = bilinear(p->est_resistance2_ohm, i, x, k, y, &c->r2_slope);
    c->tau1_s = linear(p->est_time_constant1_s, k, y);
    c->tau2_s = linear(p->est_time_constant2_s, k, y);
    c->sigma_V = linear(p->est_model_sigma_V, k, y);
    c->hysteresis_V = linear(p->est_hysteresis_V, i, x);
    c->entropic_V_per_K = linear(p->est_entropic_V_per_K, i, x);
}

/* ---- mean group ------------------------------------------------------------------------------------------- */

static float square(float x) { return x * x; }

static void add_charge(est_ctx_t *e, float change) {
    const float wanted = change - e->soc_low;
    const float sum = e->x[X_SOC] + wanted;
    e->soc_low = (sum - e->x[X_SOC]) - wanted;
    e->x[X_SOC] = sum;
}

static void shear(est_ctx_t *e, uint32_t to, uint32_t source, float factor) {
    for (uint32_t j = 0; j < N; ++j) {
        e->cov[to][j] += factor * e->cov[source][j];
    }
    for (uint32_t j = 0; j < N; ++j) {
        e->cov[j][to] += factor * e->cov[j][source];
    }
}

static void predict(est_ctx_t *e, const est_params_t *p, const est_input_t *in) {
    est_circuit_t c;
    est_circuit_at(p, e->x[X_SOC], in->temperature_K, &c);
    const float dt = in->dt_s, amps = in->current_A;
    const float moved = est_abs(amps) / e->capacity_As * dt;
    /* lost = 1 - decay, one for each state */
    float lost[N], decay[N], noise[N];
    lost[X_SOC] = 0.0f;
    lost[X_OFFSET] = est_one_minus_exp(dt / p->est_offset_s);
    lost[X_V1] = est_one_minus_exp(dt / c.tau1_s);
    lost[X_V2] = est_one_minus_exp(dt / c.tau2_s);
    lost[X_HYST] = est_one_minus_exp(p->est_hysteresis_rate * moved);
    lost[X_ERROR] = est_one_minus_exp(dt / p->est_slow_s);
    lost[X_SCALE] = est_one_minus_exp(dt / p->est_scale_s);
    for (uint32_t i = 0; i < N; ++i) {
        decay[i] = 1.0f - lost[i];
    }
    /* 1 - decay^2 = lost (1 + decay) */
    noise[X_SOC] = square(p->est_capacity_sigma * moved);
    noise[X_OFFSET] = square(p->est_offset_sigma) * lost[X_OFFSET] * (1.0f + decay[X_OFFSET]);
    noise[X_V1] = square(p->est_resistance_sigma * c.r1_ohm * lost[X_V1] * amps);
    noise[X_V2] = square(p->est_resistance_sigma * c.r2_ohm * lost[X_V2] * amps);
    noise[X_HYST] = square(p->est_hysteresis_sigma) * lost[X_HYST] * (1.0f + decay[X_HYST]);
    noise[X_ERROR] = square(p->est_slow_share * c.sigma_V) * lost[X_ERROR] * (1.0f + decay[X_ERROR]);
    noise[X_SCALE] = square(p->est_scale_sigma) * lost[X_SCALE] * (1.0f + decay[X_SCALE]);

    const float sign = amps < 0.0f ? 1.0f : -1.0f;
    add_charge(e, e->x[X_OFFSET] * (dt / 3600.0f) - amps / e->capacity_As * dt);
    e->x[X_OFFSET] *= decay[X_OFFSET];
    e->x[X_V1] = decay[X_V1] * e->x[X_V1] + c.r1_ohm * lost[X_V1] * amps;
    e->x[X_V2] = decay[X_V2] * e->x[X_V2] + c.r2_ohm * lost[X_V2] * amps;
    e->x[X_HYST] = sign + (e->x[X_HYST] - sign) * decay[X_HYST];
    e->x[X_ERROR] *= decay[X_ERROR];
    e->x[X_SCALE] *= decay[X_SCALE];

    for (uint32_t i = 0; i < N; ++i) {
        for (uint32_t j = i; j < N; ++j) {
            e->cov[i][j] *= decay[i] * decay[j];
            e->cov[j][i] = e->cov[i][j];
        }
    }
    shear(e, X_V1, X_SOC, c.r1_slope * lost[X_V1] * amps);
    shear(e, X_V2, X_SOC, c.r2_slope * lost[X_V2] * amps);
    shear(e, X_SOC, X_OFFSET, dt / 3600.0f / decay[X_OFFSET]);
    for (uint32_t i = 0; i < N; ++i) {
        e->cov[i][i] += noise[i];
    }
}

/* Corrects the states by the mean voltage; returns its slope over the charge at this current. */
static float correct(est_ctx_t *e, const est_params_t *p, const est_input_t *in, const est_circuit_t *c) {
    const float amps = in->current_now_A;
    const float scale = 1.0f + e->x[X_SCALE];
    float ocv_slope;
    const float ocv_V = est_ocv_at(p, e->x[X_SOC], &ocv_slope);
    const float drop_V = e->x[X_V1] + e->x[X_V2] + c->r0_ohm * amps;
    const float open_V = ocv_V + c->entropic_V_per_K * (in->temperature_K - p->est_reference_K) +
                         c->hysteresis_V * e->x[X_HYST];
    const float innovation = in->mean_V - (open_V + e->x[X_ERROR] - scale * drop_V);

    const float charge_slope = est_max(ocv_slope, SLOPE_FLOOR_V) - scale * c->r0_slope * amps;
    const float slope[N] = {charge_slope, 0.0f, -scale, -scale, c->hysteresis_V, 1.0f, -drop_V};
    float cross[N], gain[N];
    float variance = 0.0f;
    for (uint32_t i = 0; i < N; ++i) {
        cross[i] = 0.0f;
        for (uint32_t j = 0; j < N; ++j) {
            cross[i] += e->cov[i][j] * slope[j];
        }
    }
    for (uint32_t i = 0; i < N; ++i) {
        variance += slope[i] * cross[i];
    }
    const float fast = (1.0f - square(p->est_slow_share)) * square(c->sigma_V);
    const float lasting = fast + square(p->est_resistance_sigma * c->r0_ohm * amps);
    const float dt = in->dt_s > 0.0f ? in->dt_s : 1.0f;
    const float watched = variance + lasting;
    variance += square(p->est_voltage_sigma_V) + lasting + fast * 2.0f * p->est_fast_s / est_max(dt, 0.001f) +
                square(p->est_resistance_sigma * c->r0_ohm * (amps - e->before_A));

    const float beyond = innovation * innovation / square(p->est_gate);
    const float used = beyond > variance ? beyond : variance;
    for (uint32_t i = 0; i < N; ++i) {
        gain[i] = cross[i] / used;
    }
    for (uint32_t i = 0; i < N; ++i) {
        for (uint32_t j = i; j < N; ++j) {
            /* Joseph's form for any gain, written out for one measurement */
            e->cov[i][j] = e->cov[i][j] - gain[i] * cross[j] - cross[i] * gain[j] + gain[i] * used * gain[j];
            e->cov[j][i] = e->cov[i][j];
        }
    }
    add_charge(e, gain[X_SOC] * innovation);
    for (uint32_t i = X_OFFSET; i < N; ++i) {
        e->x[i] += gain[i] * innovation;
    }

    /* Innovations that stay beyond the gate on average mean a wrong state of charge: widen it. */
    e->mean_innovation_V += est_min(1.0f, in->dt_s / WATCH_S) * (innovation - e->mean_innovation_V);
    if (square(e->mean_innovation_V) > square(p->est_gate) * watched) {
        e->cov[X_SOC][X_SOC] = est_min(e->cov[X_SOC][X_SOC] + square(ADMITTED), square(SIGMA_MAX));
        e->mean_innovation_V = 0.0f;
    }
    return charge_slope;
}

/* Largest magnitude of each state, and largest sigma. */
static const float state_max[N] = {1.0f + SOC_MARGIN, 0.2f, 2.0f, 2.0f, 1.0f, 0.5f, 2.0f};
static const float sigma_max[N] = {SIGMA_MAX, 0.1f, 1.0f, 1.0f, 1.0f, 0.5f, 1.0f};

/* Holds states and covariance inside what a cell can be; 0 when something in there is no number any more. */
static uint32_t bounded(est_ctx_t *e) {
    uint32_t sane = 1;
    for (uint32_t i = 0; i < N; ++i) {
        const float low = i == X_SOC ? -SOC_MARGIN : i == X_SCALE ? -0.8f : -state_max[i];
        if (e->x[i] < low || e->x[i] > state_max[i]) {
            e->x[i] = est_clip(e->x[i], low, state_max[i]);
            e->soc_low = i == X_SOC ? 0.0f : e->soc_low;
        }
        if (e->cov[i][i] > square(sigma_max[i]) || e->cov[i][i] < 0.0f) {
            /* Row and column by one factor: what was a covariance stays one. */
            const float factor = e->cov[i][i] > 0.0f ? sigma_max[i] / est_sqrt(e->cov[i][i]) : 0.0f;
            for (uint32_t j = 0; j < N; ++j) {
                e->cov[i][j] *= factor;
            }
            for (uint32_t j = 0; j < N; ++j) {
                e->cov[j][i] *= factor;
            }
        }
        sane &= est_abs(e->x[i]) <= state_max[i] && e->cov[i][i] >= 0.0f && e->cov[i][i] <= 1.01f;
    }
    return sane;
}

/* Sigma to report: that of the filter, and what an open circuit that is off by a share of the model's error does. */
static float reported_sigma(const est_ctx_t *e, const est_params_t *p, float sigma_V) {
    const float soc = e->x[X_SOC];
    const float low = est_clip(soc - WIDE, 0.0f, 1.0f - 2.0f * WIDE), high = est_clip(soc + WIDE, 2.0f * WIDE, 1.0f);
    const float rise_V = est_ocv_value(p, high) - est_ocv_value(p, low);
    const float off = p->est_systematic_share * sigma_V * (high - low) / est_max(rise_V, WIDE * SLOPE_FLOOR_V);
    return est_sqrt(est_max(e->cov[X_SOC][X_SOC], 0.0f) + square(off));
}

/* ---- each group ------------------------------------------------------------------------------------------- */

/* A group sees what the mean sees, so only its difference in voltage is new: one state, and since model and noise
 * are the same for all, one variance and one gain. slope_V: of the mean's voltage over its charge. */
static void deviations(est_ctx_t *e, const est_params_t *p, const est_input_t *in, float slope_V, float drop_V) {
    const uint32_t n = in->n_cells > EST_CELLS ? EST_CELLS : in->n_cells;
    if (n != e->n_cells) {
        e->n_cells = n;
        e->delta_variance = square(DELTA_START);
        for (uint32_t i = 0; i < EST_CELLS; ++i) {
            e->delta[i] = 0.0f;
            e->bled_mAs[i] = in->bled_mAs && i < n ? in->bled_mAs[i] : 0;
        }
    }
    /* No group stands further from the mean than full from empty; also mends what is no number. */
    if (!(e->delta_variance >= 0.0f && e->delta_variance <= 1.0f)) {
        e->delta_variance = square(DELTA_START);
    }
    e->delta_variance += square(p->est_spread_capacity * in->current_A / e->capacity_As * in->dt_s);
    if (in->bled_mAs) {
        float mean = 0.0f;
        for (uint32_t i = 0; i < n; ++i) {
            mean += (float)(in->bled_mAs[i] - e->bled_mAs[i]);
        }
        mean /= (float)(n > 0 ? n : 1);
        for (uint32_t i = 0; i < n; ++i) {
            const uint32_t bled = in->bled_mAs[i] - e->bled_mAs[i]; /* modulo 2^32 */
            if (bled != 0 || mean > 0.0f) {
                e->delta[i] -= ((float)bled - mean) * 0.001f / e->capacity_As;
            }
            e->bled_mAs[i] = in->bled_mAs[i];
        }
    }
    float gain = 0.0f, limit_V = 0.0f;
    if (in->mean_V > 0.0f) {
        const float lasting = square(DELTA_SIGMA_V) + square(p->est_spread_resistance * drop_V);
        const float dt = est_max(in->dt_s, 0.001f);
        const float noise = lasting * (1.0f + 2.0f * DELTA_LASTS_S / dt);
        const float variance = slope_V * slope_V * e->delta_variance + noise;
        gain = slope_V * e->delta_variance / variance;
        limit_V = p->est_gate * est_sqrt(slope_V * slope_V * e->delta_variance + lasting);
        e->delta_variance = est_max(e->delta_variance - gain * slope_V * e->delta_variance, 0.0f);
    }
    e->delta_min = e->delta_max = n > 0 ? e->delta[0] : 0.0f;
    for (uint32_t i = 0; i < n; ++i) {
        if (gain != 0.0f && in->cell_100uV[i] != 65535u) {
            const float seen_V = (float)in->cell_100uV[i] * 0.0001f - in->mean_V;
            e->delta[i] += gain * est_clip(seen_V - slope_V * e->delta[i], -limit_V, limit_V);
        }
        if (!(est_abs(e->delta[i]) <= 1.0f)) {
            e->delta[i] = e->delta[i] > 1.0f ? 1.0f : e->delta[i] < -1.0f ? -1.0f : 0.0f;
        }
        e->delta_min = est_min(e->delta_min, e->delta[i]);
        e->delta_max = est_max(e->delta_max, e->delta[i]);
    }
}

/* ---- the door --------------------------------------------------------------------------------------------- */

void est_init(est_ctx_t *e, const est_params_t *p, const est_start_t *start) {
    uint8_t *byte = (uint8_t *)e;
    for (uint32_t i = 0; i < sizeof *e; ++i) {
        byte[i] = 0;
    }
    e->x[X_SOC] = start->soc;
    e->cov[X_SOC][X_SOC] = square(start->soc_sigma);
    e->cov[X_OFFSET][X_OFFSET] = square(p->est_offset_sigma);
    e->cov[X_SCALE][X_SCALE] = square(p->est_scale_sigma);
    e->capacity_As = 3600.0f * start->capacity_Ah;
    for (uint32_t i = 0; i < EST_SOC; ++i) {
        if (p->est_hysteresis_V[i] != 0.0f) {
            e->cov[X_HYST][X_HYST] = 1.0f / 3.0f; /* anywhere between the branches: a uniform law */
        }
    }
    e->soc_sigma = start->soc_sigma;
    e->power_next = EST_POWERS;
    e->capacity_ratio = 1.0f;
    e->resistance_ratio = 1.0f;
    /* what a new cell may differ by, until something was measured */
    e->capacity_sigma = 0.05f;
    e->resistance_sigma = p->est_scale_sigma;
}

/* After a bit of the context has flipped: from the voltage alone, with little trust in it. */
static void begin_again(est_ctx_t *e, const est_params_t *p, const est_input_t *in) {
    const float capacity_Ah = e->capacity_As > 0.0f ? e->capacity_As / 3600.0f : 1.0f;
    const est_start_t start = {in->mean_V > 0.0f ? est_soc_of_ocv(p, in->mean_V) : 0.5f, 0.3f, capacity_Ah};
    est_init(e, p, &start);
}

void est_step(est_ctx_t *e, const est_params_t *p, const est_input_t *given) {
    const float most_A = CURRENT_MAX_C * e->capacity_As / 3600.0f;
    est_input_t clipped = *given;
    clipped.dt_s = est_clip(given->dt_s, 0.0f, STEP_MAX_S);
    clipped.current_A = est_clip(given->current_A, -most_A, most_A);
    clipped.current_now_A = est_clip(given->current_now_A, -most_A, most_A);
    clipped.mean_V = est_min(given->mean_V, VOLTAGE_MAX_V);
    clipped.temperature_K = est_clip(given->temperature_K, TEMPERATURE_MIN_K, TEMPERATURE_MAX_K);
    const est_input_t *in = &clipped;
    est_circuit_t c;
    if (e->started == 0) {
        /* How long the first current has flowed is not known. */
        est_circuit_at(p, e->x[X_SOC], in->temperature_K, &c);
        e->cov[X_V1][X_V1] = square(RELAXING1_V) + square(0.5f * c.r1_ohm * in->current_A);
        e->cov[X_V2][X_V2] = square(RELAXING2_V) + square(0.5f * c.r2_ohm * in->current_A);
        e->cov[X_ERROR][X_ERROR] = square(p->est_slow_share * c.sigma_V);
        e->before_A = in->current_now_A;
        e->started = 1;
    }
    if (in->dt_s > 0.0f) {
        predict(e, p, in);
    }
    if (!bounded(e)) {
        begin_again(e, p, in);
    }
    est_circuit_at(p, e->x[X_SOC], in->temperature_K, &c);
    float slope_V = 0.0f;
    if (in->mean_V > 0.0f) {
        slope_V = correct(e, p, in, &c);
    }
    if (!bounded(e)) {
        begin_again(e, p, in);
    }
    deviations(e, p, in, slope_V, e->x[X_V1] + e->x[X_V2] + c.r0_ohm * in->current_now_A);
    e->dt_s = in->dt_s;
    e->soc_sigma = reported_sigma(e, p, c.sigma_V);
    est_health_step(e, p, in);
    e->before_A = in->current_now_A;
}

float est_soc(const est_ctx_t *e) { return est_clip(e->x[X_SOC], 0.0f, 1.0f); }

float est_soc_sigma(const est_ctx_t *e) { return e->soc_sigma; }

/* ---- parameters ------------------------------------------------------------------------------------------- */

uint32_t est_params_fault(const est_params_t *p) {
    for (uint32_t i = 0; i + 1 < EST_OCV; ++i) {
        if (!(p->est_ocv_V[i + 1] > p->est_ocv_V[i])) {
            return i + 2;
        }
    }
    return 0;
}

/* Shape of an NMC 811 | graphite-SiOx cell, LG M50 as the Doyle-Fuller-Newman model with the parameters of Chen et al.,
 * J. Electrochem. Soc. 167 (2020) 080534 sees it (pack_models/catalogue/cells/lgm50_chen2020.yaml): open circuit, and
 * resistance times capacity in ohm Ah at 25 degC with one factor for temperature. */
static const float default_ocv_V[EST_OCV] = {
    2.5f,    2.5598f, 2.6146f, 2.7114f, 2.8625f, 2.9712f, 3.0504f, 3.1094f, 3.1553f, 3.2276f, 3.2959f, 3.378f,  3.4339f,
    3.464f,  3.4852f, 3.5056f, 3.5286f, 3.5545f, 3.5814f, 3.6067f, 3.629f,  3.6486f, 3.667f,  3.6855f, 3.7054f, 3.7273f,
    3.7509f, 3.775f,  3.7984f, 3.82f,   3.8406f, 3.8626f, 3.8896f, 3.9206f, 3.9479f, 3.9713f, 3.9943f, 4.0181f, 4.0421f,
    4.0639f, 4.0809f, 4.091f,  4.0967f, 4.1025f, 4.1144f, 4.1351f, 4.1488f, 4.1645f, 4.1729f, 4.1817f, 4.1908f, 4.2f};
static const float default_r0_ohm_Ah[EST_SOC] = {0.335f, 0.162f, 0.151f, 0.126f, 0.124f, 0.116f,
                                                 0.117f, 0.117f, 0.119f, 0.121f, 0.122f, 0.128f, 0.157f};
static const float default_r1_ohm_Ah[EST_SOC] = {0.351f, 0.161f, 0.108f, 0.076f, 0.07f,  0.07f,
                                                 0.081f, 0.088f, 0.088f, 0.085f, 0.074f, 0.055f, 0.088f};
static const float default_r2_ohm_Ah = 0.05f;
static const float default_cold[EST_KELVIN] = {2.0f, 1.67f, 1.46f, 1.24f, 1.0f, 0.78f, 0.61f};
static const float default_sigma_V[EST_KELVIN] = {0.034f, 0.025f, 0.019f, 0.014f, 0.012f, 0.012f, 0.012f};

void est_params_default(est_params_t *p, float capacity_Ah) {
    for (uint32_t i = 0; i < EST_OCV; ++i) {
        p->est_ocv_V[i] = default_ocv_V[i];
    }
    for (uint32_t i = 0; i < EST_SOC; ++i) {
        p->est_hysteresis_V[i] = 0.0f;
        p->est_entropic_V_per_K[i] = 0.0f;
    }
    for (uint32_t k = 0; k < EST_KELVIN; ++k) {
        for (uint32_t i = 0; i < EST_SOC; ++i) {
            p->est_resistance0_ohm[k * EST_SOC + i] = default_cold[k] * default_r0_ohm_Ah[i] / capacity_Ah;
            p->est_resistance1_ohm[k * EST_SOC + i] = default_cold[k] * default_r1_ohm_Ah[i] / capacity_Ah;
            p->est_resistance2_ohm[k * EST_SOC + i] = default_cold[k] * default_r2_ohm_Ah / capacity_Ah;
        }
        p->est_time_constant1_s[k] = 30.0f;
        p->est_time_constant2_s[k] = 250.0f;
        p->est_model_sigma_V[k] = default_sigma_V[k];
    }
    p->est_hysteresis_rate = 0.0f;
    p->est_reference_K = 298.15f;
    p->est_offset_sigma = 0.01f;
    p->est_offset_s = 360000.0f;
    p->est_capacity_sigma = 0.01f;
    p->est_resistance_sigma = 0.1f;
    p->est_voltage_sigma_V = 0.001f;
    p->est_slow_share = 0.6f;
    p->est_slow_s = 300.0f;
    p->est_fast_s = 30.0f;
    p->est_hysteresis_sigma = 0.3f;
    p->est_scale_sigma = 0.15f;
    p->est_scale_s = 300.0f;
    p->est_gate = 3.0f;
    p->est_systematic_share = 0.5f;
    p->est_spread_resistance = 0.05f;
    p->est_spread_capacity = 0.02f;
    p->est_soc_low = 0.0f;
    p->est_soc_high = 1.0f;
}
