/* Mailbox frames between the gateway and this controller: the layout of ota/frames.py. */
#ifndef OTA_FRAMES_H
#define OTA_FRAMES_H

#include <stdint.h>

#define FRAME_HEAD 4u
#define FRAME_CRC 4u
#define FRAME_PAYLOAD_MAX 1024u
#define FRAME_MAX (FRAME_HEAD + FRAME_PAYLOAD_MAX + FRAME_CRC)
#define STATUS_SIZE 112u

enum {
    FRAME_HELLO = 0x01, FRAME_MANIFEST = 0x02, FRAME_DATA = 0x03, FRAME_ACTIVATE = 0x04, FRAME_CANCEL = 0x05,
    FRAME_STATUS = 0x81, FRAME_PROGRESS = 0x82, FRAME_ANSWER = 0x83,
};

/* Conditions of the battery: a set bit is a reason to wait. Manifests use the same bits for what they demand. */
#define CONDITION_CHARGING (1u << 0)
#define CONDITION_CONTACTORS (1u << 1)
#define CONDITION_SOC_LOW (1u << 2)
#define CONDITION_SUPPLY_LOW (1u << 3)
#define CONDITION_FAULT (1u << 4)

enum { PHASE_IDLE, PHASE_RECEIVING, PHASE_STAGED, PHASE_TEST };

typedef struct {
    uint32_t phase;
    uint32_t slot;
    uint32_t reason;
    uint32_t conditions;
    uint32_t boots;
    uint32_t security_counter;
    uint32_t parameter_counter;
    uint32_t sequence;
    uint32_t next_offset[2];
    uint32_t uptime_s;
    uint8_t manifest8[8];
    uint8_t firmware_digest[32];
    uint8_t parameter_digest[32];
    uint8_t installed8[8];
} frame_status_t;

/* Reason; OK: type and payload size of a whole frame, the payload stands at FRAME_HEAD. */
uint32_t frame_check(const uint8_t *frame, uint32_t size, uint32_t *type, uint32_t *payload_size);
/* Head and CRC around a payload that stands at FRAME_HEAD; the size of the frame. */
uint32_t frame_finish(uint8_t *frame, uint32_t type, uint32_t payload_size);
void frame_put_status(uint8_t payload[STATUS_SIZE], const frame_status_t *status);
/* Why to wait, or OK. A fault and a low supply always count, whatever the manifest demands. */
uint32_t frame_deferral(uint32_t conditions, uint32_t demanded);

#endif
