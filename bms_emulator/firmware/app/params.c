/* Parameters: the range table, the relations between fields, and a default set. */
#include <stddef.h>

#include "parts.h"

/* ---- check ------------------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t offset; /* in int32 words */
    uint32_t count;
    int32_t low;
    int32_t high;
} range_row_t;

#define WORD(name) ((uint32_t)(offsetof(bms_params_t, name) / sizeof(int32_t)))
#define RANGE_SCALAR(name, low, high) {WORD(name), 1, low, high},
#define RANGE_ARRAY(name, count, low, high) {WORD(name), count, low, high},
static const range_row_t ranges[] = {BMS_PARAM_FIELDS(RANGE_SCALAR, RANGE_ARRAY)};

typedef struct {
    uint32_t offset;
    uint32_t count;
    float low;
    float high;
} float_row_t;
static const float_row_t float_ranges[] = {BMS_PARAM_FLOATS(RANGE_SCALAR, RANGE_ARRAY)};

/* Whole numbers first, then floats; the last one is the schema. */
#define FIELD_SCALAR(name, low, high) FIELD_##name,
#define FIELD_ARRAY(name, count, low, high) FIELD_##name,
enum { BMS_PARAM_FIELDS(FIELD_SCALAR, FIELD_ARRAY) INTEGER_COUNT };
enum { FIELD_BEFORE_FLOATS = INTEGER_COUNT - 1, BMS_PARAM_FLOATS(FIELD_SCALAR, FIELD_ARRAY) FIELD_schema };

/* upper > lower, both float */
#define FLOAT_PAIR(upper, lower) {FIELD_##upper, WORD(upper), WORD(lower)},
static const struct {
    uint32_t upper, upper_word, lower_word;
} float_pairs[] = {FLOAT_PAIR(abuse_inevitable_K, abuse_onset_K) EST_PARAM_PAIRS(FLOAT_PAIR)};

typedef union {
    float value;
    int32_t bits;
} float_bits_t;

static int32_t bits_of(float value) {
    const float_bits_t word = {.value = value};
    return word.bits;
}

typedef struct {
    int32_t low;
    int32_t high;
    int32_t above; /* side */
} trip_range_t;
enum { BELOW = 0, ABOVE = 1 };
#define TRIP_ROW(name, signal, side, gate, derates, low, high) {low, high, side},
static const trip_range_t trip_ranges[LIMIT_COUNT] = {BMS_LIMIT_LIST(TRIP_ROW)};

#define RAMP_FALLING(name, signal, derates, falling) falling,
static const uint8_t ramp_falling[RAMP_COUNT] = {BMS_RAMP_LIST(RAMP_FALLING)};

/* upper > lower, by field */
#define PAIR(upper, lower) {FIELD_##upper, FIELD_##lower, WORD(upper), WORD(lower)}
static const struct {
    uint32_t upper, lower, upper_word, lower_word;
} pairs[] = {
    PAIR(cell_max_100uV, cell_min_100uV),
    PAIR(cell_plausible_max_100uV, cell_plausible_min_100uV),
    PAIR(cell_plausible_max_100uV, cell_max_100uV),
    PAIR(cell_min_100uV, cell_plausible_min_100uV),
    PAIR(balancing_start_100uV, balancing_stop_100uV),
    PAIR(precharge_timeout_ms, precharge_min_ms),
    PAIR(cooling_on_ddegC, cooling_off_ddegC),
    PAIR(cooling_full_ddegC, cooling_on_ddegC),
    PAIR(current_plausible_mA, current_max_charge_mA),
    PAIR(current_plausible_mA, current_max_discharge_mA),
    PAIR(current_plausible_mA, rest_current_mA),
    PAIR(cell_min_100uV, deep_discharge_100uV),
    PAIR(safety_full_ppm, safety_zero_ppm),
    PAIR(telemetry_key_s, telemetry_silence_s),
};

static bms_param_verdict_t refuse(uint32_t reason, uint32_t field, uint32_t index, int32_t value, int32_t low,
                                  int32_t high) {
    const bms_param_verdict_t verdict = {reason, field, (int32_t)index, value, low, high};
    return verdict;
}

static uint32_t first_unused(uint32_t field) {
    switch (field) {
        case FIELD_limit_trip:
        case FIELD_limit_clear:
        case FIELD_limit_hold_ms:
            return LIMIT_COUNT * LEVEL_COUNT;
        case FIELD_diag_set_ms:
        case FIELD_diag_delay_ms:
            return DIAG_COUNT;
        case FIELD_ramp_zero:
        case FIELD_ramp_full:
            return RAMP_COUNT;
        default:
            return UINT32_MAX;
    }
}

/* Words of the set that have a row: not those of spare slots, nor the schema. */
uint32_t bms_params_next(uint32_t word) {
    for (uint32_t field = 0; field < INTEGER_COUNT; ++field) {
        const range_row_t *row = &ranges[field];
        const uint32_t unused = first_unused(field);
        const uint32_t used = unused < row->count ? unused : row->count;
        if (word < row->offset + used) {
            return word < row->offset ? row->offset : word;
        }
    }
    const float_row_t *last = &float_ranges[sizeof float_ranges / sizeof float_ranges[0] - 1];
    return word < last->offset + last->count ? word : UINT32_MAX; /* floats follow each other without a gap */
}

uint32_t bms_params_is_float(uint32_t word) { return word >= float_ranges[0].offset && word < WORD(schema); }

uint32_t bms_params_pair(uint32_t index, uint32_t *upper_word, uint32_t *lower_word) {
    enum { WHOLE = sizeof pairs / sizeof pairs[0], ALL = WHOLE + sizeof float_pairs / sizeof float_pairs[0] };
    if (index >= ALL) {
        return 0;
    }
    *upper_word = index < WHOLE ? pairs[index].upper_word : float_pairs[index - WHOLE].upper_word;
    *lower_word = index < WHOLE ? pairs[index].lower_word : float_pairs[index - WHOLE].lower_word;
    return 1;
}

static bms_param_verdict_t check_ranges(const bms_params_t *params) {
    const int32_t *words = (const int32_t *)params;
    for (uint32_t field = 0; field < INTEGER_COUNT; ++field) {
        const range_row_t *row = &ranges[field];
        const uint32_t unused = first_unused(field);
        for (uint32_t i = 0; i < row->count; ++i) {
            const int32_t value = words[row->offset + i];
            if (i >= unused && value != 0) {
                return refuse(PARAM_UNUSED_NOT_ZERO, field, i, value, 0, 0);
            }
            if (value < row->low || value > row->high) {
                return refuse(PARAM_OUT_OF_RANGE, field, i, value, row->low, row->high);
            }
        }
    }
    return refuse(PARAM_OK, 0, 0, 0, 0, 0);
}

/* Values and bounds of a float row travel in the verdict as their bits. */
static bms_param_verdict_t check_floats(const bms_params_t *params) {
    const int32_t *words = (const int32_t *)params;
    for (uint32_t row = 0; row < sizeof float_ranges / sizeof float_ranges[0]; ++row) {
        const float_row_t *range = &float_ranges[row];
        for (uint32_t i = 0; i < range->count; ++i) {
            const float_bits_t word = {.bits = words[range->offset + i]};
            const uint32_t finite = (word.bits & 0x7F800000) != 0x7F800000;
            if (!finite || !(word.value >= range->low && word.value <= range->high)) {
                return refuse(finite ? PARAM_OUT_OF_RANGE : PARAM_NOT_FINITE, INTEGER_COUNT + row, i, word.bits,
                              bits_of(range->low), bits_of(range->high));
            }
        }
    }
    for (uint32_t i = 0; i < sizeof float_pairs / sizeof float_pairs[0]; ++i) {
        const float_bits_t upper = {.bits = words[float_pairs[i].upper_word]};
        const float_bits_t lower = {.bits = words[float_pairs[i].lower_word]};
        if (!(upper.value > lower.value)) {
            return refuse(PARAM_PAIR_ORDER, float_pairs[i].upper, 0, upper.bits, lower.bits,
                          bits_of(float_ranges[float_pairs[i].upper - INTEGER_COUNT].high));
        }
    }
    if (params->schema != BMS_PARAM_SCHEMA) {
        return refuse(PARAM_SET_SCHEMA, FIELD_schema, 0, params->schema, BMS_PARAM_SCHEMA, BMS_PARAM_SCHEMA);
    }
    const uint32_t fault = est_params_fault((const est_params_t *)&params->est_ocv_V);
    if (fault != 0) {
        return refuse(PARAM_OCV_NOT_RISING, FIELD_est_ocv_V, fault - 1, bits_of(params->est_ocv_V[fault - 1]), bits_of(0.0f),
                      bits_of(6.0f));
    }
    return refuse(PARAM_OK, 0, 0, 0, 0, 0);
}

static bms_param_verdict_t check_limits(const bms_params_t *p) {
    for (uint32_t limit = 0; limit < LIMIT_COUNT; ++limit) {
        const trip_range_t *range = &trip_ranges[limit];
        for (uint32_t level = 0; level < LEVEL_COUNT; ++level) {
            const uint32_t i = limit * LEVEL_COUNT + level;
            const int32_t trip = p->limit_trip[i];
            const int32_t clear = p->limit_clear[i];
            if (trip < range->low || trip > range->high) {
                return refuse(PARAM_OUT_OF_RANGE, FIELD_limit_trip, i, trip, range->low, range->high);
            }
            if (level > 0) {
                const int32_t inner = p->limit_trip[i - 1];
                if (range->above == ABOVE ? trip < inner : trip > inner) {
                    return refuse(PARAM_LEVEL_ORDER, FIELD_limit_trip, i, trip, range->above == ABOVE ? inner : range->low,
                                  range->above == ABOVE ? range->high : inner);
                }
            }
            if (range->above == ABOVE ? clear > trip : clear < trip) {
                return refuse(PARAM_HYSTERESIS, FIELD_limit_clear, i, clear,
                              range->above == ABOVE ? -10000000 : trip, range->above == ABOVE ? trip : 10000000);
            }
        }
    }
    return refuse(PARAM_OK, 0, 0, 0, 0, 0);
}

static bms_param_verdict_t check_ocv(const bms_params_t *p) {
    const uint32_t last = (uint32_t)p->ocv_n - 1;
    const int32_t floor_100uV = p->limit_trip[LIMIT_CELL_UNDERVOLTAGE * LEVEL_COUNT + LEVEL_MSL];
    const int32_t ceiling_100uV = p->limit_trip[LIMIT_CELL_OVERVOLTAGE * LEVEL_COUNT + LEVEL_MSL];
    for (uint32_t i = 0; i <= last; ++i) {
        const int32_t soc = p->ocv_soc_permille[i];
        const int32_t voltage = p->ocv_100uV[i];
        if (voltage < floor_100uV || voltage > ceiling_100uV) {
            return refuse(PARAM_OCV_WINDOW, FIELD_ocv_100uV, i, voltage, floor_100uV, ceiling_100uV);
        }
        if (i > 0 && soc <= p->ocv_soc_permille[i - 1]) {
            return refuse(PARAM_OCV_NOT_RISING, FIELD_ocv_soc_permille, i, soc, p->ocv_soc_permille[i - 1] + 1, 1000);
        }
        if (i > 0 && voltage <= p->ocv_100uV[i - 1]) {
            return refuse(PARAM_OCV_NOT_RISING, FIELD_ocv_100uV, i, voltage, p->ocv_100uV[i - 1] + 1, ceiling_100uV);
        }
    }
    if (p->ocv_soc_permille[0] != 0) {
        return refuse(PARAM_OCV_WINDOW, FIELD_ocv_soc_permille, 0, p->ocv_soc_permille[0], 0, 0);
    }
    if (p->ocv_soc_permille[last] != 1000) {
        return refuse(PARAM_OCV_WINDOW, FIELD_ocv_soc_permille, last, p->ocv_soc_permille[last], 1000, 1000);
    }
    return refuse(PARAM_OK, 0, 0, 0, 0, 0);
}

bms_param_verdict_t bms_params_check(const bms_params_t *p) {
    bms_param_verdict_t verdict = check_ranges(p);
    if (verdict.reason != PARAM_OK) {
        return verdict;
    }
    const int32_t *words = (const int32_t *)p;
    for (uint32_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i) {
        const int32_t upper = words[pairs[i].upper_word];
        const int32_t lower = words[pairs[i].lower_word];
        if (upper <= lower) {
            return refuse(PARAM_PAIR_ORDER, pairs[i].upper, 0, upper, lower + 1, ranges[pairs[i].upper].high);
        }
    }
    verdict = check_floats(p);
    if (verdict.reason != PARAM_OK) {
        return verdict;
    }
    verdict = check_limits(p);
    if (verdict.reason != PARAM_OK) {
        return verdict;
    }
    for (uint32_t ramp = 0; ramp < RAMP_COUNT; ++ramp) {
        const int32_t zero = p->ramp_zero[ramp];
        const int32_t full = p->ramp_full[ramp];
        if (ramp_falling[ramp] ? full >= zero : full <= zero) {
            return refuse(PARAM_RAMP_ORDER, FIELD_ramp_full, ramp, full, ramp_falling[ramp] ? -10000000 : zero + 1,
                          ramp_falling[ramp] ? zero - 1 : 10000000);
        }
    }
    return check_ocv(p);
}

/* ---- default ---------------------------------------------------------------------------------------------- */

/* Open-circuit voltage of an NMC 811 / graphite-SiOx cell (LG M50) over its 2.5...4.2 V window, computed from the
 * electrode balance and open-circuit potentials of Chen et al., J. Electrochem. Soc. 167 (2020) 080534. */
static const int16_t nmc_soc_permille[] = {0,   10,  20,  30,  50,  75,  100, 150, 200, 250, 300, 350, 400,
                                           450, 500, 550, 600, 650, 700, 750, 800, 850, 900, 950, 980, 1000};
static const uint16_t nmc_ocv_100uV[] = {25000, 27114, 28625, 29712, 31094, 32107, 32959, 34339, 34852,
                                         35286, 35814, 36290, 36670, 37054, 37509, 37983, 38406, 38896,
                                         39479, 39943, 40421, 40809, 40967, 41236, 41645, 42000};
enum { NMC_POINTS = sizeof nmc_soc_permille / sizeof nmc_soc_permille[0] };
_Static_assert(NMC_POINTS == sizeof nmc_ocv_100uV / sizeof nmc_ocv_100uV[0], "one voltage per SoC");

#define DIAG_TIMES(name, severity, set_ms, delay_ms) {set_ms, delay_ms},
static const int32_t diag_times[DIAG_COUNT][2] = {BMS_DIAG_LIST(DIAG_TIMES)};

/* hysteresis is positive and leads back inwards. */
static void set_limit(bms_params_t *p, uint32_t limit, int32_t mol, int32_t rsl, int32_t msl, int32_t hysteresis,
                      int32_t hold_inform_ms, int32_t hold_msl_ms) {
    const int32_t inwards = trip_ranges[limit].above == ABOVE ? -hysteresis : hysteresis;
    const int32_t trip[LEVEL_COUNT] = {mol, rsl, msl};
    for (uint32_t level = 0; level < LEVEL_COUNT; ++level) {
        p->limit_trip[limit * LEVEL_COUNT + level] = trip[level];
        p->limit_clear[limit * LEVEL_COUNT + level] = trip[level] + inwards;
        p->limit_hold_ms[limit * LEVEL_COUNT + level] = level == LEVEL_MSL ? hold_msl_ms : hold_inform_ms;
    }
}

static void set_ramp(bms_params_t *p, uint32_t ramp, int32_t zero, int32_t full) {
    p->ramp_zero[ramp] = zero;
    p->ramp_full[ramp] = full;
}

static int32_t at_least(int32_t value, int32_t floor) { return value < floor ? floor : value; }

static int32_t clamped(int64_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : (int32_t)value;
}

void bms_params_default(bms_params_t *p) {
    /* The seven design fields may hold anything here; keep the arithmetic defined, the check judges later. */
    const int32_t n = clamped(p->n_groups, 1, BMS_MAX_GROUPS);
    const int32_t capacity_mAh = clamped(p->capacity_mAh, 100, 2000000);
    const int32_t v_min = clamped(p->cell_min_100uV, 0, 65000);
    const int32_t v_max = clamped(p->cell_max_100uV, 0, 65000);
    if (p->current_max_charge_mA == 0) {
        p->current_max_charge_mA = capacity_mAh;
    }
    if (p->current_max_discharge_mA == 0) {
        p->current_max_discharge_mA = 2 * capacity_mAh;
    }
    const int32_t i_charge = clamped(p->current_max_charge_mA, 0, 5000000);
    const int32_t i_discharge = clamped(p->current_max_discharge_mA, 0, 5000000);
    const int32_t i_max = at_least(i_charge > i_discharge ? i_charge : i_discharge, 1000);

    p->current_plausible_mA = clamped((int64_t)i_max * 4, 10000, 10000000);
    p->cell_plausible_min_100uV = 0;
    p->cell_plausible_max_100uV = 60000;
    p->temperature_plausible_min_ddegC = -600;
    p->temperature_plausible_max_ddegC = 12000; /* hot gas in a runaway is real, a shorted sensor reads higher */
    p->pack_plausible_max_mV = n * 6000;

    p->cell_sum_tolerance_mV = at_least(n * 50, 2000); /* busbars under load are not in the sum */
    p->link_tolerance_mV = at_least(n * 40, 2000);
    p->current_redundancy_mA = at_least(i_max / 20, 1000);
    p->stuck_samples = 5;
    p->stuck_voltage_100uV = 300;
    p->stuck_temperature_ddegC = 100;
    p->groups_lost_max = 0;
    p->temps_lost_max = p->n_temps > 3 ? 1 : 0;
    p->deep_discharge_100uV = v_min * 3 / 5;
    p->rest_current_mA = at_least(capacity_mAh / 200, 50);
    p->limit_tolerance_mA = at_least(i_max / 50, 500);
    p->rsl_factor_permille = 500;

    p->contactor_timeout_ms = 100;
    p->precharge_min_ms = 100;
    p->precharge_timeout_ms = 2000;
    p->precharge_pause_ms = 5000;
    p->precharge_tries = 3;
    p->precharge_dv_mV = at_least(n * 36, 1000); /* about 1 % of the pack */
    p->precharge_current_mA = at_least(capacity_mAh / 50, 500);
    p->opening_current_mA = at_least(i_max / 20, 1000);
    p->opening_timeout_ms = 500;
    p->open_current_max_mA = at_least(capacity_mAh / 50, 500);

    p->balancing_start_100uV = 50;
    p->balancing_stop_100uV = 20;
    p->balancing_min_100uV = v_min + (v_max - v_min) / 2;
    p->balancing_rest_ms = 60000;
    p->balancing_t_max_ddegC = 500;
    p->balancing_resistance_mohm = 40000;

    p->soc_rest_ms = 1800000;
    p->ocv_slope_min_uV = 300;
    p->ocv_n = NMC_POINTS;
    for (uint32_t i = 0; i < BMS_OCV_CAPACITY; ++i) {
        p->ocv_soc_permille[i] = i < NMC_POINTS ? nmc_soc_permille[i] : 0;
        p->ocv_100uV[i] = i < NMC_POINTS ? nmc_ocv_100uV[i] : 0;
    }

    p->slew_up_mA_per_s = at_least(i_max / 5, 1000);
    p->slew_down_mA_per_s = at_least(i_max * 2, 1000);
    p->cooling_on_ddegC = 300;
    p->cooling_off_ddegC = 270;
    p->cooling_full_ddegC = 400;
    p->cooling_min_percent = 20;

    for (uint32_t i = 0; i < BMS_LIMIT_CAPACITY * LEVEL_COUNT; ++i) {
        p->limit_trip[i] = 0;
        p->limit_clear[i] = 0;
        p->limit_hold_ms[i] = 0;
    }
    /*           limit                            MOL            RSL            MSL     back  hold, MSL hold */
    set_limit(p, LIMIT_CELL_OVERVOLTAGE, v_max, v_max + 200, v_max + 500, 500, 500, 200);
    set_limit(p, LIMIT_CELL_UNDERVOLTAGE, v_min + 3000, v_min + 1500, v_min, 1000, 500, 200);
    set_limit(p, LIMIT_OVERTEMPERATURE_DISCHARGE, 500, 550, 600, 30, 1000, 1000);
    set_limit(p, LIMIT_OVERTEMPERATURE_CHARGE, 450, 500, 550, 30, 1000, 1000);
    set_limit(p, LIMIT_UNDERTEMPERATURE_DISCHARGE, -150, -200, -250, 30, 1000, 1000);
    set_limit(p, LIMIT_UNDERTEMPERATURE_CHARGE, 50, 0, -50, 30, 1000, 1000);
    set_limit(p, LIMIT_OVERCURRENT_DISCHARGE, i_discharge / 20 * 21, i_discharge / 20 * 23, i_discharge / 20 * 26,
              i_discharge / 20, 1000, 100);
    set_limit(p, LIMIT_OVERCURRENT_CHARGE, i_charge / 20 * 21, i_charge / 20 * 23, i_charge / 20 * 26, i_charge / 20,
              1000, 100);
    set_limit(p, LIMIT_PACK_OVERVOLTAGE, n * v_max / 10, n * (v_max + 150) / 10, n * (v_max + 300) / 10, n * 30, 500,
              200);
    set_limit(p, LIMIT_PACK_UNDERVOLTAGE, n * (v_min + 3200) / 10, n * (v_min + 1700) / 10, n * (v_min + 200) / 10,
              n * 100, 500, 200);
    set_limit(p, LIMIT_CELL_VOLTAGE_SPREAD, 1000, 3000, 10000, 200, 1000, 1000);
    set_limit(p, LIMIT_CELL_TEMPERATURE_SPREAD, 80, 150, 300, 20, 1000, 1000);
    /* ISO 6469-3: 500 and 100 ohm per volt of the full pack. */
    const int32_t full_V = clamped((int64_t)n * v_max / 10000 + 1, 1, 1800);
    set_limit(p, LIMIT_INSULATION_LOW, full_V, full_V / 2, full_V / 10, 2 + full_V / 50, 5000, 5000);
    set_limit(p, LIMIT_PRESSURE_HIGH, 500, 1000, 2000, 50, 500, 100); /* housings are vented */
    set_limit(p, LIMIT_GAS_HIGH, 500, 1000, 4000, 50, 1000, 1000); /* a tenth of the lower limit of hydrogen */

    for (uint32_t i = 0; i < BMS_DIAG_CAPACITY; ++i) {
        p->diag_set_ms[i] = i < DIAG_COUNT ? diag_times[i][0] : 0;
        p->diag_delay_ms[i] = i < DIAG_COUNT ? diag_times[i][1] : 0;
    }

    for (uint32_t i = 0; i < BMS_RAMP_CAPACITY; ++i) {
        set_ramp(p, i, 0, 0);
    }
    /*          ramp                     zero           full */
    set_ramp(p, RAMP_CHARGE_BY_VOLTAGE, v_max, v_max - 800);
    set_ramp(p, RAMP_DISCHARGE_BY_VOLTAGE, v_min + 1000, v_min + 4000);
    set_ramp(p, RAMP_CHARGE_BY_HEAT, 500, 400);
    set_ramp(p, RAMP_CHARGE_BY_COLD, 0, 150);
    set_ramp(p, RAMP_DISCHARGE_BY_HEAT, 570, 470);
    set_ramp(p, RAMP_DISCHARGE_BY_COLD, -200, 0);
    set_ramp(p, RAMP_CHARGE_BY_SOC, 1000000, 980000);
    set_ramp(p, RAMP_DISCHARGE_BY_SOC, 0, 30000);

    p->sensors_required = 0;
    p->voltage_stale_ms = 200;
    p->temperature_stale_ms = 2000;
    p->current_stale_ms = 100;
    p->temperature_outlier_ddegC = 200;

    p->runaway_t_max_ddegC = 600;
    p->runaway_collapse_permille = 250;
    p->runaway_rate_mK_per_s = 1000;
    p->runaway_hold_ms = 3000;
    p->early_rate_mK_per_s = BMS_EARLY_RATE_DEFAULT;
    p->early_rise_ddegC = 30;
    p->early_hold_ms = 5000;
    p->vent_pressure_daPa = 50;
    p->vent_gas_ppm = 200;
    p->vent_memory_ms = 30000;

    p->safety_warn_ppm = 900000;
    p->safety_full_ppm = 950000;
    p->safety_zero_ppm = 700000;

    p->telemetry_voltage_100uV = 10;
    p->telemetry_temperature_ddegC = 5;
    p->telemetry_current_mA = at_least(capacity_mAh / 100, 10);
    p->telemetry_silence_s = 60;
    p->telemetry_key_s = 600;
    p->telemetry_event_s = 5;
    p->telemetry_snapshot_s = 86400;

    p->park_after_s = 600;
    p->park_wake_s = 1800;
    p->park_wake_alert_s = 60;
    p->park_awake_s = 5;
    p->park_alert_ddegC = 450;

    /* Hatchard et al., J. Electrochem. Soc. 148 (2001) A755; Kim et al., J. Power Sources 170 (2007) 476; heats per kg
     * of cell are H * W * start / 2580 kg/m3. Cell: LG M50 class, 21700. */
    static const float ln_A[4] = {35.0498f, 30.8498f, 31.8306f, 59.2018f};
    static const float E_over_R_K[4] = {16247.3f, 16247.3f, 16790.9f, 32956.5f};
    static const float heat_J_per_kg[4] = {9120.9f, 304140.0f, 142666.0f, 24446.1f};
    static const float start[4] = {0.15f, 0.75f, 0.04f, 1.0f};
    for (uint32_t k = 0; k < 4; ++k) {
        p->abuse_ln_A[k] = ln_A[k];
        p->abuse_E_over_R_K[k] = E_over_R_K[k];
        p->abuse_heat_J_per_kg[k] = heat_J_per_kg[k];
        p->abuse_start[k] = start[k];
    }
    p->abuse_anode_z = 0.033f;
    p->abuse_starts_K = 323.15f;
    p->abuse_onset_K = 363.15f;
    p->abuse_inevitable_K = 483.15f;
    p->abuse_scale = 1.0f;
    p->cell_mass_kg = 0.0685f;
    p->cell_cp_J_per_kgK = 900.0f;
    p->cell_core_share = 0.7f;
    p->cell_core_K_per_W = 3.0f;
    p->cell_surface_K_per_W = 10.0f;
    /* Whole cells of 5 Ah share the current of a group. */
    const int32_t cells = at_least(capacity_mAh / 5000, 1);
    p->cell_parallel = (float)(cells > 200 ? 200 : cells);
    p->cell_resistance_ohm = 0.03f / p->cell_parallel;
    est_params_default((est_params_t *)&p->est_ocv_V, (float)capacity_mAh * 0.001f);
    p->schema = BMS_PARAM_SCHEMA;
}
