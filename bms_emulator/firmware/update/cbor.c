#include "cbor.h"

#include "reason.h"

/* One container that is being read. */
typedef struct {
    uint64_t left;         /* items still to come; a map counts keys and values */
    uint32_t major;
    uint32_t key_at;       /* first byte of the key being read or last read */
    uint32_t previous_at;  /* key before it, previous_size 0: none */
    uint32_t previous_size;
} level_t;

typedef struct {
    const uint8_t *data;
    uint32_t size;
    uint32_t at;
} reader_t;

static uint32_t left_over(const reader_t *r) { return r->size - r->at; }

/* Head of the next item with the checks of its form. */
static uint32_t read_head(reader_t *r, cbor_item_t *item) {
    if (left_over(r) < 1) {
        return OTA_TRUNCATED;
    }
    const uint32_t first = r->data[r->at++];
    const uint32_t info = first & 31u;
    item->major = first >> 5;
    item->argument = info;
    if (item->major == CBOR_SIMPLE) {
        return info >= 20 && info <= 22 ? OTA_OK : OTA_FORMAT; /* false, true, null */
    }
    if (info >= 24) {
        if (info > 27) {
            return OTA_NOT_CANONICAL;
        }
        const uint32_t width = 1u << (info - 24u);
        if (left_over(r) < width) {
            return OTA_TRUNCATED;
        }
        uint64_t value = 0;
        for (uint32_t i = 0; i < width; ++i) {
            value = value << 8 | r->data[r->at++];
        }
        const uint64_t least = width == 1 ? 24 : UINT64_C(1) << (4u * width);
        if (value < least) {
            return OTA_NOT_CANONICAL;
        }
        item->argument = value;
    }
    return OTA_OK;
}

/* UTF-8 as Unicode permits it: no overlong forms, no surrogates, at most U+10FFFF. */
static uint32_t utf8_valid(const uint8_t *text, uint32_t size) {
    uint32_t at = 0;
    while (at < size) {
        const uint32_t first = text[at++];
        if (first < 0x80) {
            continue;
        }
        const uint32_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || size - at < more) {
            return 0;
        }
        uint32_t low = 0x80;
        uint32_t high = 0xBF;
        if (first == 0xE0) {
            low = 0xA0;
        } else if (first == 0xED) {
            high = 0x9F;
        } else if (first == 0xF0) {
            low = 0x90;
        } else if (first == 0xF4) {
            high = 0x8F;
        }
        for (uint32_t i = 0; i < more; ++i) {
            const uint32_t next = text[at++];
            if (next < low || next > high) {
                return 0;
            }
            low = 0x80;
            high = 0xBF;
        }
    }
    return 1;
}

/* A key has been read: its type, and its place after the key before it. */
static uint32_t check_key(const reader_t *r, level_t *level) {
    const uint32_t major = r->data[level->key_at] >> 5;
    if (major != CBOR_UINT && major != CBOR_NEGATIVE && major != CBOR_TEXT) {
        return OTA_FORMAT;
    }
    const uint32_t size = r->at - level->key_at;
    if (level->previous_size != 0) {
        const uint8_t *a = r->data + level->previous_at;
        const uint8_t *b = r->data + level->key_at;
        const uint32_t common = size < level->previous_size ? size : level->previous_size;
        uint32_t i = 0;
        while (i < common && a[i] == b[i]) {
            ++i;
        }
        if (i == common) {
            if (size == level->previous_size) {
                return OTA_DUPLICATE_FIELD;
            }
            if (size < level->previous_size) {
                return OTA_NOT_CANONICAL;
            }
        } else if (b[i] < a[i]) {
            return OTA_NOT_CANONICAL;
        }
    }
    level->previous_at = level->key_at;
    level->previous_size = size;
    return OTA_OK;
}

uint32_t cbor_check(const uint8_t *data, uint32_t size) {
    reader_t reader = {data, size, 0};
    reader_t *r = &reader;
    level_t stack[CBOR_DEPTH_MAX];
    uint32_t depth = 0; /* open containers; an item inside them stands at depth + 1 */
    do {
        if (depth + 1 > CBOR_DEPTH_MAX) {
            return OTA_NESTING;
        }
        if (depth > 0 && stack[depth - 1].major == CBOR_MAP && stack[depth - 1].left % 2 == 0) {
            stack[depth - 1].key_at = r->at;
        }
        cbor_item_t item;
        const uint32_t reason = read_head(r, &item);
        if (reason != OTA_OK) {
            return reason;
        }
        if (item.major >= CBOR_BYTES && item.major <= CBOR_TAG && item.argument > left_over(r)) {
            return OTA_TRUNCATED; /* an announced length or count never exceeds the bytes that are left */
        }
        uint64_t children = 0;
        if (item.major == CBOR_BYTES || item.major == CBOR_TEXT) {
            if (item.major == CBOR_TEXT && !utf8_valid(data + r->at, (uint32_t)item.argument)) {
                return OTA_FORMAT;
            }
            r->at += (uint32_t)item.argument;
        } else if (item.major == CBOR_ARRAY) {
            children = item.argument;
        } else if (item.major == CBOR_MAP) {
            children = 2 * item.argument;
        } else if (item.major == CBOR_TAG) {
            children = 1;
        }
        if (children > 0) {
            stack[depth] = (level_t){children, item.major, 0, 0, 0};
            ++depth;
            continue;
        }
        /* The item is complete, and with it perhaps containers that it was the last item of. */
        while (depth > 0) {
            level_t *level = &stack[depth - 1];
            if (level->major == CBOR_MAP && level->left % 2 == 0) {
                const uint32_t bad = check_key(r, level);
                if (bad != OTA_OK) {
                    return bad;
                }
            }
            if (--level->left > 0) {
                break;
            }
            --depth;
        }
    } while (depth > 0);
    return r->at == size ? OTA_OK : OTA_TRAILING_DATA;
}

cbor_item_t cbor_item(const uint8_t *data, uint32_t at) {
    cbor_item_t item;
    const uint32_t info = data[at] & 31u;
    item.major = data[at++] >> 5;
    item.argument = info;
    if (info >= 24 && item.major != CBOR_SIMPLE) {
        item.argument = 0;
        for (uint32_t i = 0; i < 1u << (info - 24u); ++i) {
            item.argument = item.argument << 8 | data[at++];
        }
    }
    item.content = at;
    return item;
}

uint32_t cbor_skip(const uint8_t *data, uint32_t at) {
    for (uint64_t left = 1; left > 0; --left) {
        const cbor_item_t item = cbor_item(data, at);
        at = item.content;
        if (item.major == CBOR_BYTES || item.major == CBOR_TEXT) {
            at += (uint32_t)item.argument;
        } else if (item.major == CBOR_ARRAY) {
            left += item.argument;
        } else if (item.major == CBOR_MAP) {
            left += 2 * item.argument;
        } else if (item.major == CBOR_TAG) {
            left += 1;
        }
    }
    return at;
}

uint32_t cbor_find(const uint8_t *data, uint32_t at, uint32_t key) {
    const cbor_item_t map = cbor_item(data, at);
    at = map.content;
    for (uint64_t i = 0; i < map.argument; ++i) {
        const cbor_item_t found = cbor_item(data, at);
        at = cbor_skip(data, at);
        if (found.major == CBOR_UINT && found.argument == key) {
            return at;
        }
        at = cbor_skip(data, at);
    }
    return 0;
}

uint32_t cbor_only(const uint8_t *data, uint32_t at, uint32_t allowed) {
    const cbor_item_t map = cbor_item(data, at);
    at = map.content;
    for (uint64_t i = 0; i < map.argument; ++i) {
        const cbor_item_t key = cbor_item(data, at);
        if (key.major != CBOR_UINT || key.argument > 31 || (allowed >> key.argument & 1u) == 0) {
            return OTA_UNKNOWN_FIELD;
        }
        at = cbor_skip(data, cbor_skip(data, at));
    }
    return OTA_OK;
}
