/* Black box: what a workshop wants to know afterwards, as lines of 32 bytes.
 *
 * This file makes the lines, in a small queue; box_flash.c keeps them. A line is written when a step of the contactors
 * is entered, a diagnosis becomes active, is latched or clears, the State of Safety falls below its warning, a part
 * was late, or the pack goes to sleep.
 */
#include "wire.h"
#include "parts.h"

_Static_assert(sizeof(bms_record_t) == 32, "a line of the black box");

void bms_blackbox_note(bms_blackbox_t *box, const bms_snapshot_t *s, uint32_t kind, uint32_t id, int32_t a, int32_t b) {
    bms_record_t *line = &box->queue[box->made % BMS_RECORD_QUEUE];
    const bms_measured_t *m = &s->measured;
    line->sequence = box->next_sequence++;
    line->uptime_s = (uint32_t)(s->uptime_ms / 1000u);
    line->kind = (uint8_t)kind;
    line->id = (uint8_t)id;
    line->step = s->step;
    line->command = s->command;
    line->a = a;
    line->b = b;
    line->min_100uV = (uint16_t)m->signal[SIGNAL_CELL_V_MIN];
    line->max_100uV = (uint16_t)m->signal[SIGNAL_CELL_V_MAX];
    line->hottest_ddegC = (int16_t)m->signal[SIGNAL_CELL_T_MAX];
    line->soc_permille = (uint16_t)(s->soc_ppm / 1000u);
    line->crc = bms_crc32(0, line, sizeof *line - sizeof line->crc);
    ++box->made;
}

static void add_each(bms_blackbox_t *box, const bms_snapshot_t *s, uint64_t bits, uint32_t kind, int32_t a, int32_t b) {
    while (bits != 0) {
        bms_blackbox_note(box, s, kind, (uint32_t)__builtin_ctzll(bits), a, b);
        bits &= bits - 1;
    }
}

void bms_blackbox_step(bms_slow_t *slow, const bms_snapshot_t *s) {
    bms_blackbox_t *box = &slow->blackbox;
    const int32_t current_mA = s->measured.current_mA;
    const int32_t rate = s->rate_max_mK_per_s;
    if (!box->started) {
        box->started = 1;
        box->seen_step = s->step;
    }
    if (s->step != box->seen_step) {
        bms_blackbox_note(box, s, RECORD_STEP, 0, box->seen_step, current_mA);
    }
    /* What latches is one line, not two; what is only a warning has its own. */
    const uint64_t latched = s->fault_latched & ~box->seen_latched;
    add_each(box, s, latched, RECORD_LATCHED, current_mA, rate);
    add_each(box, s, s->fault_active & ~box->seen_active & ~s->fault_latched, RECORD_WARNING, current_mA, rate);
    add_each(box, s, box->seen_latched & ~s->fault_latched, RECORD_CLEARED, 0, 0);
    if ((s->fault_active & ~box->seen_active) & BIT64(DIAG_SAFETY_LOW)) {
        bms_blackbox_note(box, s, RECORD_SAFETY, 0, (int32_t)slow->result.safety_ppm, (int32_t)slow->abuse.worst_zone);
    }
    if (s->overruns != box->seen_overruns) {
        bms_blackbox_note(box, s, RECORD_OVERRUN, 0, (int32_t)s->overruns, 0);
    }
    box->seen_step = s->step;
    box->seen_latched = s->fault_latched;
    box->seen_active = s->fault_active;
    box->seen_overruns = s->overruns;
}
