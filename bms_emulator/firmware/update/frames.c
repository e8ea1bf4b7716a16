#include "frames.h"

#include "../boot/records.h"
#include "bytes.h"
#include "reason.h"

uint32_t frame_check(const uint8_t *frame, uint32_t size, uint32_t *type, uint32_t *payload_size) {
    if (size < FRAME_HEAD + FRAME_CRC) {
        return OTA_TRUNCATED;
    }
    const uint32_t payload = get16(frame + 2);
    if (payload > FRAME_PAYLOAD_MAX) {
        return OTA_OVERSIZE;
    }
    if (size != FRAME_HEAD + payload + FRAME_CRC) {
        return OTA_LENGTH;
    }
    if (crc32_of(frame, FRAME_HEAD + payload) != get32(frame + FRAME_HEAD + payload)) {
        return OTA_CHECKSUM;
    }
    const uint32_t kind = frame[0];
    const uint32_t known =
        (kind >= FRAME_HELLO && kind <= FRAME_CANCEL) || (kind >= FRAME_STATUS && kind <= FRAME_ANSWER);
    if (!known) {
        return OTA_FORMAT;
    }
    *type = kind;
    *payload_size = payload;
    return OTA_OK;
}

uint32_t frame_finish(uint8_t *frame, uint32_t type, uint32_t payload_size) {
    frame[0] = (uint8_t)type;
    frame[1] = 0;
    put16(frame + 2, payload_size);
    put32(frame + FRAME_HEAD + payload_size, crc32_of(frame, FRAME_HEAD + payload_size));
    return FRAME_HEAD + payload_size + FRAME_CRC;
}

void frame_put_status(uint8_t payload[STATUS_SIZE], const frame_status_t *status) {
    payload[0] = (uint8_t)status->phase;
    payload[1] = (uint8_t)status->slot;
    put16(payload + 2, status->reason);
    put16(payload + 4, status->conditions);
    put16(payload + 6, status->boots);
    put32(payload + 8, status->security_counter);
    put32(payload + 12, status->parameter_counter);
    put32(payload + 16, status->sequence);
    put32(payload + 20, status->next_offset[0]);
    put32(payload + 24, status->next_offset[1]);
    bytes_copy(payload + 28, status->manifest8, 8);
    put32(payload + 36, status->uptime_s);
    bytes_copy(payload + 40, status->firmware_digest, 32);
    bytes_copy(payload + 72, status->parameter_digest, 32);
    bytes_copy(payload + 104, status->installed8, 8);
}

/* Order of explanation when several apply: what endangers the battery first. */
static const uint16_t deferrals[][2] = {
    {CONDITION_FAULT, OTA_DEFER_FAULT_ACTIVE},   {CONDITION_SUPPLY_LOW, OTA_DEFER_SUPPLY_LOW},
    {CONDITION_SOC_LOW, OTA_DEFER_SOC_LOW},      {CONDITION_CHARGING, OTA_DEFER_CHARGING},
    {CONDITION_CONTACTORS, OTA_DEFER_CONTACTORS},
};

uint32_t frame_deferral(uint32_t conditions, uint32_t demanded) {
    const uint32_t relevant = conditions & (demanded | CONDITION_FAULT | CONDITION_SUPPLY_LOW);
    for (uint32_t i = 0; i < sizeof(deferrals) / sizeof(deferrals[0]); ++i) {
        if (relevant & deferrals[i][0]) {
            return deferrals[i][1];
        }
    }
    return OTA_OK;
}
