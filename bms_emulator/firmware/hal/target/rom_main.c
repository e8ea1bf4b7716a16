/* Boot ROM: decides (boot/rom.c), shows the slot in the window, starts the watchdog, jumps. */
#include "../../boot/rom.h"
#include "../hal.h"
#include "chip.h"
#include "system.h"

#define WINDOW_LOCK 0x80000000u

void jump_to(uint32_t argument, uint32_t address);
void chip_main(uint32_t argument);
void trap_exception(void);
void trap_timer(void);
void trap_unexpected(void);

/* Nothing raises a trap here; a fault does. */
void trap_exception(void) { hal_reset(HAL_WHY_FAULT); }
void trap_timer(void) { hal_reset(HAL_WHY_FAULT); }
void trap_unexpected(void) { hal_reset(HAL_WHY_FAULT); }

/* 0 only if everything says run; asked of the memory each time, so a skipped branch is followed by another one. */
static uint32_t refused(const volatile decision_t *decision) {
    return (decision->run ^ ROM_RUN) | (decision->proof[0] ^ IMAGE_PROOF) | (decision->proof[1] ^ IMAGE_PROOF) |
           ~(decision->slot ^ decision->not_slot);
}

void chip_main(uint32_t argument) {
    (void)argument;
    decision_t decision;
    uint32_t keep = RESET_KEEP;
    rom_decide(rom_by_image(RESET_CAUSE, RESET_WHY), &keep, (const identity_t *)(ROM_BASE + IDENTITY_AT), &decision);
    RESET_KEEP = keep;
    if (refused(&decision)) {
        hal_console("no image\n", 9);
        for (;;) {
            sleep_until_interrupt(); /* contactors are open, nothing else is to be done */
        }
    }
    NVM_WINDOW = decision.slot | WINDOW_LOCK;
    watchdog_start();
    /* The window must show what was verified, also if its register was never written. */
    if ((refused(&decision) | (NVM_WINDOW ^ (~decision.not_slot | WINDOW_LOCK))) != 0) {
        hal_reset(HAL_WHY_FAULT);
    }
    jump_to(decision.slot | decision.parameters << 8 | decision.safe_mode << 16, XIP_BASE + decision.entry);
}
