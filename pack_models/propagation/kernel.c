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

/* A step that changes a node by less than this is taken at first order: it moves rates by less than 0.05 %. */
static const double NEGLIGIBLE_K = 0.005;
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

/* Effective constants of a set: rate constant times slow factors. Spent species cost no exponential. */
static void constants(const tables_t *t, int64_t set, double T, const double *y, double *k) {
    for (int64_t r = 0; r < t->n_reactions; r++) {
        const int64_t *ri = t->ri + (set * MAX_REACTIONS + r) * RI_COUNT;
        const int64_t own = ri[RI_SPECIES];
        k[r] = 0.0;
        if (own < 0) continue; /* unused row: this set has fewer reactions than the widest */
        if (ri[RI_FORM] != FORM_SOURCE && !ri[RI_FED] && y[own] <= 1e-30) continue;
        k[r] = rate_constant(t->rd + (set * MAX_REACTIONS + r) * RD_COUNT, T);
        if (k[r] != 0.0 && ri[RI_FACTORS]) k[r] *= factors(t, set, r, y);
    }
}

/* 1 - exp(-x), x >= 0, to 1e-12: a short series where the difference would cancel (expm1 costs twice as much). */
static double spent(double x) {
    if (x > 0.03) return 1.0 - exp(-x);
    return x * (1.0 - x * (1.0 / 2 - x * (1.0 / 6 - x * (1.0 / 24 - x * (1.0 / 120 - x / 720)))));
}

/* Extent of every reaction in h at frozen constants, exact in the species each consumes. */
static void extents(const tables_t *t, int64_t set, const double *constant, const double *start, double h,
                    double *extent) {
    for (int64_t r = 0; r < t->n_reactions; r++) {
        extent[r] = 0.0;
        if (constant[r] == 0.0) continue;
        const int64_t row = set * MAX_REACTIONS + r;
        const int64_t *ri = t->ri + row * RI_COUNT;
        const int64_t own = ri[RI_SPECIES];
        const double order = t->rd[row * RD_COUNT + RD_ORDER];
        const double kh = constant[r] * h, c = start[own];
        if (ri[RI_FORM] == FORM_SOURCE) {
            extent[r] = kh;
        } else if (c <= 0.0 && !ri[RI_FED]) {
            continue;
        } else if (ri[RI_FORM] == FORM_LOGISTIC) { /* dc/dt = -k c (1 - c), without cancellation when c is near 1 */
            const double e = spent(kh);
            extent[r] = c * (1.0 - c) * e / (1.0 - c * e);
        } else if (order == 1.0) {
            double fed = 0.0; /* produced by earlier reactions meanwhile: dc/dt = fed/h - k c, also exact */
            if (ri[RI_FED])
                for (int64_t q = 0; q < r; q++) {
                    const double s = t->stoich[(set * MAX_REACTIONS + q) * MAX_SPECIES + own];
                    if (s > 0.0) fed += s * extent[q];
                }
            const double e = spent(kh);
            extent[r] = c * e + (fed > 0.0 ? fed * (kh > 1e-8 ? 1.0 - e / kh : 0.5 * kh) : 0.0);
        } else {
            const double p = 1.0 - order;
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
    double y_mid[MAX_SITES][MAX_SPECIES], y_end[MAX_SITES][MAX_SPECIES];
    double k[MAX_SITES][MAX_REACTIONS], e[MAX_SITES][MAX_REACTIONS];
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
            double slow = 0.0, heat = 0.0, total = 0.0, out = 0.0;
            for (int64_t s = 0; s < active; s++) {
                const int64_t set = cell_set[site_cell[first + s]];
                const double *y0 = y + (first + s) * t->n_species;
                constants(t, set, T[n], y0, k[s]);
                extents(t, set, k[s], y0, h, e[s]);
                slow += site_volume[first + s] * apply(t, set, e[s], y0, y_end[s]);
            }
            const double radiated = faces ? radiated_W(f, n, T[n]) : 0.0;
            double change = (slow - h * radiated) / capacity[n], size = fabs(change);
            ++*substeps;
            if (size < NEGLIGIBLE_K) { /* constants would not move: the first-order step is exact enough */
                out = h * radiated;
            } else {
                for (int64_t s = 0; s < active; s++) {
                    const int64_t set = cell_set[site_cell[first + s]];
                    const double *y0 = y + (first + s) * t->n_species;
                    extents(t, set, k[s], y0, 0.5 * h, e[s]);
                    heat += site_volume[first + s] * apply(t, set, e[s], y0, y_mid[s]);
                }
                const double T_mid = T[n] + (heat - 0.5 * h * radiated) / capacity[n];
                for (int64_t s = 0; s < active; s++) {
                    const int64_t set = cell_set[site_cell[first + s]];
                    const double *y0 = y + (first + s) * t->n_species;
                    constants(t, set, T_mid, y_mid[s], k[s]);
                    extents(t, set, k[s], y0, h, e[s]);
                    total += site_volume[first + s] * apply(t, set, e[s], y0, y_end[s]);
                }
                out = faces ? h * radiated_W(f, n, T_mid) : 0.0;
                change = (total - out) / capacity[n];
                const double curve = fabs(change - 2.0 * (T_mid - T[n])) * 4.0;
                size = fabs(change) > curve ? fabs(change) : curve;
                if (size > limit_K && h > 1e-7 * dt) { /* below that a burst is over whatever its temperature path */
                    const double shrink = 0.8 * limit_K / size;
                    h *= shrink < 0.1 ? 0.1 : shrink;
                    continue;
                }
            }
            for (int64_t s = 0; s < active; s++) {
                const int64_t cell = site_cell[first + s];
                for (int64_t r = 0; r < t->n_reactions; r++)
                    extent[cell * MAX_REACTIONS + r] += site_volume[first + s] * e[s][r];
                for (int64_t q = 0; q < t->n_species; q++) y[(first + s) * t->n_species + q] = y_end[s][q];
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

/* ---- conduction on a structured grid: conjugate gradients with incomplete Cholesky without fill ---------------
 * Volumes are numbered z fastest; g[a][i] is the conductance between i and its upper neighbour along axis a, 0 at
 * the end. On a seven-point grid the incomplete factor needs only its diagonal, and along one axis it is exact. */

typedef struct {
    int64_t n, stride[3];
    const double *g[3];
} lattice_t;

static lattice_t lattice(int64_t nx, int64_t ny, int64_t nz, const double *gx, const double *gy, const double *gz) {
    const lattice_t l = {nx * ny * nz, {ny * nz, nz, 1}, {gx, gy, gz}};
    return l;
}

void conduct_apply(int64_t nx, int64_t ny, int64_t nz, const double *gx, const double *gy, const double *gz,
                   const double *diagonal, const double *x, double *out) {
    const lattice_t l = lattice(nx, ny, nz, gx, gy, gz);
    for (int64_t i = 0; i < l.n; i++) out[i] = diagonal[i] * x[i];
    for (int a = 0; a < 3; a++) {
        const int64_t s = l.stride[a];
        const double *g = l.g[a];
        for (int64_t i = 0; i < l.n - s; i++) out[i] -= g[i] * x[i + s];
        for (int64_t i = s; i < l.n; i++) out[i] -= g[i - s] * x[i - s];
    }
}

/* Inverse diagonal of the incomplete factor; returns 0, or 1 when the matrix is not positive. */
int64_t conduct_factor(int64_t nx, int64_t ny, int64_t nz, const double *gx, const double *gy, const double *gz,
                       const double *diagonal, double *inverse) {
    const lattice_t l = lattice(nx, ny, nz, gx, gy, gz);
    for (int64_t i = 0; i < l.n; i++) {
        double d = diagonal[i];
        for (int a = 0; a < 3; a++) {
            const int64_t j = i - l.stride[a];
            if (j >= 0) d -= l.g[a][j] * l.g[a][j] * inverse[j];
        }
        if (!(d > 0.0)) return 1;
        inverse[i] = 1.0 / d;
    }
    return 0;
}

static void precondition(const lattice_t *l, const double *inverse, const double *r, double *z) {
    const int64_t sx = l->stride[0], sy = l->stride[1], n = l->n;
    const double *gx = l->g[0], *gy = l->g[1], *gz = l->g[2];
    for (int64_t i = 0; i < n; i++) {
        double v = r[i];
        if (i >= sx) v += gx[i - sx] * z[i - sx];
        if (i >= sy) v += gy[i - sy] * z[i - sy];
        if (i >= 1) v += gz[i - 1] * z[i - 1];
        z[i] = v * inverse[i];
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        double v = 0.0;
        if (i + sx < n) v += gx[i] * z[i + sx];
        if (i + sy < n) v += gy[i] * z[i + sy];
        if (i + 1 < n) v += gz[i] * z[i + 1];
        z[i] += v * inverse[i];
    }
}

/* Solve (diagonal + off-diagonals) x = b from the guess in x, to rtol of the guess's residual: the error is a share of
 * the change, so a slow creep towards criticality is followed as well as a fire. work holds 4 n. Returns iterations,
 * -1 when it fails.
 * `loss` is the sum of the rows of the matrix: at the end a uniform shift makes the residuals add up to zero, so
 * that the energy balance is exact whatever the tolerance. */
int64_t conduct_solve(int64_t nx, int64_t ny, int64_t nz, const double *gx, const double *gy, const double *gz,
                      const double *diagonal, const double *inverse, const double *b, double *x, double *work,
                      double loss, double rtol, int64_t limit) {
    const lattice_t l = lattice(nx, ny, nz, gx, gy, gz);
    const int64_t n = l.n;
    double *r = work, *z = work + n, *p = work + 2 * n, *q = work + 3 * n;
    double size = 0.0, scale = 0.0, rz = 0.0;
    conduct_apply(nx, ny, nz, gx, gy, gz, diagonal, x, r);
    for (int64_t i = 0; i < n; i++) {
        r[i] = b[i] - r[i];
        size += r[i] * r[i];
        scale += b[i] * b[i];
    }
    precondition(&l, inverse, r, z);
    for (int64_t i = 0; i < n; i++) {
        p[i] = z[i];
        rz += r[i] * z[i];
    }
    int64_t count = 0;
    for (;;) {
        double left = 0.0, sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            left += r[i] * r[i];
            sum += r[i];
        }
        if (left <= rtol * rtol * size || left <= 1e-28 * scale) {
            const double shift = sum / loss;
            for (int64_t i = 0; i < n; i++) x[i] += shift;
            return count;
        }
        if (count++ >= limit || !(left < INFINITY)) return -1;
        conduct_apply(nx, ny, nz, gx, gy, gz, diagonal, p, q);
        double pq = 0.0;
        for (int64_t i = 0; i < n; i++) pq += p[i] * q[i];
        const double alpha = rz / pq;
        for (int64_t i = 0; i < n; i++) {
            x[i] += alpha * p[i];
            r[i] -= alpha * q[i];
        }
        precondition(&l, inverse, r, z);
        double next = 0.0;
        for (int64_t i = 0; i < n; i++) next += r[i] * z[i];
        const double beta = next / rz;
        for (int64_t i = 0; i < n; i++) p[i] = z[i] + beta * p[i];
        rz = next;
    }
}
