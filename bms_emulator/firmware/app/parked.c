/* Parked: when the controller may sleep, and when it has to look again.
 *
 * A pack that is open and at rest is looked at every park_wake_s (10-60 min); one that is warm, unsafe, gassing or
 * warning every park_wake_alert_s. A look lasts park_awake_s at the full rate, so that every limit and early warning
 * sees a run of samples and not a single one. Pressure and gas wake by comparator at any time (main.c).
 */
#include "parts.h"

void bms_parked_step(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s) {
    bms_parking_t *parking = &slow->parking;
    bms_result_t *result = &slow->result;
    if (s->asleep) {
        parking->awake_ms = 0;
        ++parking->looks;
    }
    const uint32_t quiet = s->step == STEP_STANDBY && !s->requested && s->measured.resting && s->fault_latched == 0;
    parking->quiet_ms = quiet ? add_saturating(parking->quiet_ms, s->dt_ms) : 0;
    parking->awake_ms = add_saturating(parking->awake_ms, s->asleep ? 0 : s->dt_ms);
    const uint32_t alert = s->fault_active != 0 || result->safety_low || s->runaway != 0 ||
                           (s->measured.signal_valid & MASK(SIGNAL_CELL_T_MAX)) == 0 ||
                           s->measured.signal[SIGNAL_CELL_T_MAX] >= p->park_alert_ddegC;
    const uint32_t asleep_soon = parking->quiet_ms / 1000u >= (uint32_t)p->park_after_s &&
                                 parking->awake_ms / 1000u >= (uint32_t)p->park_awake_s && s->runaway == 0;
    const uint32_t was = result->park;
    result->park = (uint8_t)asleep_soon;
    result->wake_in_s = asleep_soon ? (uint32_t)(alert ? p->park_wake_alert_s : p->park_wake_s) : 0;
    if (asleep_soon && !was) {
        bms_blackbox_note(&slow->blackbox, s, RECORD_PARKED, 0, (int32_t)result->wake_in_s, (int32_t)parking->looks);
    }
}
