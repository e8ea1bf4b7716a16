/* Estimators of the slow part: state of charge of the mean group (extended Kalman filter), deviation of each group
 * from it, state of health, power that can be promised. Float32, no registers, no allocation, all state in
 * est_ctx_t; called once a second or whenever a sample comes.
 *
 *     est_init(&est, p, &start);
 *     est_step(&est, p, &in);                  every second
 *     est_power(&est, p, &limits, power_W);    when somebody wants to know
 *
 * Current is positive on discharge, voltages are those of a series group, temperatures in kelvin.
 */
#ifndef EST_H
#define EST_H

#include <stdint.h>

#include "../include/est_params.h"

#define EST_POWER_S 2.0f
#define EST_CELLS 112 /* BMS_MAX_GROUPS */

#define EST_FLOAT_MEMBER(name, low, high) float name;
#define EST_FLOATS_MEMBER(name, count, low, high) float name[count];
typedef struct {
    EST_PARAM_FLOATS(EST_FLOAT_MEMBER, EST_FLOATS_MEMBER)
} est_params_t;
_Static_assert(sizeof(est_params_t) == 4 * EST_PARAM_WORDS, "as many words as est_params.h says");

typedef struct {
    float power_W;   /* constant over the horizon */
    float current_A; /* magnitude, the largest that flows meanwhile */
} est_power_t;
enum { EST_DISCHARGE_10S, EST_DISCHARGE_60S, EST_CHARGE_10S, EST_CHARGE_60S, EST_POWERS };

/* States of the filter; what each is stands in twin/analytics/soc.py. */
enum { EST_X_SOC, EST_X_OFFSET, EST_X_V1, EST_X_V2, EST_X_HYST, EST_X_ERROR, EST_X_SCALE, EST_STATES };

typedef struct {
    float x[EST_STATES];
    float soc_low; /* what adding small charges to x[SOC] has rounded away (compensated sum) */
    float cov[EST_STATES][EST_STATES];
    float soc_sigma;       /* to report: of the filter, and what its open circuit may be off */
    float mean_innovation_V;
    float capacity_As;  /* of a group, as the parameters state it */
    float before_A;     /* current at the sample before */
    /* deviation of each group's state of charge from the mean, with one variance for all */
    float delta[EST_CELLS];
    float delta_variance;
    float delta_min;
    float delta_max;
    uint32_t n_cells;
    uint32_t bled_mAs[EST_CELLS]; /* as of the step before */
    /* state of health: capacity between rests, resistance from steps of the current */
    float rest_s;
    float anchor_soc;      /* of the last rest, from its voltage alone; sigma 0: none yet */
    float anchor_sigma;
    float moved_As;        /* discharged since the anchor */
    float moved_s;
    float capacity_ratio;  /* capacity over that of the parameters */
    float capacity_sigma;
    float step_drop_V2;    /* sums over steps of the current: seen times expected, expected squared, residuals */
    float step_seen_V2;
    float step_rest_V2;
    float step_n;
    float resistance_ratio;
    float resistance_sigma;
    float mean_before_V;
    float drop_before_V;
    uint32_t have_before;
    uint32_t started;
    float dt_s;          /* of the last step */
    uint32_t power_next; /* horizon that is due; EST_POWERS before the first */
    est_power_t power[EST_POWERS];
} est_ctx_t;
_Static_assert(sizeof(est_ctx_t) % 8 == 0, "context stays free of padding");

typedef struct {
    float soc;         /* 0...1 */
    float soc_sigma;
    float capacity_Ah; /* of a group */
} est_start_t;

typedef struct {
    float dt_s;            /* since the step before; 0 in the first */
    float current_A;       /* mean over dt */
    float current_now_A;   /* when the voltages were taken */
    float mean_V;          /* of all groups; 0 = not measured: no correction in this step */
    float temperature_K;   /* mean of the cells */
    uint32_t n_cells;      /* 0: mean only */
    const uint16_t *cell_100uV; /* (n_cells), 65535 = not measured */
    const uint32_t *bled_mAs;   /* (n_cells) by the balancing resistors since start; 0: none */
} est_input_t;

/* Limits of a group within which power is promised; every current as a magnitude. */
typedef struct {
    float voltage_min_V;
    float voltage_max_V;
    float discharge_A;
    float charge_A;
    float temperature_max_K;
    float heat_J_per_K;    /* heat capacity of a group; 0: temperature does not limit */
    float temperature_K;   /* of the hottest cell */
    float n_groups;        /* power is that of so many in series */
} est_limits_t;

/* The circuit at one state of charge and temperature. */
typedef struct {
    float r0_ohm, r1_ohm, r2_ohm;
    float tau1_s, tau2_s, sigma_V;
    float r0_slope, r1_slope, r2_slope; /* per unit of charge */
    float hysteresis_V, entropic_V_per_K;
} est_circuit_t;

/* Fills every row for an NMC cell; capacity of a group. */
void est_params_default(est_params_t *p, float capacity_Ah);
/* 0, or 1 + index of the first open-circuit voltage that does not rise with the charge. */
uint32_t est_params_fault(const est_params_t *p);

void est_init(est_ctx_t *e, const est_params_t *p, const est_start_t *start);
void est_step(est_ctx_t *e, const est_params_t *p, const est_input_t *in);
/* The first call and calls more than EST_POWER_S apart work out all four; a call a second renews one of them, so that a
 * figure is at most four seconds old and costs the controller a quarter. */
void est_power(est_ctx_t *e, const est_params_t *p, const est_limits_t *limits, est_power_t out[EST_POWERS]);

float est_soc(const est_ctx_t *e);       /* mean group, 0...1 */
float est_soc_sigma(const est_ctx_t *e);
float est_soc_of_ocv(const est_params_t *p, float voltage_V);

/* Among the parts of the estimator. */
extern const float est_grid_ocv[EST_OCV];
extern const float est_grid_soc[EST_SOC];
extern const float est_grid_K[EST_KELVIN];
void est_circuit_at(const est_params_t *p, float soc, float temperature_K, est_circuit_t *out);
float est_ocv_value(const est_params_t *p, float soc);
float est_ocv_at(const est_params_t *p, float soc, float *slope_V);
void est_health_step(est_ctx_t *e, const est_params_t *p, const est_input_t *in);

#endif
