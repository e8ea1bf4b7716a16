/* Block at the start of the RAM that the host reads (board.py): cycles of each task, where the context lies. */
#ifndef STATS_H
#define STATS_H

#include <stdint.h>

enum { TASK_RT, TASK_UPDATE, TASK_SLOW, TASK_KEEP, TASK_COUNT };
#define STATS_MAGIC 0x31545342u /* "BST1" */
#define STATS_TASKS 8u

/* Cycles of one task since start; of the main loop without the RT task that interrupts it. */
typedef struct {
    uint32_t count;
    uint32_t min;
    uint32_t max;
    uint32_t last;
    uint64_t total;
} task_stats_t;

typedef struct {
    uint32_t magic;
    uint32_t context_at;  /* bms_ctx_t */
    uint32_t context_size;
    uint32_t boot;        /* argument of the ROM, see system.h */
    uint32_t ticks;       /* of the RT task */
    uint32_t overruns;    /* RT ticks that were still running, or late, when the next one was due */
    uint32_t frames;      /* samples taken over */
    uint32_t actuated_at; /* low word of the clock when the outputs were last changed */
    task_stats_t task[STATS_TASKS];
} stats_t;
_Static_assert(sizeof(stats_t) == 32 + 24 * STATS_TASKS, "as board.py reads it");

extern stats_t stats;

void stats_note(uint32_t task, uint32_t cycles);

#endif
