"""PyBaMM's DFN along what was recorded of some series groups, for `twin.audit`.

A group is followed by one mean cell. Its current is what changed its recorded state of charge, so that
spread of capacity, shorts and balancing are in it and only the model is compared; the last step before
each sample carries the recorded current of the pack, which the sample's voltage belongs to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SHORTEST_S = 1e-3


def parameter_set_of(design: str) -> str | None:
    """PyBaMM parameter set of the cells of a pack design; None where there is none."""
    from pack_models.catalogue import pack

    return pack(design).cell.pybamm


def follow(
    parameter_set: str,
    time_s: FloatArray,
    soc: FloatArray,
    current_A: FloatArray,
    temperature_K: FloatArray,
    step_s: float,
    model: str = "dfn",
) -> tuple[FloatArray, list[str]]:
    """Terminal voltage of a mean cell of each group at the recorded times.

    Parameters
    ----------
    time_s : (n_times,) · soc : (n_times, n_groups) · current_A : (n_times,) of one cell, by the pack's
    current · temperature_K : (n_times, n_groups) · step_s : plant step before a sample, in which
    current_A flowed

    Returns
    -------
    voltage_V : (n_times, n_groups); row 0 is rest, NaN from where a cell could not be followed
    stopped : (n_groups,) why and when, or ""
    """
    from pack_models.cells.pybamm_engine import SolverError, shared_engine

    engine = shared_engine(parameter_set, model)
    n_groups = soc.shape[1]
    voltage_V, stopped = np.full(soc.shape, np.nan), [""] * n_groups
    y = engine.initial_state(np.clip(soc[0], 0.0, 1.0))
    level = soc[0].astype(float).copy()
    voltage_V[0], _ = engine.observe(y, np.zeros(n_groups), temperature_K[0])
    going = np.arange(n_groups)
    for k in range(1, time_s.size):
        whole_s = float(time_s[k] - time_s[k - 1])
        last_s = min(step_s, whole_s)
        charge_C = (level - soc[k]) * engine.lithium_capacity_C
        parts = [(last_s, charge_C / last_s)]
        if whole_s - last_s > SHORTEST_S:
            rest_A = (charge_C - current_A[k] * last_s) / (whole_s - last_s)
            parts = [(whole_s - last_s, rest_A), (last_s, np.full(n_groups, current_A[k]))]
        for seconds, amps in parts:
            while going.size:
                try:
                    y[going], path = engine.advance(
                        y[going], amps[going], temperature_K[k, going], np.array([seconds])
                    )
                except SolverError as failure:
                    lost = int(going[failure.cell])
                    stopped[lost] = f"at {time_s[k]:g} s: {failure.reason}"
                    going = np.delete(going, failure.cell)
                    continue
                level[going], voltage_V[k, going] = path.soc[-1], path.voltage_V[-1]
                break
            voltage_V[k, np.setdiff1d(np.arange(n_groups), going)] = np.nan
    return voltage_V, stopped
