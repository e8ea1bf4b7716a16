/* The structs that cross a boundary: parameters, inputs, outputs, and the context that holds everything else.
 *
 * Current is positive on discharge. Units stand in the names: 100uV, mV, mA, mAs, ddegC (0.1 degC), ms, ppm.
 * The first three are made from field lists, from which host/describe.c also tells Python names, offsets and
 * ranges. No struct has implicit padding (-Wpadded is an error), so a context can be hashed and copied as bytes.
 */
#ifndef BMS_TYPES_H
#define BMS_TYPES_H

#include <stdint.h>

#include "bms_ids.h"

/* ---- parameters ------------------------------------------------------------------------------------------
 * All int32, so the set is one flat array for range check, storage and transfer.
 * SCALAR(name, min, max)  ARRAY(name, count, min, max) */
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
    ARRAY(ramp_full, BMS_RAMP_CAPACITY, -10000000, 10000000)

#define BMS_PARAM_SCALAR(name, min, max) int32_t name;
#define BMS_PARAM_ARRAY(name, count, min, max) int32_t name[count];
typedef struct {
    BMS_PARAM_FIELDS(BMS_PARAM_SCALAR, BMS_PARAM_ARRAY)
} bms_params_t;
_Static_assert(sizeof(bms_params_t) == 1928, "parameter set has its documented size");
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
    SCALAR(uint8_t, contactor_feedback) \
    SCALAR(uint8_t, condition) \
    SCALAR(uint8_t, request) \
    ARRAY(uint8_t, reserved, 7)

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
    ARRAY(uint8_t, reserved, 2)

#define BMS_IO_SCALAR(type, name) type name;
#define BMS_IO_ARRAY(type, name, count) type name[count];
typedef struct {
    BMS_INPUT_FIELDS(BMS_IO_SCALAR, BMS_IO_ARRAY)
} bms_inputs_t;
typedef struct {
    BMS_OUTPUT_FIELDS(BMS_IO_SCALAR, BMS_IO_ARRAY)
} bms_outputs_t;
_Static_assert(sizeof(bms_inputs_t) == 672, "frame has its documented size");
_Static_assert(sizeof(bms_outputs_t) == 1176, "outputs have their documented size");

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
} bms_measured_t;

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
    uint8_t reserved;
    bms_inputs_t frame; /* the last sample taken over */
} bms_ctx_t;

#endif
