/* The compact signed manifest (COSE_Sign1): format, checks and reasons of ota/manifest.py and ota/cose.py. */
#ifndef OTA_MANIFEST_H
#define OTA_MANIFEST_H

#include "../boot/image.h"

#define MANIFEST_MAX 2048u
#define MANIFEST_HEADROOM 18u /* free bytes that must stand before the manifest in its buffer */
#define MANIFEST_IMAGE_MAX (2u * 1024u * 1024u)
#define SERIAL_MAX 64u
#define KEYS_MAX 4u

typedef struct {
    uint32_t algorithm; /* 1 Ed25519, 2 ECDSA P-256 */
    uint8_t hash[32];   /* SHA-256 of the SubjectPublicKeyInfo */
} manifest_key_t;

/* What is fixed at manufacture; follows identity_t in the last bytes of the ROM, as package.py writes it. */
typedef struct {
    identity_t hardware;
    uint32_t serial_size;
    uint8_t serial[SERIAL_MAX]; /* UTF-8 */
    uint32_t n_keys;
    manifest_key_t key[KEYS_MAX];
} ota_identity_t;
_Static_assert(sizeof(ota_identity_t) == 252, "fits the last 256 bytes of the ROM");

typedef struct {
    uint8_t digest[32];
    uint8_t merkle_root[32];
    uint32_t length;
    uint32_t security_counter;
} component_t;

enum { FITS_DEVICE = 1, FITS_REVISION = 2 };

/* What the update needs of a verified manifest. Components stand at their image id. */
typedef struct {
    component_t component[2];
    uint32_t present; /* bit i: image id i is part of the set */
    uint32_t sequence;
    uint32_t preconditions;
    uint32_t fits; /* FITS_DEVICE: our serial; FITS_REVISION: our hardware revision, or no list of them */
    uint64_t expires_s;
    uint8_t id8[8]; /* first bytes of the SHA-256 of the whole manifest */
    uint8_t vendor_id[16];
    uint8_t class_id[16];
} manifest_t;

/* Reason; OK: signed by a known key and well formed. `data` is changed while it works and restored. */
uint32_t manifest_verify(manifest_t *m, uint8_t *data, uint32_t size, const ota_identity_t *identity);
/* Fitness for this device; now_s 0: no time is known, expiry is not judged. Equal sequence numbers are accepted: the
 * same manifest is offered again after an interruption. */
uint32_t manifest_check(const manifest_t *m, const ota_identity_t *identity, uint32_t last_sequence, uint64_t now_s);

#endif
