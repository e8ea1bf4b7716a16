#include "agent.h"

#include "../boot/image.h"
#include "../hal/hal.h"
#include "bytes.h"
#include "reason.h"
#include "regs.h"

#define PROBATION_US UINT64_C(600000000)
#define DATA_HEAD 6u
#define MANIFEST_HEAD 4u
#define TABLE_DONE_AT (HAL_SECTOR - 1u) /* byte of the progress sector that marks a complete table */
#define NO_IMAGE UINT32_MAX

enum { TABLE_HEADER, TABLE_WORDS, TABLE_HASHES };

_Static_assert(FLASH_SLOT_0_SIZE <= OTA_BLOCKS_MAX * BLOCK, "a plan has a word for each block of a slot");
_Static_assert(CONTAINER_HEADER + 34 * OTA_BLOCKS_MAX <= BLOCK, "the block buffer holds the largest table");
_Static_assert(OTA_MANIFEST_AT + 6 >= MANIFEST_HEADROOM, "room to form the signed bytes");

static const uint32_t slot_at[2] = {FLASH_SLOT_0_AT, FLASH_SLOT_1_AT};
static const uint32_t parameters_at[2] = {FLASH_PARAMETERS_0_AT, FLASH_PARAMETERS_1_AT};
static const uint32_t slot_size[2] = {FLASH_SLOT_0_SIZE, FLASH_PARAMETERS_0_SIZE};
static const uint32_t progress_at[2] = {FLASH_PROGRESS_0_AT, FLASH_PROGRESS_1_AT};
static const uint32_t table_at[2] = {FLASH_TABLE_0_AT, FLASH_TABLE_1_AT};

/* ---- flash ------------------------------------------------------------------------------------------------ */

static uint32_t erase(uint32_t at) { return hal_flash_erase(at) == HAL_OK ? OTA_OK : OTA_FLASH_ERASE; }

/* `data` has room up to a multiple of 4 bytes, which is filled with what erased flash reads. */
static uint32_t program(uint32_t at, uint8_t *data, uint32_t size) {
    while (size % 4 != 0) {
        data[size++] = 0xFF;
    }
    return hal_flash_program(at, data, size) == HAL_OK ? OTA_OK : OTA_FLASH_PROGRAM;
}

/* Clear one byte of a word; its neighbours keep what they are. */
static uint32_t mark(uint32_t at) {
    uint8_t word[4];
    if (hal_flash_read(at & ~3u, word, 4) != HAL_OK) {
        return OTA_FLASH_READ;
    }
    word[at & 3u] = 0;
    return program(at & ~3u, word, 4);
}

/* ---- what is staged ---------------------------------------------------------------------------------------- */

static uint32_t target_at(const ota_ctx_t *o, uint32_t image_id) {
    return image_id == 0 ? slot_at[1u - o->journal.slot] : parameters_at[1u - o->journal.parameters];
}

static void forget_place(ota_ctx_t *o) {
    o->plan[0].has_cursor = 0;
    o->plan[1].has_cursor = 0;
    o->place.image_id = NO_IMAGE;
}

static uint32_t drop_stage(ota_ctx_t *o) {
    o->has_staged = 0;
    o->plan[0].valid = 0;
    o->plan[1].valid = 0;
    forget_place(o);
    uint32_t reason = erase(FLASH_STAGE_AT); /* first: without a manifest the rest means nothing */
    for (uint32_t i = 0; i < 2 && reason == OTA_OK; ++i) {
        reason = erase(progress_at[i]);
    }
    return reason;
}

/* The container of an image is fetched again from its beginning. */
static uint32_t restart(ota_ctx_t *o, uint32_t image_id) {
    o->plan[image_id].valid = 0;
    o->plan[image_id].has_cursor = 0;
    return erase(progress_at[image_id]);
}

static uint32_t complete(const ota_plan_t *p) {
    uint32_t all = p->valid;
    for (uint32_t i = 0; all && i < p->head.n_blocks; ++i) {
        all = p->done[i];
    }
    return all;
}

/* The bytes that come next are the record of the first block. */
static void begin_records(ota_ctx_t *o, uint32_t image_id) {
    const ota_plan_t *p = &o->plan[image_id];
    ota_place_t *place = &o->place;
    place->block = 0;
    place->taken = 0;
    place->hash_at = CONTAINER_HEADER + 2 * p->head.n_blocks;
}

static void next_block(ota_ctx_t *o) {
    ota_place_t *place = &o->place;
    const uint16_t word = o->plan[place->image_id].words[place->block];
    place->hash_at += word_kind(word) != KIND_UNCHANGED ? 32 : 0;
    place->taken = 0;
    ++place->block;
}

/* Go to the first block that is not there, or to the beginning of the table. */
static void seek(ota_ctx_t *o, uint32_t image_id) {
    const ota_plan_t *p = &o->plan[image_id];
    o->place.image_id = image_id;
    o->place.table_part = TABLE_HEADER;
    o->place.taken = 0;
    if (!p->valid) {
        return; /* nothing in the plan may be used */
    }
    begin_records(o, image_id);
    while (o->place.block < p->head.n_blocks && p->done[o->place.block]) {
        next_block(o);
    }
}

/* Container bytes before this offset are not needed again. */
static uint32_t next_offset(ota_ctx_t *o, uint32_t image_id) {
    const ota_plan_t *p = &o->plan[image_id];
    if (p->has_cursor) {
        return p->cursor;
    }
    if (!p->valid) {
        return 0;
    }
    uint32_t at = container_table_size(&p->head, p->words);
    for (uint32_t i = 0; i < p->head.n_blocks && p->done[i]; ++i) {
        at += word_length(p->words[i]);
    }
    return at;
}

/* A complete table in the block buffer: form, base, target, signed root. */
static uint32_t check_table(ota_ctx_t *o, uint32_t image_id) {
    ota_plan_t *p = &o->plan[image_id];
    const component_t *c = &o->staged.component[image_id];
    TRY(container_check(&p->head, p->words));
    return container_trust(&p->head, p->words, o->block, o->running[image_id], c->digest, c->merkle_root);
}

static uint32_t check_header(ota_ctx_t *o, uint32_t image_id) {
    ota_plan_t *p = &o->plan[image_id];
    TRY(container_header(&p->head, o->block));
    return p->head.target_length == o->staged.component[image_id].length ? OTA_OK : OTA_DELTA_OUTPUT;
}

/* Which blocks are marked as being there. */
static uint32_t load_done(ota_plan_t *p, uint32_t image_id) {
    REQUIRE(hal_flash_read(progress_at[image_id], p->done, OTA_BLOCKS_MAX) == HAL_OK, OTA_FLASH_READ);
    for (uint32_t i = 0; i < OTA_BLOCKS_MAX; ++i) {
        p->done[i] = p->done[i] == 0;
    }
    return OTA_OK;
}

/* After a reset: a table in flash is taken up again if it still leads to the signed root from the present base. */
static void load_plan(ota_ctx_t *o, uint32_t image_id) {
    ota_plan_t *p = &o->plan[image_id];
    uint8_t last = 0xFF;
    p->valid = 0;
    if ((o->staged.present >> image_id & 1u) == 0 ||
        hal_flash_read(progress_at[image_id] + TABLE_DONE_AT, &last, 1) != HAL_OK || last != 0 ||
        hal_flash_read(table_at[image_id], o->block, BLOCK) != HAL_OK) {
        return;
    }
    if (check_header(o, image_id) != OTA_OK) {
        return;
    }
    container_words(&p->head, o->block, p->words);
    if (check_table(o, image_id) != OTA_OK ||
        load_done(p, image_id) != OTA_OK) {
        return;
    }
    p->valid = 1;
}

static void load_stage(ota_ctx_t *o) {
    uint8_t *head = o->manifest + OTA_MANIFEST_AT;
    o->has_staged = 0;
    if (hal_flash_read(FLASH_STAGE_AT, head, 6 + MANIFEST_MAX) != HAL_OK) {
        return;
    }
    const uint32_t size = get16(head);
    if (size == 0 || size > MANIFEST_MAX || crc32_of(head + 6, size) != get32(head + 2) ||
        manifest_verify(&o->staged, head + 6, size, &o->identity) != OTA_OK) {
        return;
    }
    o->has_staged = 1;
    load_plan(o, 0);
    load_plan(o, 1);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

static void send(ota_ctx_t *o, uint32_t type, uint32_t payload_size) {
    (void)hal_mailbox_send(o->answer, frame_finish(o->answer, type, payload_size)); /* the gateway asks again */
}

static void send_answer(ota_ctx_t *o, uint32_t to, uint32_t reason) {
    o->answer[FRAME_HEAD] = (uint8_t)to;
    o->answer[FRAME_HEAD + 1] = 0;
    put16(o->answer + FRAME_HEAD + 2, reason);
    send(o, FRAME_ANSWER, 4);
}

static uint32_t installed(const ota_ctx_t *o, const uint8_t id8[8]) {
    return o->journal.reason == OTA_OK && bytes_equal(o->journal.manifest8, id8, 8);
}

void ota_send_status(ota_ctx_t *o) {
    frame_status_t s;
    bytes_fill((uint8_t *)&s, 0, sizeof(s));
    if (o->journal.state == RECORD_TEST) {
        s.phase = PHASE_TEST;
    } else if (o->has_staged && !installed(o, o->staged.id8) && !blacklist_has(o->staged.id8)) {
        s.phase = PHASE_STAGED;
        bytes_copy(s.manifest8, o->staged.id8, 8);
        for (uint32_t i = 0; i < 2; ++i) {
            if (o->staged.present >> i & 1u) {
                s.next_offset[i] = next_offset(o, i);
                s.phase = complete(&o->plan[i]) ? s.phase : PHASE_RECEIVING;
            }
        }
    }
    s.slot = o->journal.slot;
    s.reason = o->last_reason != OTA_OK ? o->last_reason : o->journal.reason;
    s.conditions = o->conditions;
    s.boots = o->journal.boots;
    s.security_counter = o->counters.security;
    s.parameter_counter = o->counters.parameters;
    s.sequence = o->counters.manifest;
    s.uptime_s = (uint32_t)(hal_time_us() / 1000000u);
    bytes_copy(s.firmware_digest, o->running_digest[0], 32);
    bytes_copy(s.parameter_digest, o->running_digest[1], 32);
    if (o->journal.state == RECORD_CONFIRMED && o->journal.reason == OTA_OK) {
        bytes_copy(s.installed8, o->journal.manifest8, 8);
    }
    frame_put_status(o->answer + FRAME_HEAD, &s);
    send(o, FRAME_STATUS, STATUS_SIZE);
}

/* ---- events ------------------------------------------------------------------------------------------------ */

/* Both images of a row, as the ROM judges them; `parameters` NULL: there is no set. */
static uint32_t verify_set(const ota_ctx_t *o, const journal_t *row, image_t *firmware, image_t *parameters,
                           uint32_t *has_parameters) {
    const uint32_t copy_at = parameters_at[row->parameters];
    REQUIRE(image_file_size(slot_at[row->slot], slot_size[0]) != 0, OTA_NOT_BOOTABLE);
    TRY(image_verify(slot_at[row->slot], slot_size[0], 1, o->counters.security, &o->identity.hardware, firmware));
    *has_parameters = image_file_size(copy_at, slot_size[1]) != 0;
    if (*has_parameters) {
        TRY(image_verify(copy_at, slot_size[1], 0, o->counters.parameters, &o->identity.hardware, parameters));
    }
    return image_check_set(firmware, *has_parameters ? parameters : 0);
}

/* Everything that has to hold before the set of this row may run. */
static uint32_t check_set(const ota_ctx_t *o, const journal_t *row) {
    image_t firmware;
    image_t parameters;
    uint32_t has_parameters = 0;
    TRY(verify_set(o, row, &firmware, &parameters, &has_parameters));
    const uint32_t body_at = parameters_at[row->parameters] + (has_parameters ? parameters.header_size : 0);
    return ota_app_check_parameters(body_at, has_parameters ? parameters.body_size : 0, row->slot);
}

/* Counters follow the confirmed set. */
static uint32_t raise_counters(ota_ctx_t *o) {
    image_t firmware;
    image_t parameters;
    uint32_t has_parameters = 0;
    TRY(verify_set(o, &o->journal, &firmware, &parameters, &has_parameters));
    const uint32_t sequence = o->has_staged && installed(o, o->staged.id8) ? o->staged.sequence : 0;
    const uint32_t parameter_counter = has_parameters ? parameters.security_counter : 0;
    REQUIRE(counters_raise(firmware.security_counter, parameter_counter, sequence) == HAL_OK, OTA_FLASH_PROGRAM);
    counters_get(&o->counters);
    return OTA_OK;
}

/* Confirmation: the self test has passed and the gateway can talk to the new firmware, so that a further update is
 * possible. Counters rise after it; a cut in between is made good at the next boot. */
static uint32_t confirm_if_new(ota_ctx_t *o) {
    if (o->journal.state != RECORD_TEST || !o->self_test_passed) {
        return OTA_OK;
    }
    journal_t row = o->journal;
    row.sequence += 1;
    row.state = RECORD_CONFIRMED;
    row.boots = 0;
    row.reason = OTA_OK;
    REQUIRE(journal_put(&row) == HAL_OK, OTA_FLASH_PROGRAM);
    o->journal = row;
    return raise_counters(o);
}

static uint32_t on_hello(ota_ctx_t *o) {
    const uint32_t reason = confirm_if_new(o);
    if (reason == OTA_OK) {
        ota_send_status(o);
    }
    return reason;
}

static uint32_t accept_manifest(ota_ctx_t *o, uint32_t size) {
    manifest_t m;
    uint8_t *head = o->manifest + OTA_MANIFEST_AT;
    TRY(manifest_verify(&m, head + 6, size, &o->identity));
    TRY(manifest_check(&m, &o->identity, o->counters.manifest, o->clock_s));
    REQUIRE(o->journal.state == RECORD_CONFIRMED, OTA_BUSY);
    REQUIRE(!blacklist_has(m.id8), OTA_BLACKLISTED);
    for (uint32_t i = 0; i < 2; ++i) {
        const component_t *c = &m.component[i];
        if ((m.present >> i & 1u) == 0) {
            continue;
        }
        REQUIRE(c->length <= slot_size[i], OTA_SLOT_SIZE);
        REQUIRE(c->security_counter >= (i == 0 ? o->counters.security : o->counters.parameters),
                OTA_SECURITY_COUNTER_LOW);
        REQUIRE(c->security_counter <= SECURITY_COUNTER_MAX, OTA_SECURITY_COUNTER_CAPACITY);
    }
    if (!o->has_staged || !bytes_equal(o->staged.id8, m.id8, 8)) {
        TRY(drop_stage(o));
        put16(head, size);
        put32(head + 2, crc32_of(head + 6, size));
        TRY(program(FLASH_STAGE_AT, head, 6 + size));
        o->staged = m;
        o->has_staged = 1;
    }
    return OTA_OK;
}

static uint32_t on_manifest(ota_ctx_t *o, const uint8_t *payload, uint32_t size) {
    REQUIRE(size > MANIFEST_HEAD, OTA_TRUNCATED);
    const uint32_t total = get16(payload);
    const uint32_t offset = get16(payload + 2);
    const uint32_t n = size - MANIFEST_HEAD;
    REQUIRE(total <= MANIFEST_MAX, OTA_OVERSIZE);
    if (offset == 0) {
        o->manifest_taken = 0;
    }
    if (offset != o->manifest_taken) {
        return OTA_OK; /* a piece was lost; the sender starts again */
    }
    o->manifest_taken += n;
    REQUIRE(o->manifest_taken <= total, OTA_LENGTH);
    bytes_copy(o->manifest + OTA_MANIFEST_AT + 6 + offset, payload + MANIFEST_HEAD, n);
    if (o->manifest_taken < total) {
        return OTA_OK;
    }
    o->manifest_taken = 0;
    TRY(accept_manifest(o, total));
    o->last_reason = OTA_OK;
    send_answer(o, FRAME_MANIFEST, OTA_OK);
    ota_send_status(o);
    return OTA_OK;
}

/* The digest of the whole file as it stands in flash. */
static uint32_t verify_staged(ota_ctx_t *o, uint32_t image_id) {
    uint8_t digest[32];
    const component_t *c = &o->staged.component[image_id];
    TRY(flash_digest(target_at(o, image_id), c->length, NO_PREFIX, digest));
    if (!bytes_equal(digest, c->digest, 32)) {
        TRY(restart(o, image_id));
        return OTA_DIGEST;
    }
    return OTA_OK;
}

/* Table bytes, collected in the block buffer and kept in flash once they lead to the signed root. */
static uint32_t take_table(ota_ctx_t *o, uint32_t image_id) {
    ota_plan_t *p = &o->plan[image_id];
    ota_place_t *place = &o->place;
    while (!p->valid) {
        const uint32_t need = place->table_part == TABLE_HEADER  ? CONTAINER_HEADER
                              : place->table_part == TABLE_WORDS ? CONTAINER_HEADER + 2 * p->head.n_blocks
                                                                 : container_table_size(&p->head, p->words);
        const uint32_t missing = need - place->taken;
        const uint32_t piece = o->data_left < missing ? o->data_left : missing;
        bytes_copy(o->block + place->taken, o->frame + o->data_at, piece);
        place->taken += piece;
        o->data_at += piece;
        o->data_left -= piece;
        if (place->taken < need) {
            return OTA_OK;
        }
        if (place->table_part == TABLE_HEADER) {
            TRY(check_header(o, image_id));
        } else if (place->table_part == TABLE_WORDS) {
            container_words(&p->head, o->block, p->words);
        } else {
            TRY(check_table(o, image_id));
            for (uint32_t at = 0; at < need; at += HAL_SECTOR) {
                TRY(erase(table_at[image_id] + at));
            }
            TRY(program(table_at[image_id], o->block, need));
            TRY(mark(progress_at[image_id] + TABLE_DONE_AT));
            TRY(load_done(p, image_id));
            p->valid = 1;
        }
        ++place->table_part;
    }
    return OTA_OK;
}

/* The block of the place is complete in the buffer: leaf hash, flash, mark. */
static uint32_t finish_block(ota_ctx_t *o) {
    const ota_place_t *place = &o->place;
    ota_plan_t *p = &o->plan[place->image_id];
    const uint32_t size = container_block_size(&p->head, place->block);
    const uint32_t kind = word_kind(p->words[place->block]);
    if (kind == KIND_UNCHANGED) {
        const uint32_t from = o->running[place->image_id].at + place->block * BLOCK;
        REQUIRE(hal_flash_read(from, o->block, size) == HAL_OK, OTA_FLASH_READ);
    } else {
        uint8_t known[32];
        uint8_t digest[32];
        const uint8_t leaf = 0;
        if (kind == KIND_PATCH) {
            TRY(patch_end(&o->patch));
        } else {
            REQUIRE(place->taken == size, OTA_DELTA_CORRUPT);
        }
        REQUIRE(hal_flash_read(table_at[place->image_id] + place->hash_at, known, 32) == HAL_OK, OTA_FLASH_READ);
        hal_sha256_begin();
        hal_sha256_add(&leaf, 1);
        hal_sha256_add(o->block, size);
        hal_sha256_end(digest);
        REQUIRE(bytes_equal(digest, known, 32), OTA_MERKLE);
    }
    const uint32_t to = target_at(o, place->image_id) + place->block * BLOCK;
    TRY(erase(to));
    TRY(program(to, o->block, size));
    TRY(mark(progress_at[place->image_id] + place->block));
    p->done[place->block] = 1;
    return OTA_OK;
}

/* Record bytes of the frame under way, decoded as they come, until one block has been written or no byte is left. A
 * block that is there already is passed over. */
static uint32_t take_records(ota_ctx_t *o) {
    ota_place_t *place = &o->place;
    ota_plan_t *p = &o->plan[place->image_id];
    while (place->block < p->head.n_blocks) {
        const uint32_t length = word_length(p->words[place->block]);
        const uint32_t kind = word_kind(p->words[place->block]);
        const uint32_t missing = length - place->taken;
        const uint32_t piece = o->data_left < missing ? o->data_left : missing;
        const uint8_t *data = o->frame + o->data_at;
        const uint32_t there = p->done[place->block];
        if (!there && kind == KIND_STORED) {
            bytes_copy(o->block + place->taken, data, piece);
        } else if (!there && kind == KIND_PATCH) {
            if (place->taken == 0) {
                const flash_file_t base = o->running[place->image_id];
                patch_begin(&o->patch, length, container_block_size(&p->head, place->block), base.at, base.size);
            }
            patch_feed(&o->patch, data, piece, o->block);
        }
        place->taken += piece;
        o->data_at += piece;
        o->data_left -= piece;
        if (place->taken < length) {
            o->data_pending = 0;
            return OTA_OK;
        }
        if (!there) {
            TRY(finish_block(o));
            next_block(o);
            return OTA_OK;
        }
        next_block(o);
    }
    o->data_pending = 0;
    return OTA_OK;
}

/* A step with the DATA frame under way; data_pending falls when nothing more can be done with it. */
static uint32_t take(ota_ctx_t *o, uint32_t image_id) {
    ota_plan_t *p = &o->plan[image_id];
    if (!p->valid) {
        TRY(take_table(o, image_id));
        if (!p->valid) {
            o->data_pending = 0;
            return OTA_OK;
        }
        begin_records(o, image_id);
    }
    TRY(take_records(o));
    if (!o->data_pending && complete(p)) {
        forget_place(o);
        return verify_staged(o, image_id);
    }
    return OTA_OK;
}

/* Goes on with the DATA frame under way, and answers it at its end. */
static void continue_data(ota_ctx_t *o) {
    const uint32_t image_id = o->frame[FRAME_HEAD];
    uint32_t reason = OTA_OK;
    if (o->data_pending) {
        reason = take(o, image_id);
    }
    if (reason != OTA_OK) {
        o->last_reason = reason;
        o->data_pending = 0;
        forget_place(o);
    }
    if (!o->data_pending) {
        o->answer[FRAME_HEAD] = (uint8_t)image_id;
        o->answer[FRAME_HEAD + 1] = 0;
        put16(o->answer + FRAME_HEAD + 2, reason);
        put32(o->answer + FRAME_HEAD + 4, next_offset(o, image_id));
        send(o, FRAME_PROGRESS, 8);
    }
}

static uint32_t on_data(ota_ctx_t *o, const uint8_t *payload, uint32_t size) {
    /* An empty piece is allowed: it asks to go on when only unchanged blocks are left. */
    REQUIRE(size >= DATA_HEAD, OTA_TRUNCATED);
    const uint32_t image_id = payload[0];
    const uint32_t offset = get32(payload + 2);
    REQUIRE(image_id <= 1, OTA_FORMAT);
    REQUIRE(o->has_staged, OTA_MISSING_FIELD);
    REQUIRE(o->staged.present >> image_id & 1u, OTA_UNKNOWN_FIELD);
    ota_plan_t *p = &o->plan[image_id];
    if (!complete(p) && offset == next_offset(o, image_id)) {
        if (!p->has_cursor || o->place.image_id != image_id) {
            /* Another image, or from the first block that is missing: what was begun is not kept. */
            forget_place(o);
            seek(o, image_id);
        }
        p->has_cursor = 1;
        p->cursor = offset + size - DATA_HEAD;
        o->data_at = FRAME_HEAD + DATA_HEAD;
        o->data_left = size - DATA_HEAD;
        o->data_pending = 1;
    }
    continue_data(o);
    return OTA_OK;
}

static uint32_t on_activate(ota_ctx_t *o, const uint8_t *payload, uint32_t size) {
    REQUIRE(o->has_staged && size == 8 && bytes_equal(payload, o->staged.id8, 8), OTA_UNKNOWN_DEPLOYMENT);
    if (installed(o, o->staged.id8)) {
        send_answer(o, FRAME_ACTIVATE, OTA_OK);
        ota_send_status(o);
        return OTA_OK;
    }
    for (uint32_t i = 0; i < 2; ++i) {
        REQUIRE((o->staged.present >> i & 1u) == 0 || complete(&o->plan[i]), OTA_INCOMPLETE_SET);
    }
    TRY(frame_deferral(o->conditions, o->staged.preconditions));
    journal_t row = o->journal;
    row.previous_slot = row.slot;
    row.previous_parameters = row.parameters;
    for (uint32_t i = 0; i < 2; ++i) {
        if (o->staged.present >> i & 1u) {
            TRY(verify_staged(o, i));
        }
    }
    row.slot ^= (uint8_t)(o->staged.present & 1u);
    row.parameters ^= (uint8_t)(o->staged.present >> 1 & 1u);
    const uint32_t unfit = check_set(o, &row);
    if (unfit != OTA_OK) {
        /* Signed, intact and still not fit: it will never be. Dropped, the old set stays. */
        TRY(drop_stage(o));
        return unfit;
    }
    row.sequence += 1;
    row.state = RECORD_TEST;
    row.boots = 0;
    row.reason = OTA_OK;
    bytes_copy(row.manifest8, o->staged.id8, 8);
    REQUIRE(journal_put(&row) == HAL_OK, OTA_FLASH_PROGRAM);
    send_answer(o, FRAME_ACTIVATE, OTA_OK);
    hal_reset(HAL_WHY_ACTIVATE);
}

static uint32_t on_cancel(ota_ctx_t *o, const uint8_t *payload, uint32_t size) {
    static const uint8_t any[8];
    REQUIRE(o->journal.state == RECORD_CONFIRMED, OTA_TOO_LATE_TO_CANCEL);
    if (o->has_staged && size == 8 && (bytes_equal(payload, any, 8) || bytes_equal(payload, o->staged.id8, 8))) {
        REQUIRE(!installed(o, o->staged.id8), OTA_TOO_LATE_TO_CANCEL);
        TRY(drop_stage(o));
    }
    send_answer(o, FRAME_CANCEL, OTA_OK);
    ota_send_status(o);
    return OTA_OK;
}

/* What runs: the files by their own lengths, and their digests. */
static void find_running(ota_ctx_t *o) {
    const uint32_t at[2] = {slot_at[o->journal.slot], parameters_at[o->journal.parameters]};
    for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t size = image_file_size(at[i], slot_size[i]);
        o->running[i] = (flash_file_t){at[i], size};
        if (size == 0 || flash_digest(at[i], size, NO_PREFIX, o->running_digest[i]) != OTA_OK) {
            bytes_fill(o->running_digest[i], 0, 32);
        }
    }
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

void ota_init(ota_ctx_t *o, const ota_identity_t *identity, uint32_t conditions) {
    bytes_fill((uint8_t *)o, 0, sizeof(*o));
    bytes_copy((uint8_t *)&o->identity, (const uint8_t *)identity, sizeof(*identity));
    if (identity->n_keys > KEYS_MAX || identity->serial_size > SERIAL_MAX) {
        o->identity.n_keys = 0; /* never provisioned: nothing is accepted */
        o->identity.serial_size = 0;
    }
    o->conditions = conditions;
    (void)journal_get(&o->journal); /* the ROM has left a valid one */
    counters_get(&o->counters);
    find_running(o);
    forget_place(o);
    load_stage(o);
    if (o->has_staged && o->journal.state == RECORD_CONFIRMED && installed(o, o->staged.id8)) {
        /* The supply failed between confirmation and counter; the ROM has seen to the counters of the images. */
        (void)counters_raise(0, 0, o->staged.sequence);
        counters_get(&o->counters);
    }
    ota_send_status(o);
}

uint32_t ota_step(ota_ctx_t *o) {
    if (o->journal.state == RECORD_TEST && hal_time_us() > PROBATION_US) {
        hal_reset(HAL_WHY_PROBATION);
    }
    if (o->data_pending) {
        continue_data(o);
        return 1;
    }
    uint32_t type = 0;
    uint32_t size = hal_mailbox_receive(o->frame, FRAME_MAX);
    if (size == 0) {
        return 0;
    }
    if (frame_check(o->frame, size, &type, &size) != OTA_OK) {
        ++o->dropped;
        return 1;
    }
    ++o->frames;
    const uint8_t *payload = o->frame + FRAME_HEAD;
    uint32_t reason = OTA_OK;
    switch (type) {
        case FRAME_HELLO:
            reason = on_hello(o);
            break;
        case FRAME_MANIFEST:
            reason = on_manifest(o, payload, size);
            break;
        case FRAME_DATA:
            reason = on_data(o, payload, size);
            break;
        case FRAME_ACTIVATE:
            reason = on_activate(o, payload, size);
            break;
        case FRAME_CANCEL:
            reason = on_cancel(o, payload, size);
            break;
        default: /* frames of our own kind are not for us */
            break;
    }
    if (reason != OTA_OK) {
        o->last_reason = reason;
        send_answer(o, type, reason);
        ota_send_status(o);
    }
    return 1;
}
