/* CBOR in its one deterministic encoding: the language of ota/cbor.py, with the same reasons for refusal.
 *
 * cbor_check walks a whole value once, without recursion; afterwards the other functions may be used on it without
 * further checks of form (positions are byte offsets into the data). */
#ifndef OTA_CBOR_H
#define OTA_CBOR_H

#include <stdint.h>

enum { CBOR_UINT, CBOR_NEGATIVE, CBOR_BYTES, CBOR_TEXT, CBOR_ARRAY, CBOR_MAP, CBOR_TAG, CBOR_SIMPLE };
#define CBOR_DEPTH_MAX 6u

typedef struct {
    uint64_t argument; /* value, length or count */
    uint32_t major;
    uint32_t content; /* offset behind the head */
} cbor_item_t;

/* Reason; OK: `data` is exactly one value. */
uint32_t cbor_check(const uint8_t *data, uint32_t size);

cbor_item_t cbor_item(const uint8_t *data, uint32_t at);
uint32_t cbor_skip(const uint8_t *data, uint32_t at); /* offset behind the item at `at` */
/* Value under an integer key of the map at `at`; 0 if there is none (no value stands at offset 0). */
uint32_t cbor_find(const uint8_t *data, uint32_t at, uint32_t key);
/* UNKNOWN_FIELD if the map has a key that is not an integer in `first` ... `last` with its bit set in `allowed`. */
uint32_t cbor_only(const uint8_t *data, uint32_t at, uint32_t allowed);

#endif
