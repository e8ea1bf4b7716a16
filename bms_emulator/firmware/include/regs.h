/* Registers of board 'bms': made from memory_map.toml by regmap.py, not to be edited. */
#ifndef BMS_REGS_H
#define BMS_REGS_H

#include <stdint.h>

#define CLOCK_HZ 50000000u

#define RAM_BASE 0x10000000u
#define RAM_SIZE 0x00040000u
#define ROM_BASE 0x00010000u
#define ROM_SIZE 0x00010000u
#define XIP_BASE 0x08000000u
#define XIP_SIZE 0x00040000u
#define FLASH_BASE 0x20000000u
#define FLASH_SIZE 0x000aa000u
#define AFE_BASE 0x40000000u
#define AFE_SIZE 0x00000400u
#define AFE_CELL (*(volatile const uint32_t *)0x40000000u) /* r: 256 cell voltages, 16 bits each, 100 uV */
#define AFE_TEMPERATURE (*(volatile const uint32_t *)0x40000200u) /* r: 64 temperatures, 16 bits each, signed, 0.1 degC */
#define AFE_CURRENT (*(volatile const uint32_t *)0x40000280u) /* r: pack current, signed, mA, positive on discharge */
#define AFE_CURRENT_REDUNDANT (*(volatile const uint32_t *)0x40000284u) /* r: second sensor */
#define AFE_PACK_VOLTAGE (*(volatile const uint32_t *)0x40000288u) /* r: mV */
#define AFE_LINK_VOLTAGE (*(volatile const uint32_t *)0x4000028cu) /* r: mV behind the contactors */
#define AFE_PERIOD (*(volatile const uint32_t *)0x40000290u) /* r: 10 ms ticks for which a sample is fresh */
#define AFE_SEQUENCE (*(volatile const uint32_t *)0x40000294u) /* r: bits 0-15: counts the samples; 16-23 contactor feedback; 24-31 condition bits */
#define AFE_REQUEST (*(volatile const uint32_t *)0x40000298u) /* r: bits 0-7: request bits of the energy management system */
#define AFE_INSULATION (*(volatile const uint32_t *)0x400002a0u) /* r: insulation resistance, kOhm */
#define AFE_PRESSURE (*(volatile const uint32_t *)0x400002a4u) /* r: pressure in the housing above that outside, Pa */
#define AFE_GAS (*(volatile const uint32_t *)0x400002a8u) /* r: combustible gas, ppm */
#define MAILBOX_BUFFER_BASE 0x40001000u
#define MAILBOX_BUFFER_SIZE 0x00001000u

#define CONSOLE_BASE 0x50000000u
#define CONSOLE_DATA (*(volatile uint32_t *)0x50000000u) /* w: byte to print */
#define CONSOLE_HALT (*(volatile uint32_t *)0x50000008u) /* w: bit 0: stop the machine */

#define TIMER_BASE 0x50001000u
#define TIMER_IRQ 7
#define TIMER_MTIME (*(volatile uint32_t *)0x50001000u) /* rw: time in clocks, low word */
#define TIMER_MTIMEH (*(volatile uint32_t *)0x50001004u) /* rw: time in clocks, high word */
#define TIMER_MTIMECMP (*(volatile uint32_t *)0x50001008u) /* rw: compare, low word; any write lowers the line */
#define TIMER_MTIMECMPH (*(volatile uint32_t *)0x5000100cu) /* rw: compare, high word; any write lowers the line */

#define GPIO_BASE 0x50002000u
#define GPIO_CONTACTORS (*(volatile uint32_t *)0x50002000u) /* rw: bit 0 main minus, 1 precharge, 2 main plus */
#define GPIO_COOLING (*(volatile uint32_t *)0x50002004u) /* rw: duty of the coolant pump, percent */
#define GPIO_CHANGED (*(volatile const uint32_t *)0x50002008u) /* r: low word of the cycle in which CONTACTORS last changed */
#define GPIO_BALANCING (*(volatile uint32_t *)0x50002020u) /* rw: eight words, one bit for each cell */

#define WATCHDOG_BASE 0x50003000u
#define WATCHDOG_OPEN (*(volatile uint32_t *)0x50003000u) /* rw: cycles after a feed before which the next one is too early */
#define WATCHDOG_CLOSE (*(volatile uint32_t *)0x50003004u) /* rw: cycles after a feed by which the next one must have come */
#define WATCHDOG_CONTROL (*(volatile uint32_t *)0x50003008u) /* rw: 1: enabled, until the next reset */
#define WATCHDOG_FEED (*(volatile uint32_t *)0x5000300cu) /* w: 0x5AFEFEED feeds; any other word resets at once */

#define RESET_BASE 0x50004000u
#define RESET_CAUSE (*(volatile const uint32_t *)0x50004000u) /* r: 1 power on, 2 watchdog, 3 software, 4 brown-out, 5 trap without handler */
#define RESET_WHY (*(volatile const uint32_t *)0x50004004u) /* r: word given with the software reset */
#define RESET_KEEP (*(volatile uint32_t *)0x50004008u) /* rw: survives all resets but power on and brown-out; 0 then */
#define RESET_REQUEST (*(volatile uint32_t *)0x5000400cu) /* w: resets, the word becomes WHY */

#define NVM_BASE 0x50005000u
#define NVM_IRQ 17
#define NVM_ADDRESS (*(volatile uint32_t *)0x50005000u) /* rw: offset in the flash; of an erase: anywhere in the sector */
#define NVM_BUFFER (*(volatile uint32_t *)0x50005004u) /* rw: address in RAM that a program takes from and a read puts to */
#define NVM_LENGTH (*(volatile uint32_t *)0x50005008u) /* rw: bytes; multiple of 4 for a program */
#define NVM_COMMAND (*(volatile uint32_t *)0x5000500cu) /* w: 1 erase, 2 program, 3 read, 4 protect ADDRESS, LENGTH until the next reset */
#define NVM_STATUS (*(volatile const uint32_t *)0x50005010u) /* r: bit 31 busy; else result of the last command, as in hal.h */
#define NVM_WINDOW (*(volatile uint32_t *)0x50005014u) /* rw: slot (0, 1) that appears in the window; write bit 31 too to lock until the next reset */

#define HSM_BASE 0x50006000u
#define HSM_IRQ 18
#define HSM_COMMAND (*(volatile uint32_t *)0x50006000u) /* w: 1 begin hash, 2 add, 3 end to DIGEST, 4 verify, 5 raise counter, 6 random to OUTPUT */
#define HSM_STATUS (*(volatile const uint32_t *)0x50006004u) /* r: bit 31 busy */
#define HSM_SOURCE (*(volatile uint32_t *)0x50006008u) /* rw: address of the bytes to hash, or of the message to verify */
#define HSM_LENGTH (*(volatile uint32_t *)0x5000600cu) /* rw: their number; of random bytes too */
#define HSM_OUTPUT (*(volatile uint32_t *)0x50006010u) /* rw: address that digest or random bytes are written to */
#define HSM_PURPOSE (*(volatile uint32_t *)0x50006014u) /* rw: key slots to look in: 0 image keys, 1 manifest keys */
#define HSM_KEY (*(volatile uint32_t *)0x50006018u) /* rw: address of the SHA-256 of the key's SubjectPublicKeyInfo */
#define HSM_ALGORITHM (*(volatile uint32_t *)0x5000601cu) /* rw: 1 Ed25519, 2 ECDSA P-256 with SHA-256, 3 ECDSA P-256 of a given SHA-256 */
#define HSM_SIGNATURE (*(volatile uint32_t *)0x50006020u) /* rw: address */
#define HSM_SIGNATURE_LENGTH (*(volatile uint32_t *)0x50006024u) /* rw: bytes */
#define HSM_RESULT (*(volatile const uint32_t *)0x50006028u) /* r: 0x3CA5965A: the signature is valid; 0xC35A69A5: not, 0: nothing verified since begin */
#define HSM_COUNTER_ID (*(volatile uint32_t *)0x5000602cu) /* rw: counter to read or raise, 0-7 */
#define HSM_COUNTER (*(volatile const uint32_t *)0x50006030u) /* r: value of that counter */
#define HSM_COUNTER_NEW (*(volatile uint32_t *)0x50006034u) /* rw: value to raise to; lower ones do nothing */

#define MAILBOX_BASE 0x50007000u
#define MAILBOX_IRQ 19
#define MAILBOX_RX_SIZE (*(volatile const uint32_t *)0x50007000u) /* r: bytes of the frame at the start of the buffer, 0: none */
#define MAILBOX_RX_DONE (*(volatile uint32_t *)0x50007004u) /* w: the frame has been taken; lowers the line, the next one follows */
#define MAILBOX_TX_SIZE (*(volatile uint32_t *)0x50007008u) /* w: sends so many bytes from the second half of the buffer */
#define MAILBOX_TX_ROOM (*(volatile const uint32_t *)0x5000700cu) /* r: frames that can be sent now */

#define CAN_BASE 0x50008000u
#define CAN_ID (*(volatile uint32_t *)0x50008000u) /* rw: 11-bit identifier */
#define CAN_LENGTH (*(volatile uint32_t *)0x50008004u) /* rw: bytes, 0-8 */
#define CAN_DATA_LOW (*(volatile uint32_t *)0x50008008u) /* rw: bytes 0-3 */
#define CAN_DATA_HIGH (*(volatile uint32_t *)0x5000800cu) /* rw: bytes 4-7 */
#define CAN_SEND (*(volatile uint32_t *)0x50008010u) /* w: puts the frame into the transmit queue */
#define CAN_FREE (*(volatile const uint32_t *)0x50008014u) /* r: free places of the queue */

/* Partitions of the flash: offsets from its start. */
#define FLASH_JOURNAL_0_AT 0x00000000u
#define FLASH_JOURNAL_0_SIZE 0x00001000u
#define FLASH_JOURNAL_1_AT 0x00001000u
#define FLASH_JOURNAL_1_SIZE 0x00001000u
#define FLASH_COUNTERS_0_AT 0x00002000u
#define FLASH_COUNTERS_0_SIZE 0x00001000u
#define FLASH_COUNTERS_1_AT 0x00003000u
#define FLASH_COUNTERS_1_SIZE 0x00001000u
#define FLASH_KEPT_AT 0x00004000u
#define FLASH_KEPT_SIZE 0x00002000u
#define FLASH_BLACKLIST_AT 0x00006000u
#define FLASH_BLACKLIST_SIZE 0x00001000u
#define FLASH_STAGE_AT 0x00007000u
#define FLASH_STAGE_SIZE 0x00001000u
#define FLASH_PROGRESS_0_AT 0x00008000u
#define FLASH_PROGRESS_0_SIZE 0x00001000u
#define FLASH_PROGRESS_1_AT 0x00009000u
#define FLASH_PROGRESS_1_SIZE 0x00001000u
#define FLASH_TABLE_0_AT 0x0000a000u
#define FLASH_TABLE_0_SIZE 0x00004000u
#define FLASH_TABLE_1_AT 0x0000e000u
#define FLASH_TABLE_1_SIZE 0x00004000u
#define FLASH_SLOT_0_AT 0x00012000u
#define FLASH_SLOT_0_SIZE 0x00040000u
#define FLASH_SLOT_1_AT 0x00052000u
#define FLASH_SLOT_1_SIZE 0x00040000u
#define FLASH_PARAMETERS_0_AT 0x00092000u
#define FLASH_PARAMETERS_0_SIZE 0x00004000u
#define FLASH_PARAMETERS_1_AT 0x00096000u
#define FLASH_PARAMETERS_1_SIZE 0x00004000u
#define FLASH_BLACKBOX_AT 0x0009a000u
#define FLASH_BLACKBOX_SIZE 0x00010000u

#endif
