/* Frames on the CAN bus to the energy management system. */
#ifndef EMS_H
#define EMS_H

#include "../../app/bms.h"

/* Sends them when 100 ms have passed since the last; `ticks` counts the RT task. Never waits for the bus. */
void ems_task(const bms_ctx_t *bms, const bms_inputs_t *frame, uint32_t ticks);

#endif
