/* Sensors and actuators of the board, for main.c only. */
#ifndef AFE_H
#define AFE_H

#include "bms_types.h"

/* Takes the newest sample over; 1 if it is not the one taken before. The request is read in any case. */
uint32_t afe_read(bms_inputs_t *frame);

/* Contactors, cooling and balancing as the context wants them; writes what has changed. */
void outputs_write(const bms_ctx_t *bms);

#endif
