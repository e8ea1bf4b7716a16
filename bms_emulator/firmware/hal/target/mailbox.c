#include "../hal.h"
#include "chip.h"

#define FRAME_MAX 1032u
#define TX_AT 0x800u

static void copy(volatile uint8_t *to, const volatile uint8_t *from, uint32_t size) {
    for (uint32_t i = 0; i < size; ++i) {
        to[i] = from[i];
    }
}

uint32_t hal_mailbox_receive(void *frame, uint32_t capacity) {
    const uint32_t size = MAILBOX_RX_SIZE;
    if (size == 0) {
        return 0;
    }
    const uint32_t taken = size < capacity ? size : capacity;
    copy(frame, (const volatile uint8_t *)MAILBOX_BUFFER_BASE, taken);
    MAILBOX_RX_DONE = 1;
    return taken;
}

int hal_mailbox_send(const void *frame, uint32_t size) {
    if (size > FRAME_MAX) {
        return HAL_RANGE;
    }
    if (MAILBOX_TX_ROOM == 0) {
        return HAL_BUSY;
    }
    copy((volatile uint8_t *)(MAILBOX_BUFFER_BASE + TX_AT), frame, size);
    MAILBOX_TX_SIZE = size;
    return HAL_OK;
}
