/* What the firmware asks of the chip: flash, crypto engine, counters, modem mailbox, time, watchdog, reset, console.
 *
 * Two implementations: hal/target (drivers of the emulated board `bms`) and host/ (arrays and callbacks, with
 * injected faults). Nothing above this line knows a register. Sizes in bytes, times in microseconds.
 */
#ifndef HAL_H
#define HAL_H

#include <stdint.h>

enum { HAL_OK = 0, HAL_PROTECTED = 1, HAL_ECC = 2, HAL_RANGE = 3, HAL_WORN = 4, HAL_BUSY = 5, HAL_BAD = 6 };
#define HAL_SECTOR 4096u /* erase unit; program unit is 4 bytes, only 1 -> 0 */

/* Flash addresses are offsets from the start of the flash. Block until done; interrupts run meanwhile. */
int hal_flash_erase(uint32_t at);
int hal_flash_program(uint32_t at, const void *data, uint32_t size); /* at, size multiples of 4 */
int hal_flash_read(uint32_t at, void *data, uint32_t size);
void hal_flash_protect(uint32_t at, uint32_t size); /* until the next reset */

/* Crypto engine (HSM). One hash at a time. key_hash = SHA-256 of the SubjectPublicKeyInfo of a provisioned key slot;
 * purpose: 0 image keys, 1 manifest keys. algorithm: 1 Ed25519, 2 ECDSA P-256 with SHA-256 of the message, 3 ECDSA P-256
 * of a SHA-256 (32 bytes) made before. Images are verified by their 32-byte digest, with 1 or 3. A P-256 signature is r || s, 64 bytes big-endian, as in COSE (boot/image.c unpacks DER). */
void hal_sha256_begin(void);
void hal_sha256_add(const void *data, uint32_t size);
void hal_sha256_end(uint8_t digest[32]);
int hal_verify(uint32_t purpose, const uint8_t key_hash[32], uint32_t algorithm, const void *message,
               uint32_t message_size, const void *signature, uint32_t signature_size); /* HAL_OK or HAL_BAD */
/* What the last hal_verify has proved: HAL_PROOF if its signature is valid, any other word if not or if there was none
 * since the last hash. Asked in addition, so that a call that was left out does not pass for a good one. */
#define HAL_PROOF 0x3CA5965Au
uint32_t hal_verified(void);
uint32_t hal_counter_read(uint32_t id);
int hal_counter_raise(uint32_t id, uint32_t value); /* monotonic, power-fail atomic */
void hal_random(void *out, uint32_t size);

/* Modem mailbox: whole frames, <= 1032 bytes. */
uint32_t hal_mailbox_receive(void *frame, uint32_t capacity); /* size, 0: none waiting */
int hal_mailbox_send(const void *frame, uint32_t size);

/* Reset causes. A software reset carries why: ACTIVATE is planned, every other one says that the image failed. */
enum { HAL_CAUSE_POWER_ON = 1, HAL_CAUSE_WATCHDOG = 2, HAL_CAUSE_SOFTWARE = 3, HAL_CAUSE_BROWN_OUT = 4, HAL_CAUSE_LOCKUP = 5 };
enum { HAL_WHY_ACTIVATE = 1, HAL_WHY_FAULT = 2, HAL_WHY_SELF_TEST = 3, HAL_WHY_PROBATION = 4 };

uint64_t hal_time_us(void);
void hal_watchdog_feed(void);
uint32_t hal_reset_cause(void);
_Noreturn void hal_reset(uint32_t why);
void hal_console(const char *text, uint32_t size);

#endif
