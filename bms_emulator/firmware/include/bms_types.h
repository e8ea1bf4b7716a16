/* The structs that cross a boundary: parameters, inputs, outputs, and the context that holds everything else.
 *
 * Current is positive on discharge. Units stand in the names: 100uV, mV, mA, mAs, ddegC (0.1 degC), ms, ppm.
 * The first three are made from field lists, from which host/describe.c also tells Python names, offsets and
 * ranges. No struct has implicit padding (-Wpadded is an error), so a context can be hashed and copied as bytes.
 */
#ifndef BMS_TYPES_H
#define BMS_TYPES_H

/* major << 16 | minor << 8 | patch, from the release file (build.py) */
#ifndef BMS_RELEASE
#define BMS_RELEASE 0x010200u
#endif

#include <stdint.h>

#include "bms_ids.h"
#include "est_params.h"

/* Releases without the early rule have it switched off. */
#ifndef BMS_EARLY_RATE_DEFAULT
#define BMS_EARLY_RATE_DEFAULT 150
#endif

/* ---- parameters ------------------------------------------------------------------------------------------
 * Words of 32 bits, so the set is one flat array for range check, storage and transfer; the id of a parameter in a
 * signed set is its word. Whole numbers first:
 * SCALAR(name, min, max)  ARRAY(name, count, min, max), then the floats of the models. */
#define BMS_PARAM_FIELDS(SCALAR, ARRAY) \
    /* the pack */ \
    SCALAR(n_groups, 1, BMS_MAX_GROUPS) \
    SCALAR(n_temps, 1, BMS_MAX_TEMPS) \
    SCALAR(capacity_mAh, 100, 2000000) \
    SCALAR(cell_min_100uV, 1000, 60000)  /* empty cell; the defaults of limits and ramps hang on it */ \
    SCALAR(cell_max_100uV, 10000, 60000) /* full cell */ \
    SCALAR(current_max_charge_mA, 0, 5000000) /* continuous, before derating */ \
    SCALAR(current_max_discharge_mA, 0, 5000000) \
    /* what a working sensor can report */ \
    SCALAR(current_plausible_mA, 100, 10000000) \
    SCALAR(cell_plausible_min_100uV, 0, 60000) \
    SCALAR(cell_plausible_max_100uV, 10000, 65000) \
    SCALAR(temperature_plausible_min_ddegC, -2000, 0) \
    SCALAR(temperature_plausible_max_ddegC, 500, 20000) \
    SCALAR(pack_plausible_max_mV, 1000, 2000000) \
    /* cross checks */ \
    SCALAR(cell_sum_tolerance_mV, 1, 500000) \
    SCALAR(link_tolerance_mV, 1, 500000) \
    SCALAR(current_redundancy_mA, 1, 10000000) \
    SCALAR(stuck_samples, 2, 250)         /* identical samples in a row before a channel is suspected */ \
    SCALAR(stuck_voltage_100uV, 10, 60000) /* shift of the mean of all cells meanwhile */ \
    SCALAR(stuck_temperature_ddegC, 5, 3000) \
    SCALAR(groups_lost_max, 0, BMS_MAX_GROUPS) /* unusable cell voltages tolerated */ \
    SCALAR(temps_lost_max, 0, BMS_MAX_TEMPS) \
    SCALAR(deep_discharge_100uV, 0, 60000) \
    SCALAR(rest_current_mA, 1, 1000000)   /* |I| up to this is rest */ \
    SCALAR(limit_tolerance_mA, 1, 5000000) /* above the offered limit before it counts as ignored */ \
    SCALAR(rsl_factor_permille, 0, 1000)  /* of the current limit while an RSL is exceeded */ \
    /* contactors */ \
    SCALAR(contactor_timeout_ms, 10, 60000) \
    SCALAR(precharge_min_ms, 0, 60000) \
    SCALAR(precharge_timeout_ms, 10, 600000) \
    SCALAR(precharge_pause_ms, 10, 3600000) /* lets the resistor cool before the next try */ \
    SCALAR(precharge_tries, 1, 20) \
    SCALAR(precharge_dv_mV, 10, 500000) \
    SCALAR(precharge_current_mA, 1, 1000000) \
    SCALAR(opening_current_mA, 1, 5000000) /* up to here a contactor may open without wear */ \
    SCALAR(opening_timeout_ms, 0, 60000)   /* after this it opens anyway */ \
    SCALAR(open_current_max_mA, 1, 1000000) /* sensor error tolerated while everything is open */ \
    /* balancing */ \
    SCALAR(balancing_start_100uV, 1, 60000) /* above the lowest cell */ \
    SCALAR(balancing_stop_100uV, 0, 60000) \
    SCALAR(balancing_min_100uV, 0, 60000) \
    SCALAR(balancing_rest_ms, 0, 36000000) /* relaxation before rest counts as rest */ \
    SCALAR(balancing_t_max_ddegC, -400, 1500) \
    SCALAR(balancing_resistance_mohm, 100, 10000000) \
    /* state of charge */ \
    SCALAR(soc_rest_ms, 1000, 360000000)   /* relaxation before the OCV is believed */ \
    SCALAR(ocv_slope_min_uV, 0, 100000)    /* per permille of SoC; flatter parts of the curve tell nothing */ \
    SCALAR(ocv_n, 2, BMS_OCV_CAPACITY) \
    /* current limits, cooling */ \
    SCALAR(slew_up_mA_per_s, 1, 100000000) \
    SCALAR(slew_down_mA_per_s, 1, 100000000) \
    SCALAR(cooling_on_ddegC, -400, 1500) \
    SCALAR(cooling_off_ddegC, -400, 1500) \
    SCALAR(cooling_full_ddegC, -400, 1500) \
    SCALAR(cooling_min_percent, 0, 100) \
    /* tables, one slot per row of bms_ids.h */ \
    ARRAY(ocv_soc_permille, BMS_OCV_CAPACITY, 0, 1000) \
    ARRAY(ocv_100uV, BMS_OCV_CAPACITY, 0, 60000) \
    ARRAY(limit_trip, BMS_LIMIT_CAPACITY * 3, -10000000, 10000000) /* [limit][level]; range per row in bms_ids.h */ \
    ARRAY(limit_clear, BMS_LIMIT_CAPACITY * 3, -10000000, 10000000) \
    ARRAY(limit_hold_ms, BMS_LIMIT_CAPACITY * 3, 0, 3600000) \
    ARRAY(diag_set_ms, BMS_DIAG_CAPACITY, 0, 3600000) \
    ARRAY(diag_delay_ms, BMS_DIAG_CAPACITY, 0, 600000) \
    ARRAY(ramp_zero, BMS_RAMP_CAPACITY, -10000000, 10000000) \
    ARRAY(ramp_full, BMS_RAMP_CAPACITY, -10000000, 10000000) \
    /* sensors beside voltage, temperature and current */ \
    SCALAR(sensors_required, 0, 7)             /* bit 0 insulation, 1 pressure, 2 gas: silence is a warning */ \
    SCALAR(voltage_stale_ms, 10, 600000)       /* frames come, but the source's own counter stands still */ \
    SCALAR(temperature_stale_ms, 10, 600000) \
    SCALAR(current_stale_ms, 10, 600000) \
    SCALAR(temperature_outlier_ddegC, 20, 3000) /* below the median of its peers */ \
    /* L1, runaway */ \
    SCALAR(runaway_t_max_ddegC, 400, 1500)     /* the maker's maximum */ \
    SCALAR(runaway_collapse_permille, 50, 900) /* lost of the cell's own voltage, against its peers */ \
    SCALAR(runaway_rate_mK_per_s, 100, 20000) \
    SCALAR(runaway_hold_ms, 500, 60000) \
    SCALAR(early_rate_mK_per_s, 0, 5000)       /* above the median of the sensors; 0 = off */ \
    SCALAR(early_rise_ddegC, 5, 500)           /* and at least so much above the median */ \
    SCALAR(early_hold_ms, 500, 60000) \
    SCALAR(vent_pressure_daPa, 5, 60000)       /* rise within two seconds */ \
    SCALAR(vent_gas_ppm, 5, 60000)             /* rise within ten seconds */ \
    SCALAR(vent_memory_ms, 100, 600000)        /* a pulse corroborates for so long */ \
    /* L2, State of Safety */ \
    SCALAR(safety_warn_ppm, 0, 1000000) \
    SCALAR(safety_full_ppm, 1, 1000000)        /* no derating above, nothing left at zero */ \
    SCALAR(safety_zero_ppm, 0, 1000000) \
    /* telemetry */ \
    SCALAR(telemetry_voltage_100uV, 1, 1000)   /* deadbands */ \
    SCALAR(telemetry_temperature_ddegC, 1, 100) \
    SCALAR(telemetry_current_mA, 1, 1000000) \
    SCALAR(telemetry_silence_s, 1, 86400)      /* longest time without a frame */ \
    SCALAR(telemetry_key_s, 1, 86400)          /* longest time without a key frame */ \
    SCALAR(telemetry_event_s, 0, 600)          /* full rate for so long after an event */ \
    SCALAR(telemetry_snapshot_s, 60, 864000)   /* rested snapshot of all cells */ \
    /* parked */ \
    SCALAR(park_after_s, 10, 86400)            /* open and at rest for so long */ \
    SCALAR(park_wake_s, 60, 3600)              /* a healthy pack is looked at so often */ \
    SCALAR(park_wake_alert_s, 10, 3600)        /* a warm, unsafe or gassing one so often */ \
    SCALAR(park_awake_s, 1, 600)               /* a look lasts so long */ \
    SCALAR(park_alert_ddegC, -400, 1500)

/* Models: FLOAT(name, low, high)  FLOATS(name, count, low, high); pathways are SEI, anode, cathode, electrolyte. */
#define BMS_PARAM_FLOATS(FLOAT, FLOATS) \
    FLOATS(abuse_ln_A, 4, 0.0f, 90.0f)              /* natural logarithm of the pre-exponential factor in 1/s */ \
    FLOATS(abuse_E_over_R_K, 4, 1000.0f, 100000.0f) \
    FLOATS(abuse_heat_J_per_kg, 4, 0.0f, 5.0e6f)    /* whole pathway, per kg of cell */ \
    FLOATS(abuse_start, 4, 0.0f, 1.0f)              /* reactant left at start (cathode: conversion) */ \
    FLOAT(abuse_anode_z, 0.001f, 1.0f)              /* layer at start, and its scale */ \
    FLOAT(abuse_starts_K, 300.0f, 450.0f)           /* no reaction below */ \
    FLOAT(abuse_onset_K, 320.0f, 450.0f)            /* the most sensitive pathway accelerates measurably */ \
    FLOAT(abuse_inevitable_K, 400.0f, 600.0f) \
    FLOAT(abuse_scale, 0.0f, 10.0f)                 /* lambda of the State of Safety */ \
    FLOAT(cell_mass_kg, 0.01f, 20.0f) \
    FLOAT(cell_cp_J_per_kgK, 300.0f, 3000.0f) \
    FLOAT(cell_core_share, 0.1f, 0.9f)              /* of the heat capacity that is core */ \
    FLOAT(cell_core_K_per_W, 0.001f, 100.0f)        /* core to surface */ \
    FLOAT(cell_surface_K_per_W, 0.001f, 1000.0f)    /* surface to coolant */ \
    FLOAT(cell_resistance_ohm, 0.0f, 1.0f)          /* of a group, for its Joule heat */ \
    FLOAT(cell_parallel, 1.0f, 200.0f)              /* cells that share the current of a group */ \
    EST_PARAM_FLOATS(FLOAT, FLOATS)

#define BMS_PARAM_SCALAR(name, min, max) int32_t name;
#define BMS_PARAM_ARRAY(name, count, min, max) int32_t name[count];
#define BMS_PARAM_FLOAT(name, min, max) float name;
#define BMS_PARAM_FLOAT_ARRAY(name, count, min, max) float name[count];
typedef struct {
    BMS_PARAM_FIELDS(BMS_PARAM_SCALAR, BMS_PARAM_ARRAY)
    BMS_PARAM_FLOATS(BMS_PARAM_FLOAT, BMS_PARAM_FLOAT_ARRAY)
    int32_t schema; /* BMS_PARAM_SCHEMA; last, so that a set of an older layout cannot pass for this one */
#if EST_PARAM_WORDS % 2 == 0
    int32_t filler; /* keeps the context free of padding; zero */
#endif
} bms_params_t;
enum { BMS_PARAM_SCHEMA = 2 }; /* raised with every change of the fields above or in est_params.h */
_Static_assert(sizeof(bms_params_t) == 4 * (542 + EST_PARAM_WORDS / 2 * 2), "parameter set has its documented size");
_Static_assert(sizeof(bms_params_t) % 8 == 0, "context stays free of padding");

/* ---- inputs: one measured frame, and what is asked of the BMS ----------------------------------------------
 * A frame is taken over when sample_counter differs from the last one taken; request is read every tick. */
#define BMS_INPUT_FIELDS(SCALAR, ARRAY) \
    ARRAY(uint16_t, cell_voltage_100uV, BMS_MAX_GROUPS) \
    ARRAY(int16_t, cell_temperature_ddegC, BMS_MAX_TEMPS) \
    SCALAR(int32_t, pack_current_mA) \
    SCALAR(int32_t, pack_current_redundant_mA) /* second sensor; BMS_CURRENT_INVALID = not fitted */ \
    SCALAR(uint32_t, pack_voltage_mV) \
    SCALAR(uint32_t, link_voltage_mV)          /* behind the contactors */ \
    SCALAR(uint32_t, sample_period_ticks)      /* ticks for which a sample is fresh; 0 counts as 1 */ \
    SCALAR(uint16_t, sample_counter)           /* +1 per sample, wraps */ \
    SCALAR(uint16_t, insulation_kohm)          /* BMS_SENSOR_INVALID = not measured; also the next two */ \
    SCALAR(uint16_t, pressure_daPa)            /* in the housing above that outside, 10 Pa */ \
    SCALAR(uint16_t, gas_ppm) \
    SCALAR(uint8_t, contactor_feedback) \
    SCALAR(uint8_t, condition) \
    SCALAR(uint8_t, request) \
    /* Own counters of the sources: +1 per measurement, wraps to 1; 0 = not counted, fresh with every frame. */ \
    SCALAR(uint8_t, voltage_sample) \
    SCALAR(uint8_t, temperature_sample) \
    SCALAR(uint8_t, current_sample) \
    ARRAY(uint8_t, reserved, 6)

/* ---- outputs: state at the end of the last tick ------------------------------------------------------------ */
#define BMS_OUTPUT_FIELDS(SCALAR, ARRAY) \
    SCALAR(uint64_t, uptime_ms) \
    SCALAR(uint64_t, fault_latched)        /* one bit per diagnosis, until reset */ \
    SCALAR(uint64_t, fault_active) \
    SCALAR(uint64_t, first_fault_ms)       /* uptime at which the first latched fault appeared */ \
    SCALAR(uint64_t, contactor_change_ms)  /* uptime of the last change of contactor_command */ \
    SCALAR(uint64_t, remaining_charge_mAs) \
    SCALAR(uint64_t, charged_mAs)          /* throughput since start */ \
    SCALAR(uint64_t, discharged_mAs) \
    SCALAR(int32_t, charge_limit_mA)       /* >= 0 */ \
    SCALAR(int32_t, discharge_limit_mA)    /* >= 0 */ \
    SCALAR(uint32_t, soc_ppm) \
    SCALAR(uint32_t, cell_sum_mV)          /* of the usable channels */ \
    SCALAR(uint32_t, mol_active)           /* one bit per limit */ \
    SCALAR(uint32_t, rsl_active) \
    SCALAR(uint32_t, msl_active) \
    ARRAY(uint32_t, balancing_charge_mAs, BMS_MAX_GROUPS) /* bled per group since start, modulo 2^32 */ \
    ARRAY(uint8_t, balancing_mask, BMS_MAX_GROUPS / 8)    /* little-endian bit order */ \
    SCALAR(uint16_t, cell_voltage_min_100uV) \
    SCALAR(uint16_t, cell_voltage_max_100uV) \
    SCALAR(uint16_t, cell_voltage_mean_100uV) \
    SCALAR(uint16_t, cell_voltage_min_index) \
    SCALAR(uint16_t, cell_voltage_max_index) \
    SCALAR(int16_t, cell_temperature_min_ddegC) \
    SCALAR(int16_t, cell_temperature_max_ddegC) \
    SCALAR(uint8_t, cell_temperature_min_index) \
    SCALAR(uint8_t, cell_temperature_max_index) \
    SCALAR(uint16_t, soc_calibrations)     /* times the OCV set the SoC */ \
    SCALAR(uint16_t, openings_under_load)  /* wear of the contactors */ \
    SCALAR(uint8_t, state) \
    SCALAR(uint8_t, step) \
    SCALAR(uint8_t, contactor_command) \
    SCALAR(uint8_t, cooling_percent) \
    SCALAR(uint8_t, first_fault)           /* diagnosis, or BMS_NO_FAULT */ \
    SCALAR(uint8_t, soc_known)             /* 1 once a rested OCV on a steep part of the curve was seen */ \
    SCALAR(uint8_t, parked)                /* 1 while asleep between two looks */ \
    SCALAR(uint8_t, runaway)               /* bits of BMS_RUNAWAY_LIST as of this tick */ \
    /* from the non-real-time part, as of its last second */ \
    SCALAR(uint32_t, safety_ppm)           /* State of Safety of the worst zone */ \
    SCALAR(uint32_t, soc_estimate_ppm)     /* of the estimator of this release */ \
    SCALAR(uint32_t, soc_sigma_ppm)        /* 0 = the estimator states none */ \
    SCALAR(uint32_t, soc_min_ppm)          /* weakest and strongest group */ \
    SCALAR(uint32_t, soc_max_ppm) \
    SCALAR(uint32_t, soh_capacity_ppm)     /* 0 = not yet known */ \
    SCALAR(uint32_t, soh_resistance_ppm) \
    SCALAR(uint32_t, sop_discharge_10s_W)  /* 0 = not predicted by this release */ \
    SCALAR(uint32_t, sop_discharge_60s_W) \
    SCALAR(uint32_t, sop_charge_10s_W) \
    SCALAR(uint32_t, sop_charge_60s_W) \
    SCALAR(uint32_t, wake_in_s)            /* parked: until the next look */ \
    SCALAR(int32_t, rate_max_mK_per_s)     /* steepest temperature sensor */ \
    SCALAR(uint32_t, telemetry_sequence)   /* frames made since start */ \
    SCALAR(uint32_t, overruns)             /* late ticks, unfinished seconds */ \
    SCALAR(uint32_t, release)              /* major << 16 | minor << 8 | patch */

#define BMS_IO_SCALAR(type, name) type name;
#define BMS_IO_ARRAY(type, name, count) type name[count];
typedef struct {
    BMS_INPUT_FIELDS(BMS_IO_SCALAR, BMS_IO_ARRAY)
} bms_inputs_t;
typedef struct {
    BMS_OUTPUT_FIELDS(BMS_IO_SCALAR, BMS_IO_ARRAY)
} bms_outputs_t;
_Static_assert(sizeof(bms_inputs_t) == 680, "frame has its documented size");
_Static_assert(sizeof(bms_outputs_t) == 1240, "outputs have their documented size");

/* ---- context ---------------------------------------------------------------------------------------------- */

/* What follows from the frame and the parameters alone; nothing here remembers. */
typedef struct {
    uint64_t nok;    /* diagnosis conditions the frame fulfils */
    uint64_t beyond; /* limit bits (limit * 3 + level) beyond trip */
    uint64_t behind; /* limit bits back behind clear */
    int32_t signal[SIGNAL_COUNT];
    uint32_t signal_valid; /* one bit per signal */
    int32_t current_mA;    /* 0 while unknown */
    uint32_t current_valid;
    int32_t factor_q16[2]; /* charge, discharge: smallest of the ramps that hang on the frame, 65536 = 1 */
    uint32_t cell_sum_mV;
    uint16_t cell_mean_100uV;
    uint16_t cell_min_index;
    uint16_t cell_max_index;
    uint16_t cells_valid;
    uint8_t temp_min_index;
    uint8_t temp_max_index;
    uint8_t charging;
    uint8_t resting;
    uint8_t link_valid;
    uint8_t reserved[3];
    uint16_t peers_100uV;    /* mean of the cells without the two extremes */
    int16_t peers_ddegC;     /* same of the temperatures */
} bms_measured_t;

/* L1: rings of temperatures, decimated, for slopes over one and over ten seconds. */
enum { BMS_SLOPE_FAST = 11, BMS_SLOPE_SLOW = 11, BMS_PULSE_RING = 11 };
typedef struct {
    int16_t fast_ddegC[BMS_SLOPE_FAST][BMS_MAX_TEMPS];
    int16_t slow_ddegC[BMS_SLOPE_SLOW][BMS_MAX_TEMPS];
    uint32_t fast_ms[BMS_SLOPE_FAST]; /* when taken, uptime modulo 2^32 */
    uint32_t slow_ms[BMS_SLOPE_SLOW];
    uint32_t pulse_ms[BMS_PULSE_RING];
    uint16_t pressure_daPa[BMS_PULSE_RING];
    uint16_t gas_ppm[BMS_PULSE_RING];
    uint16_t steep_ms[BMS_MAX_TEMPS]; /* up-down counters */
    uint16_t early_ms[BMS_MAX_TEMPS];
    uint16_t base_100uV[BMS_MAX_GROUPS]; /* what the cell had before, slow */
    uint64_t steep;                      /* sensors that are steep as of the last evaluation */
    uint64_t falling;
    uint64_t early;
    uint64_t valid;                      /* sensors with a usable value in this sample */
    uint32_t base_ms;                    /* when the bases were last moved */
    uint32_t base_mean_100uV;
    uint32_t vent_ms;                    /* a pulse corroborates for so long yet */
    uint32_t span_ms;                    /* covered by the fast slope */
    int32_t rate_max_mK_per_s;
    uint8_t fast_n, fast_at, slow_n, slow_at, pulse_n, pulse_at;
    uint8_t have_base;
    uint8_t running; /* any counter above zero */
    uint8_t collapsed;
    uint8_t hot;
    uint8_t flags; /* bits of BMS_RUNAWAY_LIST */
    uint8_t reserved;
} bms_runaway_t;

/* One line at full rate, kept for the event window of the telemetry. */
typedef struct {
    uint32_t uptime_ms; /* modulo 2^32 */
    int32_t current_mA;
    uint32_t pack_mV;
    uint32_t fault_bits; /* latched, folded to 32 bits: changes show, names come with the key frame */
    int32_t rate_mK_per_s;
    uint16_t mean_100uV;
    uint16_t min_100uV;
    uint16_t max_100uV;
    int16_t hottest_ddegC;
    uint16_t pressure_daPa;
    uint16_t gas_ppm;
    uint16_t insulation_kohm;
    uint16_t min_group;
    uint8_t step;
    uint8_t command;
    uint8_t cooling_percent;
    uint8_t runaway;
} bms_trace_row_t;
enum { BMS_TRACE_ROWS = 104 }; /* a second of ticks, and some that came late */
typedef struct {
    bms_trace_row_t row[BMS_TRACE_ROWS];
    uint32_t n;
    uint32_t lost; /* rows that found the buffer full */
} bms_trace_t;

/* What the real-time part hands to the other: a copy, made in one tick, read in the second that follows. */
typedef struct {
    uint64_t uptime_ms;
    uint64_t fault_active;
    uint64_t fault_latched;
    int64_t charge_mAms;
    uint64_t charged_mAms;
    uint64_t discharged_mAms;
    uint32_t dt_ms;          /* since the snapshot before */
    int32_t current_mean_mA; /* over dt */
    uint32_t soc_ppm;        /* counted */
    uint32_t soc_rest_ms;
    uint32_t rest_ms;
    uint32_t age_ms[3];      /* voltages, temperatures, current */
    uint32_t overruns;
    int32_t rate_max_mK_per_s;
    uint16_t openings_under_load;
    uint16_t soc_calibrations;
    uint8_t step;
    uint8_t command;
    uint8_t cooling_percent;
    uint8_t soc_known;
    uint8_t soc_started;
    uint8_t runaway;
    uint8_t trace;  /* buffer that was closed with it */
    uint8_t asleep; /* dt was spent asleep */
    uint8_t requested; /* closing is wanted */
    uint8_t reserved[3];
    uint64_t bled_100uVms[BMS_MAX_GROUPS];
    bms_measured_t measured;
    bms_inputs_t frame;
} bms_snapshot_t;

/* What the non-real-time part hands back; taken over at the next snapshot, so that its run time does not matter. */
typedef struct {
    uint32_t safety_ppm;
    uint32_t soc_estimate_ppm;
    uint32_t soc_sigma_ppm;
    uint32_t soc_min_ppm;
    uint32_t soc_max_ppm;
    uint32_t soh_capacity_ppm;
    uint32_t soh_resistance_ppm;
    uint32_t sop_W[4]; /* discharge 10 s, 60 s, charge 10 s, 60 s */
    uint32_t telemetry_sequence;
    int32_t safety_q16; /* factor on both current limits */
    uint32_t wake_in_s;
    uint8_t safety_low;
    uint8_t park;
    uint8_t reserved[6];
} bms_result_t;

#include "../app/slow.h"

typedef struct {
    bms_params_t params;
    bms_measured_t measured;

    uint64_t uptime_ms;

    /* limits */
    uint64_t limit_active;  /* bit limit * 3 + level */
    uint64_t limit_running; /* bits whose timer is not zero */
    /* diagnoses */
    uint64_t diag_active;
    uint64_t diag_running; /* bits whose counter is not zero */
    uint64_t diag_latched;
    uint64_t sticky_nok;   /* conditions found when a sample arrived, which last until the next */
    uint64_t first_fault_ms;
    /* charge */
    int64_t charge_mAms;
    int64_t capacity_mAms;
    uint64_t charged_mAms;
    uint64_t discharged_mAms;
    /* current limits, uA so that slew * tick is exact; 0 charge, 1 discharge */
    int64_t limit_uA[2];
    uint64_t contactor_change_ms;
    uint64_t bled_100uVms[BMS_MAX_GROUPS]; /* voltage times time over the balancing resistor, per group */

    uint32_t limit_timer_ms[BMS_LIMIT_CAPACITY * 3];
    uint32_t diag_counter_ms[BMS_DIAG_CAPACITY];
    uint32_t open_in_ms;   /* until a latched fault opens the contactors */
    uint32_t sample_age_ms;
    uint32_t step_ms;      /* since the contactor step was entered */
    uint32_t rest_ms;
    uint32_t soc_rest_ms;
    uint32_t balancing_pending_ms; /* bled with the present mask, not yet booked */
    int32_t limit_at_sample_mA[2]; /* offered when the present sample was taken */
    uint32_t params_bad; /* reason why the given parameters were refused, PARAM_OK otherwise */

    uint16_t stuck_voltage_count[BMS_MAX_GROUPS]; /* identical samples in a row */
    uint16_t stuck_mean_100uV[BMS_MAX_GROUPS]; /* mean of all cells when this channel last changed */
    uint16_t stuck_temperature_count[BMS_MAX_TEMPS];
    int16_t stuck_mean_ddegC[BMS_MAX_TEMPS];
    uint8_t balancing_mask[BMS_MAX_GROUPS / 8];
    uint16_t soc_calibrations;
    uint16_t openings_under_load;
    uint8_t step;
    uint8_t command;
    uint8_t command_samples; /* samples that arrived since the command last changed, saturating */
    uint8_t step_samples;    /* same since the step was entered */
    uint8_t precharge_tries;
    uint8_t close_armed;
    uint8_t have_sample;
    uint8_t first_fault;
    uint8_t request_before;
    uint8_t soc_started;
    uint8_t soc_known;
    uint8_t balancing_allowed;
    uint8_t balancing_active; /* any bit of the mask */
    uint8_t cooling_on;
    uint8_t cooling_percent;
    uint8_t slow_pending; /* the other part owns snapshot and slow until it clears this */
    uint8_t trace_open;   /* buffer being filled */
    uint8_t source_counter[3];
    uint8_t slow_late;    /* the last snapshot found the other part still busy */
    uint8_t asleep;       /* time was spent asleep since the last snapshot */
    uint8_t reserved[2];
    uint32_t source_age_ms[3]; /* voltages, temperatures, current */
    uint32_t slow_in_ms;       /* until the next snapshot */
    uint32_t rt_overruns;
    uint32_t slow_overruns;
    uint32_t overrun_ms;       /* RT_OVERRUN stays visible for so long yet */
    uint32_t reserved_word;
    uint64_t snapshot_ms;      /* uptime, throughput at the last snapshot */
    uint64_t snapshot_charged_mAms;
    uint64_t snapshot_discharged_mAms;
    bms_inputs_t frame; /* the last sample taken over */
    bms_runaway_t runaway;
    bms_result_t result;
    bms_trace_t trace[2];
    bms_snapshot_t snapshot;
    bms_slow_t slow;
} bms_ctx_t;

#endif
