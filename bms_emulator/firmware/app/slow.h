/* State of the non-real-time part: reduced abuse model, telemetry, parking, black box queue, estimators.
 *
 * The real-time part never reads it; results cross in bms_result_t, a snapshot at a time. Included by bms_types.h.
 */
#ifndef BMS_SLOW_H
#define BMS_SLOW_H

#include "est.h"

enum { ABUSE_SEI, ABUSE_ANODE, ABUSE_CATHODE, ABUSE_ELECTROLYTE, ABUSE_PATHWAYS };

/* One zone per temperature sensor: core and surface of the cell under it, and what its pathways have used up. */
typedef struct {
    float core_K;
    float surface_K;
    float left[ABUSE_PATHWAYS]; /* reactant left; cathode: conversion */
    float layer;                /* z of the anode */
    float reserved;
} bms_zone_t;

typedef struct {
    bms_zone_t zone[BMS_MAX_TEMPS];
    float coolant_K; /* what the surfaces lose heat to, from the coolest sensor at rest */
    uint32_t worst_zone;
    uint32_t started;
    uint32_t reserved;
} bms_abuse_t;

/* What the last key frame said, and what a receiver believes after the last frame. */
typedef struct {
    uint64_t sent_s;
    uint64_t key_s;
    uint64_t snapshot_s;
    uint64_t key_active;
    uint64_t key_latched;
    uint64_t sent_active;
    uint64_t sent_latched;
    uint32_t sequence;
    uint32_t key_sequence;
    uint32_t event_left_ms;
    int32_t sent_current_mA;
    uint32_t sent_soc_ppm;
    uint32_t sent_safety_ppm;
    uint32_t lost_rows; /* of event windows, since start */
    uint16_t sent_sensor[3];
    uint16_t sent_pack_cV; /* pack voltage in 10 mV, enough to notice a change */
    uint16_t key_mean_100uV;
    uint16_t sent_mean_100uV;
    int16_t key_mean_ddegC;
    int16_t sent_mean_ddegC;
    uint16_t key_100uV[BMS_MAX_GROUPS];
    uint16_t believed_100uV[BMS_MAX_GROUPS];
    int16_t key_ddegC[BMS_MAX_TEMPS];
    int16_t believed_ddegC[BMS_MAX_TEMPS];
    uint8_t sent_step;
    uint8_t sent_command;
    uint8_t sent_runaway;
    uint8_t sent_cooling;
    uint8_t have_key;
    uint8_t have_snapshot;
    uint8_t reserved[6];
} bms_telemetry_t;

/* A line of the black box; BMS_RECORD_LIST says what `a` and `b` are. */
typedef struct {
    uint32_t sequence;
    uint32_t uptime_s;
    uint8_t kind;
    uint8_t id;
    uint8_t step;
    uint8_t command;
    int32_t a;
    int32_t b;
    uint16_t min_100uV;
    uint16_t max_100uV;
    int16_t hottest_ddegC;
    uint16_t soc_permille;
    uint32_t crc; /* CRC-32 of the 28 bytes before; written last */
} bms_record_t;
enum { BMS_RECORD_QUEUE = 16 };

typedef struct {
    uint64_t seen_active;
    uint64_t seen_latched;
    bms_record_t queue[BMS_RECORD_QUEUE]; /* ring: made, not yet stored */
    uint32_t made;                        /* records since start */
    uint32_t next_sequence;               /* continues what the flash holds */
    uint32_t dropped;
    uint32_t seen_overruns;
    uint8_t seen_step;
    uint8_t started;
    uint8_t reserved[6];
} bms_blackbox_t;

typedef struct {
    uint32_t quiet_ms; /* open, at rest, nothing asked */
    uint32_t awake_ms; /* since the last sleep */
    uint32_t looks;
    uint32_t reserved;
} bms_parking_t;

typedef struct {
    bms_abuse_t abuse;
    bms_telemetry_t telemetry;
    bms_blackbox_t blackbox;
    bms_parking_t parking;
    bms_result_t result;
    est_ctx_t est;
    uint32_t estimating; /* the filter has its start */
    uint32_t reserved;
} bms_slow_t;

#endif
