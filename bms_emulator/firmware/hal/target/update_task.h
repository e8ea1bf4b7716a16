/* The update agent (update/agent.h) as a task of the main loop. */
#ifndef UPDATE_TASK_H
#define UPDATE_TASK_H

#include "../../app/bms.h"

void update_start(const bms_ctx_t *bms);
/* One frame of the mailbox. ticks, overruns: of the RT task, for the self test of a new firmware. */
void update_task(const bms_ctx_t *bms, uint32_t ticks, uint32_t overruns);
/* 1 once the running set is confirmed. */
uint32_t update_confirmed(void);

#endif
