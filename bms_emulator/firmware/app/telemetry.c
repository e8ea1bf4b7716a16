/* Telemetry: what the pack looks like, in as few bytes as its promise allows.
 *
 * Promise: whatever a receiver holds from the newest frame that it can read is within the deadbands of what was
 * measured at any snapshot up to the next frame sent. A deadband of 5 mV on absolute voltages would erase the 1-5 mV
 * by which a soft short announces itself; here every frame has the mean exactly and each cell by its residual.
 *
 * A state frame says everything relative to one key frame, never to the frame before, so a lost, doubled or late frame
 * spoils nothing but its own second; without its key it says so by its key sequence. A frame is sent when a signal has
 * left its deadband, a state or fault changed, or after telemetry_silence_s.
 *
 * Layout, little-endian, v = varint, z = zigzag varint:
 *     0xB7, kind u8, format u16, sequence u32, key sequence u32, uptime ms u64, body, CRC-32 u32
 *     state (kind 0 key, 1 delta): step, command, cooling, runaway u8; age u8 each of voltages, temperatures, current
 *         in 0.1 s; known u8; current z, pack mV v, mean 100 uV v, mean ddegC z, insulation, pressure, gas u16;
 *         estimate, sigma, safety v; faults u8 (1 = follow), active u64, latched u64;
 *         key: release u32, schema u16, groups u16, sensors u8, then per cell and sensor 0 = invalid, else
 *         1 + zigzag(residual); delta: number v, then gap v and the same code, for cells and for sensors
 *     event (kind 2): lost rows v, number u8, rows at full rate, each field z against the row before
 *     snapshot (kind 3): estimate v, mean mV v, groups u16, per cell 1 + zigzag(residual in mV), bled mAs v each,
 *         sensors u8 and temperatures as in a key
 */
#include "wire.h"
#include "parts.h"

enum { KEY, DELTA, EVENT, SNAPSHOT };
enum { MAGIC = 0xB7, FORMAT = 1, FRAME_MAX = 1024, ROW_MAX = 88, CRC_BYTES = 4, PPM_BAND = 1000, SENSOR_BAND = 3 };

typedef struct {
    uint8_t bytes[FRAME_MAX];
    bms_writer_t writer;
} frame_t;

static void begin(frame_t *frame, const bms_telemetry_t *t, const bms_snapshot_t *s, uint32_t kind) {
    frame->writer = (bms_writer_t){frame->bytes, FRAME_MAX - CRC_BYTES, 0, 0, 0};
    bms_writer_t *w = &frame->writer;
    bms_put(w, MAGIC, 1);
    bms_put(w, kind, 1);
    bms_put(w, FORMAT, 2);
    bms_put(w, t->sequence, 4);
    bms_put(w, kind == KEY ? t->sequence : t->key_sequence, 4);
    bms_put(w, s->uptime_ms, 8);
}

static void end(frame_t *frame, bms_sink_t *sink) {
    bms_writer_t *w = &frame->writer;
    const uint32_t size = w->used + CRC_BYTES;
    if (w->full || sink->capacity - sink->used < size + 2u) {
        ++sink->dropped;
        return;
    }
    const uint32_t crc = bms_crc32(0, frame->bytes, w->used);
    w->capacity = FRAME_MAX;
    bms_put(w, crc, CRC_BYTES);
    bms_writer_t out = {sink->bytes + sink->used, sink->capacity - sink->used, 0, 0, 0};
    bms_put(&out, size, 2);
    for (uint32_t i = 0; i < size; ++i) {
        out.bytes[2 + i] = frame->bytes[i];
    }
    sink->used += size + 2u;
    ++sink->frames;
}

static uint32_t is_cell(const bms_params_t *p, uint32_t v) {
    return v >= (uint32_t)p->cell_plausible_min_100uV && v <= (uint32_t)p->cell_plausible_max_100uV;
}

static uint32_t is_sensor(const bms_params_t *p, int32_t t) {
    return t >= p->temperature_plausible_min_ddegC && t <= p->temperature_plausible_max_ddegC;
}

/* 0 for a channel without a usable value, else the residual. Implausible readings travel as they are. */
static uint64_t coded(uint32_t invalid, int32_t residual) { return invalid ? 0 : 1 + bms_zigzag(residual); }

static uint64_t cell_code(uint32_t v, uint32_t mean) {
    return coded(v == BMS_CELL_VOLTAGE_INVALID, (int32_t)v - (int32_t)mean);
}

static uint64_t sensor_code(int32_t t, int32_t mean) { return coded(t == BMS_TEMPERATURE_INVALID, t - mean); }

static uint32_t age_code(uint32_t age_ms) { return age_ms / 100u > 255u ? 255u : age_ms / 100u; }

static void put_common(bms_writer_t *w, const bms_telemetry_t *t, const bms_slow_t *slow, const bms_snapshot_t *s,
                       uint32_t mean_100uV, int32_t mean_ddegC) {
    bms_put(w, s->step, 1);
    bms_put(w, s->command, 1);
    bms_put(w, s->cooling_percent, 1);
    bms_put(w, s->runaway, 1);
    for (uint32_t source = 0; source < 3; ++source) {
        bms_put(w, age_code(s->age_ms[source]), 1);
    }
    bms_put(w, s->soc_known, 1);
    bms_put_varint(w, bms_zigzag(s->frame.pack_current_mA));
    bms_put_varint(w, s->frame.pack_voltage_mV);
    bms_put_varint(w, mean_100uV);
    bms_put_varint(w, bms_zigzag(mean_ddegC));
    bms_put(w, s->frame.insulation_kohm, 2);
    bms_put(w, s->frame.pressure_daPa, 2);
    bms_put(w, s->frame.gas_ppm, 2);
    bms_put_varint(w, slow->result.soc_estimate_ppm);
    bms_put_varint(w, slow->result.soc_sigma_ppm);
    bms_put_varint(w, slow->result.safety_ppm);
    const uint32_t news = !t->have_key || s->fault_active != t->key_active || s->fault_latched != t->key_latched;
    bms_put(w, news, 1);
    if (news) {
        bms_put(w, s->fault_active, 8);
        bms_put(w, s->fault_latched, 8);
    }
}

static uint32_t beyond(int64_t a, int64_t b, int64_t band) { return a - b > band || b - a > band; }

/* Differs from what the receiver holds by more than the deadband, or is invalid on one side only. */
static uint32_t cell_news(uint32_t now, uint32_t held, int32_t band) {
    const uint32_t gone = now == BMS_CELL_VOLTAGE_INVALID, was_gone = held == BMS_CELL_VOLTAGE_INVALID;
    return gone != was_gone || (!gone && beyond((int32_t)now, (int32_t)held, band));
}

static uint32_t sensor_news(int32_t now, int32_t held, int32_t band) {
    const uint32_t gone = now == BMS_TEMPERATURE_INVALID, was_gone = held == BMS_TEMPERATURE_INVALID;
    return gone != was_gone || (!gone && beyond(now, held, band));
}

static uint16_t shifted_cell(uint32_t value, int32_t by) {
    if (value == BMS_CELL_VOLTAGE_INVALID) {
        return BMS_CELL_VOLTAGE_INVALID;
    }
    const int32_t moved = (int32_t)value + by;
    return (uint16_t)(moved < 0 ? 0 : moved > BMS_CELL_VOLTAGE_INVALID - 1 ? BMS_CELL_VOLTAGE_INVALID - 1 : moved);
}

static int16_t shifted_sensor(int32_t value, int32_t by) {
    if (value == BMS_TEMPERATURE_INVALID) {
        return BMS_TEMPERATURE_INVALID;
    }
    const int32_t moved = value + by;
    return (int16_t)(moved < BMS_TEMPERATURE_INVALID + 1 ? BMS_TEMPERATURE_INVALID + 1
                     : moved > INT16_MAX                 ? INT16_MAX
                                                         : moved);
}

static int16_t mean_temperature(const bms_params_t *p, const bms_inputs_t *frame) {
    int32_t sum = 0, n = 0;
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        const int32_t t = frame->cell_temperature_ddegC[i];
        const int32_t good = is_sensor(p, t) != 0;
        sum += good ? t : 0;
        n += good;
    }
    return (int16_t)(n != 0 ? sum / n : 0);
}

static uint32_t state_news(const bms_telemetry_t *t, const bms_slow_t *slow, const bms_params_t *p,
                           const bms_snapshot_t *s) {
    const bms_result_t *r = &slow->result;
    return s->step != t->sent_step || s->command != t->sent_command || s->runaway != t->sent_runaway ||
           s->cooling_percent != t->sent_cooling || s->fault_active != t->sent_active ||
           s->fault_latched != t->sent_latched ||
           beyond(s->frame.pack_current_mA, t->sent_current_mA, p->telemetry_current_mA) ||
           beyond(s->frame.pack_voltage_mV / 10u % 65536u, t->sent_pack_cV, p->telemetry_voltage_100uV) ||
           beyond(r->soc_estimate_ppm, t->sent_soc_ppm, PPM_BAND) ||
           beyond(r->safety_ppm, t->sent_safety_ppm, PPM_BAND) ||
           beyond(s->frame.insulation_kohm, t->sent_sensor[0], s->frame.insulation_kohm / 16) ||
           beyond(s->frame.pressure_daPa, t->sent_sensor[1], SENSOR_BAND) ||
           beyond(s->frame.gas_ppm, t->sent_sensor[2], SENSOR_BAND);
}

static uint32_t channel_news(const bms_telemetry_t *t, const bms_params_t *p, const bms_snapshot_t *s) {
    uint32_t news = 0;
    for (uint32_t i = 0; i < (uint32_t)p->n_groups; ++i) {
        news |= cell_news(s->frame.cell_voltage_100uV[i], t->believed_100uV[i], p->telemetry_voltage_100uV);
    }
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        news |= sensor_news(s->frame.cell_temperature_ddegC[i], t->believed_ddegC[i], p->telemetry_temperature_ddegC);
    }
    return news;
}

static void put_channels(bms_writer_t *w, const bms_telemetry_t *t, const bms_params_t *p, const bms_snapshot_t *s,
                         uint32_t key, uint32_t mean_100uV, int32_t mean_ddegC) {
    const uint16_t *v = s->frame.cell_voltage_100uV;
    const int16_t *c = s->frame.cell_temperature_ddegC;
    const int32_t lift = (int32_t)mean_100uV - t->key_mean_100uV, warm = mean_ddegC - t->key_mean_ddegC;
    const uint32_t n = (uint32_t)p->n_groups, m = (uint32_t)p->n_temps;
    if (key) {
        bms_put(w, BMS_RELEASE, 4);
        bms_put(w, BMS_PARAM_SCHEMA, 2);
        bms_put(w, n, 2);
        bms_put(w, m, 1);
    }
    for (uint32_t pass = key ? 1 : 0; pass < 2; ++pass) { /* count, then write */
        uint32_t count = 0, last = 0;
        for (uint32_t i = 0; i < n; ++i) {
            if (key || cell_news(v[i], shifted_cell(t->key_100uV[i], lift), p->telemetry_voltage_100uV)) {
                if (pass == 1) {
                    if (!key) {
                        bms_put_varint(w, i - last);
                    }
                    bms_put_varint(w, cell_code(v[i], mean_100uV));
                }
                last = i;
                ++count;
            }
        }
        if (pass == 0) {
            bms_put_varint(w, count);
        }
    }
    for (uint32_t pass = key ? 1 : 0; pass < 2; ++pass) {
        uint32_t count = 0, last = 0;
        for (uint32_t i = 0; i < m; ++i) {
            if (key || sensor_news(c[i], shifted_sensor(t->key_ddegC[i], warm), p->telemetry_temperature_ddegC)) {
                if (pass == 1) {
                    if (!key) {
                        bms_put_varint(w, i - last);
                    }
                    bms_put_varint(w, sensor_code(c[i], mean_ddegC));
                }
                last = i;
                ++count;
            }
        }
        if (pass == 0) {
            bms_put_varint(w, count);
        }
    }
}

/* Channels that a delta would have to name; above a third of all a key is shorter and lasts longer. */
static uint32_t outgrown(const bms_telemetry_t *t, const bms_params_t *p, const bms_snapshot_t *s, uint32_t mean_100uV,
                         int32_t mean_ddegC) {
    const int32_t lift = (int32_t)mean_100uV - t->key_mean_100uV, warm = mean_ddegC - t->key_mean_ddegC;
    uint32_t count = 0;
    for (uint32_t i = 0; i < (uint32_t)p->n_groups; ++i) {
        count += cell_news(s->frame.cell_voltage_100uV[i], shifted_cell(t->key_100uV[i], lift),
                           p->telemetry_voltage_100uV);
    }
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        count += sensor_news(s->frame.cell_temperature_ddegC[i], shifted_sensor(t->key_ddegC[i], warm),
                             p->telemetry_temperature_ddegC);
    }
    return 3 * count > (uint32_t)(p->n_groups + p->n_temps);
}

static void believe(bms_telemetry_t *t, const bms_params_t *p, const bms_snapshot_t *s, uint32_t key,
                    uint32_t mean_100uV, int32_t mean_ddegC) {
    const int32_t lift = (int32_t)mean_100uV - t->key_mean_100uV, warm = mean_ddegC - t->key_mean_ddegC;
    for (uint32_t i = 0; i < (uint32_t)p->n_groups; ++i) {
        const uint16_t v = s->frame.cell_voltage_100uV[i];
        const uint16_t held = shifted_cell(t->key_100uV[i], lift);
        t->believed_100uV[i] = key || cell_news(v, held, p->telemetry_voltage_100uV) ? v : held;
        t->key_100uV[i] = key ? v : t->key_100uV[i];
    }
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        const int16_t c = s->frame.cell_temperature_ddegC[i];
        const int16_t held = shifted_sensor(t->key_ddegC[i], warm);
        t->believed_ddegC[i] = key || sensor_news(c, held, p->telemetry_temperature_ddegC) ? c : held;
        t->key_ddegC[i] = key ? c : t->key_ddegC[i];
    }
}

static void state_frame(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s, bms_sink_t *sink) {
    bms_telemetry_t *t = &slow->telemetry;
    const uint64_t now_s = s->uptime_ms / 1000u;
    const uint32_t late = now_s - t->sent_s >= (uint64_t)p->telemetry_silence_s;
    if (t->have_key && !late && !state_news(t, slow, p, s) && !channel_news(t, p, s)) {
        return;
    }
    const uint32_t mean_100uV = s->measured.cell_mean_100uV;
    const int16_t mean_ddegC = mean_temperature(p, &s->frame);
    const uint32_t key = !t->have_key || now_s - t->key_s >= (uint64_t)p->telemetry_key_s ||
                         outgrown(t, p, s, mean_100uV, mean_ddegC);
    ++t->sequence;
    if (key) {
        t->have_key = 0; /* a key says all, faults included */
    }
    if (sink != 0) {
        frame_t frame;
        begin(&frame, t, s, key ? KEY : DELTA);
        put_common(&frame.writer, t, slow, s, mean_100uV, mean_ddegC);
        put_channels(&frame.writer, t, p, s, key, mean_100uV, mean_ddegC);
        end(&frame, sink);
    }
    if (key) {
        t->key_mean_100uV = (uint16_t)mean_100uV;
        t->key_mean_ddegC = mean_ddegC;
        t->key_sequence = t->sequence;
        t->key_s = now_s;
        t->key_active = s->fault_active;
        t->key_latched = s->fault_latched;
        t->have_key = 1;
    }
    believe(t, p, s, key, mean_100uV, mean_ddegC);
    t->sent_s = now_s;
    t->sent_step = s->step;
    t->sent_command = s->command;
    t->sent_runaway = s->runaway;
    t->sent_cooling = s->cooling_percent;
    t->sent_active = s->fault_active;
    t->sent_latched = s->fault_latched;
    t->sent_current_mA = s->frame.pack_current_mA;
    t->sent_pack_cV = (uint16_t)(s->frame.pack_voltage_mV / 10u);
    t->sent_soc_ppm = slow->result.soc_estimate_ppm;
    t->sent_safety_ppm = slow->result.safety_ppm;
    t->sent_sensor[0] = s->frame.insulation_kohm;
    t->sent_sensor[1] = s->frame.pressure_daPa;
    t->sent_sensor[2] = s->frame.gas_ppm;
}

static void put_row(bms_writer_t *w, const bms_trace_row_t *now, const bms_trace_row_t *before) {
    const int64_t change[] = {
        (int64_t)(now->uptime_ms - before->uptime_ms),
        (int64_t)now->current_mA - before->current_mA,
        (int64_t)now->pack_mV - before->pack_mV,
        (int64_t)now->fault_bits - before->fault_bits,
        (int64_t)now->rate_mK_per_s - before->rate_mK_per_s,
        now->mean_100uV - before->mean_100uV,
        now->min_100uV - before->min_100uV,
        now->max_100uV - before->max_100uV,
        now->hottest_ddegC - before->hottest_ddegC,
        now->pressure_daPa - before->pressure_daPa,
        now->gas_ppm - before->gas_ppm,
        now->insulation_kohm - before->insulation_kohm,
        now->min_group - before->min_group,
        now->step - before->step,
        now->command - before->command,
        now->cooling_percent - before->cooling_percent,
        now->runaway - before->runaway,
    };
    for (uint32_t i = 0; i < sizeof change / sizeof change[0]; ++i) {
        bms_put_varint(w, bms_zigzag(change[i]));
    }
}

static void event_frames(bms_slow_t *slow, const bms_snapshot_t *s, const bms_trace_t *trace, bms_sink_t *sink) {
    bms_telemetry_t *t = &slow->telemetry;
    enum { ROWS_MAX = 52 };
    t->lost_rows += trace->lost;
    for (uint32_t first = 0; first < trace->n; first += ROWS_MAX) {
        const uint32_t rows = trace->n - first > ROWS_MAX ? ROWS_MAX : trace->n - first;
        ++t->sequence;
        if (sink == 0) {
            continue;
        }
        frame_t frame;
        begin(&frame, t, s, EVENT);
        bms_writer_t *w = &frame.writer;
        bms_put_varint(w, t->lost_rows);
        const uint32_t at = w->used;
        bms_put(w, 0, 1);
        bms_trace_row_t before = {0};
        uint32_t done = 0;
        for (; done < rows && w->capacity - w->used >= ROW_MAX; ++done) {
            put_row(w, &trace->row[first + done], &before);
            before = trace->row[first + done];
        }
        frame.bytes[at] = (uint8_t)done; /* fewer than rows only when every field jumps in every row */
        end(&frame, sink);
    }
}

static void snapshot_frame(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s, bms_sink_t *sink) {
    bms_telemetry_t *t = &slow->telemetry;
    ++t->sequence;
    if (sink == 0) {
        return;
    }
    frame_t frame;
    begin(&frame, t, s, SNAPSHOT);
    bms_writer_t *w = &frame.writer;
    const int32_t mean_mV = (s->measured.cell_mean_100uV + 5) / 10;
    const uint64_t per_mAs = 10u * (uint64_t)p->balancing_resistance_mohm;
    bms_put_varint(w, slow->result.soc_estimate_ppm);
    bms_put_varint(w, (uint64_t)mean_mV);
    bms_put(w, (uint64_t)p->n_groups, 2);
    for (uint32_t i = 0; i < (uint32_t)p->n_groups; ++i) {
        const uint32_t v = s->frame.cell_voltage_100uV[i];
        bms_put_varint(w, coded(!is_cell(p, v), ((int32_t)v + 5) / 10 - mean_mV));
    }
    for (uint32_t i = 0; i < (uint32_t)p->n_groups; ++i) {
        bms_put_varint(w, s->bled_100uVms[i] / per_mAs);
    }
    bms_put(w, (uint64_t)p->n_temps, 1);
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        bms_put_varint(w, sensor_code(s->frame.cell_temperature_ddegC[i], 0));
    }
    end(&frame, sink);
}

void bms_telemetry_step(bms_slow_t *slow, const bms_params_t *p, const bms_snapshot_t *s, const bms_trace_t *trace,
                        bms_sink_t *sink) {
    bms_telemetry_t *t = &slow->telemetry;
    const uint64_t now_s = s->uptime_ms / 1000u;
    const uint32_t event = t->have_key && (s->step != t->sent_step || s->runaway != t->sent_runaway ||
                                           (s->fault_active & ~t->sent_active) != 0 ||
                                           s->fault_latched != t->sent_latched);
    if (event) {
        t->event_left_ms = (uint32_t)p->telemetry_event_s * 1000u;
    }
    const uint32_t in_window = event || t->event_left_ms != 0;
    t->event_left_ms = t->event_left_ms > s->dt_ms ? t->event_left_ms - s->dt_ms : 0;
    state_frame(slow, p, s, sink);
    if (in_window && p->telemetry_event_s != 0) {
        event_frames(slow, s, trace, sink);
    }
    if (s->rest_ms >= (uint32_t)p->soc_rest_ms &&
        (!t->have_snapshot || now_s - t->snapshot_s >= (uint64_t)p->telemetry_snapshot_s)) {
        t->have_snapshot = 1;
        t->snapshot_s = now_s;
        snapshot_frame(slow, p, s, sink);
    }
    slow->result.telemetry_sequence = t->sequence;
}
