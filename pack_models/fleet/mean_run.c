/* Many steps of a fleet whose racks are each one mean cell with a spread; the rung is described in mean.py.
 * Racks lie side by side in the lanes; a block of them goes through all steps before the next one. */
#include "fleet_run.c"

typedef struct {
    double n_series, n_parallel, busbar_ohm;      /* of a pack; busbar of one group */
    double sigma_resistance, sigma_capacity, z;   /* spread of the cells, and how far out the weakest is */
    double cell_J_per_K, coolant_J_per_K, plate, film, film_idle, flow, flow_idle, outlet, ambient;
    double supply_K, fan_W, cooling_cop, heating_cop; /* per cell but for the fan, of a pack */
    double racks_per_container;
    int64_t stream;
} Rack;

typedef struct {
    double *kelvin, *coolant_K, *air_K, *volts, *balance_soc, *sigma_soc; /* (n_racks) */
    double *soc_out, *kelvin_out; /* (n_steps / every, n_racks) or NULL */
    double *sums; /* (M_COLUMNS, n_racks) */
    int64_t n_racks, every;
} Means;

enum { M_CHARGED_J, M_DISCHARGED_J, M_REQUESTED_J, M_AC_CHARGED_J, M_AC_DISCHARGED_J, M_LOSS_J, M_UNSERVED_J,
       M_HEAT_J, M_AUXILIARY_J, M_HVAC_J, M_LIMITED_CURRENT_S, M_LIMITED_VOLTAGE_S, M_LIMITED_CHARGE_S,
       M_LIMITED_TEMPERATURE_S, M_SOC_LOW, M_SOC_HIGH, M_KELVIN_LOW, M_KELVIN_HIGH, M_VOLT_LOW, M_VOLT_HIGH,
       M_COLUMNS };

enum { RACKS = 64 };
typedef double Row[RACKS];

INLINE double bounded(double x, double low, double high) {
    x = x > low ? x : low;
    return x < high ? x : high;
}

/* loss_W without branches: loss over rating at a power share and voltage. */
INLINE double loss_share(double p, double volts, const double *R loss, double first_V, double per_V, int32_t n_volts,
                         int32_t n_powers) {
    const double x = bounded((p + 1.0) * 0.5, 0.0, 1.0) * (n_powers - 1);
    if (n_volts == 1) {
        int32_t i = (int32_t)x;
        i = i < n_powers - 2 ? i : n_powers - 2;
        return loss[i] + (x - i) * (loss[i + 1] - loss[i]);
    }
    const double y = bounded((volts - first_V) * per_V, 0.0, n_volts - 1.0);
    int32_t i = (int32_t)x, k = (int32_t)y;
    i = i < n_powers - 2 ? i : n_powers - 2;
    const double u = x - i, v = y - k;
    const int32_t up = k < n_volts - 1 ? n_powers : 0, at = k * n_powers + i;
    return (1.0 - v) * (loss[at] + u * (loss[at + 1] - loss[at])) +
           v * (loss[at + up] + u * (loss[at + up + 1] - loss[at + up]));
}

INLINE void ask_body(int64_t n, double rated, double cells, double n_series, int32_t n_volts, int32_t n_powers,
                         double first_V, double per_V, const double *R loss, const double *R asked,
                         const double *R volts, double *R ac, double *R dc, double *R w) {
    const double per_rated = 1.0 / rated, per_cell = 1.0 / cells;
    for (int64_t j = 0; j < n; ++j) {
        ac[j] = bounded(asked[j], -rated, rated);
        const double lost = rated * loss_share(ac[j] * per_rated, volts[j] * n_series, loss, first_V, per_V, n_volts, n_powers);
        dc[j] = ac[j] == 0.0 ? 0.0 : ac[j] + lost;
        W(AMPS, j) = dc[j] * per_cell / volts[j];
        W(LINK, j) = INFINITY; /* not settled */
    }
}

static NOINLINE void ask_row(int64_t n, double rated, double cells, int32_t n_powers, const double *R loss,
                             const double *R asked, const double *R volts, double *R ac, double *R dc, double *R w) {
    ask_body(n, rated, cells, 1.0, 1, n_powers, 0.0, 1.0, loss, asked, volts, ac, dc, w);
}

static NOINLINE void ask_map(int64_t n, double rated, double cells, double n_series, int32_t n_volts, int32_t n_powers,
                             double first_V, double per_V, const double *R loss, const double *R asked,
                             const double *R volts, double *R ac, double *R dc, double *R w) {
    ask_body(n, rated, cells, n_series, n_volts, n_powers, first_V, per_V, loss, asked, volts, ac, dc, w);
}

static NOINLINE void prepare_own(int64_t n, double dt_s, double reference_K, const double *R soc, const double *R v1,
                                 const double *R v2, const double *R per_charge, const double *R factor,
                                 const double *R kelvin, const double *R ohm, const double *R decay, double *R w) {
    prepare_body(n, 1, 0.0, dt_s, reference_K, 1, soc, v1, v2, per_charge, factor, soc, kelvin, ohm, decay, w);
}

static NOINLINE void gap_own(int64_t n, const double *R soc, const double *R gap, double *R w) {
    for (int64_t j = 0; j < n; ++j) {
        const double place = (soc[j] - 0.5 * W(DRIFT, j) * W(AMPS, j)) * POINTS_PER_SOC + MARGIN_POINTS;
        W(HALF_GAP, j) = gap[(int32_t)inside(place, LAST_PIECE)];
    }
}

/* Currents that serve the power within all bounds (into AMPS, the tangent's currents into `taken`); how far the
 * limited ones moved from their tangent, in V. */
static NOINLINE double serve(int64_t n, const Limits *R lim, const Rack *R rack, const double *R soc,
                             const double *R kelvin, const double *R coolant_K,
                             const double *R balance, const double *R sigma, const double *R dc, double *R cause,
                             double *R volts, double *R w) {
    const double cells = rack->n_series * rack->n_parallel, busbar = rack->busbar_ohm * rack->n_parallel;
    const double hot_span = 1.0 / (lim->hot_none_K - lim->hot_full_K);
    const double cold_span = 1.0 / (lim->cold_full_K - lim->cold_none_K), z = rack->z;
    const double most = lim->discharge_A / rack->n_parallel, least = -lim->charge_A / rack->n_parallel;
    const double sr = rack->sigma_resistance, sq = rack->sigma_capacity;
    const double min_V = lim->voltage_min_V, max_V = lim->voltage_max_V, cold_K = lim->cold_none_K;
    const double hot_K = lim->hot_none_K, soc_min = lim->soc_min, soc_max = lim->soc_max;
    const double stream = rack->stream ? 1.0 : 0.0, supply_K = rack->supply_K;
    const double four_per_cell = 4.0 / cells;
    for (int64_t j = 0; j < n; ++j) {
        const double rate = 1.0 / W(DRIFT, j); /* A for a full charge in one step */
        const double r = W(WEIGHT, j), e = W(EMF, j), taken = W(AMPS, j);
        const double warmer = stream * (coolant_K[j] - supply_K), hottest = kelvin[j] + (warmer > 0.0 ? warmer : 0.0);
        const double cool = bounded((hot_K - hottest) * hot_span, 0.0, 1.0);
        const double warm = bounded((kelvin[j] - cold_K) * cold_span, 0.0, 1.0);
        /* The weakest group: less charge and capacity, more resistance than the mean by z sigmas. */
        const double rise = (r - W(R_END, j)) * rate, moved = (soc[j] - balance[j]) * sq;
        const double by_soc = rise * rise * (sigma[j] * sigma[j] + moved * moved);
        const double by_ohm = taken * W(R_END, j) * sr, margin = z * sqrt(by_soc + by_ohm * by_ohm);
        const double high_T = most * cool, low_T = least * (warm < cool ? warm : cool);
        const double high_V = (e - min_V - margin) * W(COND, j), low_V = (e - max_V + margin) * W(COND, j);
        const double high_q = (soc[j] - soc_min) * rate, low_q = (soc[j] - soc_max) * rate;
        double high = high_T < high_V ? high_T : high_V, low = low_T > low_V ? low_T : low_V;
        high = high < high_q ? high : high_q;
        low = low > low_q ? low : low_q;
        high = high > 0.0 ? high : 0.0;
        low = low < 0.0 ? low : 0.0;
        const double all = r + busbar, root = e * e - all * four_per_cell * dc[j];
        const double wanted = dc[j] == 0.0 ? 0.0 : (e - 0.5 * (e + sqrt(root > 0.0 ? root : 0.0))) / all;
        /* Settled in an earlier round: stays, or the result would depend on the company in the block. */
        const int settled = W(LINK, j) < LIMIT_V;
        const double amps = settled ? taken : bounded(wanted, low, high);
        const double on_top = amps == high_V || amps == low_V ? BY_VOLTAGE : BY_CHARGE;
        const double by_T = cool < 1.0 || (wanted < 0.0 && warm < 1.0) ? BY_TEMPERATURE : BY_CURRENT;
        const double now = amps == wanted ? NOTHING : amps == high_T || amps == low_T ? by_T : on_top;
        cause[j] = settled ? cause[j] : now;
        volts[j] = settled ? volts[j] : e - amps * all;
        W(LINK, j) = settled ? 0.0 : amps == wanted ? 0.0 : fabs(amps - taken) * r;
        W(AMPS, j) = amps;
    }
    double least_V, worst;
    extremes(n, &W(LINK, 0), &least_V, &worst);
    return worst;
}

#define ADD(column, value) sums[(column) * n_all + j] += (value)
#define LEAST(column, value) sums[(column) * n_all + j] = (value) < sums[(column) * n_all + j] ? (value) : sums[(column) * n_all + j]
#define MOST(column, value) sums[(column) * n_all + j] = (value) > sums[(column) * n_all + j] ? (value) : sums[(column) * n_all + j]

/* Powers and their books. */
INLINE void book_body(int64_t n, int64_t n_all, const Rack *R rack, double dt_s, double rated,
                          double standby, int32_t n_volts, int32_t n_powers, double first_V, double per_V,
                          const double *R loss, const double *R asked, const double *R ac, const double *R cause,
                          const double *R soc, const double *R volts, double *R heat, double *R lost_W,
                          double *R sums, const double *R w) {
    const double cells = rack->n_series * rack->n_parallel, busbar = rack->busbar_ohm * rack->n_parallel;
    const double n_series = rack->n_series, per_rated = 1.0 / rated;
    for (int64_t j = 0; j < n; ++j) {
        const double amps = W(AMPS, j), own = W(OWN_V, j);
        heat[j] = amps * (W(OPEN_V, j) - own) + W(REVERSIBLE, j);
        const double power = cells * amps * (own - amps * busbar), dc_V = volts[j] * n_series;
        double got = power - rated * loss_share(ac[j] * per_rated, dc_V, loss, first_V, per_V, n_volts, n_powers);
        got = power - rated * loss_share(got * per_rated, dc_V, loss, first_V, per_V, n_volts, n_powers);
        const int idle = ac[j] == 0.0;
        got = idle ? 0.0 : got;
        const double lost = idle ? standby * rated : power - got;
        lost_W[j] = lost;
        ADD(M_CHARGED_J, power < 0.0 ? -power * dt_s : 0.0);
        ADD(M_DISCHARGED_J, power < 0.0 ? 0.0 : power * dt_s);
        ADD(M_REQUESTED_J, fabs(asked[j]) * dt_s);
        ADD(M_AC_CHARGED_J, got < 0.0 ? -got * dt_s : 0.0);
        ADD(M_AC_DISCHARGED_J, got < 0.0 ? 0.0 : got * dt_s);
        ADD(M_LOSS_J, lost * dt_s);
        ADD(M_UNSERVED_J, cause[j] != NOTHING || ac[j] != asked[j] ? fabs(asked[j] - got) * dt_s : 0.0);
        ADD(M_HEAT_J, cells * heat[j] * dt_s);
        ADD(M_LIMITED_CURRENT_S, cause[j] == BY_CURRENT ? dt_s : 0.0);
        ADD(M_LIMITED_VOLTAGE_S, cause[j] == BY_VOLTAGE ? dt_s : 0.0);
        ADD(M_LIMITED_CHARGE_S, cause[j] == BY_CHARGE ? dt_s : 0.0);
        ADD(M_LIMITED_TEMPERATURE_S, cause[j] == BY_TEMPERATURE ? dt_s : 0.0);
        LEAST(M_SOC_LOW, soc[j]);
        MOST(M_SOC_HIGH, soc[j]);
        LEAST(M_VOLT_LOW, volts[j]);
        MOST(M_VOLT_HIGH, volts[j]);
    }
}

static NOINLINE void book_row(int64_t n, int64_t n_all, const Rack *R rack, double dt_s, double rated, double standby,
                              int32_t n_powers, const double *R loss, const double *R asked, const double *R ac,
                              const double *R cause, const double *R soc, const double *R volts, double *R heat,
                              double *R lost_W, double *R sums, const double *R w) {
    book_body(n, n_all, rack, dt_s, rated, standby, 1, n_powers, 0.0, 1.0, loss, asked, ac, cause, soc, volts, heat,
              lost_W, sums, w);
}

static NOINLINE void book_map(int64_t n, int64_t n_all, const Rack *R rack, double dt_s, double rated, double standby,
                              int32_t n_volts, int32_t n_powers, double first_V, double per_V, const double *R loss,
                              const double *R asked, const double *R ac, const double *R cause, const double *R soc,
                              const double *R volts, double *R heat, double *R lost_W, double *R sums,
                              const double *R w) {
    book_body(n, n_all, rack, dt_s, rated, standby, n_volts, n_powers, first_V, per_V, loss, asked, ac, cause, soc,
              volts, heat, lost_W, sums, w);
}

/* Cell, coolant and the rack's share of the air, implicit one after the other. */
static NOINLINE void warm(int64_t n, int64_t n_all, const Rack *R rack, const Limits *R lim, const Container *R box,
                          double dt_s, const double *R heat, const double *R lost_W, const double *R outside_K,
                          double *R kelvin, double *R coolant_K, double *R air_K, double *R sums) {
    const double cells = rack->n_series * rack->n_parallel, share = 1.0 / rack->racks_per_container;
    const double c = rack->cell_J_per_K / dt_s, f = rack->coolant_J_per_K / dt_s, a = rack->ambient;
    const double stream = rack->stream ? 1.0 : 0.0, one_plate = rack->plate > 0.0 ? 1.0 / rack->plate : 0.0;
    const double span = 1.0 / (lim->cooling_full_K - lim->cooling_on_K), on_K = lim->cooling_on_K;
    const double film_idle = rack->film_idle, film = rack->film - film_idle, flow_idle = rack->flow_idle;
    const double flow = rack->flow - flow_idle, outlet = rack->outlet, supply = rack->supply_K;
    const double own_supply = supply > 0.0 ? 1.0 : 0.0, fan_W = rack->fan_W;
    const double per_cooled = 1.0 / rack->cooling_cop, per_heated = 1.0 / rack->heating_cop;
    const double store = share * box->air_J_per_K / dt_s, wall = share * box->wall_W_per_K, base = store + wall;
    const double cool_top = share * box->cooling_W, heat_top = share * box->heating_W;
    const double cool_slope = cool_top / box->band_K, heat_slope = heat_top / box->band_K;
    const double above = box->cool_above_K, below = box->heat_below_K, inside_share = box->converter_share;
    const double cop0 = box->cop, cop1 = box->cop_per_K, cop_K = box->cop_reference_K, machine_W = share * box->fan_W;
    const double per_heat = 1.0 / box->heating_cop;
    for (int64_t j = 0; j < n; ++j) {
        const double T = kelvin[j], F = coolant_K[j], A = air_K[j];
        const double in_K = own_supply * supply + (1.0 - own_supply) * A;
        const double more = stream * (F - in_K), hottest = T + (more > 0.0 ? more : 0.0);
        const double level = bounded((hottest - on_K) * span, 0.0, 1.0);
        const double k_film = film_idle + level * film, k = k_film / (1.0 + k_film * one_plate);
        const double w = outlet * (flow_idle + level * flow);
        /* (c + k + a) T' - k F' = c T + q + a A;  -k T' + (f + k + w) F' = f F + w in */
        const double d = c + k + a, g = f + k + w, r0 = c * T + heat[j] + a * A, r1 = f * F + w * in_K;
        const double one = 1.0 / (d * g - k * k), end_T = (g * r0 + k * r1) * one, end_F = (d * r1 + k * r0) * one;
        kelvin[j] = end_T;
        coolant_K[j] = end_F;
        const double carried = cells * w * (end_F - in_K);
        const double moved = carried > 0.0 ? carried * per_cooled : -carried * per_heated;
        ADD(M_AUXILIARY_J, (fan_W * level * level * level + own_supply * moved) * dt_s);
        /* Air: free, or held by the machine within its band, or with all it has. */
        const double drive = store * A + wall * outside_K[j] + cells * a * (end_T - A) + inside_share * lost_W[j];
        const double free_K = drive / base;
        const double cool_K = (drive + cool_slope * above) / (base + cool_slope);
        const double heat_K = (drive + heat_slope * below) / (base + heat_slope);
        double cooled = cool_slope * (cool_K - above), heated = heat_slope * (below - heat_K);
        cooled = free_K > above ? (cooled < cool_top ? cooled : cool_top) : 0.0;
        heated = free_K < below ? (heated < heat_top ? heated : heat_top) : 0.0;
        air_K[j] = (drive - cooled + heated) / base;
        double cop = cop0 + cop1 * (outside_K[j] - cop_K);
        cop = cop > 1.0 ? cop : 1.0;
        ADD(M_HVAC_J, (cooled / cop + heated * per_heat + (cooled + heated > 0.0 ? machine_W : 0.0)) * dt_s);
        LEAST(M_KELVIN_LOW, end_T);
        MOST(M_KELVIN_HIGH, end_T + (more > 0.0 ? more : 0.0));
    }
}

/* request_W, outside_K (n_steps, n_racks) */
void mean_run(const Tables *t, const Cells *c, const Converters *a, const Limits *lim, const Container *box,
              const Rack *rack, const Means *m, int64_t n_steps, const double *request_W, const double *outside_K,
              double *w) {
    const int64_t n_all = m->n_racks;
    const double rated = a->rated_W[0], dt_s = t->dt_s, per_V = 1.0 / a->volt_step_V, cells = rack->n_series * rack->n_parallel;
    const int32_t n_volts = (int32_t)a->n_volts, n_powers = (int32_t)a->n_powers;
    Row ac, dc, cause, heat, lost;
    for (int64_t at = 0; at < n_all; at += RACKS) {
        const int64_t n = n_all - at < RACKS ? n_all - at : RACKS;
        double *soc = c->soc + at, *kelvin = m->kelvin + at, *sums = m->sums + at, *volts = m->volts + at;
        for (int64_t step = 0; step < n_steps; ++step) {
            const double *asked = request_W + step * n_all + at;
            if (n_volts == 1) ask_row(n, rated, cells, n_powers, a->loss, asked, volts, ac, dc, w);
            else
                ask_map(n, rated, cells, rack->n_series, n_volts, n_powers, a->volt_first_V, per_V, a->loss, asked,
                        volts, ac, dc, w);
            prepare_own(n, dt_s, t->reference_K, soc, c->v1_V + at, c->v2_V + at, c->per_charge + at,
                        c->resistance_factor + at, kelvin, t->ohm, t->decay, w);
            if (t->hysteresis_rate != 0.0) gap_own(n, soc, t->gap, w);
            for (int round = 0; round < LIMIT_ROUNDS; ++round) {
                tangent(t, c, at, n, w);
                if (serve(n, lim, rack, soc, kelvin, m->coolant_K + at, m->balance_soc + at,
                          m->sigma_soc + at, dc, cause, volts, w) < LIMIT_V)
                    break;
            }
            int64_t counts[4] = {0};
            finish(t, c, m->kelvin, at, n, w, counts);
            if (n_volts == 1)
                book_row(n, n_all, rack, dt_s, rated, a->standby, n_powers, a->loss, asked, ac, cause, soc, volts, heat,
                         lost, sums, w);
            else
                book_map(n, n_all, rack, dt_s, rated, a->standby, n_volts, n_powers, a->volt_first_V, per_V, a->loss,
                         asked, ac, cause, soc, volts, heat, lost, sums, w);
            warm(n, n_all, rack, lim, box, dt_s, heat, lost, outside_K + step * n_all + at, kelvin, m->coolant_K + at,
                 m->air_K + at, sums);
            if (m->soc_out && (step + 1) % m->every == 0) {
                const int64_t row = (step + 1) / m->every - 1;
                memcpy(m->soc_out + row * n_all + at, soc, (size_t)n * sizeof *soc);
                memcpy(m->kelvin_out + row * n_all + at, kelvin, (size_t)n * sizeof *soc);
            }
        }
    }
}
