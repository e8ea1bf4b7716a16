#include "../hal.h"
#include "chip.h"
#include "system.h"

#define FEED_WORD 0x5AFEFEEDu

static uint64_t fed_at;

void watchdog_start(void) {
    WATCHDOG_OPEN = WATCHDOG_OPEN_CYCLES;
    WATCHDOG_CLOSE = WATCHDOG_CLOSE_CYCLES;
    WATCHDOG_CONTROL = 1;
}

uint64_t hal_time_us(void) { return clocks() / (CLOCK_HZ / 1000000u); }

/* Calls that come before the window opens do nothing. */
void hal_watchdog_feed(void) {
    const uint64_t now = clocks();
    if (now - fed_at > 2u * WATCHDOG_OPEN_CYCLES) {
        WATCHDOG_FEED = FEED_WORD;
        fed_at = now;
    }
}

uint32_t hal_reset_cause(void) { return RESET_CAUSE; }

_Noreturn void hal_reset(uint32_t why) {
    for (;;) {
        RESET_REQUEST = why;
    }
}

void hal_console(const char *text, uint32_t size) {
    for (uint32_t i = 0; i < size; ++i) {
        CONSOLE_DATA = (uint8_t)text[i];
    }
}
