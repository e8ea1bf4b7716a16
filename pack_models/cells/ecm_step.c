/* The step of the equivalent-circuit bank: all cells of all packs in one call. Equations and conventions
 * stand in ecm_step.py, the tables in tables.py; the order of every enumeration here is mirrored there.
 *
 * A pack is worked through in blocks of whole groups, small enough that their scratch stays in the first
 * cache. Each pass over a block is a plain loop over cells without a branch, which the compiler turns
 * into vector instructions. Additions over cells have a fixed order (PARTS partial sums, then pairs), and
 * nothing may be contracted or reordered by the compiler (-ffp-contract=off, no fast math): the same
 * input gives the same bits on any processor.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))
#define R restrict

enum { MARGIN_POINTS = 200, POINTS_PER_SOC = 1000, SOC_PIECES = 50, T_POINTS = 21 };
static const double LAST_PIECE = 1399.0;
static const double T_FIRST_K = 243.15, T_STEP_K = 5.0;
static const double SOC_INSIDE = 50.0 - 1e-9, KELVIN_INSIDE = 20.0 - 1e-9;
static const double TOLERANCE_V = 1e-10;
enum { NEWTON_LIMIT = 25, PARTS = 8, BLOCK = 128 };

/* Scratch of a block: column after column. The stride is no power of two, which would map all columns
 * to the same cache lines. */
enum { STRIDE = 520 };
enum { R_ALL, R1, R2, DECAY1, DECAY2, MEAN1, MEAN2, DRIFT, ABOVE, FREE, R_END, AMPS, EMF, COND,
       HALF_GAP, OPEN_V, OWN_V, ENTROPIC, HEAT, REVERSIBLE, MOVED, TERMINAL, LINK, WEIGHT, COLUMNS };
typedef double Four __attribute__((vector_size(32), aligned(8), may_alias));
#define FOUR(p) (*(const Four *)(p))
#define W(column, j) w[(column) * STRIDE + (j)]

enum { E_TERMINAL, E_HEAT, E_ENTROPIC, E_SHORT, E_BALANCING, E_BUSBAR, E_THROUGHPUT, C_TERMINAL, C_SHORT,
       C_BALANCING, C_THROUGHPUT, LEDGER_COLUMNS };
enum { SOC_LOW, SOC_HIGH, COLD, HOT };

typedef struct {
    const double *curve;  /* (layers, points, 4): open circuit, entropic, and their integrals */
    const double *gap;    /* (points): half the distance of the branches */
    const double *ohm;    /* (layers, n_soc, n_temperature, 4) */
    const double *decay;  /* (n_temperature, 4) */
    double dt_s, reference_K, hysteresis_rate, valid_low_K, valid_high_K;
    int64_t has_entropy, layers;
} Tables;

typedef struct {
    const int64_t *pack_group_start, *group_cell_start;
    const double *busbar_ohm, *balancing_S;
    int64_t n_packs;
} Wires;

typedef struct {
    double *soc, *v1_V, *v2_V, *hysteresis, *current_A, *heat_W;
    const double *per_charge, *resistance_factor, *wear, *short_S, *link_ohm;
    const uint8_t *special; /* (n_packs) some cell has a short or a link resistance */
} Cells;

typedef struct {
    double *group_voltage_V, *pack_voltage_V, *pack_power_W, *ledger;
    int64_t *outside;
} Packs;

/* exp(-x) for x >= 0: a Taylor polynomial of x/64, squared six times; below 1e-15 for x < 4 and below 1e-9
 * of one anywhere. No library function: vectorisable, and the same bits on every machine. */
INLINE double decay_of(double x) {
    double y = x < 40.0 ? x * (1.0 / 64.0) : 0.625;
    double e = 1.0 + y * (1.0 + y * (1.0 / 2 + y * (1.0 / 6 + y * (1.0 / 24 + y * (1.0 / 120 +
               y * (1.0 / 720 + y * (1.0 / 5040 + y * (1.0 / 40320))))))));
    e = e * e; e = e * e; e = e * e; e = e * e; e = e * e; e = e * e;
    return 1.0 / e;
}

INLINE double inside(double x, double high) {
    x = x > 0.0 ? x : 0.0;
    return x < high ? x : high;
}

static double lane_sum(int64_t n, const double *x) {
    double part[PARTS] = {0.0};
    int64_t j = 0;
    for (; j + PARTS <= n; j += PARTS)
        for (int l = 0; l < PARTS; ++l) part[l] += x[j + l];
    for (int l = 0; j < n; ++j, ++l) part[l] += x[j];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

/* Coefficients of n cells for a step, at their temperature and at the middle of the charge they pass: under
 * share_A, or each under its own AMPS. */
INLINE void prepare_body(int64_t n, int own, double share_A, double dt_s, double reference_K, int layers,
                         const double *R soc, const double *R v1, const double *R v2,
                         const double *R per_charge, const double *R factor, const double *R wear,
                         const double *R kelvin, const double *R ohm, const double *R decay, double *R w) {
    int32_t rows[STRIDE], columns[STRIDE];
    double x_of[STRIDE], y_of[STRIDE];
    Four ohms[STRIDE], decays[STRIDE];
    for (int64_t j = 0; j < n; ++j) {
        const double drift = dt_s * per_charge[j];
        const double middle = soc[j] - 0.5 * drift * (own ? W(AMPS, j) : share_A);
        const double x = inside(middle * SOC_PIECES, SOC_INSIDE);
        const double y = inside((kelvin[j] - T_FIRST_K) * (1.0 / T_STEP_K), KELVIN_INSIDE);
        const int32_t i = (int32_t)x, k = (int32_t)y;
        rows[j] = (i * T_POINTS + k) * 4;
        columns[j] = k * 4;
        x_of[j] = x - i;
        y_of[j] = y - k;
        W(DRIFT, j) = drift;
        W(ABOVE, j) = kelvin[j] - reference_K;
    }
    /* Four neighbours in the table are one vector: cheaper to interpolate cell by cell than column by column. */
    for (int64_t j = 0; j < n; ++j) {
        const double x = x_of[j], y = y_of[j], w11 = x * y, w10 = x - w11, w01 = y - w11, w00 = 1.0 - x - w01;
        enum { UP = 4, NEXT = 4 * T_POINTS, LAYER = 4 * T_POINTS * (SOC_PIECES + 1) };
        const double *at = ohm + rows[j], *fade = decay + columns[j];
        double z = 0.0;
        if (layers > 1) {
            z = inside(wear[j] * (layers - 1), layers - 1 - 1e-9);
            const int32_t l = (int32_t)z;
            z -= l;
            at += l * LAYER;
        }
        Four r = w00 * FOUR(at) + w01 * FOUR(at + UP) + w10 * FOUR(at + NEXT) + w11 * FOUR(at + NEXT + UP);
        if (layers > 1) {
            at += LAYER;
            r = (1.0 - z) * r + z * (w00 * FOUR(at) + w01 * FOUR(at + UP) + w10 * FOUR(at + NEXT) +
                                     w11 * FOUR(at + NEXT + UP));
        }
        ohms[j] = r;
        decays[j] = FOUR(fade) + y * (FOUR(fade + 4) - FOUR(fade));
    }
    const double *R o = (const double *)ohms, *R d = (const double *)decays;
    for (int64_t j = 0; j < n; ++j) {
        const double r_all = o[4 * j] * factor[j], r1 = o[4 * j + 1] * factor[j], r2 = o[4 * j + 2] * factor[j];
        const double a1 = d[4 * j], a2 = d[4 * j + 1];
        W(R_ALL, j) = r_all;
        W(R1, j) = r1;
        W(R2, j) = r2;
        W(DECAY1, j) = a1;
        W(DECAY2, j) = a2;
        W(MEAN1, j) = d[4 * j + 2];
        W(MEAN2, j) = d[4 * j + 3];
        W(R_END, j) = r_all - r1 * a1 - r2 * a2;
        W(FREE, j) = a1 * v1[j] + a2 * v2[j];
    }
}

static NOINLINE void prepare_plain(int64_t n, double share_A, double dt_s, double reference_K,
                                   const double *R soc, const double *R v1, const double *R v2,
                                   const double *R per_charge, const double *R factor,
                                   const double *R kelvin, const double *R ohm, const double *R decay,
                                   double *R w) {
    prepare_body(n, 0, share_A, dt_s, reference_K, 1, soc, v1, v2, per_charge, factor, soc, kelvin, ohm, decay, w);
}

static NOINLINE void prepare_layers(int64_t n, double share_A, double dt_s, double reference_K, int layers,
                                    const double *R soc, const double *R v1, const double *R v2,
                                    const double *R per_charge, const double *R factor, const double *R wear,
                                    const double *R kelvin, const double *R ohm, const double *R decay,
                                    double *R w) {
    prepare_body(n, 0, share_A, dt_s, reference_K, layers, soc, v1, v2, per_charge, factor, wear, kelvin, ohm,
                 decay, w);
}

static NOINLINE void prepare_gap(int64_t n, double share_A, const double *R soc, const double *R gap, double *R w) {
    for (int64_t j = 0; j < n; ++j) {
        const double place = (soc[j] - 0.5 * W(DRIFT, j) * share_A) * POINTS_PER_SOC + MARGIN_POINTS;
        W(HALF_GAP, j) = gap[(int32_t)inside(place, LAST_PIECE)];
    }
}

static void prepare(const Tables *t, const Cells *c, const double *kelvin, int64_t first, int64_t n,
                    double share_A, double *w) {
    if (t->layers > 1)
        prepare_layers(n, share_A, t->dt_s, t->reference_K, (int)t->layers, c->soc + first, c->v1_V + first,
                       c->v2_V + first, c->per_charge + first, c->resistance_factor + first, c->wear + first,
                       kelvin + first, t->ohm, t->decay, w);
    else
        prepare_plain(n, share_A, t->dt_s, t->reference_K, c->soc + first, c->v1_V + first, c->v2_V + first,
                      c->per_charge + first, c->resistance_factor + first, kelvin + first, t->ohm, t->decay, w);
    if (t->hysteresis_rate != 0.0) prepare_gap(n, share_A, c->soc + first, t->gap, w);
}

/* Values of the curves at a place counted in table points: columns 0..3 at a piece, blended over layers. */
enum { LAYER_POINTS = POINTS_PER_SOC + 2 * MARGIN_POINTS + 1 };

/* Tangent V = e - I / g of each prepared cell at the current in AMPS, at the end of the step. */
INLINE void tangent_body(int64_t n, int entropy, int layers, double rate, const double *R soc,
                         const double *R hysteresis, const double *R wear, const double *R curve,
                         double *R w) {
    for (int64_t j = 0; j < n; ++j) {
        const double amps = W(AMPS, j), drift = W(DRIFT, j), r_end = W(R_END, j);
        const double place = (soc[j] - amps * drift) * POINTS_PER_SOC + MARGIN_POINTS;
        const int32_t k = (int32_t)inside(place, LAST_PIECE);
        const double x = place - k;
        int32_t at = k * 4;
        double low = curve[at], rise = curve[at + 4] - low;
        if (layers > 1) {
            double z = inside(wear[j] * (layers - 1), layers - 1 - 1e-9);
            const int32_t l = (int32_t)z;
            z -= l;
            const double *R one = curve;
            at += l * (4 * LAYER_POINTS);
            const double low_a = one[at], rise_a = one[at + 4] - low_a;
            const double low_b = one[at + 4 * LAYER_POINTS], rise_b = one[at + 4 * LAYER_POINTS + 4] - low_b;
            low = low_a + z * (low_b - low_a);
            rise = rise_a + z * (rise_b - rise_a);
        }
        double volts = low + x * rise;
        if (entropy) {
            const double e0 = curve[k * 4 + 1], more = curve[k * 4 + 5] - e0, above = W(ABOVE, j);
            volts += above * (e0 + x * more);
            rise += above * more;
        }
        double slope = r_end + rise * POINTS_PER_SOC * drift;
        volts -= W(FREE, j) + r_end * amps;
        if (rate != 0.0) {
            const double sign = amps >= 0.0 ? 1.0 : -1.0;
            const double per_A = rate * drift;
            const double left = (hysteresis[j] + sign) * decay_of(per_A * fabs(amps));
            volts += W(HALF_GAP, j) * (left - sign);
            slope += W(HALF_GAP, j) * left * sign * per_A;
        }
        /* A plateau with a strong entropic slope could make this vanish; a floor only slows Newton there. */
        const double floor_ohm = 0.1 * r_end;
        slope = slope > floor_ohm ? slope : floor_ohm;
        W(EMF, j) = volts + slope * amps;
        W(COND, j) = 1.0 / slope;
        W(WEIGHT, j) = slope;
        W(OWN_V, j) = volts;
    }
}

#define TANGENT(name, entropy, layered, hysteretic) \
    static NOINLINE void name(int64_t n, int layers, double rate, const double *R soc, const double *R h, \
                              const double *R wear, const double *R curve, double *R w) { \
        tangent_body(n, entropy, (layered) ? layers : 1, (hysteretic) ? rate : 0.0, soc, h, wear, curve, w); \
    }
TANGENT(tangent_000, 0, 0, 0)
TANGENT(tangent_001, 0, 0, 1)
TANGENT(tangent_100, 1, 0, 0)
TANGENT(tangent_101, 1, 0, 1)
TANGENT(tangent_010, 0, 1, 0)
TANGENT(tangent_011, 0, 1, 1)
TANGENT(tangent_110, 1, 1, 0)
TANGENT(tangent_111, 1, 1, 1)

static void tangent(const Tables *t, const Cells *c, int64_t first, int64_t n, double *w) {
    typedef void Pass(int64_t, int, double, const double *, const double *, const double *, const double *,
                      double *);
    static Pass *const passes[8] = {tangent_000, tangent_001, tangent_010, tangent_011,
                                    tangent_100, tangent_101, tangent_110, tangent_111};
    const int which = (t->has_entropy ? 4 : 0) + (t->layers > 1 ? 2 : 0) + (t->hysteresis_rate != 0.0 ? 1 : 0);
    passes[which](n, (int)t->layers, t->hysteresis_rate, c->soc + first, c->hysteresis + first,
                  c->wear + first, t->curve, w);
}

/* Whether the currents in AMPS, found from a tangent at `before`, stayed on its piece: then it is exact. */
static NOINLINE int64_t strayed(int64_t n, const double *R soc, const double *R before, const double *R w) {
    int64_t count = 0;
    for (int64_t j = 0; j < n; ++j) {
        const double a = (soc[j] - before[j] * W(DRIFT, j)) * POINTS_PER_SOC + MARGIN_POINTS;
        const double b = (soc[j] - W(AMPS, j) * W(DRIFT, j)) * POINTS_PER_SOC + MARGIN_POINTS;
        count += (int32_t)inside(a, LAST_PIECE) != (int32_t)inside(b, LAST_PIECE);
    }
    return count;
}

/* ---- groups ------------------------------------------------------------------------------------------ */

/* A prepared cell behind its link: voltage e and conductance g towards the group, its short included. */
INLINE void seen_from_group(const Cells *c, int64_t cell, double emf, double cond, double *e, double *g) {
    const double both = cond + c->short_S[cell];
    *e = emf * cond / both;
    *g = 1.0 / (1.0 / both + c->link_ohm[cell]);
}

/* Currents of one prepared group by Newton, with shorts, links and a shunt; the group's voltage.
 * Kirchhoff's law holds to rounding in every round; `settled` says whether the voltages agree too. */
static double newton_group(const Tables *t, const Cells *c, int64_t first, int64_t n, double shunt_S,
                           double current_A, double *w, int *settled) {
    double group_V = 0.0;
    *settled = 0;
    for (int round = 0; round <= NEWTON_LIMIT; ++round) {
        tangent(t, c, first, n, w);
        double mismatch = 0.0, sum_e = -current_A, sum_g = shunt_S;
        for (int64_t j = 0; j < n; ++j) {
            double e, g;
            if (round > 0) {
                const double off = fabs(W(OWN_V, j) - W(TERMINAL, j));
                mismatch = off > mismatch ? off : mismatch;
            }
            seen_from_group(c, first + j, W(EMF, j), W(COND, j), &e, &g);
            W(WEIGHT, j) = g;
            sum_e += e * g;
            sum_g += g;
        }
        group_V = sum_e / sum_g;
        for (int64_t j = 0; j < n; ++j) {
            double e, g;
            seen_from_group(c, first + j, W(EMF, j), W(COND, j), &e, &g);
            const double link = g * (e - group_V);
            W(LINK, j) = link;
            W(TERMINAL, j) = e - link / (W(COND, j) + c->short_S[first + j]);
            W(AMPS, j) = link + W(TERMINAL, j) * c->short_S[first + j];
        }
        if (round > 0 && mismatch <= TOLERANCE_V) {
            *settled = 1;
            break;
        }
    }
    return group_V;
}

/* Slow, safe currents of a group for when Newton walks in circles: nested bisection, since every voltage
 * falls with its current. */
static double one_voltage(const Tables *t, const Cells *c, int64_t first, int64_t j, double amps, double *w) {
    W(AMPS, j) = amps;
    tangent(t, c, first + j, 1, w + j);
    return W(OWN_V, j);
}

static void current_at(const Tables *t, const Cells *c, int64_t first, int64_t j, double group_V, double *w) {
    const double S = c->short_S[first + j], L = c->link_ohm[first + j];
    double low = -1.0, high = 1.0;
#define EXCESS(amps) (one_voltage(t, c, first, j, amps, w) * (1.0 + L * S) - L * (amps)-group_V)
    while (EXCESS(high) > 0.0 && high < 1e12) high *= 4.0;
    while (EXCESS(low) < 0.0 && low > -1e12) low *= 4.0;
    for (int k = 0; k < 200; ++k) {
        const double middle = 0.5 * (low + high);
        if (middle <= low || middle >= high) break;
        if (EXCESS(middle) > 0.0) low = middle;
        else high = middle;
    }
#undef EXCESS
    W(TERMINAL, j) = one_voltage(t, c, first, j, 0.5 * (low + high), w);
    W(LINK, j) = W(AMPS, j) - W(TERMINAL, j) * S;
}

static void bisect_group(const Tables *t, const Cells *c, int64_t first, int64_t n, double shunt_S,
                         double current_A, double *w) {
    double low = -1e3, high = 1e3;
    for (int k = 0; k < 200; ++k) {
        const double middle = 0.5 * (low + high);
        if (middle <= low || middle >= high) break;
        double total = -current_A - shunt_S * middle;
        for (int64_t j = 0; j < n; ++j) {
            current_at(t, c, first, j, middle, w);
            total += W(LINK, j);
        }
        if (total > 0.0) low = middle;
        else high = middle;
    }
}

static double settle_group(const Tables *t, const Cells *c, int64_t first, int64_t n, double shunt_S,
                           double current_A, double *w) {
    int settled;
    double group_V = newton_group(t, c, first, n, shunt_S, current_A, w, &settled);
    if (settled) return group_V;
    bisect_group(t, c, first, n, shunt_S, current_A, w);
    /* One linear round around the bracketed solution restores Kirchhoff's law to rounding. */
    tangent(t, c, first, n, w);
    double sum_e = -current_A, sum_g = shunt_S, e, g;
    for (int64_t j = 0; j < n; ++j) {
        seen_from_group(c, first + j, W(EMF, j), W(COND, j), &e, &g);
        sum_e += e * g;
        sum_g += g;
    }
    group_V = sum_e / sum_g;
    for (int64_t j = 0; j < n; ++j) {
        seen_from_group(c, first + j, W(EMF, j), W(COND, j), &e, &g);
        const double link = g * (e - group_V);
        W(LINK, j) = link;
        W(WEIGHT, j) = g;
        W(TERMINAL, j) = e - link / (W(COND, j) + c->short_S[first + j]);
        W(AMPS, j) = link + W(TERMINAL, j) * c->short_S[first + j];
    }
    return group_V;
}

/* One round of all groups of a block whose cells have neither shorts nor links; largest disagreement of
 * the cells with the voltages found in the round before. */
static NOINLINE double share_round(int64_t groups, int64_t J, double current_A, const double *R bleed_S,
                                   double *R group_V, double *R w) {
    double mismatch = 0.0;
    for (int64_t g = 0; g < groups; ++g) {
        double sum_e = -current_A, sum_g = bleed_S[g];
        const double before = group_V[g];
        for (int64_t j = g * J; j < (g + 1) * J; ++j) {
            const double off = fabs(W(OWN_V, j) - before);
            mismatch = off > mismatch ? off : mismatch;
            sum_e += W(EMF, j) * W(COND, j);
            sum_g += W(COND, j);
        }
        const double volts = sum_e / sum_g;
        group_V[g] = volts;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) W(AMPS, j) = (W(EMF, j) - volts) * W(COND, j);
    }
    return mismatch;
}

/* Currents of all cells of a block without shorts and links, AMPS holding a first guess; voltages of the
 * groups. A tangent is exact while no cell leaves the straight piece it was taken on. */
static void share_block(const Tables *t, const Cells *c, int64_t first, int64_t groups, int64_t J,
                        double current_A, const double *bleed_S, double *group_V, double *w) {
    const int64_t n = groups * J;
    double before[STRIDE];
    if (J == 1) {
        int64_t bled = 0;
        for (int64_t g = 0; g < groups; ++g) {
            W(AMPS, g) = current_A;
            bled += bleed_S[g] > 0.0;
        }
        if (!bled) {
            tangent(t, c, first, n, w);
            memcpy(group_V, &W(OWN_V, 0), (size_t)n * sizeof *group_V);
            return;
        }
    }
    for (int round = 0; round <= NEWTON_LIMIT; ++round) {
        tangent(t, c, first, n, w);
        memcpy(before, &W(AMPS, 0), (size_t)n * sizeof *before);
        const double mismatch = share_round(groups, J, current_A, bleed_S, group_V, w);
        if (round > 0 && mismatch <= TOLERANCE_V) return;
        if (t->hysteresis_rate == 0.0 && strayed(n, c->soc + first, before, w) == 0) return;
    }
    for (int64_t g = 0; g < groups; ++g)
        group_V[g] = settle_group(t, c, first + g * J, J, bleed_S[g], current_A, w + g * J);
}

/* ---- state at the end of the step ------------------------------------------------------------------- */

/* Mean of a curve and of its integral's column between two places, exact for any way. */
INLINE double mean_between(double low, double high, int32_t k_a, int32_t k_b, double f_a, double d_a, double s_a,
                           double f_b, double d_b, double s_b) {
    const double a = low - k_a, b = high - k_b;
    const double same = f_a + 0.5 * d_a * (a + b);
    const double area = (s_b - s_a) * POINTS_PER_SOC + b * (f_b + 0.5 * d_b * b) - a * (f_a + 0.5 * d_a * a);
    const double way = high - low;
    const double across = area / (k_a == k_b ? 1.0 : way);
    return k_a == k_b ? same : across;
}

INLINE void finish_body(int64_t n, int entropy, int layers, double rate, double low_K, double high_K,
                        double *R soc, double *R v1, double *R v2, double *R hysteresis, double *R cell_A,
                        const double *R wear, const double *R kelvin, const double *R curve, double *R w,
                        int64_t *R counts) {
    int64_t n_low = 0, n_high = 0, n_cold = 0, n_hot = 0;
    for (int64_t j = 0; j < n; ++j) {
        const double amps = W(AMPS, j), drift = W(DRIFT, j), start = soc[j];
        const double end = start - amps * drift;
        const double from = start * POINTS_PER_SOC + MARGIN_POINTS, to = end * POINTS_PER_SOC + MARGIN_POINTS;
        const double low = from < to ? from : to, high = from < to ? to : from;
        const int32_t k_a = (int32_t)inside(low, LAST_PIECE), k_b = (int32_t)inside(high, LAST_PIECE);
        int32_t at = k_a * 4, bt = k_b * 4;
        double open_V, entropic = 0.0;
#define MEAN(c, p, q) mean_between(low, high, k_a, k_b, curve[(p) + (c)], curve[(p) + 4 + (c)] - curve[(p) + (c)], \
                                   curve[(p) + 2 + (c)], curve[(q) + (c)], \
                                   curve[(q) + 4 + (c)] - curve[(q) + (c)], curve[(q) + 2 + (c)])
        if (entropy) entropic = MEAN(1, at, bt);
        if (layers > 1) {
            double z = inside(wear[j] * (layers - 1), layers - 1 - 1e-9);
            const int32_t l = (int32_t)z;
            z -= l;
            at += l * (4 * LAYER_POINTS);
            bt += l * (4 * LAYER_POINTS);
            const double fresh = MEAN(0, at, bt);
            open_V = fresh + z * (MEAN(0, at + 4 * LAYER_POINTS, bt + 4 * LAYER_POINTS) - fresh);
        } else {
            open_V = MEAN(0, at, bt);
        }
        open_V += W(ABOVE, j) * entropic;
        const double steady1 = W(R1, j) * amps, steady2 = W(R2, j) * amps;
        const double away1 = v1[j] - steady1, away2 = v2[j] - steady2;
        double drop = W(R_ALL, j) * amps + away1 * W(MEAN1, j) + away2 * W(MEAN2, j);
        v1[j] = steady1 + away1 * W(DECAY1, j);
        v2[j] = steady2 + away2 * W(DECAY2, j);
        if (rate != 0.0) {
            const double sign = amps >= 0.0 ? 1.0 : -1.0;
            const double x = rate * drift * fabs(amps);
            const double away = hysteresis[j] + sign;
            const double left = decay_of(x);
            /* (1 - exp(-x)) / x; its series below 1e-4, where the difference would lose its digits */
            const double series = 1.0 - x * (0.5 - x * (1.0 / 6.0));
            const double mean = x > 1e-4 ? (1.0 - left) / (x > 1e-4 ? x : 1.0) : series;
            drop -= W(HALF_GAP, j) * (away * mean - sign);
            hysteresis[j] = amps == 0.0 ? hysteresis[j] : away * left - sign;
        }
        W(OPEN_V, j) = open_V;
        W(OWN_V, j) = open_V - drop;
        W(ENTROPIC, j) = entropic;
        W(REVERSIBLE, j) = -amps * kelvin[j] * entropic;
        soc[j] = end;
        cell_A[j] = amps;
        n_low += end < 0.0;
        n_high += end > 1.0;
        n_cold += kelvin[j] < low_K;
        n_hot += kelvin[j] > high_K;
    }
    counts[SOC_LOW] += n_low;
    counts[SOC_HIGH] += n_high;
    counts[COLD] += n_cold;
    counts[HOT] += n_hot;
}

#define FINISH(name, entropy, layered, hysteretic) \
    static NOINLINE void name(int64_t n, int layers, double rate, double low_K, double high_K, double *R soc, \
                              double *R v1, double *R v2, double *R h, double *R amps, const double *R wear, \
                              const double *R kelvin, const double *R curve, double *R w, int64_t *R counts) { \
        finish_body(n, entropy, (layered) ? layers : 1, (hysteretic) ? rate : 0.0, low_K, high_K, soc, v1, v2, \
                    h, amps, wear, kelvin, curve, w, counts); \
    }
FINISH(finish_000, 0, 0, 0)
FINISH(finish_001, 0, 0, 1)
FINISH(finish_100, 1, 0, 0)
FINISH(finish_101, 1, 0, 1)
FINISH(finish_010, 0, 1, 0)
FINISH(finish_011, 0, 1, 1)
FINISH(finish_110, 1, 1, 0)
FINISH(finish_111, 1, 1, 1)

static void finish(const Tables *t, const Cells *c, const double *kelvin, int64_t first, int64_t n, double *w,
                   int64_t *counts) {
    typedef void Pass(int64_t, int, double, double, double, double *, double *, double *, double *, double *,
                      const double *, const double *, const double *, double *, int64_t *);
    static Pass *const passes[8] = {finish_000, finish_001, finish_010, finish_011,
                                    finish_100, finish_101, finish_110, finish_111};
    const int which = (t->has_entropy ? 4 : 0) + (t->layers > 1 ? 2 : 0) + (t->hysteresis_rate != 0.0 ? 1 : 0);
    passes[which](n, (int)t->layers, t->hysteresis_rate, t->valid_low_K, t->valid_high_K, c->soc + first,
                  c->v1_V + first, c->v2_V + first, c->hysteresis + first, c->current_A + first,
                  c->wear + first, kelvin + first, t->curve, w, counts);
}

static NOINLINE void heat_single(int64_t n, double *R heat_W, double *R w) {
    for (int64_t j = 0; j < n; ++j) {
        const double amps = W(AMPS, j), mean_V = W(OWN_V, j);
        const double own = amps * (W(OPEN_V, j) - mean_V) + W(REVERSIBLE, j);
        W(HEAT, j) = own;
        W(MOVED, j) = fabs(amps * mean_V);
        heat_W[j] = own;
    }
}

static NOINLINE void heat_shared(int64_t groups, int64_t J, double *R mean_V, double *R heat_W, double *R w) {
    for (int64_t g = 0; g < groups; ++g) {
        double mean = 0.0;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) mean += W(OWN_V, j);
        mean /= (double)J;
        mean_V[g] = mean;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) {
            const double amps = W(AMPS, j);
            const double own = amps * (W(OPEN_V, j) - mean) + W(REVERSIBLE, j);
            W(HEAT, j) = own;
            W(MOVED, j) = fabs(amps * mean);
            heat_W[j] = own;
        }
    }
}

static NOINLINE void magnitude(int64_t n, const double *R x, double *R y) {
    for (int64_t j = 0; j < n; ++j) y[j] = fabs(x[j]);
}

/* What a pack adds up over its groups during a step. */
typedef struct {
    double end_V, mean_V, busbar_W, heat_W, entropic_W, short_W, balancing_W, moved_W, short_A, balancing_A, moved_A;
    int64_t counts[4];
} Sums;

/* Heat of the cells of a block with shorts or links; mean voltage of each group. See the text of ecm_step.py. */
static void heat_special(const Cells *c, int64_t first, int64_t groups, int64_t J, double *mean_V, double *w,
                         Sums *s) {
    for (int64_t g = 0; g < groups; ++g) {
        double mean = 0.0, weight = 0.0;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) {
            mean += W(WEIGHT, j) * (W(OWN_V, j) - W(LINK, j) * c->link_ohm[first + j]);
            weight += W(WEIGHT, j);
        }
        mean /= weight;
        mean_V[g] = mean;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) {
            const double amps = W(AMPS, j), link = W(LINK, j), S = c->short_S[first + j];
            const double own_V = mean + link * c->link_ohm[first + j];
            const double own = amps * (W(OPEN_V, j) - own_V) + W(REVERSIBLE, j);
            const double shorted_A = W(TERMINAL, j) * S, shorted_W = own_V * shorted_A;
            W(HEAT, j) = own;
            W(MOVED, j) = fabs(amps * own_V);
            c->heat_W[first + j] = own + shorted_W;
            s->short_A += shorted_A;
            s->short_W += shorted_W;
            s->busbar_W += link * link * c->link_ohm[first + j];
        }
    }
}

/* Everything after the currents of a block are known. */
static void close_block(const Tables *t, const Wires *wires, const Cells *c, const Packs *packs,
                        const double *kelvin, int64_t first_group, int64_t groups, int64_t first, int64_t J,
                        int special, double current_A, const double *bleed_S, double *w, Sums *s) {
    const int64_t n = groups * J;
    const double *group_V = packs->group_voltage_V + first_group;
    double means[STRIDE];
    const double *mean_V = means;
    finish(t, c, kelvin, first, n, w, s->counts);
    if (special) {
        heat_special(c, first, groups, J, means, w, s);
    } else if (J == 1) {
        heat_single(n, c->heat_W + first, w);
        mean_V = &W(OWN_V, 0);
    } else {
        heat_shared(groups, J, means, c->heat_W + first, w);
    }
    s->heat_W += lane_sum(n, &W(HEAT, 0));
    if (t->has_entropy) s->entropic_W += lane_sum(n, &W(REVERSIBLE, 0));
    s->moved_W += lane_sum(n, &W(MOVED, 0));
    magnitude(n, &W(AMPS, 0), &W(MOVED, 0));
    s->moved_A += lane_sum(n, &W(MOVED, 0));
    const double busbar_ohm = lane_sum(groups, wires->busbar_ohm + first_group);
    s->busbar_W += current_A * current_A * busbar_ohm;
    s->end_V += lane_sum(groups, group_V) - current_A * busbar_ohm;
    s->mean_V += lane_sum(groups, mean_V) - current_A * busbar_ohm;
    for (int64_t g = 0; g < groups; ++g)
        if (bleed_S[g] > 0.0) {
            s->balancing_A += group_V[g] * bleed_S[g];
            s->balancing_W += mean_V[g] * (group_V[g] * bleed_S[g]);
        }
}

static void close_pack(const Packs *packs, int64_t p, int64_t n_groups, double current_A, double dt_s,
                       const Sums *s) {
    double *ledger = packs->ledger + p * LEDGER_COLUMNS;
    packs->pack_voltage_V[p] = s->end_V;
    packs->pack_power_W[p] = current_A * s->mean_V;
    for (int side = 0; side < 4; ++side) packs->outside[4 * p + side] += s->counts[side];
    ledger[E_TERMINAL] += current_A * s->mean_V * dt_s;
    ledger[E_HEAT] += s->heat_W * dt_s;
    ledger[E_ENTROPIC] += s->entropic_W * dt_s;
    ledger[E_SHORT] += s->short_W * dt_s;
    ledger[E_BALANCING] += s->balancing_W * dt_s;
    ledger[E_BUSBAR] += s->busbar_W * dt_s;
    ledger[E_THROUGHPUT] += s->moved_W * dt_s;
    ledger[C_TERMINAL] += (double)n_groups * current_A * dt_s;
    ledger[C_SHORT] += s->short_A * dt_s;
    ledger[C_BALANCING] += s->balancing_A * dt_s;
    ledger[C_THROUGHPUT] += s->moved_A * dt_s;
}

/* ---- what is called from Python ---------------------------------------------------------------------- */

INLINE int64_t groups_per_block(int64_t J) { return J >= BLOCK ? 1 : BLOCK / J; }

static void first_guess(const Cells *c, int64_t first, int64_t groups, int64_t J, double current_A, double *w) {
    for (int64_t g = 0; g < groups; ++g) {
        double flowing = 0.0;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) flowing += c->current_A[first + j];
        const double extra = (current_A - flowing) / (double)J;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) W(AMPS, j) = c->current_A[first + j] + extra;
    }
}

/* Advance every cell by a step under pack_current_A. */
void ecm_step(const Tables *t, const Wires *wires, const Cells *c, const Packs *packs,
              const double *pack_current_A, const double *kelvin, const uint8_t *balancing, double *w) {
    double bleed[STRIDE];
    for (int64_t p = 0; p < wires->n_packs; ++p) {
        const int64_t g0 = wires->pack_group_start[p], g1 = wires->pack_group_start[p + 1];
        const int64_t J = wires->group_cell_start[g0 + 1] - wires->group_cell_start[g0];
        const double current = pack_current_A[p];
        Sums s = {0};
        for (int64_t g = g0; g < g1;) {
            const int64_t groups = g1 - g < groups_per_block(J) ? g1 - g : groups_per_block(J);
            const int64_t first = wires->group_cell_start[g];
            prepare(t, c, kelvin, first, groups * J, current / (double)J, w);
            for (int64_t k = 0; k < groups; ++k)
                bleed[k] = balancing[g + k] ? wires->balancing_S[g + k] : 0.0;
            if (J > 1 || c->special[p]) first_guess(c, first, groups, J, current, w);
            if (c->special[p]) {
                for (int64_t k = 0; k < groups; ++k)
                    packs->group_voltage_V[g + k] =
                        settle_group(t, c, first + k * J, J, bleed[k], current, w + k * J);
            } else {
                share_block(t, c, first, groups, J, current, bleed, packs->group_voltage_V + g, w);
            }
            close_block(t, wires, c, packs, kelvin, g, groups, first, J, c->special[p], current, bleed, w, &s);
            g += groups;
        }
        close_pack(packs, p, g1 - g0, current, t->dt_s, &s);
    }
}

/* Affine end-of-step model of each pack around a current, V = emf - r I. */
void ecm_thevenin(const Tables *t, const Wires *wires, const Cells *c, const double *around_A,
                  const double *kelvin, double *w, double *emf_V, double *resistance_ohm) {
    for (int64_t p = 0; p < wires->n_packs; ++p) {
        const int64_t g0 = wires->pack_group_start[p], g1 = wires->pack_group_start[p + 1];
        const int64_t J = wires->group_cell_start[g0 + 1] - wires->group_cell_start[g0];
        double pack_e = 0.0, pack_r = 0.0;
        for (int64_t g = g0; g < g1;) {
            const int64_t groups = g1 - g < groups_per_block(J) ? g1 - g : groups_per_block(J);
            const int64_t first = wires->group_cell_start[g];
            prepare(t, c, kelvin, first, groups * J, around_A[p] / (double)J, w);
            first_guess(c, first, groups, J, around_A[p], w);
            tangent(t, c, first, groups * J, w);
            for (int64_t k = 0; k < groups; ++k) {
                double sum_e = 0.0, sum_g = 0.0, e, y;
                for (int64_t j = k * J; j < (k + 1) * J; ++j) {
                    e = W(EMF, j);
                    y = W(COND, j);
                    if (c->special[p]) seen_from_group(c, first + j, W(EMF, j), W(COND, j), &e, &y);
                    sum_e += e * y;
                    sum_g += y;
                }
                pack_e += sum_e / sum_g;
                pack_r += 1.0 / sum_g + wires->busbar_ohm[g + k];
            }
            g += groups;
        }
        emf_V[p] = pack_e;
        resistance_ohm[p] = pack_r;
    }
}

/* Per cell, how much the voltage at the end of a step falls per ampere around its current, and the part of it
 * that is the change of the open circuit. */
void ecm_slope(const Tables *t, const Cells *c, int64_t n_cells, const double *kelvin, double *w,
               double *slope_ohm, double *drift_ohm) {
    for (int64_t first = 0; first < n_cells; ++first) {
        prepare(t, c, kelvin, first, 1, c->current_A[first], w);
        W(AMPS, 0) = c->current_A[first];
        tangent(t, c, first, 1, w);
        slope_ohm[first] = 1.0 / W(COND, 0);
        drift_ohm[first] = slope_ohm[first] - W(R_END, 0);
    }
}

/* Currents of one group of fresh scratch, by the fast or by the safe way: the test compares them. */
double ecm_share(const Tables *t, const Cells *c, int64_t n, double shunt_S, double current_A, const double *kelvin,
                 int64_t safely, double *w, double *amps) {
    int settled;
    prepare(t, c, kelvin, 0, n, current_A / (double)n, w);
    first_guess(c, 0, 1, n, current_A, w);
    double group_V = 0.0;
    if (safely) bisect_group(t, c, 0, n, shunt_S, current_A, w);
    else group_V = newton_group(t, c, 0, n, shunt_S, current_A, w, &settled);
    memcpy(amps, &W(AMPS, 0), (size_t)n * sizeof *amps);
    return group_V;
}
