"""One body at one temperature: adiabatic calorimetry, oven tests, ramps.

The stiff system (temperature, species, extents, energies) is integrated by BDF; the integrator restarts
where a reaction starts or changes its pre-exponential factor, because those thresholds are discontinuities.

    body = Body(SetInUse(load_set("kim2007_lco"), 2580.0), volume_m3=1.654e-5, capacity_J_m3K=2580 * 830)
    run = integrate(body, start_K=383.15, until_s=2e4)
    run.time_of_max_rate_s, run.crossing_s(473.15)

Time s, temperature K, heat positive into the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import solve_ivp

from .errors import SolverError
from .kernel import RD_T_HOT, RD_T_ON, Rates
from .kinetics import Pathways, SetInUse, compile_sets, pathways

STEFAN_BOLTZMANN = 5.670374419e-8


@dataclass(frozen=True)
class Body:
    """A reacting body and what it exchanges heat with.

    Parameters
    ----------
    use : kinetic set
    volume_m3, capacity_J_m3K : capacity includes the thermal inertia of a sample holder (phi factor)
    area_m2, h_W_m2K, emissivity, ambient_K : convection and radiation over the whole surface
    heater_W : (time_s) -> power into the body, or None
    ramp_K_s : temperature is prescribed to rise at this rate (calorimetry), or None
    breaks_s : times at which the heater jumps
    """

    use: SetInUse
    volume_m3: float
    capacity_J_m3K: float
    area_m2: float = 0.0
    h_W_m2K: float = 0.0
    emissivity: float = 0.0
    ambient_K: float = 298.15
    heater_W: Callable[[float], float] | None = None
    ramp_K_s: float | None = None
    breaks_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class LumpedRun:
    """Trace of an integration: time_s (n,), temperature_K (n,), species (n, s), extent (n, r), heat_W (n,).

    energy_J: stored, reactions, convection, radiation, heater and the relative imbalance of the whole run.
    """

    time_s: np.ndarray
    temperature_K: np.ndarray
    species: np.ndarray
    extent: np.ndarray
    rate_K_s: np.ndarray
    heat_W: np.ndarray
    energy_J: dict[str, float]
    pathways: Pathways
    _pieces: tuple[tuple[float, float, Callable[[float], np.ndarray]], ...]
    _slope: Callable[[float, np.ndarray], float]

    def at(self, time_s: float) -> np.ndarray:
        """State (temperature, species..., extents..., energies...) at a time, from the dense output."""
        for start, end, dense in self._pieces:
            if start <= time_s <= end:
                return dense(time_s)
        raise ValueError(f"{time_s} s lies outside the run")

    def crossing_s(self, temperature_K: float) -> float:
        """First time the temperature reaches a value; NaN when it does not."""
        above = np.flatnonzero(self.temperature_K >= temperature_K)
        if above.size == 0:
            return float("nan")
        if above[0] == 0:
            return 0.0
        low, high = float(self.time_s[above[0] - 1]), float(self.time_s[above[0]])
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.at(middle)[0] >= temperature_K else (middle, high)
        return high

    @property
    def peak_K(self) -> float:
        """Highest temperature."""
        return float(self.temperature_K.max())

    @property
    def max_rate(self) -> tuple[float, float, float]:
        """Time s, temperature K and value K/s of the largest heating rate."""
        i = int(np.argmax(self.rate_K_s))
        low, high = float(self.time_s[max(i - 2, 0)]), float(self.time_s[min(i + 2, self.time_s.size - 1)])
        grid = np.linspace(low, high, 2001)
        states = [self.at(float(t)) for t in grid]
        slopes = np.array([self._slope(float(t), y) for t, y in zip(grid, states, strict=True)])
        j = int(np.argmax(slopes))
        return float(grid[j]), float(states[j][0]), float(slopes[j])


def integrate(
    body: Body, start_K: float, until_s: float, rtol: float = 1e-8, stop_K: float | None = None
) -> LumpedRun:
    """Integrate a body from fresh material at `start_K`.

    Parameters
    ----------
    until_s : end of the run
    rtol : relative tolerance of the integrator; 1e-8 leaves times of runaway right to about 1e-6
    stop_K : end early once this temperature is reached (yes/no questions)
    """
    tables = compile_sets([body.use], body.capacity_J_m3K / body.use.density_kg_m3)
    rates, paths = Rates(tables), pathways(body.use)
    ns, nr = tables.n_species, tables.n_reactions
    capacity = body.volume_m3 * body.capacity_J_m3K

    def losses(temperature: float) -> tuple[float, float]:
        convection = body.h_W_m2K * body.area_m2 * (temperature - body.ambient_K)
        radiation = body.emissivity * STEFAN_BOLTZMANN * body.area_m2 * (temperature**4 - body.ambient_K**4)
        return convection, radiation

    def rhs(time_s: float, u: np.ndarray) -> np.ndarray:
        heat, extent_rate, dy = rates(u[0], u[1 : 1 + ns])
        convection, radiation = losses(u[0])
        heater = body.heater_W(time_s) if body.heater_W else 0.0
        if body.ramp_K_s is not None:
            slope = body.ramp_K_s
        else:
            slope = (heat * body.volume_m3 + heater - convection - radiation) / capacity
        # Energies are scaled by the capacity so that every component is of order kelvin.
        return np.concatenate(
            [[slope], dy, extent_rate, [convection / capacity, radiation / capacity, heater / capacity]]
        )

    u = np.concatenate([[start_K], tables.initial[0], np.zeros(nr + 3)])
    scale = np.maximum(tables.initial[0], 1e-2 * max(1.0, tables.initial[0].max()))
    atol = np.concatenate([[1e-7], 1e-11 * scale, 1e-11 * np.ones(nr) * scale.max(), 1e-7 * np.ones(3)])
    used = slice(0, nr)
    edges = np.unique(np.concatenate([tables.rd[0, used, RD_T_ON], tables.rd[0, used, RD_T_HOT]]))
    edges = edges[(edges > start_K) & (edges < 5000.0)]
    times, states, pieces = [np.array([0.0])], [u[:, None]], []
    t, stops = 0.0, sorted({b for b in body.breaks_s if 0 < b < until_s} | {until_s})
    while t < until_s:
        events = []
        for level in [*edges[edges > u[0] + 1e-9], *([stop_K] if stop_K is not None else [])]:

            def event(_t: float, state: np.ndarray, level: float = float(level)) -> float:
                return float(state[0] - level)

            event.terminal, event.direction = True, 1.0  # type: ignore[attr-defined]
            events.append(event)
        end = next(s for s in stops if s > t)
        done = solve_ivp(
            rhs, (t, end), u, method="BDF", rtol=rtol, atol=atol, events=events, dense_output=True
        )
        if not done.success or done.sol is None:
            raise SolverError(
                f"0-D integration stopped at {done.t[-1]:g} s and {done.y[0, -1]:.1f} K: {done.message}"
            )
        times.append(done.t[1:])
        states.append(done.y[:, 1:])
        pieces.append((t, float(done.t[-1]), done.sol))
        t, u = float(done.t[-1]), done.y[:, -1].copy()
        if done.status == 1:
            if stop_K is not None and u[0] >= stop_K - 1e-6:
                break
            u[0] = np.nextafter(
                edges[np.argmin(np.abs(edges - u[0]))], np.inf
            )  # land on the far side of the threshold
    time_s, y = np.concatenate(times), np.concatenate(states, axis=1)
    slope = np.array([rhs(float(a), b)[0] for a, b in zip(time_s, y.T, strict=True)])
    heat = np.array([rates(b[0], b[1 : 1 + ns])[0] for b in y.T]) * body.volume_m3
    extent = y[1 + ns : 1 + ns + nr].T
    released = float((tables.heat_J_m3[0, :nr] * extent[-1]).sum() * body.volume_m3)
    convection, radiation, heater = (float(v) * capacity for v in y[-3:, -1])
    stored = capacity * float(y[0, -1] - start_K)
    turnover = max(abs(released) + abs(heater) + abs(min(convection + radiation, 0.0)), 1e-30)
    energy = {
        "stored": stored,
        "reactions": released,
        "convection": convection,
        "radiation": radiation,
        "abuse": heater,
        "imbalance": 0.0
        if body.ramp_K_s is not None
        else abs(stored + convection + radiation - released - heater) / turnover,
    }
    return LumpedRun(
        time_s,
        y[0],
        y[1 : 1 + ns].T,
        extent,
        slope,
        heat,
        energy,
        paths,
        tuple(pieces),
        lambda a, b: float(rhs(a, b)[0]),
    )


def critical_ambient(
    body: Body, start_K: float | None, low_K: float, high_K: float, until_s: float, tolerance_K: float = 0.02
) -> tuple[float, float]:
    """Bracket (none, runaway) of the ambient temperature above which a body runs away within `until_s`.

    Runaway: the body gets 80 K hotter than its surroundings. `start_K` None starts at the ambient
    temperature itself.
    """

    while high_K - low_K > tolerance_K:
        middle = 0.5 * (low_K + high_K)
        run = integrate(
            replace(body, ambient_K=middle), start_K or middle, until_s, rtol=1e-7, stop_K=middle + 80.0
        )
        low_K, high_K = (low_K, middle) if run.peak_K >= middle + 79.9 else (middle, high_K)
    return low_K, high_K
