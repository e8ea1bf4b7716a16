/* Black box and state of charge: rings of lines that end in a checksum. */
#include "keep.h"

#include "../boot/records.h"
#include "../hal/hal.h"
#include "../include/regs.h"

enum { LINE = sizeof(bms_record_t), LINES_PER_SECTOR = HAL_SECTOR / LINE };

static uint32_t blank(const void *bytes, uint32_t size) {
    const uint8_t *byte = bytes;
    for (uint32_t i = 0; i < size; ++i) {
        if (byte[i] != 0xFF) {
            return 0;
        }
    }
    return 1;
}

static uint32_t read_line(uint32_t at, void *line, uint32_t size) {
    return hal_flash_read(at, line, size) == HAL_OK;
}

void keep_box_open(keep_box_t *box, uint32_t *next_sequence) {
    bms_record_t line;
    uint32_t found = 0, newest = 0;
    box->at = 0;
    box->stored = 0;
    box->failed = 0;
    for (uint32_t at = 0; at < FLASH_BLACKBOX_SIZE; at += LINE) {
        if (!read_line(FLASH_BLACKBOX_AT + at, &line, LINE)) {
            continue;
        }
        if (line.crc != crc32_of(&line, LINE - sizeof line.crc)) {
            continue;
        }
        if (!found || (int32_t)(line.sequence - newest) > 0) {
            newest = line.sequence;
            box->at = at + LINE;
            found = 1;
        }
    }
    *next_sequence = found ? newest + 1 : 0;
    /* A torn line behind the newest is left as it is. */
    while (box->at % HAL_SECTOR != 0 &&
           (!read_line(FLASH_BLACKBOX_AT + box->at, &line, LINE) || !blank(&line, LINE))) {
        box->at += LINE;
    }
    box->at %= FLASH_BLACKBOX_SIZE;
}

int keep_box_put(keep_box_t *box, const bms_record_t *line) {
    const uint32_t at = FLASH_BLACKBOX_AT + box->at;
    int said = HAL_OK;
    if (box->at % HAL_SECTOR == 0) {
        said = hal_flash_erase(at);
    }
    if (said == HAL_OK) {
        said = hal_flash_program(at, line, LINE);
    }
    box->at = (box->at + LINE) % FLASH_BLACKBOX_SIZE;
    box->stored += said == HAL_OK;
    box->failed += said != HAL_OK;
    return said;
}

/* Second sector of `kept`; the first is the identity. */
enum { SOC_AT = FLASH_KEPT_AT + HAL_SECTOR, SOC_MAGIC = 0x31434F53 }; /* "SOC1" */
typedef struct {
    uint32_t magic;
    uint32_t soc_ppm;
    uint32_t known;
    uint32_t crc;
} soc_line_t;

/* Place of the first blank line, HAL_SECTOR if there is none; the newest valid line before it. */
static uint32_t soc_end(soc_line_t *newest) {
    soc_line_t line;
    uint32_t at = 0;
    newest->magic = 0;
    for (; at < HAL_SECTOR; at += sizeof line) {
        if (!read_line(SOC_AT + at, &line, sizeof line)) {
            continue;
        }
        if (blank(&line, sizeof line)) {
            break;
        }
        if (line.magic == SOC_MAGIC && line.crc == crc32_of(&line, sizeof line - sizeof line.crc)) {
            *newest = line;
        }
    }
    return at;
}

uint32_t keep_soc_get(void) {
    soc_line_t line;
    (void)soc_end(&line);
    return line.magic == SOC_MAGIC && line.soc_ppm <= 1000000u ? line.soc_ppm : (uint32_t)KEEP_SOC_NONE;
}

int keep_soc_put(uint32_t soc_ppm, uint32_t known) {
    soc_line_t line;
    uint32_t at = soc_end(&line);
    if (at >= HAL_SECTOR) {
        /* A cut in here loses the stored charge; the voltage then starts it, as on the first day. */
        const int said = hal_flash_erase(SOC_AT);
        if (said != HAL_OK) {
            return said;
        }
        at = 0;
    }
    line.magic = SOC_MAGIC;
    line.soc_ppm = soc_ppm;
    line.known = known;
    line.crc = crc32_of(&line, sizeof line - sizeof line.crc);
    return hal_flash_program(SOC_AT + at, &line, sizeof line);
}
