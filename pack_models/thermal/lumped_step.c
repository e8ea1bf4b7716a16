/* The implicit step of the lumped thermal network; equations and conventions stand in lumped.py.
 *
 * In a module of G groups of J cells, the chain of parallel cells is the same in every group, so the cosine
 * modes of a path of J nodes take it apart: one tridiagonal system of length G per mode, exact, no splitting.
 * The coolant meets the mean mode only. Mixed: one node per module, eliminated with a second right-hand side.
 * Streaming: a plate and a fluid node per group, a block-tridiagonal system of three unknowns per group, in
 * which the fluid hands its heat downstream only.
 *
 * LANES modules of the same length go through together, one per vector lane; each has its own ambient, film
 * and flow, so what comes out for a module does not depend on its company. Temperatures are relative to the
 * ambient of the pack: a pack at ambient stays there exactly.
 */
#include <math.h>
#include <stdint.h>

enum { LANES = 8 };
typedef double Lanes[LANES];
#define EACH for (int l = 0; l < LANES; ++l)

enum { Q_HEAT, Q_AMBIENT, Q_COOLANT, Q_AUXILIARY, Q_COLUMNS };

typedef struct {
    const int64_t *pack_module_start, *module_group_start;
    const double *modes; /* (J, J), column m is mode m */
    const double *decay; /* (J,) W/K added by parallel conduction to mode m */
    int64_t n_packs, n_parallel, stream;
    double cell_J_per_K, series, coolant, coolant_idle, ambient, module_end, coolant_J_per_K, flow, flow_idle,
        supply_K, fan_W, cooling_cop, heating_cop, plate, plate_J_per_K, plate_series;
} Network;

typedef struct {
    double *temperature_K, *coolant_K, *plate_K, *auxiliary_W, *ledger, *work;
    const uint8_t *active; /* (n_modules,) 0: left to another model, which writes its temperatures */
} Nodes;

/* Where the lanes of a batch stand. */
typedef struct {
    int64_t module[LANES], group[LANES], cell[LANES];
    int used;
    int64_t n_groups;
    Lanes ambient, film, flow, supply, lost, carried, put_in;
} Batch;

/* Neighbours of group g in its chain, and its share of the losses through the end plates. */
static double sides(int64_t g, int64_t n) { return (double)(g > 0) + (double)(g < n - 1); }
static double edge(const Network *net, int64_t g, int64_t n) {
    return net->module_end * ((double)(g == 0) + (double)(g == n - 1));
}

/* Right-hand sides of group g in modes. */
static void load(const Network *net, const Nodes *at, const double *heat_W, Batch *b, int64_t g, double c_dt,
                 Lanes *value) {
    const int64_t J = net->n_parallel;
    for (int64_t k = 0; k < J; ++k) EACH value[k][l] = 0.0;
    for (int64_t j = 0; j < J; ++j) {
        /* Local copies: what is read from afar could otherwise be what is written, and no lanes form. */
        Lanes heat, kelvin, source;
        EACH heat[l] = heat_W[b->cell[l] + g * J + j];
        EACH kelvin[l] = at->temperature_K[b->cell[l] + g * J + j];
        EACH source[l] = c_dt * (kelvin[l] - b->ambient[l]) + heat[l];
        EACH b->put_in[l] += heat[l];
        for (int64_t k = 0; k < J; ++k) {
            const double mode = net->modes[j * J + k];
            EACH value[k][l] += mode * source[l];
        }
    }
}

/* Temperatures of group g from its modes. */
static void store(const Network *net, const Nodes *at, Batch *b, int64_t g, Lanes *value) {
    const int64_t J = net->n_parallel;
    const double loss = net->ambient + edge(net, g, b->n_groups);
    for (int64_t j = 0; j < J; ++j) {
        Lanes above = {0.0};
        for (int64_t k = 0; k < J; ++k) {
            const double mode = net->modes[j * J + k];
            EACH above[l] += mode * value[k][l];
        }
        EACH b->lost[l] += loss * above[l];
        EACH above[l] += b->ambient[l];
        EACH at->temperature_K[b->cell[l] + g * J + j] = above[l];
    }
}

/* Forward elimination of mode k of group g in a chain of conductance s: value and ratio in place. */
static void eliminate(double s, int first, const Lanes *diagonal, Lanes *value, Lanes *ratio,
                      const Lanes *before, const Lanes *ratio_before) {
    EACH {
        double d = (*diagonal)[l], v = (*value)[l];
        if (!first) {
            d -= s * (*ratio_before)[l];
            v += s * (*before)[l];
        }
        const double one = 1.0 / d;
        (*ratio)[l] = s * one;
        (*value)[l] = v * one;
    }
}

static void mixed(const Network *net, const Nodes *at, const double *heat_W, double dt_s, Batch *b) {
    const int64_t J = net->n_parallel, G = b->n_groups;
    Lanes *value = (Lanes *)at->work, *ratio = value + G * J, *lift = ratio + G * J;
    const double c_dt = net->cell_J_per_K / dt_s, w_dt = net->coolant_J_per_K / dt_s, s = net->series;
    const double root = sqrt((double)J);
    for (int64_t g = 0; g < G; ++g) {
        load(net, at, heat_W, b, g, c_dt, value + g * J);
        const double base = c_dt + net->ambient + edge(net, g, G) + sides(g, G) * s;
        for (int64_t k = 0; k < J; ++k) {
            Lanes diagonal;
            EACH diagonal[l] = base + b->film[l] + net->decay[k];
            const int64_t here = g * J + k;
            if (k == 0) { /* response of the mean mode to the coolant, per kelvin */
                EACH lift[g][l] = root * b->film[l] + (g > 0 ? s * lift[g - 1][l] : 0.0);
                EACH lift[g][l] /= diagonal[l] - (g > 0 ? s * ratio[here - J][l] : 0.0);
            }
            eliminate(s, g == 0, &diagonal, value + here, ratio + here, value + here - J, ratio + here - J);
        }
    }
    Lanes sum_value = {0.0}, sum_lift = {0.0}, coolant;
    for (int64_t g = G - 1; g >= 0; --g) {
        if (g < G - 1) {
            for (int64_t k = 0; k < J; ++k)
                EACH value[g * J + k][l] += ratio[g * J + k][l] * value[(g + 1) * J + k][l];
            EACH lift[g][l] += ratio[g * J][l] * lift[g + 1][l];
        }
        EACH {
            sum_value[l] += value[g * J][l];
            sum_lift[l] += lift[g][l];
        }
    }
    EACH {
        const double h = b->film[l];
        coolant[l] = (w_dt * (at->coolant_K[b->module[l]] - b->ambient[l]) + b->flow[l] * b->supply[l] +
                      h * root * sum_value[l]) /
                     (w_dt + b->flow[l] + h * (double)(G * J) - h * root * sum_lift[l]);
        b->carried[l] = b->flow[l] * (coolant[l] - b->supply[l]);
    }
    for (int64_t g = 0; g < G; ++g) {
        EACH value[g * J][l] += coolant[l] * lift[g][l];
        store(net, at, b, g, value + g * J);
    }
    EACH at->coolant_K[b->module[l]] = b->ambient[l] + coolant[l];
}

/* Unknowns of a group in the block system: mean mode, plate, fluid. */
enum { MEAN, PLATE, FLUID };

/* Forward elimination of a group's block: y (3 lanes) and e (columns of the mean and of the plate, 6 lanes)
 * into `out`, from those of the group before. */
static __attribute__((noinline)) void forward(double base, double plate_base, double f_dt, double c, double s,
                                              double kp, double p_dt, const double *restrict film,
                                              const double *restrict flow, const double *restrict ambient,
                                              const double *restrict plate, const double *restrict fluid,
                                              const double *restrict mean, const Lanes *restrict before,
                                              Lanes *restrict out) {
    EACH {
        const double h = film[l], w = flow[l], f = f_dt + w + h;
        const double a00 = base - s * before[3][l], a01 = -c - s * before[6][l];
        const double a10 = -c - kp * before[4][l], a11 = plate_base + h - kp * before[7][l];
        const double a20 = -w * before[5][l], a21 = -h - w * before[8][l];
        const double r0 = mean[l] + s * before[MEAN][l];
        const double r1 = p_dt * (plate[l] - ambient[l]) + kp * before[PLATE][l];
        const double r2 = f_dt * (fluid[l] - ambient[l]) + w * before[FLUID][l];
        /* The fluid is eliminated first, then a 2 x 2 system is left. */
        const double one = 1.0 / f, z = h * one;
        const double b10 = a10 + z * a20, b11 = a11 + z * a21, t1 = r1 + z * r2;
        const double inverse = 1.0 / (a00 * b11 - a01 * b10);
        const double m00 = b11 * inverse, m01 = -a01 * inverse, m10 = -b10 * inverse, m11 = a00 * inverse;
        const double y0 = m00 * r0 + m01 * t1, y1 = m10 * r0 + m11 * t1;
        out[MEAN][l] = y0;
        out[PLATE][l] = y1;
        out[FLUID][l] = (r2 - a20 * y0 - a21 * y1) * one;
        out[3][l] = m00 * s;
        out[4][l] = m10 * s;
        out[5][l] = -(a20 * (m00 * s) + a21 * (m10 * s)) * one;
        out[6][l] = m01 * kp;
        out[7][l] = m11 * kp;
        out[8][l] = -(a20 * (m01 * kp) + a21 * (m11 * kp)) * one;
    }
}

static void streaming(const Network *net, const Nodes *at, const double *heat_W, double dt_s, Batch *b) {
    const int64_t J = net->n_parallel, G = b->n_groups;
    Lanes *value = (Lanes *)at->work, *ratio = value + G * J, *block = ratio + G * J; /* block: (G, 9) lanes */
    const double c_dt = net->cell_J_per_K / dt_s, s = net->series, kp = net->plate_series;
    const double p_dt = net->plate_J_per_K / dt_s / (double)G, f_dt = net->coolant_J_per_K / dt_s / (double)G;
    const double root = sqrt((double)J), kj = net->plate, c = root * kj;
    Lanes film, flow, ambient, supply;
    EACH film[l] = (double)J * b->film[l];
    EACH flow[l] = b->flow[l];
    EACH ambient[l] = b->ambient[l];
    EACH supply[l] = b->supply[l];
    for (int64_t g = 0; g < G; ++g) {
        load(net, at, heat_W, b, g, c_dt, value + g * J);
        const double base = c_dt + kj + net->ambient + edge(net, g, G) + sides(g, G) * s;
        for (int64_t k = 1; k < J; ++k) {
            Lanes diagonal;
            EACH diagonal[l] = base + net->decay[k];
            const int64_t here = g * J + k;
            eliminate(s, g == 0, &diagonal, value + here, ratio + here, value + here - J, ratio + here - J);
        }
        /* D x = r with D = [[a00, a01, 0], [a10, a11, -h], [a20, a21, f]] after the group before is gone. */
        Lanes plate, fluid, mean, before[9];
        EACH plate[l] = at->plate_K[b->group[l] + g];
        EACH fluid[l] = at->coolant_K[b->group[l] + g];
        EACH mean[l] = value[g * J][l];
        for (int i = 0; i < 9; ++i) EACH before[i][l] = g > 0 ? block[(g - 1) * 9 + i][l] : 0.0;
        if (g == 0) EACH before[FLUID][l] = supply[l]; /* what flows in */
        const double plate_base = p_dt + (double)J * kj + sides(g, G) * kp;
        forward(base, plate_base, f_dt, c, s, kp, p_dt, film, flow, ambient, plate, fluid, mean,
                (const Lanes *)before, block + g * 9);
    }
    for (int64_t g = G - 1; g >= 0; --g) {
        Lanes *y = block + g * 9, *e = y + 3, *next = y + 9;
        if (g < G - 1) {
            for (int i = 0; i < 3; ++i)
                EACH y[i][l] += e[i][l] * next[MEAN][l] + e[3 + i][l] * next[PLATE][l];
            for (int64_t k = 1; k < J; ++k)
                EACH value[g * J + k][l] += ratio[g * J + k][l] * value[(g + 1) * J + k][l];
        }
        Lanes plate, fluid;
        EACH value[g * J][l] = y[MEAN][l];
        EACH plate[l] = ambient[l] + y[PLATE][l];
        EACH fluid[l] = ambient[l] + y[FLUID][l];
        EACH at->plate_K[b->group[l] + g] = plate[l];
        EACH at->coolant_K[b->group[l] + g] = fluid[l];
        store(net, at, b, g, value + g * J);
    }
    const Lanes *last = block + (G - 1) * 9;
    EACH b->carried[l] = b->flow[l] * (last[FLUID][l] - b->supply[l]);
}

/* Advance the packs from p0 to before p1 by dt_s; arrays of nodes as a whole, the first cell of a module is
 * that of its first group times J. */
void lumped_step(const Network *net, const Nodes *at, int64_t p0, int64_t p1, const double *heat_W,
                 const double *ambient_K, const double *cooling, double dt_s) {
    const int64_t J = net->n_parallel, end = net->pack_module_start[p1];
    const int own_supply = !isnan(net->supply_K);
    for (int64_t p = p0; p < p1; ++p) at->auxiliary_W[p] = 0.0;
    int64_t p = p0;
    for (int64_t m = net->pack_module_start[p0]; m < end;) {
        Batch b = {.used = 0};
        int64_t pack[LANES];
        for (; b.used < LANES && m < end; ++m) {
            if (!at->active[m]) continue;
            const int64_t n_groups = net->module_group_start[m + 1] - net->module_group_start[m];
            if (b.used == 0) b.n_groups = n_groups;
            if (n_groups != b.n_groups) break;
            while (net->pack_module_start[p + 1] <= m) ++p;
            const int l = b.used++;
            const double level = cooling[p];
            pack[l] = p;
            b.module[l] = m;
            b.group[l] = net->module_group_start[m];
            b.cell[l] = b.group[l] * J;
            b.ambient[l] = ambient_K[p];
            b.film[l] = net->coolant_idle + level * (net->coolant - net->coolant_idle);
            b.flow[l] = net->flow_idle + level * (net->flow - net->flow_idle);
            b.supply[l] = own_supply ? net->supply_K - ambient_K[p] : 0.0;
        }
        if (b.used == 0) break;
        for (int l = b.used; l < LANES; ++l) { /* idle lanes shadow the last one */
            const int k = b.used - 1;
            b.module[l] = b.module[k];
            b.group[l] = b.group[k];
            b.cell[l] = b.cell[k];
            b.ambient[l] = b.ambient[k];
            b.film[l] = b.film[k];
            b.flow[l] = b.flow[k];
            b.supply[l] = b.supply[k];
        }
        if (net->stream) streaming(net, at, heat_W, dt_s, &b);
        else mixed(net, at, heat_W, dt_s, &b);
        for (int l = 0; l < b.used; ++l) {
            double *ledger = at->ledger + pack[l] * Q_COLUMNS;
            ledger[Q_HEAT] += b.put_in[l] * dt_s;
            ledger[Q_AMBIENT] += b.lost[l] * dt_s;
            ledger[Q_COOLANT] += b.carried[l] * dt_s;
            at->auxiliary_W[pack[l]] += b.carried[l]; /* turned into electric power below */
        }
    }
    for (p = p0; p < p1; ++p) {
        const double carried = at->auxiliary_W[p], level = cooling[p];
        double power_W = net->fan_W * level * level * level;
        if (own_supply) /* heat the chiller moves, or the heater brings */
            power_W += carried > 0.0 ? carried / net->cooling_cop : -carried / net->heating_cop;
        at->auxiliary_W[p] = power_W;
        at->ledger[p * Q_COLUMNS + Q_AUXILIARY] += power_W * dt_s;
    }
}
