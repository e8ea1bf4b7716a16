"""The ladder of ageing models behind `Ageing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from twin.ports import Ageing, FloatArray

REFRESH_EVERY_S = 3600.0


@dataclass(frozen=True)
class AgeingPlan:
    """What the racks of a shard have in common: a rung and its options (see scenario.schema.AgeingChoice)."""

    model: str
    parameters: str | None
    knee_cycles: int | None
    stored_s: float


# plan, then (n_cells,) pace, soc and temperature in K at the start
Build = Callable[[AgeingPlan, FloatArray, FloatArray, FloatArray], Ageing | None]


@dataclass(frozen=True)
class AgeingRung:
    about: str
    build: Build
    needs_parameters: bool = False


def _none(plan: AgeingPlan, pace: FloatArray, soc: FloatArray, kelvin: FloatArray) -> Ageing | None:
    return None


def _semi_empirical(plan: AgeingPlan, pace: FloatArray, soc: FloatArray, kelvin: FloatArray) -> Ageing | None:
    from pack_models.ageing import AgeingBank, Knee, ageing_model

    assert plan.parameters is not None
    bank = AgeingBank(
        ageing_model(plan.parameters),
        soc,
        pace=pace,
        knee=None if plan.knee_cycles is None else Knee(float(plan.knee_cycles)),
        refresh_every_s=REFRESH_EVERY_S,
    )
    if plan.stored_s > 0.0:
        bank.accumulate(soc, kelvin, plan.stored_s)
    return cast(Ageing, bank)


def _pybamm(plan: AgeingPlan, pace: FloatArray, soc: FloatArray, kelvin: FloatArray) -> Ageing | None:
    from pack_models.ageing.pybamm_cell import PybammAgeing

    cell = PybammAgeing(soc, refresh_every_s=REFRESH_EVERY_S)
    if plan.stored_s > 0.0:
        cell.accumulate(soc, kelvin, plan.stored_s)
    return cast(Ageing, cell)


RUNGS: dict[str, AgeingRung] = {
    "none": AgeingRung("cells stay as they are", _none),
    "semi_empirical": AgeingRung(
        "published calendar and cycle laws; `parameters` names the cell", _semi_empirical, True
    ),
    "pybamm": AgeingRung(
        "SEI, plating and loss of material of one PyBaMM cell (OKane2022), shared by all; for audits", _pybamm
    ),
}


@lru_cache(maxsize=1)
def parameter_sets() -> dict[str, str]:
    """Names `ageing.parameters` may take, with what they are."""
    from pack_models.ageing import ageing_model, ageing_names

    return {name: ageing_model(name).about for name in ageing_names()}


@lru_cache(maxsize=1)
def with_own_knee() -> tuple[str, ...]:
    """Parameter sets that bring a knee of their own."""
    from pack_models.ageing import ageing_model, ageing_names

    return tuple(name for name in ageing_names() if ageing_model(name).has_knee)
