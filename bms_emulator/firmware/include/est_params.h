/* Parameters of the estimators (SoC filter, SoH, SoP), as rows of the parameter set; FLOAT(name, low, high),
 * FLOATS(name, count, low, high). EST_PARAM_WORDS is their number of 32-bit words, EST_PARAM_PAIRS lists
 * PAIR(upper, lower) of scalars that must be ordered.
 *
 * The circuit is that of one series group: cells in parallel share its resistances and add their capacities.
 * The grids are fixed (est_grids in ekf.c, the same as pack_models/cells/compact.py): EST_OCV points of the
 * open circuit, EST_SOC by EST_KELVIN of the circuit, tables temperature by temperature. sigma is always one
 * standard deviation; the meaning of each stands in twin/analytics/soc.py (FilterSettings).
 */
#ifndef EST_PARAMS_H
#define EST_PARAMS_H

#define EST_OCV 52
#define EST_SOC 13
#define EST_KELVIN 7
#define EST_TABLE 91 /* EST_SOC * EST_KELVIN */

#define EST_PARAM_WORDS 391
#define EST_PARAM_FLOATS(FLOAT, FLOATS) \
    FLOATS(est_ocv_V, EST_OCV, 0.0f, 6.0f) \
    FLOATS(est_hysteresis_V, EST_SOC, 0.0f, 0.5f)         /* half the gap between the branches */ \
    FLOATS(est_entropic_V_per_K, EST_SOC, -0.01f, 0.01f) \
    FLOATS(est_resistance0_ohm, EST_TABLE, 0.0f, 10.0f) \
    FLOATS(est_resistance1_ohm, EST_TABLE, 0.0f, 10.0f) \
    FLOATS(est_resistance2_ohm, EST_TABLE, 0.0f, 10.0f) \
    FLOATS(est_time_constant1_s, EST_KELVIN, 0.1f, 1000.0f) \
    FLOATS(est_time_constant2_s, EST_KELVIN, 1.0f, 100000.0f) \
    FLOATS(est_model_sigma_V, EST_KELVIN, 0.0001f, 0.5f)  /* residual of the identification */ \
    FLOAT(est_hysteresis_rate, 0.0f, 10000.0f)            /* per full charge */ \
    FLOAT(est_reference_K, 200.0f, 400.0f) \
    FLOAT(est_offset_sigma, 0.0f, 0.2f)                   /* of the current sensor, fraction of 1C */ \
    FLOAT(est_offset_s, 1.0f, 1.0e8f) \
    FLOAT(est_capacity_sigma, 0.0f, 0.5f) \
    FLOAT(est_resistance_sigma, 0.0f, 1.0f) \
    FLOAT(est_voltage_sigma_V, 0.00001f, 0.1f) \
    FLOAT(est_slow_share, 0.0f, 1.0f) \
    FLOAT(est_slow_s, 1.0f, 1.0e6f) \
    FLOAT(est_fast_s, 0.0f, 10000.0f) \
    FLOAT(est_hysteresis_sigma, 0.0f, 1.0f) \
    FLOAT(est_scale_sigma, 0.0f, 1.0f) \
    FLOAT(est_scale_s, 1.0f, 1.0e6f) \
    FLOAT(est_gate, 1.0f, 100.0f) \
    FLOAT(est_systematic_share, 0.0f, 1.0f) \
    FLOAT(est_spread_resistance, 0.0f, 1.0f)              /* group to group, relative */ \
    FLOAT(est_spread_capacity, 0.0f, 1.0f) \
    FLOAT(est_soc_low, 0.0f, 0.5f)                        /* power is offered between these two */ \
    FLOAT(est_soc_high, 0.5f, 1.0f)
#define EST_PARAM_PAIRS(PAIR) PAIR(est_soc_high, est_soc_low)

#endif
