/* Many steps of a fleet in one call: power asked of converters, cells, temperatures, containers.
 * What the parts mean stands in engine.py, whose structures mirror those here.
 *
 * Containers are independent of each other, so the order is container, time, converter, pack: what a
 * container holds stays in the cache over all steps.
 */
#include "../cells/ecm_step.c"
#include "../thermal/lumped_step.c"

typedef struct {
    const int64_t *container_converter_start, *converter_pack_start;
    const double *rated_W;                            /* (n_converters) */
    const double *loss;                               /* (n_volts, n_powers) of the rating */
    double volt_first_V, volt_step_V, standby;        /* grid of the loss, loss while idle */
    int64_t n_volts, n_powers, n_containers;
} Converters;

typedef struct {
    double charge_A, discharge_A, voltage_min_V, voltage_max_V, soc_min, soc_max;
    double cold_none_K, cold_full_K, hot_full_K, hot_none_K; /* charging from cold to hot, both fade */
    double cooling_on_K, cooling_full_K;
} Limits;

typedef struct {
    double air_J_per_K, wall_W_per_K, converter_share, cool_above_K, heat_below_K, band_K, cooling_W, heating_W,
        cop, cop_per_K, cop_reference_K, heating_cop, fan_W;
} Container;

typedef struct {
    double *air_K;          /* (n_containers) */
    double *pack_current_A; /* (n_packs) of the last step */
    double *cooling, *ambient_K, *emf_V, *resistance_ohm, *low_A, *high_A; /* (n_packs) work */
    double *guess_A, *coldest_K, *hottest_K;
    int64_t *cause;         /* (n_packs) work: what bounds it below and above */
    double *scratch;        /* blocks of the largest converter */
} Work;

/* Columns of the sums, per pack and per converter or container, since they were last emptied. */
enum { P_CHARGED_J, P_DISCHARGED_J, P_AUXILIARY_J, P_LIMITED_CURRENT_S, P_LIMITED_VOLTAGE_S, P_LIMITED_CHARGE_S,
       P_LIMITED_TEMPERATURE_S, P_SOC_LOW, P_SOC_HIGH, P_KELVIN_LOW, P_KELVIN_HIGH, P_VOLT_LOW, P_VOLT_HIGH,
       P_COLUMNS };
enum { A_REQUESTED_J, A_CHARGED_J, A_DISCHARGED_J, A_LOSS_J, A_UNSERVED_J, A_COLUMNS };
enum { H_COOLED_J, H_HEATED_J, H_ELECTRIC_J, H_IN_J, H_WALL_J, H_KELVIN_LOW, H_KELVIN_HIGH, H_COLUMNS };
static const double LIMIT_V = 2e-4; /* per group: how far from its tangent a limited current may be */
enum { LIMIT_ROUNDS = 12 };
enum { NOTHING, BY_CURRENT, BY_VOLTAGE, BY_CHARGE, BY_TEMPERATURE };

typedef struct {
    double *packs, *converters, *containers;
    double *soc, *kelvin; /* (n_steps, n_modules) means at the end of each step, or NULL */
} Totals;

static double clip(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

/* Loss of a converter in W, bilinear over DC voltage and AC power. */
static double loss_W(const Converters *a, double rated_W, double ac_W, double dc_V) {
    const double x = clip((ac_W / rated_W + 1.0) * 0.5, 0.0, 1.0) * (double)(a->n_powers - 1);
    const double y = clip((dc_V - a->volt_first_V) / a->volt_step_V, 0.0, (double)(a->n_volts - 1));
    const int64_t i = (int64_t)clip(x, 0.0, (double)(a->n_powers - 2));
    const int64_t k = a->n_volts > 1 ? (int64_t)clip(y, 0.0, (double)(a->n_volts - 2)) : 0;
    const int64_t up = a->n_volts > 1 ? a->n_powers : 0;
    const double *at = a->loss + k * a->n_powers + i;
    const double u = x - (double)i, v = y - (double)k;
    return rated_W * ((1.0 - v) * (at[0] + u * (at[1] - at[0])) + v * (at[up] + u * (at[up + 1] - at[up])));
}

/* The AC power that goes with a DC power: dc = ac + loss(ac); the loss hardly depends on ac. */
static double ac_of(const Converters *a, double rated_W, double dc_W, double dc_V) {
    double ac_W = dc_W;
    for (int k = 0; k < 8; ++k) ac_W = dc_W - loss_W(a, rated_W, ac_W, dc_V);
    return ac_W;
}

static void extremes(int64_t n, const double *x, double *low, double *high) {
    double least[PARTS], most[PARTS];
    for (int l = 0; l < PARTS; ++l) least[l] = most[l] = x[0];
    int64_t j = 0;
    for (; j + PARTS <= n; j += PARTS)
        for (int l = 0; l < PARTS; ++l) {
            least[l] = x[j + l] < least[l] ? x[j + l] : least[l];
            most[l] = x[j + l] > most[l] ? x[j + l] : most[l];
        }
    for (int l = 0; j < n; ++j, ++l) {
        least[l] = x[j] < least[l] ? x[j] : least[l];
        most[l] = x[j] > most[l] ? x[j] : most[l];
    }
    *low = least[0];
    *high = most[0];
    for (int l = 1; l < PARTS; ++l) {
        *low = least[l] < *low ? least[l] : *low;
        *high = most[l] > *high ? most[l] : *high;
    }
}

/* Currents at which the first group of a block meets its voltage limits: least discharge, least charge. */
static void room(int64_t groups, int64_t J, double min_V, double max_V, const double *w, double *down, double *up) {
    double least[PARTS], most[PARTS], low, high;
    for (int l = 0; l < PARTS; ++l) {
        least[l] = INFINITY;
        most[l] = -INFINITY;
    }
    for (int64_t g = 0; g < groups; ++g) {
        double sum_e = 0.0, sum_g = 0.0;
        for (int64_t j = g * J; j < (g + 1) * J; ++j) {
            sum_e += W(EMF, j) * W(COND, j);
            sum_g += W(COND, j);
        }
        low = sum_e - max_V * sum_g;
        high = sum_e - min_V * sum_g;
        least[g % PARTS] = high < least[g % PARTS] ? high : least[g % PARTS];
        most[g % PARTS] = low > most[g % PARTS] ? low : most[g % PARTS];
    }
    for (int l = 0; l < PARTS; ++l) {
        *down = least[l] < *down ? least[l] : *down;
        *up = most[l] > *up ? most[l] : *up;
    }
}

static NOINLINE void room_single(int64_t n, double min_V, double max_V, double *R w) {
    for (int64_t j = 0; j < n; ++j) {
        W(MOVED, j) = (W(EMF, j) - min_V) * W(COND, j);
        W(HEAT, j) = (W(EMF, j) - max_V) * W(COND, j);
    }
}

/* Emf and resistance of a pack around guess_A, and the currents its limits allow; returns the next scratch. */
static double *forecast(const Tables *t, const Wires *wires, const Cells *c, const Limits *lim,
                        const double *kelvin, int64_t p, Work *work, double *scratch) {
    const double guess_A = work->guess_A[p], kelvin_low = work->coldest_K[p], kelvin_high = work->hottest_K[p];
    const int64_t g0 = wires->pack_group_start[p], g1 = wires->pack_group_start[p + 1];
    const int64_t first_cell = wires->group_cell_start[g0], n_cells = wires->group_cell_start[g1] - first_cell;
    const int64_t J = n_cells / (g1 - g0);
    double pack_e = 0.0, pack_r = 0.0, down = INFINITY, up = -INFINITY, *w = scratch;
    for (int64_t g = g0; g < g1; w += COLUMNS * STRIDE) {
        const int64_t groups = g1 - g < groups_per_block(J) ? g1 - g : groups_per_block(J), n = groups * J;
        const int64_t first = wires->group_cell_start[g];
        prepare(t, c, kelvin, first, n, guess_A / (double)J, w);
        first_guess(c, first, groups, J, guess_A, w);
        tangent(t, c, first, n, w);
        if (J == 1 && !c->special[p]) {
            double none;
            pack_e += lane_sum(n, &W(EMF, 0));
            pack_r += lane_sum(n, &W(WEIGHT, 0)) + lane_sum(groups, wires->busbar_ohm + g);
            room_single(n, lim->voltage_min_V, lim->voltage_max_V, w);
            double least, most;
            extremes(n, &W(MOVED, 0), &least, &none);
            extremes(n, &W(HEAT, 0), &none, &most);
            down = least < down ? least : down;
            up = most > up ? most : up;
        } else {
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
            room(groups, J, lim->voltage_min_V, lim->voltage_max_V, w, &down, &up);
        }
        g += groups;
    }
    work->emf_V[p] = pack_e;
    work->resistance_ohm[p] = pack_r;

    const double mean_soc = lane_sum(n_cells, c->soc + first_cell) / (double)n_cells;
    const double per_C = (double)J * (double)n_cells / lane_sum(n_cells, c->per_charge + first_cell) / t->dt_s;
    const double warm = clip((kelvin_low - lim->cold_none_K) / (lim->cold_full_K - lim->cold_none_K), 0.0, 1.0);
    const double cool = clip((lim->hot_none_K - kelvin_high) / (lim->hot_none_K - lim->hot_full_K), 0.0, 1.0);
    double high = lim->discharge_A * cool, low = -lim->charge_A * (warm < cool ? warm : cool);
    int64_t above = cool < 1.0 ? BY_TEMPERATURE : BY_CURRENT;
    int64_t below = warm < 1.0 || cool < 1.0 ? BY_TEMPERATURE : BY_CURRENT;
    const double left = (mean_soc - lim->soc_min) * per_C, free_C = (mean_soc - lim->soc_max) * per_C;
    if (left < high) high = left, above = BY_CHARGE;
    if (free_C > low) low = free_C, below = BY_CHARGE;
    if (down < high) high = down, above = BY_VOLTAGE;
    if (up > low) low = up, below = BY_VOLTAGE;
    work->high_A[p] = high > 0.0 ? high : 0.0;
    work->low_A[p] = low < 0.0 ? low : 0.0;
    work->cause[p] = above * 8 + below;
    return w;
}

static int64_t net_groups(const Wires *wires, int64_t p) {
    return wires->pack_group_start[p + 1] - wires->pack_group_start[p];
}

/* Voltage of the bus of the packs from p0 to before p1 that serves a DC power within all bounds, and the
 * currents that go with it; `wanted` is the voltage without bounds. */
static double bus(const Tables *t, const Wires *wires, const Cells *c, const Limits *lim, const double *kelvin,
                  int64_t p0, int64_t p1, double dc_W, Work *work, double *wanted) {
    double *scratch = work->scratch;
    double y = 0.0, e = 0.0, lowest = -INFINITY, highest = INFINITY;
    for (int64_t p = p0; p < p1; ++p) {
        scratch = forecast(t, wires, c, lim, kelvin, p, work, scratch);
        const double r = work->resistance_ohm[p], emf = work->emf_V[p];
        y += 1.0 / r;
        e += emf / r;
        lowest = fmax(emf - r * work->high_A[p], lowest);
        highest = fmin(emf - r * work->low_A[p], highest);
    }
    const double emf = e / y, resistance = 1.0 / y, root = emf * emf - 4.0 * resistance * dc_W;
    *wanted = 0.5 * (emf + sqrt(root > 0.0 ? root : 0.0));
    /* Packs far apart drive more between themselves than one may take: then nobody is served. */
    const double volts = lowest > highest ? 0.5 * (lowest + highest) : clip(*wanted, lowest, highest);
    for (int64_t p = p0; p < p1; ++p)
        work->pack_current_A[p] =
            dc_W == 0.0 && p1 - p0 == 1 ? 0.0 : (work->emf_V[p] - volts) / work->resistance_ohm[p];
    return volts;
}

/* Cells of a pack under its current, coefficients as the forecast left them; returns the next scratch. */
static double *advance(const Tables *t, const Wires *wires, const Cells *c, const Packs *packs,
                       const double *kelvin, int64_t p, double guess_A, double current_A, double *scratch) {
    static const double bleed[STRIDE];
    const int64_t g0 = wires->pack_group_start[p], g1 = wires->pack_group_start[p + 1];
    const int64_t J = wires->group_cell_start[g0 + 1] - wires->group_cell_start[g0];
    double *w = scratch;
    Sums s = {0};
    for (int64_t g = g0; g < g1; w += COLUMNS * STRIDE) {
        const int64_t groups = g1 - g < groups_per_block(J) ? g1 - g : groups_per_block(J), n = groups * J;
        const int64_t first = wires->group_cell_start[g];
        const double extra = (current_A - guess_A) / (double)J;
        for (int64_t j = 0; j < n; ++j) W(AMPS, j) += extra;
        if (c->special[p]) {
            for (int64_t k = 0; k < groups; ++k)
                packs->group_voltage_V[g + k] = settle_group(t, c, first + k * J, J, 0.0, current_A, w + k * J);
        } else {
            share_block(t, c, first, groups, J, current_A, bleed, packs->group_voltage_V + g, w);
        }
        close_block(t, wires, c, packs, kelvin, g, groups, first, J, c->special[p], current_A, bleed, w, &s);
        g += groups;
    }
    close_pack(packs, p, g1 - g0, current_A, t->dt_s, &s);
    return w;
}

/* Air of a container at the end of a step: implicit, with the machine's power following the air within its
 * band. */
static void breathe(const Container *h, double dt_s, double outside_K, double heat_W, double *air_K, double *sums) {
    const double store = h->air_J_per_K / dt_s, base = store + h->wall_W_per_K;
    const double drive = store * *air_K + h->wall_W_per_K * outside_K + heat_W;
    const double free_K = drive / base;
    double cool_W = 0.0, heat_up_W = 0.0, end_K = free_K;
    if (free_K > h->cool_above_K) {
        const double slope = h->cooling_W / h->band_K;
        end_K = (drive + slope * h->cool_above_K) / (base + slope);
        cool_W = slope * (end_K - h->cool_above_K);
        if (cool_W > h->cooling_W) cool_W = h->cooling_W, end_K = (drive - cool_W) / base;
    } else if (free_K < h->heat_below_K) {
        const double slope = h->heating_W / h->band_K;
        end_K = (drive + slope * h->heat_below_K) / (base + slope);
        heat_up_W = slope * (h->heat_below_K - end_K);
        if (heat_up_W > h->heating_W) heat_up_W = h->heating_W, end_K = (drive + heat_up_W) / base;
    }
    const double cop = h->cop + h->cop_per_K * (outside_K - h->cop_reference_K);
    const double electric_W = cool_W / (cop > 1.0 ? cop : 1.0) + heat_up_W / h->heating_cop +
                              (cool_W + heat_up_W > 0.0 ? h->fan_W : 0.0);
    *air_K = end_K;
    sums[H_COOLED_J] += cool_W * dt_s;
    sums[H_HEATED_J] += heat_up_W * dt_s;
    sums[H_ELECTRIC_J] += electric_W * dt_s;
    sums[H_IN_J] += heat_W * dt_s;
    sums[H_WALL_J] += h->wall_W_per_K * (end_K - outside_K) * dt_s;
    sums[H_KELVIN_LOW] = end_K < sums[H_KELVIN_LOW] ? end_K : sums[H_KELVIN_LOW];
    sums[H_KELVIN_HIGH] = end_K > sums[H_KELVIN_HIGH] ? end_K : sums[H_KELVIN_HIGH];
}

/* n_steps of the whole fleet. request_W (n_steps, n_converters) AC, positive on discharge; outside_K
 * (n_steps, n_containers). */
void fleet_run(const Tables *t, const Wires *wires, const Cells *c, const Packs *packs, const Network *net,
               const Nodes *nodes, const Converters *a, const Limits *lim, const Container *h, Work *work,
               const Totals *sums, int64_t n_steps, const double *request_W, const double *outside_K) {
    const double dt_s = t->dt_s, *kelvin = nodes->temperature_K;
    const int64_t n_converters = a->container_converter_start[a->n_containers];
    const int64_t n_modules = net->pack_module_start[wires->n_packs], J = net->n_parallel;
    for (int64_t box = 0; box < a->n_containers; ++box) {
        const int64_t v0 = a->container_converter_start[box], v1 = a->container_converter_start[box + 1];
        const int64_t box_p0 = a->converter_pack_start[v0], box_p1 = a->converter_pack_start[v1];
        for (int64_t step = 0; step < n_steps; ++step) {
            double box_W = 0.0, lost_before_J = 0.0, lost_J = 0.0;
            for (int64_t p = box_p0; p < box_p1; ++p) {
                work->ambient_K[p] = work->air_K[box];
                lost_before_J += nodes->ledger[p * Q_COLUMNS + Q_AMBIENT];
            }
            for (int64_t v = v0; v < v1; ++v) {
                const int64_t p0 = a->converter_pack_start[v], p1 = a->converter_pack_start[v + 1];
                const double rated = a->rated_W[v], asked = request_W[step * n_converters + v];
                const double ac = clip(asked, -rated, rated), bus_V = packs->pack_voltage_V[p0];
                const double dc = ac == 0.0 ? 0.0 : ac + loss_W(a, rated, ac, bus_V);
                for (int64_t p = p0; p < p1; ++p) {
                    const int64_t n_cells = wires->group_cell_start[wires->pack_group_start[p + 1]] -
                                            wires->group_cell_start[wires->pack_group_start[p]];
                    double *mine = sums->packs + p * P_COLUMNS;
                    extremes(n_cells, kelvin + wires->group_cell_start[wires->pack_group_start[p]],
                             &work->coldest_K[p], &work->hottest_K[p]);
                    mine[P_KELVIN_LOW] = fmin(work->coldest_K[p], mine[P_KELVIN_LOW]);
                    mine[P_KELVIN_HIGH] = fmax(work->hottest_K[p], mine[P_KELVIN_HIGH]);
                    work->cooling[p] = clip((work->hottest_K[p] - lim->cooling_on_K) /
                                                (lim->cooling_full_K - lim->cooling_on_K), 0.0, 1.0);
                    work->guess_A[p] = dc / bus_V / (double)(p1 - p0);
                }
                double wanted, volts;
                for (int round = 0; round < LIMIT_ROUNDS; ++round) {
                    volts = bus(t, wires, c, lim, kelvin, p0, p1, dc, work, &wanted);
                    /* On a limit the tangent has to be taken where it is used: the open circuit bends there. */
                    double away_V = 0.0;
                    for (int64_t p = p0; p < p1; ++p)
                        away_V = fmax(away_V, fabs(work->pack_current_A[p] - work->guess_A[p]) *
                                                  work->resistance_ohm[p] / (double)net_groups(wires, p));
                    if (volts == wanted || away_V < LIMIT_V || round == LIMIT_ROUNDS - 1) break;
                    for (int64_t p = p0; p < p1; ++p) work->guess_A[p] = work->pack_current_A[p];
                }
                double *scratch = work->scratch;
                double power = 0.0;
                for (int64_t p = p0; p < p1; ++p) {
                    const int64_t g0 = wires->pack_group_start[p], g1 = wires->pack_group_start[p + 1];
                    const int64_t first = wires->group_cell_start[g0];
                    scratch = advance(t, wires, c, packs, kelvin, p, work->guess_A[p], work->pack_current_A[p],
                                      scratch);
                    const double pack_W = packs->pack_power_W[p];
                    power += pack_W;
                    double *mine = sums->packs + p * P_COLUMNS, low, high;
                    mine[pack_W < 0.0 ? P_CHARGED_J : P_DISCHARGED_J] += fabs(pack_W) * dt_s;
                    if (volts != wanted) {
                        const int64_t cause = volts > wanted ? work->cause[p] / 8 : work->cause[p] % 8;
                        mine[P_LIMITED_CURRENT_S + cause - BY_CURRENT] += dt_s;
                    }
                    extremes(g1 - g0, packs->group_voltage_V + g0, &low, &high);
                    mine[P_VOLT_LOW] = low < mine[P_VOLT_LOW] ? low : mine[P_VOLT_LOW];
                    mine[P_VOLT_HIGH] = high > mine[P_VOLT_HIGH] ? high : mine[P_VOLT_HIGH];
                    extremes((g1 - g0) * J, c->soc + first, &low, &high);
                    mine[P_SOC_LOW] = low < mine[P_SOC_LOW] ? low : mine[P_SOC_LOW];
                    mine[P_SOC_HIGH] = high > mine[P_SOC_HIGH] ? high : mine[P_SOC_HIGH];
                }
                const double got = ac == 0.0 ? 0.0 : ac_of(a, rated, power, packs->pack_voltage_V[p0]);
                const double loss = ac == 0.0 ? a->standby * rated : power - got;
                double *mine = sums->converters + v * A_COLUMNS;
                mine[A_REQUESTED_J] += fabs(asked) * dt_s;
                mine[got < 0.0 ? A_CHARGED_J : A_DISCHARGED_J] += fabs(got) * dt_s;
                mine[A_LOSS_J] += loss * dt_s;
                mine[A_UNSERVED_J] += (volts != wanted || ac != asked ? fabs(asked - got) : 0.0) * dt_s;
                box_W += h->converter_share * loss;
            }
            lumped_step(net, nodes, box_p0, box_p1, c->heat_W, work->ambient_K, work->cooling, dt_s);
            for (int64_t p = box_p0; p < box_p1; ++p) {
                lost_J += nodes->ledger[p * Q_COLUMNS + Q_AMBIENT];
                sums->packs[p * P_COLUMNS + P_AUXILIARY_J] += nodes->auxiliary_W[p] * dt_s;
            }
            box_W += (lost_J - lost_before_J) / dt_s;
            breathe(h, dt_s, outside_K[step * a->n_containers + box], box_W, &work->air_K[box],
                    sums->containers + box * H_COLUMNS);
            if (sums->soc) {
                for (int64_t m = net->pack_module_start[box_p0]; m < net->pack_module_start[box_p1]; ++m) {
                    const int64_t first = net->module_group_start[m] * J;
                    const int64_t n = net->module_group_start[m + 1] * J - first;
                    sums->soc[step * n_modules + m] = lane_sum(n, c->soc + first) / (double)n;
                    sums->kelvin[step * n_modules + m] = lane_sum(n, kelvin + first) / (double)n;
                }
            }
        }
    }
}
