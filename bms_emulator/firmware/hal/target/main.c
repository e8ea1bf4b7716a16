/* The firmware on the board: the RT partition in the timer interrupt every 10 ms, everything else in the main loop.
 *
 * RT never waits for the main loop: it shares no lock with it, uses no flash and no crypto engine. The main loop feeds
 * the watchdog, and only if RT has ticked meanwhile, so either of them hanging ends in a reset.
 */
#include "../../app/bms.h"
#include "../hal.h"
#include "afe.h"
#include "chip.h"
#include "stats.h"
#include "system.h"
#include "update_task.h"

#define TICK_CLOCKS (CLOCK_HZ / 1000u * BMS_TICK_MS)
#define FIRST_SAMPLE_TICKS 50u
#define HEALTHY_TICKS 360000u /* one hour: crashes before it count as crashes in a row */

void chip_main(uint32_t argument);
void trap_exception(void) __attribute__((interrupt));
void trap_timer(void) __attribute__((interrupt));
void trap_unexpected(void) __attribute__((interrupt));

stats_t stats __attribute__((section(".board")));

static bms_ctx_t bms;
static bms_inputs_t frame;
static uint64_t next_tick;
static uint32_t started;
static uint32_t rt_cycles; /* spent in the RT task so far; wraps */

void stats_note(uint32_t task, uint32_t spent) {
    task_stats_t *row = &stats.task[task];
    row->min = row->count == 0 || spent < row->min ? spent : row->min;
    row->max = spent > row->max ? spent : row->max;
    row->last = spent;
    row->total += spent;
    ++row->count;
}

static void set_timer(uint64_t at) {
    TIMER_MTIMECMPH = 0xFFFFFFFFu; /* no interrupt between the halves */
    TIMER_MTIMECMP = (uint32_t)at;
    TIMER_MTIMECMPH = (uint32_t)(at >> 32);
}

void trap_exception(void) { hal_reset(HAL_WHY_FAULT); }
void trap_unexpected(void) { hal_reset(HAL_WHY_FAULT); }

void trap_timer(void) {
    const uint32_t begin = cycles();
    const uint32_t fresh = afe_read(&frame);
    ++stats.ticks;
    /* The battery is judged from the first sample on; if none comes, its absence is a fault like any other. */
    started |= fresh != 0 || stats.ticks > FIRST_SAMPLE_TICKS;
    if (started) {
        bms_tick(&bms, &frame, BMS_TICK_MS);
        outputs_write(&bms);
    }
    next_tick += TICK_CLOCKS;
    if (clocks() >= next_tick) {
        ++stats.overruns;
    }
    set_timer(next_tick);
    const uint32_t spent = cycles() - begin;
    rt_cycles += spent;
    stats_note(TASK_RT, spent);
}

/* Runs one task of the main loop and notes its own cycles. */
static void run(uint32_t task, void (*function)(void)) {
    const uint32_t begin = cycles(), others = rt_cycles;
    function();
    stats_note(task, cycles() - begin - (rt_cycles - others));
}

static void mailbox_task(void) { update_task(&bms, stats.ticks, stats.overruns); }

static void slow_task(void) {
    if (stats.ticks > HEALTHY_TICKS && RESET_KEEP != 0 && RESET_KEEP < 0x10000u) {
        RESET_KEEP = 0;
    }
}

void chip_main(uint32_t argument) {
    static bms_params_t params;
    static const stats_t none;
    stats = none;
    stats.context_at = address_of(&bms);
    stats.context_size = sizeof bms;
    stats.boot = argument;

    params.n_groups = 14;
    params.n_temps = 4;
    params.capacity_mAh = 50000;
    params.cell_min_100uV = 25000;
    params.cell_max_100uV = 42000;
    bms_params_default(&params);
    (void)bms_init(&bms, &params);
    frame.sample_counter = (uint16_t)AFE_SEQUENCE; /* what stands there from before the reset is no new sample */
    hal_console("bms\n", 4);

    next_tick = clocks() + TICK_CLOCKS;
    set_timer(next_tick);
    interrupt_enable(TIMER_IRQ);
    interrupts_restore(MSTATUS_MIE);
    stats.magic = STATS_MAGIC;
    update_start(&bms); /* under RT already: it reads flash and verifies */

    uint32_t fed_tick = 0, slow_tick = 0;
    for (;;) {
        run(TASK_MAILBOX, mailbox_task);
        if (stats.ticks - slow_tick >= 100u) {
            slow_tick = stats.ticks;
            run(TASK_SLOW, slow_task);
        }
        if (stats.ticks != fed_tick) {
            fed_tick = stats.ticks;
            hal_watchdog_feed();
        }
        sleep_until_interrupt();
    }
}
