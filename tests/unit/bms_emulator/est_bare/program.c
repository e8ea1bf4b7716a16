/* The estimators on the bare controller: frames from fixed places, contexts and cycle counts back to them. */
#include "../app/est.h"

/* Where the test puts what goes in and finds what comes out; see test_est_target.py. */
#define PARAMS ((const est_params_t *)0x00140000u)
#define START ((const est_start_t *)0x00142000u)
#define LIMITS ((const est_limits_t *)0x00142100u)
#define N_FRAMES (*(const uint32_t *)0x00142200u)
#define N_CELLS (*(const uint32_t *)0x00142204u)
#define POWER ((est_power_t *)0x00142300u)
#define CYCLES ((uint32_t *)0x00142400u) /* total of the steps, largest of a step, all powers, one of them */
#define CONTEXT ((est_ctx_t *)0x00144000u)
#define FRAMES ((const float *)0x00150000u)
#define CELLS ((const uint16_t *)0x00180000u)

static uint32_t cycle(void) {
    uint32_t value;
    __asm__ volatile("csrr %0, mcycle" : "=r"(value));
    return value;
}

void program(void) {
    est_init(CONTEXT, PARAMS, START);
    CYCLES[0] = 0;
    CYCLES[1] = 0;
    for (uint32_t i = 0; i < N_FRAMES; ++i) {
        const float *row = &FRAMES[5u * i];
        est_input_t in = {0};
        in.dt_s = row[0];
        in.current_A = row[1];
        in.current_now_A = row[2];
        in.mean_V = row[3];
        in.temperature_K = row[4];
        in.n_cells = N_CELLS;
        in.cell_100uV = &CELLS[i * N_CELLS];
        const uint32_t before = cycle();
        est_step(CONTEXT, PARAMS, &in);
        const uint32_t taken = cycle() - before;
        CYCLES[0] += taken;
        CYCLES[1] = taken > CYCLES[1] ? taken : CYCLES[1];
    }
    /* all four the first time, then one a second */
    for (uint32_t k = 0; k < 2; ++k) {
        const uint32_t before = cycle();
        est_power(CONTEXT, PARAMS, LIMITS, POWER);
        CYCLES[2 + k] = cycle() - before;
    }
}
