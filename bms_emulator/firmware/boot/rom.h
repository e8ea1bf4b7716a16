/* What the boot ROM decides; the same code on the controller and on the host. */
#ifndef BOOT_ROM_H
#define BOOT_ROM_H

#include <stdint.h>

#include "image.h"
#include "records.h"

typedef struct {
    uint32_t run;        /* ROM_RUN, or anything else: there is nothing to run */
    uint32_t slot;
    uint32_t parameters; /* copy that belongs to it, 2: there is none */
    uint32_t safe_mode;  /* the firmware may do nothing but take an update */
    uint32_t entry;      /* offset of the first instruction in the slot */
    uint32_t reason;     /* of the journal */
    uint32_t proof[2];   /* IMAGE_PROOF twice, or this must not run whatever `run` says */
    uint32_t not_slot;   /* inverse of the slot that was verified, from another place than `slot` */
} decision_t;

#define ROM_RUN 0x3D5A17C6u

/* keep: word that survives resets (crashes of confirmed firmware in a row, safe mode); read and written.
 * by_image: the last reset was the firmware's fault. Locks the slot it chooses before it verifies it. */
void rom_decide(uint32_t by_image, uint32_t *keep, const identity_t *identity, decision_t *decision);

/* Whether a reset of this cause and why says that the firmware failed. */
uint32_t rom_by_image(uint32_t cause, uint32_t why);

#endif
