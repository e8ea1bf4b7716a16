#include "../hal.h"
#include "chip.h"

enum { ERASE = 1, PROGRAM = 2, READ = 3, PROTECT = 4 };

static int command(uint32_t what, uint32_t at, uint32_t buffer, uint32_t size) {
    NVM_ADDRESS = at;
    NVM_BUFFER = buffer;
    NVM_LENGTH = size;
    NVM_COMMAND = what;
    wait_while_busy(&NVM_STATUS, NVM_IRQ);
    return (int)NVM_STATUS;
}

int hal_flash_erase(uint32_t at) { return command(ERASE, at, 0, 0); }

int hal_flash_program(uint32_t at, const void *data, uint32_t size) {
    return command(PROGRAM, at, address_of(data), size);
}

int hal_flash_read(uint32_t at, void *data, uint32_t size) {
    const int status = command(READ, at, address_of(data), size);
    __asm__ volatile("" : : "r"(data) : "memory"); /* the controller has written it */
    return status;
}

void hal_flash_protect(uint32_t at, uint32_t size) { (void)command(PROTECT, at, 0, size); }
