#include "manifest.h"

#include "../hal/hal.h"
#include "bytes.h"
#include "cbor.h"
#include "reason.h"

enum { ALGORITHM_ED25519 = 1, ALGORITHM_P256 = 2, PURPOSE_MANIFEST = 1 };
#define PROTECTED_MAX 256u
#define COMPONENTS_MAX 4u
#define REVISIONS_MAX 32u
#define U32_MAX UINT64_C(0xFFFFFFFF)
#define EXPIRES_MAX (UINT64_C(1) << 53)

static const uint8_t content_type[] = {'o', 't', 'a', '/', 'm', 'a', 'n', 'i', 'f', 'e', 's', 't'};
/* What stands before the protected header in the bytes that are signed (RFC 9052, Sig_structure). */
static const uint8_t sig_structure[] = {0x84, 0x6A, 'S', 'i', 'g', 'n', 'a', 't', 'u', 'r', 'e', '1'};

/* A value of a map: its head, and whether it was there. */
typedef struct {
    cbor_item_t item;
    uint32_t reason;
    uint32_t at;
} field_t;

static field_t find(const uint8_t *data, uint32_t map_at, uint32_t key, uint32_t major) {
    field_t f = {{0, 0, 0}, OTA_MISSING_FIELD, 0};
    f.at = cbor_find(data, map_at, key);
    if (f.at != 0) {
        f.item = cbor_item(data, f.at);
        f.reason = f.item.major == major ? OTA_OK : OTA_FORMAT;
    }
    return f;
}

static uint32_t find_uint(const uint8_t *data, uint32_t map_at, uint32_t key, uint64_t maximum, uint64_t *value) {
    const field_t f = find(data, map_at, key, CBOR_UINT);
    if (f.reason != OTA_OK) {
        return f.reason;
    }
    *value = f.item.argument;
    return f.item.argument <= maximum ? OTA_OK : OTA_FORMAT;
}

static uint32_t find_u32(const uint8_t *data, uint32_t map_at, uint32_t key, uint32_t maximum, uint32_t *value) {
    uint64_t wide = 0;
    const uint32_t reason = find_uint(data, map_at, key, maximum, &wide);
    *value = (uint32_t)wide;
    return reason;
}

/* A byte string of exactly `size` bytes; `to` NULL: only checked. */
static uint32_t find_bytes(const uint8_t *data, uint32_t map_at, uint32_t key, uint32_t size, uint8_t *to) {
    const field_t f = find(data, map_at, key, CBOR_BYTES);
    if (f.reason != OTA_OK) {
        return f.reason;
    }
    if (f.item.argument != size) {
        return OTA_FORMAT;
    }
    if (to != 0) {
        bytes_copy(to, data + f.item.content, size);
    }
    return OTA_OK;
}

/* An array of unsigned integers, least ... most of them, each at most `maximum`; the first four go to `values`. */
static uint32_t find_list(const uint8_t *data, uint32_t map_at, uint32_t key, uint32_t least, uint32_t most,
                          uint32_t maximum, uint32_t values[4], uint32_t wanted, uint32_t *has_wanted) {
    const field_t f = find(data, map_at, key, CBOR_ARRAY);
    if (f.reason != OTA_OK) {
        return f.reason;
    }
    if (f.item.argument < least || f.item.argument > most) {
        return OTA_FORMAT;
    }
    *has_wanted = f.item.argument == 0;
    uint32_t at = f.item.content;
    for (uint32_t i = 0; i < (uint32_t)f.item.argument; ++i) {
        const cbor_item_t value = cbor_item(data, at);
        if (value.major != CBOR_UINT || value.argument > maximum) {
            return OTA_FORMAT;
        }
        if (i < 4) {
            values[i] = (uint32_t)value.argument;
        }
        if (value.argument == wanted) {
            *has_wanted = 1;
        }
        at = cbor_skip(data, at);
    }
    return OTA_OK;
}

static uint32_t read_delta(const uint8_t *data, uint32_t map_at) {
    const field_t f = find(data, map_at, 8, CBOR_MAP);
    if (f.reason == OTA_MISSING_FIELD) {
        return OTA_OK;
    }
    TRY(f.reason);
    uint32_t value = 0;
    TRY(cbor_only(data, f.at, 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4));
    TRY(find_u32(data, f.at, 1, UINT32_MAX, &value));
    REQUIRE(value == 1, OTA_DELTA_CODEC);
    TRY(find_bytes(data, f.at, 2, 32, 0));
    TRY(find_bytes(data, f.at, 3, 32, 0));
    return find_u32(data, f.at, 4, MANIFEST_IMAGE_MAX, &value);
}

static uint32_t read_component(const uint8_t *data, uint32_t at, uint32_t *image_id, component_t *c) {
    uint32_t list[4] = {0, 0, 0, 0};
    uint32_t unused = 0;
    REQUIRE(cbor_item(data, at).major == CBOR_MAP, OTA_FORMAT);
    TRY(cbor_only(data, at, 0x1FE));
    TRY(find_list(data, at, 4, 4, 4, UINT32_MAX, list, 0, &unused));
    REQUIRE(list[0] < 256 && list[1] < 256 && list[2] < 65536, OTA_FORMAT);
    if (cbor_find(data, at, 7) != 0) {
        TRY(find_list(data, at, 7, 2, 2, 0xFFFF, list, 0, &unused));
        REQUIRE(list[0] <= list[1], OTA_FORMAT);
    }
    TRY(read_delta(data, at));
    TRY(find_u32(data, at, 3, UINT32_MAX, &c->length));
    REQUIRE(c->length > 0 && c->length <= MANIFEST_IMAGE_MAX, OTA_OVERSIZE);
    TRY(find_u32(data, at, 1, 1, image_id));
    TRY(find_bytes(data, at, 2, 32, c->digest));
    TRY(find_u32(data, at, 5, UINT32_MAX, &c->security_counter));
    return find_bytes(data, at, 6, 32, c->merkle_root);
}

static uint32_t read_components(manifest_t *m, const uint8_t *data) {
    const field_t list = find(data, 0, 10, CBOR_ARRAY);
    TRY(list.reason);
    REQUIRE(list.item.argument >= 1 && list.item.argument <= COMPONENTS_MAX, OTA_FORMAT);
    uint32_t at = list.item.content;
    uint32_t twice = 0;
    for (uint32_t i = 0; i < (uint32_t)list.item.argument; ++i) {
        component_t c;
        uint32_t image_id = 0;
        TRY(read_component(data, at, &image_id, &c));
        twice |= m->present & 1u << image_id;
        m->present |= 1u << image_id;
        m->component[image_id] = c;
        at = cbor_skip(data, at);
    }
    return twice ? OTA_DUPLICATE_FIELD : OTA_OK;
}

/* Characters, not bytes, are counted, as in Python. */
static uint32_t text_length(const uint8_t *text, uint32_t size) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < size; ++i) {
        n += (text[i] & 0xC0u) != 0x80u;
    }
    return n;
}

static uint32_t read_body(manifest_t *m, const uint8_t *data, uint32_t size, const ota_identity_t *identity) {
    uint32_t value = 0;
    uint32_t revision = 0;
    uint32_t unused[4];
    TRY(cbor_check(data, size));
    REQUIRE(cbor_item(data, 0).major == CBOR_MAP, OTA_FORMAT);
    TRY(cbor_only(data, 0, 0x7FE));
    TRY(find_u32(data, 0, 1, UINT32_MAX, &value));
    REQUIRE(value == 1, OTA_UNSUPPORTED_VERSION);
    TRY(read_components(m, data));
    const field_t device = find(data, 0, 6, CBOR_TEXT);
    TRY(device.reason);
    const uint32_t device_size = (uint32_t)device.item.argument;
    const uint32_t characters = text_length(data + device.item.content, device_size);
    REQUIRE(characters > 0 && characters <= SERIAL_MAX, OTA_FORMAT);
    const uint32_t ours = device_size == identity->serial_size &&
                          bytes_equal(data + device.item.content, identity->serial, device_size);
    TRY(find_u32(data, 0, 2, UINT32_MAX, &m->sequence));
    TRY(find_bytes(data, 0, 3, 16, m->vendor_id));
    TRY(find_bytes(data, 0, 4, 16, m->class_id));
    TRY(find_list(data, 0, 5, 0, REVISIONS_MAX, 0xFFFF, unused, identity->hardware.hardware_revision, &revision));
    m->fits = (ours ? FITS_DEVICE : 0u) | (revision ? FITS_REVISION : 0u);
    TRY(find_bytes(data, 0, 7, 16, 0));
    TRY(find_uint(data, 0, 8, EXPIRES_MAX, &m->expires_s));
    return find_u32(data, 0, 9, 0xFFFF, &m->preconditions);
}

/* The parts of the envelope: offsets of the items in the data. */
typedef struct {
    uint32_t protected_at;
    uint32_t unprotected_at;
    uint32_t body_at;
    uint32_t signature_at;
} envelope_t;

static uint32_t read_envelope(const uint8_t *data, uint32_t size, envelope_t *e) {
    TRY(cbor_check(data, size));
    const cbor_item_t tag = cbor_item(data, 0);
    REQUIRE(tag.major == CBOR_TAG && tag.argument == 18, OTA_FORMAT);
    const cbor_item_t list = cbor_item(data, tag.content);
    REQUIRE(list.major == CBOR_ARRAY && list.argument == 4, OTA_FORMAT);
    e->protected_at = list.content;
    e->unprotected_at = cbor_skip(data, e->protected_at);
    e->body_at = cbor_skip(data, e->unprotected_at);
    e->signature_at = cbor_skip(data, e->body_at);
    const cbor_item_t unprotected = cbor_item(data, e->unprotected_at);
    REQUIRE(unprotected.major == CBOR_MAP && unprotected.argument == 0, OTA_UNKNOWN_FIELD);
    const uint32_t good = cbor_item(data, e->protected_at).major == CBOR_BYTES &&
                          cbor_item(data, e->body_at).major == CBOR_BYTES &&
                          cbor_item(data, e->signature_at).major == CBOR_BYTES;
    return good ? OTA_OK : OTA_FORMAT;
}

/* Protected header {1: algorithm, 3: content type, 4: key id}; the offset of the key id. */
static uint32_t read_header(const uint8_t *header, uint32_t size, uint32_t *algorithm, const uint8_t **kid) {
    REQUIRE(size <= PROTECTED_MAX, OTA_OVERSIZE);
    TRY(cbor_check(header, size));
    REQUIRE(cbor_item(header, 0).major == CBOR_MAP, OTA_FORMAT);
    TRY(cbor_only(header, 0, 1u << 1 | 1u << 3 | 1u << 4));
    const uint32_t at = cbor_find(header, 0, 1);
    REQUIRE(at != 0, OTA_MISSING_FIELD);
    const cbor_item_t number = cbor_item(header, at);
    REQUIRE(number.major == CBOR_UINT || number.major == CBOR_NEGATIVE, OTA_FORMAT);
    *algorithm = 0; /* -8 EdDSA, -7 ES256 */
    if (number.major == CBOR_NEGATIVE && (number.argument == 7 || number.argument == 6)) {
        *algorithm = number.argument == 7 ? ALGORITHM_ED25519 : ALGORITHM_P256;
    }
    const field_t type = find(header, 0, 3, CBOR_TEXT);
    TRY(type.reason);
    const uint32_t same =
        type.item.argument == sizeof(content_type) && bytes_equal(header + type.item.content, content_type, sizeof(content_type));
    REQUIRE(same, OTA_FORMAT);
    TRY(find_bytes(header, 0, 4, 8, 0));
    *kid = header + find(header, 0, 4, CBOR_BYTES).item.content;
    return OTA_OK;
}

static uint32_t verify_signature(uint8_t *data, const envelope_t *e, const ota_identity_t *identity, uint32_t key) {
    const cbor_item_t signature = cbor_item(data, e->signature_at);
    REQUIRE(signature.argument == 64, OTA_SIGNATURE);
    /* The signed bytes are the envelope's own with another beginning, and an empty string in place of the empty
     * unprotected header; made in place, since both encodings are the only possible ones. */
    uint8_t saved[sizeof(sig_structure)];
    uint8_t *message = data + e->protected_at - sizeof(sig_structure);
    bytes_copy(saved, message, sizeof(saved));
    bytes_copy(message, sig_structure, sizeof(sig_structure));
    data[e->unprotected_at] = 0x40;
    const uint32_t size = e->signature_at - e->protected_at + (uint32_t)sizeof(sig_structure);
    const int verdict = hal_verify(PURPOSE_MANIFEST, identity->key[key].hash, identity->key[key].algorithm, message,
                                   size, data + signature.content, 64);
    data[e->unprotected_at] = 0xA0;
    bytes_copy(message, saved, sizeof(saved));
    return verdict == HAL_OK ? OTA_OK : OTA_SIGNATURE;
}

uint32_t manifest_verify(manifest_t *m, uint8_t *data, uint32_t size, const ota_identity_t *identity) {
    envelope_t e;
    uint32_t algorithm = 0;
    const uint8_t *kid = 0;
    uint8_t digest[32];
    REQUIRE(size <= MANIFEST_MAX, OTA_OVERSIZE);
    TRY(read_envelope(data, size, &e));
    const cbor_item_t header = cbor_item(data, e.protected_at);
    TRY(read_header(data + header.content, (uint32_t)header.argument, &algorithm, &kid));
    uint32_t key = 0;
    while (key < identity->n_keys && !bytes_equal(identity->key[key].hash, kid, 8)) {
        ++key;
    }
    REQUIRE(key < identity->n_keys, OTA_KEY_UNKNOWN);
    REQUIRE(algorithm == identity->key[key].algorithm, OTA_ALGORITHM);
    TRY(verify_signature(data, &e, identity, key));
    const cbor_item_t body = cbor_item(data, e.body_at);
    m->present = 0;
    TRY(read_body(m, data + body.content, (uint32_t)body.argument, identity));
    hal_sha256_begin();
    hal_sha256_add(data, size);
    hal_sha256_end(digest);
    bytes_copy(m->id8, digest, sizeof(m->id8));
    return OTA_OK;
}

uint32_t manifest_check(const manifest_t *m, const ota_identity_t *identity, uint32_t last_sequence, uint64_t now_s) {
    REQUIRE(bytes_equal(m->vendor_id, identity->hardware.vendor, 16), OTA_VENDOR);
    REQUIRE(bytes_equal(m->class_id, identity->hardware.class, 16), OTA_HARDWARE);
    REQUIRE(m->fits & FITS_REVISION, OTA_HARDWARE_REVISION);
    REQUIRE(m->fits & FITS_DEVICE, OTA_WRONG_DEVICE);
    REQUIRE(m->sequence >= last_sequence, OTA_ROLLBACK);
    REQUIRE(now_s == 0 || now_s < m->expires_s, OTA_EXPIRED);
    return OTA_OK;
}
