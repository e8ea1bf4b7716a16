#include "afe.h"

#include "../../app/bms.h"

#include "chip.h"
#include "stats.h"

static void copy(void *to, const volatile uint32_t *from, uint32_t words) {
    uint32_t *word = to;
    for (uint32_t i = 0; i < words; ++i) {
        word[i] = from[i];
    }
}

/* The registers are 32 bits wide, the frame's fields 16; without a measurement all bits are set in both. */
static uint16_t narrow(uint32_t code, uint32_t unit) {
    const uint32_t value = code / unit;
    return (uint16_t)(code == 0xFFFFFFFFu ? BMS_SENSOR_INVALID : value < BMS_SENSOR_INVALID ? value : BMS_SENSOR_INVALID - 1);
}

uint32_t afe_read(bms_inputs_t *frame) {
    const uint32_t sequence = AFE_SEQUENCE;
    frame->request = (uint8_t)AFE_REQUEST;
    if ((sequence & 0xFFFFu) == frame->sample_counter) {
        return 0;
    }
    copy(frame->cell_voltage_100uV, &AFE_CELL, sizeof frame->cell_voltage_100uV / 4);
    copy(frame->cell_temperature_ddegC, &AFE_TEMPERATURE, sizeof frame->cell_temperature_ddegC / 4);
    frame->pack_current_mA = (int32_t)AFE_CURRENT;
    frame->pack_current_redundant_mA = (int32_t)AFE_CURRENT_REDUNDANT;
    frame->pack_voltage_mV = AFE_PACK_VOLTAGE;
    frame->link_voltage_mV = AFE_LINK_VOLTAGE;
    frame->sample_period_ticks = AFE_PERIOD;
    frame->insulation_kohm = narrow(AFE_INSULATION, 1);
    frame->pressure_daPa = narrow(AFE_PRESSURE, 10);
    frame->gas_ppm = narrow(AFE_GAS, 1);
    frame->sample_counter = (uint16_t)sequence;
    frame->contactor_feedback = (uint8_t)(sequence >> 16);
    frame->condition = (uint8_t)(sequence >> 24);
    ++stats.frames;
    return 1;
}

void outputs_write(const bms_ctx_t *bms) {
    if (GPIO_CONTACTORS != bms->command) {
        GPIO_CONTACTORS = bms->command;
        stats.actuated_at = TIMER_MTIME;
    }
    const uint32_t cooling = bms_cooling_request(bms);
    if (GPIO_COOLING != cooling) {
        GPIO_COOLING = cooling;
    }
    volatile uint32_t *balancing = &GPIO_BALANCING;
    for (uint32_t word = 0; word < BMS_MAX_GROUPS / 32; ++word) {
        const uint8_t *mask = bms->balancing_mask + 4 * word;
        const uint32_t bits = (uint32_t)mask[0] | (uint32_t)mask[1] << 8 | (uint32_t)mask[2] << 16 | (uint32_t)mask[3] << 24;
        if (balancing[word] != bits) {
            balancing[word] = bits;
        }
    }
}
