/* Every name and number that leaves the firmware: states, diagnoses, limits, ramps, request bits.
 *
 * Each list is an X-macro; the enums below and the tables in app/ are made from it, and native.py reads the same
 * lines for its names, so nothing is typed twice. Values are positions in the list. Append, never insert:
 * recorded fault masks and parameter sets refer to these positions.
 */
#ifndef BMS_IDS_H
#define BMS_IDS_H

#define BMS_MAX_GROUPS 256
#define BMS_MAX_TEMPS 64
#define BMS_OCV_CAPACITY 64
/* Capacities of the tables, larger than the lists: a new row changes no offset of the parameter set. */
#define BMS_DIAG_CAPACITY 64
#define BMS_LIMIT_CAPACITY 16
#define BMS_RAMP_CAPACITY 16

/* A channel that has no measurement carries one of these instead of a value. */
#define BMS_CELL_VOLTAGE_INVALID 65535
#define BMS_TEMPERATURE_INVALID (-32768)
#define BMS_CURRENT_INVALID (-2147483647)
#define BMS_VOLTAGE_INVALID 4294967295
#define BMS_SENSOR_INVALID 65535
#define BMS_NO_FAULT 255

#define BMS_TICK_MS 10

#define BMS_STATE_LIST(X) \
    X(OFF)       /* waits for the first plausible sample */ \
    X(STANDBY)   /* contactors open, healthy */ \
    X(PRECHARGE) /* anywhere in the closing sequence */ \
    X(RUN)       /* connected */ \
    X(OPENING)   /* waits for the current to fall, then opens one contactor after the other */ \
    X(ERROR)     /* open until reset */

/* Steps of the contactor sequence; each belongs to one state (table in app/contactor.c). */
#define BMS_STEP_LIST(X) \
    X(OFF) \
    X(STANDBY) \
    X(CLOSE_MINUS) \
    X(CLOSE_PRECHARGE) \
    X(CLOSE_PLUS) \
    X(RELEASE_PRECHARGE) \
    X(RETRY_PAUSE) \
    X(RUN) \
    X(OPEN_WAIT) \
    X(OPEN_PLUS) \
    X(OPEN_MINUS) \
    X(ERROR)

/* Operating limit informs, recommended limit warns and derates, safety limit opens and latches. */
#define BMS_LEVEL_LIST(X) X(MOL) X(RSL) X(MSL)

#define BMS_SEVERITY_LIST(X) \
    X(INFO)    /* recorded */ \
    X(WARNING) /* recorded and shown */ \
    X(FATAL)   /* latches, opens the contactors; RESET_FAULT clears it once the cause is gone */ \
    X(SERVICE) /* as FATAL, but only SERVICE_RESET clears it */

/* Bits of bms_inputs_t.request. CLOSE acts by level, the resets by their rising edge. */
#define BMS_REQUEST_LIST(X) X(CLOSE) X(RESET_FAULT) X(SERVICE_RESET)

/* Bits of contactor_command and contactor_feedback; 1 = closed. */
#define BMS_CONTACTOR_LIST(X) X(MAIN_PLUS) X(MAIN_MINUS) X(PRECHARGE)

/* Bits of bms_inputs_t.condition; all zero is a healthy environment. */
#define BMS_CONDITION_LIST(X) X(INTERLOCK_OPEN) X(EMERGENCY_STOP)

/* Signals that limits and ramps look at; their values are int32 in the unit stated. */
#define BMS_SIGNAL_LIST(X) \
    X(CELL_V_MAX)        /* 100 uV */ \
    X(CELL_V_MIN)        /* 100 uV */ \
    X(CELL_T_MAX)        /* 0.1 degC */ \
    X(CELL_T_MIN)        /* 0.1 degC */ \
    X(CURRENT_DISCHARGE) /* mA, positive while discharging */ \
    X(CURRENT_CHARGE)    /* mA, positive while charging */ \
    X(PACK_V)            /* mV */ \
    X(CELL_V_SPREAD)     /* 100 uV, highest minus lowest */ \
    X(CELL_T_SPREAD)     /* 0.1 K, hottest minus coldest */ \
    X(SOC)               /* ppm */ \
    X(INSULATION)        /* kohm */ \
    X(PRESSURE)          /* 10 Pa above that outside */ \
    X(GAS)               /* ppm of combustible gas */

/* Three-level limits. X(name, signal, side, gate, derates, lowest trip allowed, highest trip allowed)
 * gate: the limit counts ALWAYS, only while CHARGING, or only while NOT_CHARGING.
 * derates: which current limits the RSL level reduces (bit 0 charge, bit 1 discharge).
 * The MSL level of a limit raises the diagnosis of the same name. */
#define BMS_LIMIT_LIST(X) \
    X(CELL_OVERVOLTAGE, CELL_V_MAX, ABOVE, ALWAYS, 1, 10000, 60000) \
    X(CELL_UNDERVOLTAGE, CELL_V_MIN, BELOW, ALWAYS, 2, 1000, 60000) \
    X(OVERTEMPERATURE_DISCHARGE, CELL_T_MAX, ABOVE, NOT_CHARGING, 2, 0, 1500) \
    X(OVERTEMPERATURE_CHARGE, CELL_T_MAX, ABOVE, CHARGING, 1, 0, 1500) \
    X(UNDERTEMPERATURE_DISCHARGE, CELL_T_MIN, BELOW, NOT_CHARGING, 2, -600, 500) \
    X(UNDERTEMPERATURE_CHARGE, CELL_T_MIN, BELOW, CHARGING, 1, -600, 500) \
    X(OVERCURRENT_DISCHARGE, CURRENT_DISCHARGE, ABOVE, ALWAYS, 2, 0, 10000000) \
    X(OVERCURRENT_CHARGE, CURRENT_CHARGE, ABOVE, ALWAYS, 1, 0, 10000000) \
    X(PACK_OVERVOLTAGE, PACK_V, ABOVE, ALWAYS, 1, 100, 2000000) \
    X(PACK_UNDERVOLTAGE, PACK_V, BELOW, ALWAYS, 2, 0, 2000000) \
    X(CELL_VOLTAGE_SPREAD, CELL_V_SPREAD, ABOVE, ALWAYS, 3, 10, 60000) \
    X(CELL_TEMPERATURE_SPREAD, CELL_T_SPREAD, ABOVE, ALWAYS, 3, 1, 3000) \
    X(INSULATION_LOW, INSULATION, BELOW, ALWAYS, 0, 0, 60000) \
    X(PRESSURE_HIGH, PRESSURE, ABOVE, ALWAYS, 3, 10, 60000) \
    X(GAS_HIGH, GAS, ABOVE, ALWAYS, 3, 10, 60000)

/* Diagnoses, at most BMS_DIAG_CAPACITY: one bit each in fault_active and fault_latched.
 * X(name, severity, default set_ms, default delay_ms)
 * set_ms: the condition must outweigh its absence by this long (up-down counter) before the diagnosis is active;
 *   0 = in the same tick. delay_ms: from active to the opening of the contactors, so that the load can ramp down;
 *   they open earlier if the current is already low.
 * Diagnoses of the MSL levels have their hold time in the limit row. */
#define BMS_DIAG_LIST(X) \
    X(CELL_OVERVOLTAGE, FATAL, 0, 100) \
    X(CELL_UNDERVOLTAGE, FATAL, 0, 100) \
    X(OVERTEMPERATURE_DISCHARGE, FATAL, 0, 1000) \
    X(OVERTEMPERATURE_CHARGE, FATAL, 0, 1000) \
    X(UNDERTEMPERATURE_DISCHARGE, FATAL, 0, 1000) \
    X(UNDERTEMPERATURE_CHARGE, FATAL, 0, 1000) \
    X(OVERCURRENT_DISCHARGE, FATAL, 0, 0) \
    X(OVERCURRENT_CHARGE, FATAL, 0, 0) \
    X(PACK_OVERVOLTAGE, FATAL, 0, 100) \
    X(PACK_UNDERVOLTAGE, FATAL, 0, 100) \
    X(CELL_VOLTAGE_SPREAD, FATAL, 0, 1000) \
    X(CELL_TEMPERATURE_SPREAD, FATAL, 0, 1000) \
    X(DEEP_DISCHARGE, SERVICE, 1000, 100) \
    X(CELL_VOLTAGE_MISSING, WARNING, 100, 0)     /* a channel carries the invalid sentinel */ \
    X(CELL_VOLTAGE_IMPLAUSIBLE, WARNING, 100, 0) /* a channel is outside what the sensor can see */ \
    X(CELL_VOLTAGE_LOST, FATAL, 1000, 1000)      /* more channels unusable than tolerated */ \
    X(TEMPERATURE_MISSING, WARNING, 500, 0) \
    X(TEMPERATURE_IMPLAUSIBLE, WARNING, 500, 0) \
    X(TEMPERATURE_LOST, FATAL, 5000, 1000) \
    X(CURRENT_LOST, FATAL, 200, 100) \
    X(PACK_VOLTAGE_LOST, WARNING, 500, 0) \
    X(LINK_VOLTAGE_LOST, WARNING, 500, 0) \
    X(CELL_VOLTAGE_STUCK, WARNING, 0, 0)         /* a channel repeats itself while the pack mean moves */ \
    X(TEMPERATURE_STUCK, WARNING, 0, 0) \
    X(CELL_SUM_MISMATCH, FATAL, 2000, 2000)      /* sum of cells against pack voltage */ \
    X(CURRENT_REDUNDANCY, FATAL, 1000, 1000)     /* the two current sensors disagree */ \
    X(LINK_MISMATCH, FATAL, 1000, 1000)          /* connected, yet pack and link voltage differ */ \
    X(SAMPLE_STALE, FATAL, 200, 0)               /* no new sample within its period */ \
    X(SAMPLE_LOST, WARNING, 0, 0)                /* the sample counter jumped */ \
    X(MAIN_PLUS_STUCK_OPEN, FATAL, 100, 0) \
    X(MAIN_MINUS_STUCK_OPEN, FATAL, 100, 0) \
    X(PRECHARGE_STUCK_OPEN, FATAL, 100, 0) \
    X(MAIN_PLUS_WELDED, FATAL, 200, 0) \
    X(MAIN_MINUS_WELDED, FATAL, 200, 0) \
    X(PRECHARGE_WELDED, FATAL, 200, 0) \
    X(PRECHARGE_FAILED, FATAL, 0, 0)             /* all tries used up */ \
    X(CURRENT_WHILE_OPEN, WARNING, 1000, 0)      /* sensor offset, or a path around the contactors */ \
    X(CURRENT_LIMIT_IGNORED, WARNING, 1000, 0)   /* load or charger takes more than was offered */ \
    X(INTERLOCK_OPEN, FATAL, 20, 0) \
    X(EMERGENCY_STOP, FATAL, 0, 0) \
    X(PARAMETERS_INVALID, SERVICE, 0, 0) \
    X(INSULATION_LOW, FATAL, 0, 5000) \
    X(PRESSURE_HIGH, FATAL, 0, 100) \
    X(GAS_HIGH, FATAL, 0, 1000) \
    X(SENSOR_MISSING, WARNING, 1000, 0)          /* pressure, gas or insulation is required and silent */ \
    X(CELL_VOLTAGE_STALE, FATAL, 500, 100)       /* frames come, but this source does not measure any more */ \
    X(TEMPERATURE_STALE, FATAL, 3000, 1000) \
    X(CURRENT_STALE, FATAL, 200, 100) \
    X(TEMPERATURE_OUTLIER, WARNING, 2000, 0)     /* a sensor far below its peers: loose, it hides a hot cell */ \
    X(RUNAWAY, SERVICE, 0, 0)                    /* L1: GB 38031-2025 C.5.3.7, or corroborated by a vent pulse */ \
    X(RUNAWAY_EARLY, SERVICE, 0, 0)              /* L1: one sensor leaves its peers at a rate no load explains */ \
    X(VENT_PULSE, WARNING, 0, 0)                 /* pack pressure or gas jumped */ \
    X(SAFETY_LOW, WARNING, 0, 0)                 /* L2: State of Safety below its warning level */ \
    X(RT_OVERRUN, WARNING, 0, 0)                 /* a tick of the real-time part came late */ \
    X(SLOW_OVERRUN, WARNING, 0, 0)               /* the slow part did not finish within its second */

/* Derating ramps: factor 0 at `zero`, 1 at `full`, straight between, the smallest factor counts.
 * X(name, signal, derates, falling): falling = 1 when the factor falls with the signal (zero > full). */
#define BMS_RAMP_LIST(X) \
    X(CHARGE_BY_VOLTAGE, CELL_V_MAX, 1, 1) \
    X(DISCHARGE_BY_VOLTAGE, CELL_V_MIN, 2, 0) \
    X(CHARGE_BY_HEAT, CELL_T_MAX, 1, 1) \
    X(CHARGE_BY_COLD, CELL_T_MIN, 1, 0) \
    X(DISCHARGE_BY_HEAT, CELL_T_MAX, 2, 1) \
    X(DISCHARGE_BY_COLD, CELL_T_MIN, 2, 0) \
    X(CHARGE_BY_SOC, SOC, 1, 1) \
    X(DISCHARGE_BY_SOC, SOC, 2, 0)

/* Bits of bms_outputs_t.runaway: what the early warning of the real-time part sees. */
#define BMS_RUNAWAY_LIST(X) \
    X(HOT)       /* a sensor at or above the maker's maximum */ \
    X(COLLAPSED) /* a cell lost a quarter of its voltage, its peers did not */ \
    X(STEEP)     /* a sensor rises at the rate of C.5.3.7 */ \
    X(CONFIRMED) /* for the time of C.5.3.7 */ \
    X(VENT)      /* pressure or gas jumped */ \
    X(EARLY)     /* a sensor leaves its peers */

/* Lines of the black box. X(name): a, b */
#define BMS_RECORD_LIST(X) \
    X(BOOT)      /* reset cause, release */ \
    X(STEP)      /* step before, current mA */ \
    X(LATCHED)   /* id = diagnosis; current mA, steepest rate mK/s */ \
    X(WARNING)   /* id = diagnosis; current mA, steepest rate mK/s */ \
    X(CLEARED)   /* id = diagnosis; 0, 0 */ \
    X(SAFETY)    /* State of Safety ppm, zone */ \
    X(OVERRUN)   /* late ticks, unfinished seconds */ \
    X(PARKED)    /* seconds until the next look, looks so far */ \
    X(PARAMETERS) /* id = reason; counter of the set, schema */

/* Why a parameter set is refused; stable, reported with field, index, value and the allowed range. */
#define BMS_PARAM_REASON_LIST(X) \
    X(OK) \
    X(OUT_OF_RANGE)     /* below or above the range of its row */ \
    X(LEVEL_ORDER)      /* MOL, RSL, MSL must lie ever further out */ \
    X(HYSTERESIS)       /* clear must not lie beyond trip */ \
    X(OCV_NOT_RISING)   /* both columns of the OCV table must rise strictly */ \
    X(OCV_WINDOW)       /* OCV table must lie inside the MSL cell voltages and span SoC 0...1000 */ \
    X(RAMP_ORDER)       /* zero and full on the wrong sides, or equal */ \
    X(PAIR_ORDER)       /* the value must be above its partner */ \
    X(UNUSED_NOT_ZERO)  /* a slot without a row must be zero */ \
    X(NOT_FINITE)       /* NaN or infinite */ \
    X(SET_TRUNCATED)    /* shorter than its header says */ \
    X(SET_FORMAT)       /* magic, reserved byte or type of a row */ \
    X(SET_LENGTH)       /* longer or shorter than its rows */ \
    X(SET_ORDER)        /* ids not strictly ascending */ \
    X(SET_SCHEMA)       /* made for another schema: version, ids or types */ \
    X(SET_COUNTER)      /* not newer than what this device has accepted */ \
    X(SET_DESIGN)       /* number of groups or sensors is not that of this pack */ \
    X(STORE_DAMAGED)    /* no copy in flash passes its checksum */

#define BMS_ENUM_ROW_STATE(name, ...) STATE_##name,
#define BMS_ENUM_ROW_STEP(name, ...) STEP_##name,
#define BMS_ENUM_ROW_LEVEL(name, ...) LEVEL_##name,
#define BMS_ENUM_ROW_SEVERITY(name, ...) SEVERITY_##name,
#define BMS_ENUM_ROW_REQUEST(name, ...) REQUEST_BIT_##name,
#define BMS_ENUM_ROW_CONTACTOR(name, ...) CONTACTOR_BIT_##name,
#define BMS_ENUM_ROW_CONDITION(name, ...) CONDITION_BIT_##name,
#define BMS_ENUM_ROW_SIGNAL(name, ...) SIGNAL_##name,
#define BMS_ENUM_ROW_LIMIT(name, ...) LIMIT_##name,
#define BMS_ENUM_ROW_DIAG(name, ...) DIAG_##name,
#define BMS_ENUM_ROW_RAMP(name, ...) RAMP_##name,
#define BMS_ENUM_ROW_RUNAWAY(name, ...) RUNAWAY_BIT_##name,
#define BMS_ENUM_ROW_RECORD(name, ...) RECORD_##name,
#define BMS_ENUM_ROW_PARAM_REASON(name, ...) PARAM_##name,

enum { BMS_STATE_LIST(BMS_ENUM_ROW_STATE) STATE_COUNT };
enum { BMS_STEP_LIST(BMS_ENUM_ROW_STEP) STEP_COUNT };
enum { BMS_LEVEL_LIST(BMS_ENUM_ROW_LEVEL) LEVEL_COUNT };
enum { BMS_SEVERITY_LIST(BMS_ENUM_ROW_SEVERITY) SEVERITY_COUNT };
enum { BMS_REQUEST_LIST(BMS_ENUM_ROW_REQUEST) REQUEST_COUNT };
enum { BMS_CONTACTOR_LIST(BMS_ENUM_ROW_CONTACTOR) CONTACTOR_COUNT };
enum { BMS_CONDITION_LIST(BMS_ENUM_ROW_CONDITION) CONDITION_COUNT };
enum { BMS_SIGNAL_LIST(BMS_ENUM_ROW_SIGNAL) SIGNAL_COUNT };
enum { BMS_LIMIT_LIST(BMS_ENUM_ROW_LIMIT) LIMIT_COUNT };
enum { BMS_DIAG_LIST(BMS_ENUM_ROW_DIAG) DIAG_COUNT };
enum { BMS_RAMP_LIST(BMS_ENUM_ROW_RAMP) RAMP_COUNT };
enum { BMS_RUNAWAY_LIST(BMS_ENUM_ROW_RUNAWAY) RUNAWAY_COUNT };
enum { BMS_RECORD_LIST(BMS_ENUM_ROW_RECORD) RECORD_COUNT };
enum { BMS_PARAM_REASON_LIST(BMS_ENUM_ROW_PARAM_REASON) PARAM_REASON_COUNT };

_Static_assert(DIAG_COUNT <= BMS_DIAG_CAPACITY, "one fault bit per diagnosis");
_Static_assert(LIMIT_COUNT <= BMS_LIMIT_CAPACITY, "limit rows fit the parameter set");
_Static_assert(RAMP_COUNT <= BMS_RAMP_CAPACITY, "ramp rows fit the parameter set");

#endif
