/* Of the chip, beside hal.h: the watchdog's window, and what the ROM hands to the firmware. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdint.h>

#define WATCHDOG_OPEN_CYCLES 125000u    /* 2.5 ms */
#define WATCHDOG_CLOSE_CYCLES 50000000u /* 1 s: the longest step of the main loop and its margin */

void watchdog_start(void);

/* Argument of the firmware's start: slot in bit 0, parameter copy in bits 8-9 (2: none), safe mode in bit 16. */
#define BOOT_SLOT(word) ((word) & 1u)
#define BOOT_PARAMETERS(word) ((word) >> 8 & 3u)
#define BOOT_SAFE_MODE(word) ((word) >> 16 & 1u)

/* Where the last bytes of the ROM hold what is fixed at manufacture (identity_t). */
#define IDENTITY_AT 0xFF00u

#endif
