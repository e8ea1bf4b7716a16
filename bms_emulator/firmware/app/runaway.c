/* L1: thermal runaway, found and answered within the tick.
 *
 * GB 38031-2025 C.5.3.7 calls it a runaway when (a) a cell has lost more than 25 % of its voltage or (b) a sensor has
 * reached the maker's maximum, and (c) a sensor rises by 1 K/s for 3 s. The slope is a least-squares fit over the
 * samples of the last second (three at least); having been fitted over a second it needs only the rest of the three
 * in its counter. A counter goes down as it went up, so that noise around the rate does not start it anew, stands
 * still while its sensor is silent, and is zero once the sensor falls as fast: what runs away does not, what is loose
 * does. Voltage is compared with the cell's own slow average and with its peers,
 * which a load moves alike. A pulse of pressure or gas corroborates where a sensor is stuck or gone.
 *
 * The early rule compares the slope over ten seconds with the median of all sensors: what heats one cell only is no
 * load and no weather.
 */
#include "parts.h"

#define SEES(name) MASK(RUNAWAY_BIT_##name)

/* Any row that is seen completely is a runaway. */
static const uint8_t rules[] = {
    SEES(CONFIRMED) | SEES(HOT),
    SEES(CONFIRMED) | SEES(COLLAPSED),
    SEES(CONFIRMED) | SEES(VENT),
    SEES(VENT) | SEES(HOT) | SEES(STEEP),
    SEES(VENT) | SEES(COLLAPSED) | SEES(STEEP),
    SEES(VENT) | SEES(HOT) | SEES(COLLAPSED),
};

enum { FAST_MS = 100, FAST_WINDOW_MS = 1000, SLOW_MS = 1000, SLOW_WINDOW_MS = 10000 };
enum { PRESSURE_WINDOW_MS = 2000, BASE_MS = 1000, BASE_TIME_MS = 64000, SAMPLES_MIN = 3 };

#ifdef BMS_FLAW_BLIND_L1
/* The flaw of that release: tenths of a degree taken for degrees, so only ten times the rate is seen. */
enum { MK_PER_S = 10000 };
#else
enum { MK_PER_S = 100000 }; /* 0.1 K per ms */
#endif

/* Weights of a least-squares slope over the newest entries of a ring; slope = sum(weight * value) / scale. */
typedef struct {
    int64_t scale;
    int32_t weight[BMS_SLOPE_FAST];
    uint32_t at[BMS_SLOPE_FAST];
    uint32_t n;
    uint32_t span_ms;
} fit_t;
_Static_assert(BMS_SLOPE_FAST >= BMS_SLOPE_SLOW, "a fit holds either ring");

static fit_t fit_over(const uint32_t *taken_ms, uint32_t size, uint32_t n, uint32_t newest, uint32_t window_ms) {
    fit_t fit = {0};
    int64_t sum = 0, squares = 0;
    int32_t x[BMS_SLOPE_FAST] = {0};
    for (uint32_t k = 0; k < n; ++k) {
        const uint32_t at = (newest + size - k) % size;
        const uint32_t age_ms = taken_ms[newest] - taken_ms[at];
        if ((age_ms > window_ms && fit.n >= SAMPLES_MIN) || age_ms > BMS_TICK_MS_MAX * 2u) {
            break;
        }
        x[fit.n] = -(int32_t)age_ms;
        fit.at[fit.n] = at;
        fit.span_ms = age_ms;
        sum += x[fit.n];
        squares += (int64_t)x[fit.n] * x[fit.n];
        ++fit.n;
    }
    for (uint32_t k = 0; k < fit.n; ++k) {
        fit.weight[k] = (int32_t)((int64_t)fit.n * x[k] - sum);
    }
    fit.scale = (int64_t)fit.n * squares - sum * sum;
    if (fit.n < SAMPLES_MIN || fit.scale <= 0) {
        fit.n = 0;
    }
    return fit;
}

/* Slope times scale; 0 and *known = 0 when an entry is missing. */
static int64_t slope_of(const fit_t *fit, const int16_t (*ring)[BMS_MAX_TEMPS], uint32_t sensor, uint32_t *known) {
    int64_t slope = 0;
    int32_t narrow = 0; /* 11 weights of at most 11 * 500, or 3 of 3 * 1000, and values of 16 bits */
    const uint32_t fits = fit->span_ms <= 2u * FAST_WINDOW_MS;
    *known = 1;
    for (uint32_t k = 0; k < fit->n; ++k) {
        const int32_t value = ring[fit->at[k]][sensor];
        if (value == BMS_TEMPERATURE_INVALID) {
            *known = 0;
            return 0;
        }
        if (fits) {
            narrow += fit->weight[k] * value;
        } else {
            slope += (int64_t)fit->weight[k] * value;
        }
    }
    return fits ? narrow : slope;
}

static int16_t usable(const bms_params_t *p, int32_t ddegC) {
    const uint32_t good = ddegC >= p->temperature_plausible_min_ddegC && ddegC <= p->temperature_plausible_max_ddegC;
    return (int16_t)(good ? ddegC : BMS_TEMPERATURE_INVALID);
}

static void take(const bms_ctx_t *ctx, int16_t *row) {
    for (uint32_t i = 0; i < (uint32_t)ctx->params.n_temps; ++i) {
        row[i] = usable(&ctx->params, ctx->frame.cell_temperature_ddegC[i]);
    }
}

static void fast_slopes(bms_ctx_t *ctx, bms_runaway_t *r) {
    const fit_t fit = fit_over(r->fast_ms, BMS_SLOPE_FAST, r->fast_n, r->fast_at, FAST_WINDOW_MS);
    r->steep = 0;
    r->falling = 0;
    r->valid = 0;
    r->rate_max_mK_per_s = 0;
    r->span_ms = fit.span_ms;
    if (fit.n == 0) {
        return;
    }
    int64_t steepest = 0;
    for (uint32_t i = 0; i < (uint32_t)ctx->params.n_temps; ++i) {
        uint32_t known = 0;
        const int64_t slope = slope_of(&fit, (const int16_t(*)[BMS_MAX_TEMPS])r->fast_ddegC, i, &known);
        steepest = slope > steepest ? slope : steepest;
        r->valid |= (uint64_t)known << i;
        const int64_t wanted = ctx->params.runaway_rate_mK_per_s * fit.scale;
        r->steep |= (uint64_t)(known && slope * MK_PER_S >= wanted) << i;
        r->falling |= (uint64_t)(known && slope * MK_PER_S <= -wanted) << i;
    }
    const int64_t rate = steepest * MK_PER_S / fit.scale;
    r->rate_max_mK_per_s = rate > INT32_MAX ? INT32_MAX : (int32_t)rate;
}

/* Middle of n values, which are sorted on the way. */
static int32_t median(int32_t *values, uint32_t n) {
    for (uint32_t i = 1; i < n; ++i) {
        const int32_t value = values[i];
        uint32_t k = i;
        for (; k > 0 && values[k - 1] > value; --k) {
            values[k] = values[k - 1];
        }
        values[k] = value;
    }
    return values[n / 2];
}

static void early_slopes(bms_ctx_t *ctx, bms_runaway_t *r) {
    const bms_params_t *p = &ctx->params;
    const fit_t fit = fit_over(r->slow_ms, BMS_SLOPE_SLOW, r->slow_n, r->slow_at, SLOW_WINDOW_MS);
    r->early = 0;
    if (fit.n == 0 || fit.span_ms < SLOW_WINDOW_MS / 2) {
        return;
    }
    int32_t rate[BMS_MAX_TEMPS], sorted[BMS_MAX_TEMPS], warm[BMS_MAX_TEMPS];
    uint64_t known_mask = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        uint32_t known = 0;
        const int64_t slope = slope_of(&fit, (const int16_t(*)[BMS_MAX_TEMPS])r->slow_ddegC, i, &known);
        rate[i] = (int32_t)(slope * MK_PER_S / fit.scale);
        if (known) {
            known_mask |= BIT64(i);
            sorted[n] = rate[i];
            warm[n] = r->slow_ddegC[r->slow_at][i];
            ++n;
        }
    }
    if (n < 3) {
        return; /* no peers: one sensor alone cannot be told from the weather */
    }
    const int32_t usual = median(sorted, n);
    const int32_t typical = median(warm, n);
    for (uint32_t i = 0; i < (uint32_t)p->n_temps; ++i) {
        const uint32_t leaves = rate[i] - usual >= p->early_rate_mK_per_s &&
                                r->slow_ddegC[r->slow_at][i] - typical >= p->early_rise_ddegC;
        r->early |= (uint64_t)((known_mask >> i & 1) && leaves) << i;
    }
}

/* A cell that fell away from its own past and from its peers, or whose wire went silent. */
static void voltages(bms_ctx_t *ctx, bms_runaway_t *r, uint32_t now_ms) {
    const bms_params_t *p = &ctx->params;
    const bms_measured_t *m = &ctx->measured;
    const uint32_t n = (uint32_t)p->n_groups;
    const uint32_t low = (uint32_t)p->cell_plausible_min_100uV;
    const uint32_t high = (uint32_t)p->cell_plausible_max_100uV;
    const uint16_t *restrict v = ctx->frame.cell_voltage_100uV;
    uint16_t *restrict base = r->base_100uV;
    if (!r->have_base) {
        if (m->cells_valid != n) {
            return; /* nothing to compare with before all cells were seen once */
        }
        for (uint32_t i = 0; i < n; ++i) {
            base[i] = v[i];
        }
        r->base_mean_100uV = m->peers_100uV;
        r->base_ms = now_ms;
        r->have_base = 1;
    }
    /* With fewer than three cells there are no peers, and a cell has only its own past. */
    const uint32_t peers = n > 2 && m->cells_valid > 2 && r->base_mean_100uV != 0;
    const uint32_t ratio_q16 = peers ? (uint32_t)m->peers_100uV * 65536u / r->base_mean_100uV : 65535u;
    const uint32_t capped_q16 = ratio_q16 > 65535u ? 65535u : ratio_q16;
    const uint16_t gone_q16 = (uint16_t)(capped_q16 * (1000u - (uint32_t)p->runaway_collapse_permille) / 1000u);
    /* In 16 bits: eight channels fit one step of a vector unit. */
    const uint16_t low16 = (uint16_t)low, high16 = (uint16_t)high;
    uint16_t collapsed = 0;
    for (uint32_t i = 0; i < n; ++i) {
        const uint16_t least = (uint16_t)((uint32_t)base[i] * gone_q16 >> 16);
        collapsed |= (uint16_t)((v[i] < low16) | (v[i] > high16) | (v[i] < least));
    }
    r->collapsed = (uint8_t)(collapsed & 1u);

    const uint32_t dt_ms = now_ms - r->base_ms;
    if (dt_ms < BASE_MS) {
        return;
    }
    r->base_ms = now_ms;
    /* In parts per thousand. What has fallen away is followed sixteen times slower: a collapse stays visible for
     * minutes, a wrong base does not stay for good. */
    const int32_t share = dt_ms > BASE_TIME_MS ? 1000 : (int32_t)dt_ms * 1000 / BASE_TIME_MS;
    const uint32_t suspect_q16 = capped_q16 * 9u / 10u;
    for (uint32_t i = 0; i < n; ++i) {
        const uint32_t good = (v[i] >= low) & (v[i] <= high);
        const int32_t slowness = v[i] >= (base[i] * suspect_q16 >> 16) ? 1000 : 16000;
        const int32_t way = (int32_t)v[i] - base[i];
        base[i] = (uint16_t)(base[i] + (good ? way * share / slowness : 0));
    }
    if (m->cells_valid != 0) {
        const int32_t way = (int32_t)m->peers_100uV - (int32_t)r->base_mean_100uV;
        r->base_mean_100uV = (uint32_t)((int32_t)r->base_mean_100uV + way * share / 1000);
    }
}

static uint32_t rose(uint32_t now, uint32_t before, int32_t by) {
    return now != BMS_SENSOR_INVALID && before != BMS_SENSOR_INVALID && now >= before + (uint32_t)by;
}

static void pulses(bms_ctx_t *ctx, bms_runaway_t *r, uint32_t now_ms) {
    const bms_params_t *p = &ctx->params;
    const uint32_t pressure = ctx->frame.pressure_daPa, gas = ctx->frame.gas_ppm;
    for (uint32_t k = 0; k < r->pulse_n; ++k) {
        const uint32_t recent = now_ms - r->pulse_ms[k] <= PRESSURE_WINDOW_MS;
        if ((recent && rose(pressure, r->pressure_daPa[k], p->vent_pressure_daPa)) ||
            rose(gas, r->gas_ppm[k], p->vent_gas_ppm)) {
            r->vent_ms = (uint32_t)p->vent_memory_ms;
        }
    }
    if (r->pulse_n != 0 && now_ms - r->pulse_ms[r->pulse_at] < BASE_MS) {
        return;
    }
    r->pulse_at = (uint8_t)(r->pulse_n == 0 ? 0 : (r->pulse_at + 1u) % BMS_PULSE_RING);
    r->pulse_n = (uint8_t)(r->pulse_n < BMS_PULSE_RING ? r->pulse_n + 1 : r->pulse_n);
    r->pulse_ms[r->pulse_at] = now_ms;
    r->pressure_daPa[r->pulse_at] = (uint16_t)pressure;
    r->gas_ppm[r->pulse_at] = (uint16_t)gas;
}

void bms_runaway_sample(bms_ctx_t *ctx) {
    bms_runaway_t *r = &ctx->runaway;
    const bms_measured_t *m = &ctx->measured;
    const uint32_t now_ms = (uint32_t)ctx->uptime_ms;
    r->hot = (m->signal_valid & MASK(SIGNAL_CELL_T_MAX)) &&
             m->signal[SIGNAL_CELL_T_MAX] >= ctx->params.runaway_t_max_ddegC;
    voltages(ctx, r, now_ms);
    pulses(ctx, r, now_ms);
    const uint32_t fast = r->fast_n == 0 || now_ms - r->fast_ms[r->fast_at] >= FAST_MS;
    if (fast) {
        r->fast_at = (uint8_t)(r->fast_n == 0 ? 0 : (r->fast_at + 1u) % BMS_SLOPE_FAST);
        r->fast_n = (uint8_t)(r->fast_n < BMS_SLOPE_FAST ? r->fast_n + 1 : r->fast_n);
        r->fast_ms[r->fast_at] = now_ms;
        take(ctx, r->fast_ddegC[r->fast_at]);
        fast_slopes(ctx, r);
    }
    /* Not in the same tick as the fast one where samples come so often that the next will do: the longest tick counts. */
    const uint32_t here = !fast || ctx->frame.sample_period_ticks > FAST_MS / BMS_TICK_MS / 2;
    if (ctx->params.early_rate_mK_per_s != 0 && here &&
        (r->slow_n == 0 || now_ms - r->slow_ms[r->slow_at] >= SLOW_MS)) {
        r->slow_at = (uint8_t)(r->slow_n == 0 ? 0 : (r->slow_at + 1u) % BMS_SLOPE_SLOW);
        r->slow_n = (uint8_t)(r->slow_n < BMS_SLOPE_SLOW ? r->slow_n + 1 : r->slow_n);
        r->slow_ms[r->slow_at] = now_ms;
        take(ctx, r->slow_ddegC[r->slow_at]);
        early_slopes(ctx, r);
    }
}

/* Counts up where the bit is set and down where not, both bounded; returns 1 when one has reached `enough`. */
static uint32_t count(uint16_t *counter_ms, uint64_t up, uint64_t frozen, uint64_t zero, uint32_t n, uint32_t enough,
                      uint32_t tick_ms, uint32_t *running) {
    uint32_t reached = 0;
    for (uint32_t i = 0; i < n; ++i) {
        uint32_t value = counter_ms[i];
        if (up >> i & 1) {
            value = value + tick_ms > 60000u ? 60000u : value + tick_ms;
        } else if (zero >> i & 1) {
            value = 0;
        } else if ((frozen >> i & 1) == 0) {
            value = value > tick_ms ? value - tick_ms : 0;
        }
        /* Not above what is needed: the way down is as long as the way up. */
        value = value > enough ? enough : value;
        reached |= (up >> i & 1) && value >= enough;
        *running |= value != 0;
        counter_ms[i] = (uint16_t)value;
    }
    return reached;
}

void bms_runaway_tick(bms_ctx_t *ctx, uint32_t tick_ms) {
    bms_runaway_t *r = &ctx->runaway;
    const bms_params_t *p = &ctx->params;
    uint32_t confirmed = 0, early = 0;
    r->vent_ms = r->vent_ms > tick_ms ? r->vent_ms - tick_ms : 0;
    if (r->steep != 0 || r->early != 0 || r->running) {
        const uint32_t hold_ms = (uint32_t)p->runaway_hold_ms;
        const uint32_t enough_ms = hold_ms > r->span_ms ? hold_ms - r->span_ms : 0;
        const uint32_t n = (uint32_t)p->n_temps;
        uint32_t running = 0;
        confirmed = count(r->steep_ms, r->steep, ~r->valid, r->falling, n, enough_ms, tick_ms, &running);
        early = count(r->early_ms, r->early, 0, 0, n, (uint32_t)p->early_hold_ms, tick_ms, &running);
        r->running = (uint8_t)running;
    }
    r->flags = (uint8_t)((r->hot ? SEES(HOT) : 0) | (r->collapsed ? SEES(COLLAPSED) : 0) |
                         (r->steep ? SEES(STEEP) : 0) | (confirmed ? SEES(CONFIRMED) : 0) |
                         (r->vent_ms ? SEES(VENT) : 0) | (early ? SEES(EARLY) : 0));
}

uint64_t bms_runaway_conditions(const bms_ctx_t *ctx) {
    const uint32_t seen = ctx->runaway.flags;
    uint64_t nok = 0;
    for (uint32_t i = 0; i < sizeof rules; ++i) {
        nok |= (seen & rules[i]) == rules[i] ? BIT64(DIAG_RUNAWAY) : 0;
    }
    nok |= seen & SEES(EARLY) ? BIT64(DIAG_RUNAWAY_EARLY) : 0;
    nok |= seen & SEES(VENT) ? BIT64(DIAG_VENT_PULSE) : 0;
    return nok;
}
