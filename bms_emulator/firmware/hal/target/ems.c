/* What the energy management system hears: five frames every 100 ms, little-endian; bms_emulator/ems.py reads them.
 * A value that is not known has all bits set (signed: only the sign bit). */
#include "ems.h"

#include "../../app/parts.h"
#include "chip.h"
#include "system.h"

#define PERIOD_TICKS 10u
enum { EMS_FLOW = 0x180, EMS_CHARGE, EMS_CELLS, EMS_POWER, EMS_FAULTS };

static uint32_t last_ticks;
static uint32_t counter; /* of the rounds, so that a silent BMS cannot pass for a quiet one */

static void send(uint32_t id, uint32_t low, uint32_t high) {
    CAN_ID = id;
    CAN_LENGTH = 8;
    CAN_DATA_LOW = low;
    CAN_DATA_HIGH = high;
    CAN_SEND = 1;
}

static uint32_t pair(uint32_t low, uint32_t high) { return (low & 0xFFFFu) | high << 16; }

/* Limited to 16 bits without their highest value, which says "unknown". */
static uint32_t u16(uint32_t value) { return value < 0xFFFFu ? value : 0xFFFEu; }
static uint32_t i16(int32_t value) { return (uint32_t)(value > 32767 ? 32767 : value < -32767 ? -32767 : value); }

void ems_task(const bms_ctx_t *bms, const bms_inputs_t *frame, uint32_t ticks) {
    if (ticks - last_ticks < PERIOD_TICKS) {
        return;
    }
    last_ticks = ticks;
    const uint32_t before = interrupts_off(); /* what is wider than a word */
    const int64_t charge_uA = bms->limit_uA[CHARGE], discharge_uA = bms->limit_uA[DISCHARGE];
    const uint64_t latched = bms->diag_latched;
    interrupts_restore(before);
    const bms_measured_t *m = &bms->measured;
    const bms_result_t *r = &bms->result;
    const uint32_t volts = m->signal_valid & MASK(SIGNAL_CELL_V_MAX), kelvins = m->signal_valid & MASK(SIGNAL_CELL_T_MAX);

    send(EMS_FLOW,
         pair(frame->pack_voltage_mV == UINT32_MAX ? 0xFFFFu : u16(frame->pack_voltage_mV / 100u),
              m->current_valid ? i16(m->current_mA / 100) : 0x8000u),
         pair(u16((uint32_t)(charge_uA / 100000)), u16((uint32_t)(discharge_uA / 100000))));
    send(EMS_CHARGE, pair(u16(r->soc_estimate_ppm / 100u), u16(r->soc_sigma_ppm / 100u)),
         pair(u16(r->soh_capacity_ppm / 100u), u16(r->safety_ppm / 100u)));
    send(EMS_CELLS,
         pair(volts ? (uint32_t)m->signal[SIGNAL_CELL_V_MIN] : 0xFFFFu, volts ? (uint32_t)m->signal[SIGNAL_CELL_V_MAX] : 0xFFFFu),
         pair(kelvins ? i16(m->signal[SIGNAL_CELL_T_MIN]) : 0x8000u, kelvins ? i16(m->signal[SIGNAL_CELL_T_MAX]) : 0x8000u));
    send(EMS_POWER, pair(u16(r->sop_W[0] / 10u), u16(r->sop_W[2] / 10u)),
         (uint32_t)bms_step_state(bms->step) | (uint32_t)bms->command << 8 | (counter & 0xFFu) << 16);
    send(EMS_FAULTS, (uint32_t)latched, (uint32_t)(latched >> 32));
    ++counter;
}
