/* State of health: capacity from the charge moved between two rests, resistance from steps of the current.
 *
 * At rest long enough the voltage alone tells the charge, with a sigma that follows from the model's error and
 * the slope of the curve there: on the plateau of LFP it says nothing and is not used. Two such rests and the charge
 * counted between them give a capacity; its sigma holds both rests and the offset of the current sensor. Steps of
 * the current compare the drop that was seen with the one the circuit of a new cell expects at this temperature and
 * charge. Both start from what is known of a new cell, so an early figure is close to 1 with an honest sigma.
 */
#include "est.h"
#include "est_math.h"

#define REST_S 1800.0f
#define REST_C 0.005f             /* of 1C: up to here is rest */
#define ANCHOR_SIGMA_MAX 0.05f    /* of charge; a rest that says less is none */
#define EDGE 0.005f
#define ANCHOR_S 1209600.0f       /* two weeks: then the offset has eaten the anchor */
#define MOVED_SMALL 0.02f
#define MOVED_ENOUGH 0.25f
#define CAPACITY_DRIFT 0.002f     /* per figure, so that old ones fade */
#define STEP_C 0.2f               /* change of current, of 1C */
#define STEP_S 2.5f
#define STEP_KEEPS 0.9995f
#define STEP_SIGMA_MIN 0.01f      /* temperature and charge of the circuit are not known better */

static float square(float x) { return x * x; }

static void rest_found(est_ctx_t *e, const est_params_t *p, const est_input_t *in) {
    est_circuit_t c;
    est_circuit_at(p, est_clip(e->x[EST_X_SOC], 0.0f, 1.0f), in->temperature_K, &c);
    const float open_V = in->mean_V - c.entropic_V_per_K * (in->temperature_K - p->est_reference_K) -
                         c.hysteresis_V * e->x[EST_X_HYST];
    const float soc = est_soc_of_ocv(p, open_V);
    float slope_V;
    (void)est_ocv_at(p, soc, &slope_V);
    const float error_V = est_sqrt(square(0.5f * c.sigma_V) + square(c.hysteresis_V) * e->cov[EST_X_HYST][EST_X_HYST]);
    const float sigma = error_V / est_max(slope_V, 0.01f);
    if (sigma > ANCHOR_SIGMA_MAX || soc <= EDGE || soc >= 1.0f - EDGE) {
        return; /* on a plateau, or beyond what the curve covers */
    }
    const float moved = e->moved_As / e->capacity_As;
    if (e->anchor_sigma > 0.0f && est_abs(moved) > MOVED_ENOUGH && est_abs(e->anchor_soc - soc) > MOVED_ENOUGH) {
        const float span = e->anchor_soc - soc;
        const float ratio = moved / span;
        const float offset = p->est_offset_sigma * e->moved_s / 3600.0f;
        const float variance = (square(ratio) * (square(sigma) + square(e->anchor_sigma)) + square(offset)) / square(span);
        const float known = square(e->capacity_sigma) + square(CAPACITY_DRIFT);
        const float gain = known / (known + variance);
        e->capacity_ratio += gain * (ratio - e->capacity_ratio);
        e->capacity_sigma = est_sqrt(known * (1.0f - gain));
    } else if (e->anchor_sigma > 0.0f && est_abs(moved) > MOVED_SMALL && e->moved_s < ANCHOR_S) {
        return; /* not far enough yet: keep the old anchor */
    }
    e->anchor_soc = soc;
    e->anchor_sigma = sigma;
    e->moved_As = 0.0f;
    e->moved_s = 0.0f;
}

static void current_step(est_ctx_t *e, const est_params_t *p, float seen_V, float expected_V) {
    e->step_seen_V2 = STEP_KEEPS * e->step_seen_V2 + seen_V * expected_V;
    e->step_drop_V2 = STEP_KEEPS * e->step_drop_V2 + square(expected_V);
    e->step_rest_V2 = STEP_KEEPS * e->step_rest_V2 + square(seen_V - e->resistance_ratio * expected_V);
    e->step_n = STEP_KEEPS * e->step_n + 1.0f;
    /* What is known of a new cell counts like as many steps as its sigma is worth. */
    const float noise = e->step_rest_V2 / e->step_n + square(p->est_voltage_sigma_V);
    const float prior = noise / square(est_max(p->est_scale_sigma, 0.01f));
    if (!(noise >= 0.0f && noise < 1.0e6f && e->step_drop_V2 >= 0.0f && e->step_drop_V2 < 1.0e12f)) {
        e->step_seen_V2 = e->step_drop_V2 = e->step_rest_V2 = e->step_n = 0.0f;
        return;
    }
    e->resistance_ratio = (e->step_seen_V2 + prior) / (e->step_drop_V2 + prior);
    e->resistance_sigma = est_sqrt(noise / (e->step_drop_V2 + prior) + square(STEP_SIGMA_MIN));
}

void est_health_step(est_ctx_t *e, const est_params_t *p, const est_input_t *in) {
    const float one_c_A = e->capacity_As / 3600.0f;
    e->moved_As += in->current_A * in->dt_s;
    e->moved_s += in->dt_s;
    const uint32_t resting = est_abs(in->current_A) <= REST_C * one_c_A && est_abs(in->current_now_A) <= REST_C * one_c_A;
    if (!(est_abs(e->moved_As) < 1.0e9f && e->moved_s < 1.0e9f)) {
        e->anchor_sigma = e->moved_As = e->moved_s = 0.0f;
    }
    e->rest_s = resting ? e->rest_s + in->dt_s : 0.0f;
    if (e->rest_s >= REST_S && in->mean_V > 0.0f) {
        rest_found(e, p, in);
        e->rest_s = 0.0f;
    }

    est_circuit_t c;
    est_circuit_at(p, e->x[EST_X_SOC], in->temperature_K, &c);
    const float drop_V = e->x[EST_X_V1] + e->x[EST_X_V2] + c.r0_ohm * in->current_now_A;
    const float jump_A = in->current_now_A - e->before_A;
    if (e->have_before && in->mean_V > 0.0f && in->dt_s <= STEP_S && est_abs(jump_A) > STEP_C * one_c_A) {
        current_step(e, p, e->mean_before_V - in->mean_V, drop_V - e->drop_before_V);
    }
    e->have_before = in->mean_V > 0.0f;
    e->mean_before_V = in->mean_V;
    e->drop_before_V = drop_V;
}
