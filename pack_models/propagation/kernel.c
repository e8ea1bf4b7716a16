/* Abuse kinetics of many nodes: the inner loop of `network`, `fem` and the right-hand side of `lumped`.
 *
 * Every node holds one temperature and a heat capacity; every "site" is the share of one cell that belongs to a
 * node, with its own species. Species are advanced exactly over a sub-step at frozen temperature, temperature
 * follows from what was consumed: the energy balance closes to rounding whatever the step.
 *
 * C rather than numba because the same code must run in two interpreters at once (ours and the one that has
 * dolfinx, often without numba, with another numpy): one source, one compile of a second, the same bits.
 * Units SI; heat per m3 of cell; layout constants are mirrored in kernel.py and checked at load.
 */
#include <math.h>
#include <stdint.h>

enum { MAX_REACTIONS = 12, MAX_SPECIES = 16, MAX_FACTORS = 4, MAX_SITES = 8 };

/* One reaction: a row of doubles and a row of ints. */
enum { RD_A, RD_A_HOT, RD_T_HOT, RD_E_R, RD_T_ON, RD_CEILING, RD_DIFF_A, RD_DIFF_E_R, RD_ORDER, RD_HEAT, RD_COUNT };
enum { RI_SPECIES, RI_FORM, RI_FACTORS, RI_FED, RI_COUNT };
enum { FORM_POWER, FORM_LOGISTIC, FORM_SOURCE };
/* One factor of a reaction: kind and species; two numbers. */
enum { FACTOR_POWER, FACTOR_EXP, FACTOR_SATURATION, FACTOR_CRITICAL, FACTOR_BELOW };

static const double STEFAN_BOLTZMANN = 5.670374419e-8;

typedef struct {
    int64_t n_reactions, n_species;
    const double *rd;      /* (sets, MAX_REACTIONS, RD_COUNT) */
    const int64_t *ri;     /* (sets, MAX_REACTIONS, RI_COUNT) */
    const double *stoich;  /* (sets, MAX_REACTIONS, MAX_SPECIES): change of a species per unit extent */
    const double *fd;      /* (sets, MAX_REACTIONS, MAX_FACTORS, 2) */
    const int64_t *fi;     /* (sets, MAX_REACTIONS, MAX_FACTORS, 2) */
} tables_t;

int64_t layout(int64_t which) {
    const int64_t value[] = {MAX_REACTIONS, MAX_SPECIES, MAX_FACTORS, MAX_SITES, RD_COUNT, RI_COUNT};
    return which < 6 ? value[which] : -1;
}

static double rate_constant(const double *rd, double T) {
    if (T < rd[RD_T_ON]) return 0.0;
    double k = (T >= rd[RD_T_HOT] ? rd[RD_A_HOT] : rd[RD_A]) * exp(-rd[RD_E_R] / T);
    if (rd[RD_DIFF_A] > 0.0) { /* Damkoehler: reaction and diffusion to the particle core in series */
        const double kd = rd[RD_DIFF_A] * exp(-rd[RD_DIFF_E_R] / T);
        k = k * kd / (k + kd);
    }
    if (rd[RD_CEILING] > 0.0) k = k * rd[RD_CEILING] / (k + rd[RD_CEILING]);
    return k;
}

static double factors(const tables_t *t, int64_t set, int64_t r, const double *y) {
    const int64_t row = set * MAX_REACTIONS + r;
    const int64_t n = t->ri[row * RI_COUNT + RI_FACTORS];
    double product = 1.0;
    for (int64_t f = 0; f < n; f++) {
        const int64_t *fi = t->fi + (row * MAX_FACTORS + f) * 2;
        const double *fd = t->fd + (row * MAX_FACTORS + f) * 2;
        const double c = y[fi[1]] > 0.0 ? y[fi[1]] : 0.0;
        switch (fi[0]) {
            case FACTOR_POWER: product *= fd[0] == 1.0 ? c : pow(c, fd[0]); break;
            case FACTOR_EXP: product *= exp(-c / fd[0]); break;
            case FACTOR_SATURATION: product *= c / (c + fd[0]); break;
            case FACTOR_CRITICAL: product *= exp(-(c < fd[1] ? c : fd[1]) / fd[0]); break;
            default: product *= c < fd[0] ? 1.0 : 0.0; break;
        }
    }
    return product;
}

/* Extent of every reaction in h at frozen T: species from `start`, slow factors from `mid`. */
static void extents(const tables_t *t, int64_t set, double T, const double *mid, const double *start, double h,
                    double *extent) {
    for (int64_t r = 0; r < t->n_reactions; r++) {
        const int64_t row = set * MAX_REACTIONS + r;
        const double *rd = t->rd + row * RD_COUNT;
        const int64_t *ri = t->ri + row * RI_COUNT;
        const int64_t own = ri[RI_SPECIES];
        extent[r] = 0.0;
        if (own < 0) continue; /* unused row: this set has fewer reactions than the widest */
        double k = rate_constant(rd, T);
        if (k == 0.0) continue;
        k *= factors(t, set, r, mid);
        const double kh = k * h, c = start[own];
        if (ri[RI_FORM] == FORM_SOURCE) {
            extent[r] = kh;
        } else if (c <= 0.0 && !ri[RI_FED]) {
            continue;
        } else if (ri[RI_FORM] == FORM_LOGISTIC) { /* dc/dt = -k c (1 - c), without cancellation when c is near 1 */
            const double e = -expm1(-kh);
            extent[r] = c * (1.0 - c) * e / (1.0 - c * e);
        } else if (rd[RD_ORDER] == 1.0) {
            double fed = 0.0; /* produced by earlier reactions meanwhile: dc/dt = fed/h - k c, also exact */
            if (ri[RI_FED])
                for (int64_t q = 0; q < r; q++) {
                    const double s = t->stoich[(set * MAX_REACTIONS + q) * MAX_SPECIES + own];
                    if (s > 0.0) fed += s * extent[q];
                }
            const double e = -expm1(-kh);
            extent[r] = c * e + (fed > 0.0 ? fed * (kh > 1e-8 ? 1.0 - e / kh : 0.5 * kh) : 0.0);
        } else {
            const double p = 1.0 - rd[RD_ORDER];
            const double left = p == 1.0 ? c - kh : pow(c, p) - p * kh;
            extent[r] = left > 0.0 ? c - (p == 1.0 ? left : pow(left, 1.0 / p)) : c;
        }
    }
}

static double apply(const tables_t *t, int64_t set, const double *extent, const double *from, double *to) {
    double heat = 0.0;
    for (int64_t s = 0; s < t->n_species; s++) to[s] = from[s];
    for (int64_t r = 0; r < t->n_reactions; r++) {
        if (extent[r] == 0.0) continue;
        const int64_t row = set * MAX_REACTIONS + r;
        heat += t->rd[row * RD_COUNT + RD_HEAT] * extent[r];
        for (int64_t s = 0; s < t->n_species; s++) to[s] += t->stoich[row * MAX_SPECIES + s] * extent[r];
    }
    for (int64_t s = 0; s < t->n_species; s++)
        if (to[s] < 0.0) to[s] = 0.0;
    return heat;
}

/* Instantaneous rates of one set at (T, y): extent rates (n_reactions), dy/dt (n_species); returns W/m3. */
double rates(const tables_t *t, int64_t set, double T, const double *y, double *extent_rate, double *dy) {
    double heat = 0.0;
    for (int64_t s = 0; s < t->n_species; s++) dy[s] = 0.0;
    for (int64_t r = 0; r < t->n_reactions; r++) {
        const int64_t row = set * MAX_REACTIONS + r;
        const double *rd = t->rd + row * RD_COUNT;
        const int64_t *ri = t->ri + row * RI_COUNT;
        extent_rate[r] = 0.0;
        if (ri[RI_SPECIES] < 0) continue;
        const double k = rate_constant(rd, T) * factors(t, set, r, y), c = y[ri[RI_SPECIES]];
        double rate = k;
        if (ri[RI_FORM] == FORM_LOGISTIC) rate = k * c * (1.0 - c);
        else if (ri[RI_FORM] == FORM_POWER)
            rate = rd[RD_ORDER] == 1.0 ? k * c : c > 0.0 ? k * pow(c, rd[RD_ORDER]) : 0.0;
        extent_rate[r] = rate;
        heat += rd[RD_HEAT] * rate;
        for (int64_t s = 0; s < t->n_species; s++) dy[s] += t->stoich[row * MAX_SPECIES + s] * rate;
    }
    return heat;
}

typedef struct { /* radiating faces, sorted by node */
    const int64_t *start; /* (nodes + 1,) */
    const double *area;   /* emissivity x area, m2 */
    const double *ambient;
    const double *resistance; /* between node and face, K/W: half a finite volume; 0 for a node on the face */
} faces_t;

static double radiated_W(const faces_t *f, int64_t node, double T) {
    double power = 0.0;
    for (int64_t i = f->start[node]; i < f->start[node + 1]; i++) {
        const double a = f->ambient[i];
        /* The face is cooler than the node by the flux through half a volume: one fixed-point pass suffices,
         * since that resistance is small against 1/(4 sigma T^3). */
        double face = T, g = 0.0;
        for (int pass = 0; pass < 3; pass++) {
            g = STEFAN_BOLTZMANN * f->area[i] * (face * face + a * a) * (face + a);
            face = a + (T - a) / (1.0 + g * f->resistance[i]);
            if (f->resistance[i] == 0.0) break;
        }
        power += (T - a) / (1.0 / g + f->resistance[i]);
    }
    return power;
}

/* Advance all nodes by dt without conduction.
 * extent: (cells, MAX_REACTIONS) += site volume x extent, m3; radiated_J: (1,) += energy out.
 * Returns the largest temperature change of a node, K; substeps: (1,) += count. */
double react(int64_t n_nodes, double *T, const double *capacity, const int64_t *site_start, const int64_t *site_cell,
             const double *site_volume, double *y, const int64_t *cell_set, const double *quiet_K, const tables_t *t,
             const faces_t *f, double dt, double limit_K, double *extent, double *radiated_J, int64_t *substeps) {
    double largest = 0.0;
    double y_mid[MAX_SITES][MAX_SPECIES], y_end[MAX_SITES][MAX_SPECIES], e[MAX_SITES][MAX_REACTIONS];
    for (int64_t n = 0; n < n_nodes; n++) {
        const int64_t first = site_start[n], sites = site_start[n + 1] - first;
        const int faces = f->start[n + 1] > f->start[n];
        int quiet = 1;
        for (int64_t s = 0; s < sites; s++)
            if (T[n] >= quiet_K[cell_set[site_cell[first + s]]]) quiet = 0;
        if (quiet && !faces) continue;
        const int64_t active = quiet ? 0 : sites;
        const double before = T[n];
        double done = 0.0, h = dt;
        while (done < dt) {
            if (h > dt - done) h = dt - done;
            double heat = 0.0;
            for (int64_t s = 0; s < active; s++) {
                const int64_t set = cell_set[site_cell[first + s]];
                const double *y0 = y + (first + s) * t->n_species;
                extents(t, set, T[n], y0, y0, 0.5 * h, e[s]);
                heat += site_volume[first + s] * apply(t, set, e[s], y0, y_mid[s]);
            }
            const double T_mid = T[n] + (heat - (faces ? 0.5 * h * radiated_W(f, n, T[n]) : 0.0)) / capacity[n];
            double total = 0.0;
            for (int64_t s = 0; s < active; s++) {
                const int64_t set = cell_set[site_cell[first + s]];
                const double *y0 = y + (first + s) * t->n_species;
                extents(t, set, T_mid, y_mid[s], y0, h, e[s]);
                total += site_volume[first + s] * apply(t, set, e[s], y0, y_end[s]);
            }
            const double out = faces ? h * radiated_W(f, n, T_mid) : 0.0;
            const double change = (total - out) / capacity[n];
            const double curve = fabs(change - 2.0 * (T_mid - T[n])) * 4.0;
            const double size = fabs(change) > curve ? fabs(change) : curve;
            ++*substeps;
            if (size > limit_K && h > 1e-7 * dt) { /* below that a burst is over whatever its temperature path */
                const double shrink = 0.8 * limit_K / size;
                h *= shrink < 0.1 ? 0.1 : shrink;
                continue;
            }
            for (int64_t s = 0; s < active; s++) {
                const int64_t cell = site_cell[first + s];
                for (int64_t r = 0; r < t->n_reactions; r++)
                    extent[cell * MAX_REACTIONS + r] += site_volume[first + s] * e[s][r];
                for (int64_t k = 0; k < t->n_species; k++) y[(first + s) * t->n_species + k] = y_end[s][k];
            }
            T[n] += change;
            *radiated_J += out;
            done += h;
            h *= size < 0.3 * limit_K ? 2.5 : 0.9 * limit_K / size;
        }
        const double rise = fabs(T[n] - before);
        if (rise > largest) largest = rise;
    }
    return largest;
}
