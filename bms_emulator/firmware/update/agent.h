/* The update agent of the controller: mailbox frames in, flash and answers out, one frame for each ota_step.
 *
 * The specification of every answer and every byte in flash is ota/mcu_model.py; tests/agreement holds both equal.
 * All state stands in ota_ctx_t. Memory: the decoder (window, patch, block buffer) takes 2.3 KiB and one block of
 * 4 KiB. A step writes at most one block, or a table, or a manifest (at activation: two digests and the checks of the
 * set) and waits for nothing but flash and crypto engine; the real-time part interrupts it anywhere. */
#ifndef OTA_AGENT_H
#define OTA_AGENT_H

#include "../boot/records.h"
#include "container.h"
#include "frames.h"
#include "manifest.h"
#include "patch.h"

#define OTA_BLOCKS_MAX 64u /* of a slot of 256 KiB */
#define OTA_MANIFEST_AT 12u /* header and manifest in flash begin here in their buffer, aligned for programming */

/* A container under way or complete. */
typedef struct {
    container_t head;
    uint32_t valid; /* the table is in flash and leads to the signed root */
    uint32_t has_cursor;
    uint32_t cursor; /* container bytes before it have been taken */
    uint8_t done[OTA_BLOCKS_MAX];
    uint16_t words[OTA_BLOCKS_MAX];
} ota_plan_t;

/* The place in the container that the next byte belongs to. */
typedef struct {
    uint32_t image_id;
    uint32_t block;
    uint32_t taken;     /* bytes of the record, or of the table, so far */
    uint32_t hash_at;   /* of its leaf hash in the table */
    uint32_t table_part; /* of a table being received */
} ota_place_t;

typedef struct {
    patch_t patch;
    manifest_t staged; /* verified; what is in flash is not trusted again before the next reset */
    uint64_t clock_s; /* set by the application: trusted time, 0: unknown */
    ota_identity_t identity;
    journal_t journal;
    counters_t counters;
    ota_plan_t plan[2];
    ota_place_t place;
    flash_file_t running[2]; /* firmware and parameter file in use */
    uint32_t conditions;     /* set by the application: CONDITION_* */
    uint32_t self_test_passed; /* set by the application */
    uint32_t has_staged;
    uint32_t last_reason;
    uint32_t dropped; /* frames with a bad form or checksum */
    uint32_t manifest_taken;
    uint32_t data_pending; /* a DATA frame is under way: its bytes from data_at on are still to be taken */
    uint32_t data_at;
    uint32_t data_left;
    uint32_t frames; /* good frames since the reset */
    uint8_t running_digest[2][32];
    uint8_t block[BLOCK];
    uint8_t manifest[OTA_MANIFEST_AT + 6 + MANIFEST_MAX + 2];
    uint8_t frame[FRAME_MAX];
    uint8_t answer[FRAME_HEAD + STATUS_SIZE + FRAME_CRC];
} ota_ctx_t;




/* After a reset, when the application is up: reads the records, takes a staged manifest up again, sends STATUS with
 * the conditions as they are now. */
void ota_init(ota_ctx_t *o, const ota_identity_t *identity, uint32_t conditions);
void ota_send_status(ota_ctx_t *o);
/* A step with the frame under way, else one frame if one waits; 1 if there was something to do. Resets the controller after an activation, and when a new set has not
 * been confirmed within its time. */
uint32_t ota_step(ota_ctx_t *o);

/* What the application says of a parameter set that would run with the firmware in `firmware_slot`: reason. The body
 * of the set stands in flash; size 0: there is no set. */
uint32_t ota_app_check_parameters(uint32_t body_at, uint32_t body_size, uint32_t firmware_slot);

#endif
