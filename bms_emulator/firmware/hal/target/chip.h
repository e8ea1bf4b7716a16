/* CSRs and waiting, shared by the drivers. */
#ifndef CHIP_H
#define CHIP_H

#include <stdint.h>

#include "regs.h"

#define MSTATUS_MIE 8u

static inline uint32_t interrupts_off(void) {
    uint32_t before;
    __asm__ volatile("csrrci %0, mstatus, 8" : "=r"(before)::"memory");
    return before & MSTATUS_MIE;
}

static inline void interrupts_restore(uint32_t before) {
    __asm__ volatile("csrs mstatus, %0" ::"r"(before) : "memory");
}

static inline void interrupt_enable(uint32_t line) { __asm__ volatile("csrs mie, %0" ::"r"(1u << line) : "memory"); }
static inline void interrupt_disable(uint32_t line) { __asm__ volatile("csrc mie, %0" ::"r"(1u << line) : "memory"); }
static inline void sleep_until_interrupt(void) { __asm__ volatile("wfi" ::: "memory"); }

static inline uint32_t cycles(void) { /* does not count sleep */
    uint32_t value;
    __asm__ volatile("csrr %0, mcycle" : "=r"(value)::"memory");
    return value;
}

static inline uint64_t clocks(void) { /* since the last reset */
    uint32_t high, low;
    do {
        high = TIMER_MTIMEH;
        low = TIMER_MTIME;
    } while (high != TIMER_MTIMEH);
    return (uint64_t)high << 32 | low;
}

/* Sleeps while bit 31 of a status register says busy. wfi wakes with interrupts off too, so none can slip in between
 * the look and the sleep; one that is due runs at the end of each turn. */
static inline void wait_while_busy(const volatile uint32_t *status, uint32_t line) {
    while ((*status & 0x80000000u) != 0) {
        const uint32_t before = interrupts_off();
        interrupt_enable(line);
        if ((*status & 0x80000000u) != 0) {
            sleep_until_interrupt();
        }
        interrupt_disable(line);
        interrupts_restore(before);
    }
}

static inline uint32_t address_of(const void *pointer) { return (uint32_t)(uintptr_t)pointer; }

#endif
