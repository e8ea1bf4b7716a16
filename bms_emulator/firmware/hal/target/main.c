/* The firmware on the board: the RT partition in the timer interrupt every 10 ms, everything else in the main loop.
 *
 * RT never waits for the main loop: it shares no lock with it, uses no flash and no crypto engine. The main loop feeds
 * the watchdog, and only if RT has ticked meanwhile, so either of them hanging ends in a reset.
 *
 * Tasks of the main loop, each with its cycles in stats: update (one frame of the gateway), slow (once a second, from
 * the snapshot of RT), keep (black box, state of charge: flash). A parked pack sleeps with the tick off between looks;
 * a frame of the modem, a request, or a front end that saw pressure or gas jump wakes it.
 */
#include "../../app/bms.h"
#include "../../keep/keep.h"
#include "../hal.h"
#include "afe.h"
#include "chip.h"
#include "ems.h"
#include "stats.h"
#include "system.h"
#include "update_task.h"

#define TICK_CLOCKS (CLOCK_HZ / 1000u * BMS_TICK_MS)
#define FIRST_SAMPLE_TICKS 50u
#define HEALTHY_TICKS 360000u   /* one hour: crashes before it count as crashes in a row */
#define SOC_STEP_PPM 10000u     /* stored after a change of so much */
#define SLEEP_SLICE_MS 500u     /* the watchdog closes after a second */

void chip_main(uint32_t argument);
void trap_exception(void) __attribute__((interrupt));
void trap_timer(void) __attribute__((interrupt));
void trap_unexpected(void) __attribute__((interrupt));

stats_t stats __attribute__((section(".board")));

static bms_ctx_t bms;
static bms_inputs_t frame;
static keep_box_t box;
static uint8_t telemetry[12 * 1024];
static bms_sink_t sink;
static uint32_t telemetry_at; /* sent so far */
static uint32_t box_stored;   /* lines of the firmware's queue that are in flash */
static uint32_t soc_stored_ppm;
static uint64_t next_tick;
static uint32_t started;
static uint32_t rt_cycles; /* spent in the RT task so far; wraps */
static uint32_t asleep;    /* RT only keeps time */

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

#ifdef BMS_FLAW_RT_OVERRUN
/* The flaw of that release: now and then the real-time task takes longer than its period. */
static void dawdle(void) {
    if (stats.ticks % 50u == 0) {
        const uint32_t begin = cycles();
        while (cycles() - begin < TICK_CLOCKS + TICK_CLOCKS / 4u) {
        }
    }
}
#endif

#if defined(BMS_FLAW_CRASH_AT_BOOT) || defined(BMS_FLAW_CONFIRM_THEN_CRASH)
#define CRASH_TICKS 3000u
static void crash(void) { *(volatile uint32_t *)0xFFFFFFF0u = 0; } /* nothing answers there */
#endif

void trap_timer(void) {
    const uint32_t begin = cycles();
    if (!asleep) {
        const uint32_t fresh = afe_read(&frame);
        ++stats.ticks;
        /* The battery is judged from the first sample on; if none comes, its absence is a fault like any other. */
        started |= fresh != 0 || stats.ticks > FIRST_SAMPLE_TICKS;
        if (started) {
            bms_tick(&bms, &frame, BMS_TICK_MS);
            outputs_write(&bms);
        }
    }
#ifdef BMS_FLAW_RT_OVERRUN
    dawdle();
#endif
    next_tick += TICK_CLOCKS;
    if (clocks() >= next_tick) {
        ++stats.overruns;
        bms_note_overrun(&bms); /* the next tick shows it */
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

static void send_telemetry(void) {
    while (telemetry_at < sink.used) {
        const uint32_t size = (uint32_t)telemetry[telemetry_at] | (uint32_t)telemetry[telemetry_at + 1] << 8;
        if (hal_mailbox_send(telemetry + telemetry_at + 2, size) == HAL_BUSY) {
            return;
        }
        telemetry_at += 2 + size;
    }
    telemetry_at = 0;
    sink.used = 0;
}

static void mailbox_task(void) {
#ifndef BMS_FLAW_NO_FURTHER_UPDATE
    update_task(&bms, stats.ticks, stats.overruns);
#endif
#ifdef BMS_FLAW_CONFIRM_THEN_CRASH
    if (update_confirmed() && stats.ticks >= CRASH_TICKS) {
        crash();
    }
#endif
    send_telemetry();
}

static void slow_task(void) {
#ifdef BMS_FLAW_HANG
    while (stats.ticks >= 60000u) { /* the flaw of that release: ten minutes */
    }
#endif
    bms_slow_step(&bms, &sink);
    if (stats.ticks > HEALTHY_TICKS && RESET_KEEP != 0 && RESET_KEEP < 0x10000u) {
        RESET_KEEP = 0;
    }
}

static void keep_task(void) {
    const bms_blackbox_t *lines = &bms.slow.blackbox;
    if (lines->made - box_stored > BMS_RECORD_QUEUE) {
        box_stored = lines->made - BMS_RECORD_QUEUE;
    }
    if (box_stored != lines->made) {
        (void)keep_box_put(&box, &lines->queue[box_stored % BMS_RECORD_QUEUE]);
        ++box_stored;
    }
    const uint32_t soc_ppm = bms.result.soc_estimate_ppm;
    const uint32_t moved = soc_ppm > soc_stored_ppm ? soc_ppm - soc_stored_ppm : soc_stored_ppm - soc_ppm;
    if (bms.soc_started && bms.slow.telemetry.have_key && moved >= SOC_STEP_PPM) {
        (void)keep_soc_put(soc_ppm, bms.soc_known);
        soc_stored_ppm = soc_ppm;
    }
}

static uint32_t wants_to_sleep(void) {
    return bms.result.park && bms.step == STEP_STANDBY && bms.result.wake_in_s != 0 &&
           (AFE_REQUEST & 1u) == 0;
}

/* Rises that wake: those of the parameters, compared with what was there when it fell asleep. */
static uint32_t comparator(uint32_t pressure, uint32_t gas) {
    const uint32_t now_Pa = AFE_PRESSURE, now_ppm = AFE_GAS;
    return (now_Pa != UINT32_MAX && pressure != UINT32_MAX && now_Pa > pressure &&
            now_Pa - pressure >= 10u * (uint32_t)bms.params.vent_pressure_daPa) ||
           (now_ppm != UINT32_MAX && gas != UINT32_MAX && now_ppm > gas &&
            now_ppm - gas >= (uint32_t)bms.params.vent_gas_ppm);
}

/* Between two looks: the tick is off, time passes in slices that the watchdog allows. */
static void sleep_parked(void) {
    const uint32_t wake_ms = bms.result.wake_in_s * 1000u;
    const uint32_t pressure = AFE_PRESSURE, gas = AFE_GAS;
    uint32_t slept_ms = 0;
    asleep = 1;
    while (slept_ms < wake_ms && !comparator(pressure, gas) && (AFE_REQUEST & 1u) == 0 && MAILBOX_RX_SIZE == 0) {
        next_tick = clocks() + SLEEP_SLICE_MS * (CLOCK_HZ / 1000u);
        const uint32_t before = stats.task[TASK_RT].count;
        set_timer(next_tick);
        while (stats.task[TASK_RT].count == before && MAILBOX_RX_SIZE == 0) {
            sleep_until_interrupt();
        }
        slept_ms += SLEEP_SLICE_MS;
        hal_watchdog_feed();
    }
    const uint32_t enabled = interrupts_off();
    bms_slept(&bms, slept_ms);
    asleep = 0;
    next_tick = clocks() + TICK_CLOCKS;
    set_timer(next_tick);
    interrupts_restore(enabled);
}

/* What a board without a signed set runs with, until it gets one: a small pack, so that a first light needs no office. */
static void factory_parameters(bms_params_t *params) {
    params->n_groups = 14;
    params->n_temps = 4;
    params->capacity_mAh = 50000;
    params->cell_min_100uV = 25000;
    params->cell_max_100uV = 42000;
    bms_params_default(params);
}

static void note_boot(uint32_t reason, uint32_t counter) {
    bms_blackbox_t *lines = &bms.slow.blackbox;
    static const bms_snapshot_t nothing;
    keep_box_open(&box, &lines->next_sequence);
    bms_blackbox_note(lines, &nothing, RECORD_BOOT, 0, (int32_t)hal_reset_cause(), (int32_t)BMS_RELEASE);
    bms_blackbox_note(lines, &nothing, RECORD_PARAMETERS, reason, (int32_t)counter, BMS_PARAM_SCHEMA);
}

void chip_main(uint32_t argument) {
    static bms_params_t params;
    static const stats_t none;
    const identity_t *hardware = (const identity_t *)(uintptr_t)(ROM_BASE + IDENTITY_AT);
    stats = none;
    stats.context_at = address_of(&bms);
    stats.context_size = sizeof bms;
    stats.boot = argument;
    hal_console("bms\n", 4);
#ifdef BMS_FLAW_CRASH_AT_BOOT
    crash();
#endif

    factory_parameters(&params);
    uint32_t counter = 0, reason = PARAM_STORE_DAMAGED;
    if (BOOT_PARAMETERS(argument) < 2u) {
        reason = keep_load_parameters(BOOT_PARAMETERS(argument), hardware, &params, &counter);
    }
    (void)bms_init(&bms, &params);
    note_boot(reason, counter);
    const uint32_t soc_ppm = keep_soc_get();
    if (soc_ppm != (uint32_t)KEEP_SOC_NONE) {
        bms_set_soc(&bms, soc_ppm);
        soc_stored_ppm = soc_ppm;
    }
    frame.sample_counter = (uint16_t)AFE_SEQUENCE; /* what stands there from before the reset is no new sample */
    sink = (bms_sink_t){telemetry, sizeof telemetry, 0, 0, 0};

    next_tick = clocks() + TICK_CLOCKS;
    set_timer(next_tick);
    interrupt_enable(TIMER_IRQ);
    interrupts_restore(MSTATUS_MIE);
    stats.magic = STATS_MAGIC;
    update_start(&bms); /* under RT already: it reads flash and verifies */

    uint32_t fed_tick = 0;
    for (;;) {
        run(TASK_UPDATE, mailbox_task);
        ems_task(&bms, &frame, stats.ticks);
        if (bms_slow_due(&bms)) {
            run(TASK_SLOW, slow_task);
            run(TASK_KEEP, keep_task);
        }
        if (stats.ticks != fed_tick) {
            fed_tick = stats.ticks;
            hal_watchdog_feed();
        }
        if (wants_to_sleep()) {
            sleep_parked();
        }
        sleep_until_interrupt();
    }
}
