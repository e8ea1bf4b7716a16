#include "update_task.h"

#include "../../update/agent.h"
#include "chip.h"
#include "regs.h"
#include "system.h"

#define SOC_LOW_percent 20   /* what an update and a recovery need, with a margin */
#define SELF_TEST_TICKS 200u /* 2 s of RT ticks, all in time */

static ota_ctx_t ota;

/* Bits as the battery is now. The board has no measurement of its 12 V supply; its bit is never set. */
static uint32_t conditions(const bms_ctx_t *bms) {
    const uint32_t before = interrupts_off(); /* charge and latches are wider than a word */
    const int64_t charge = bms->charge_mAms, full = bms->capacity_mAms;
    const uint64_t latched = bms->diag_latched;
    interrupts_restore(before);
    return (bms->measured.charging ? CONDITION_CHARGING : 0u) | (bms->command != 0 ? CONDITION_CONTACTORS : 0u) |
           (charge * 100 < full * SOC_LOW_percent ? CONDITION_SOC_LOW : 0u) | (latched != 0 ? CONDITION_FAULT : 0u);
}

void update_start(const bms_ctx_t *bms) {
    ota_init(&ota, (const ota_identity_t *)(ROM_BASE + IDENTITY_AT), conditions(bms));
}

void update_task(const bms_ctx_t *bms, uint32_t ticks, uint32_t overruns) {
    ota.conditions = conditions(bms);
    ota.self_test_passed = ticks >= SELF_TEST_TICKS && overruns == 0;
    (void)ota_step(&ota);
}

uint32_t update_confirmed(void) { return ota.journal.state == RECORD_CONFIRMED; }
