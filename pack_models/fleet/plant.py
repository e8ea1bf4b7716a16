"""What stands around the packs of a planning run: converters, operating limits, the container with its HVAC.

Every default is an engineering figure with its reason beside it; a study of a real plant hands in its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pack_models.catalogue.design import PackDesign

FloatArray = NDArray[np.float64]
ZERO_CELSIUS_K = 273.15


def three_terms(no_load: float, proportional: float, quadratic: float, points: int = 201) -> FloatArray:
    """(1, points) loss over the rating for AC powers from -1 to 1 of it: the usual three-term model of
    inverters (Schmidt and Sauer 1996)."""
    p = np.abs(np.linspace(-1.0, 1.0, points))
    return (no_load + proportional * p + quadratic * p**2)[None, :]


@dataclass(frozen=True, eq=False)
class Converter:
    """A converter (PCS) with the packs in parallel on its DC side.

    loss : (n_voltages, n_powers) over the rating; powers evenly spaced from -1 to 1 of it, voltages as given
    voltage_V : (n_voltages,) evenly spaced DC voltages of the rows; ignored for one row
    standby : loss over the rating while nothing is asked
    """

    rated_W: float
    loss: FloatArray = field(default_factory=lambda: three_terms(0.004, 0.004, 0.014))  # 97.9 % at full power
    voltage_V: FloatArray = field(default_factory=lambda: np.zeros(1))
    standby: float = 0.001

    def __post_init__(self) -> None:
        volts, loss = np.asarray(self.voltage_V, float), np.asarray(self.loss, float)
        if not (np.isfinite(self.rated_W) and self.rated_W > 0.0):
            raise ValueError(f"rated_W is {self.rated_W!r}; expected a positive power")
        if loss.ndim != 2 or loss.shape[1] < 2 or loss.shape[0] != volts.size:
            raise ValueError(
                f"loss has shape {loss.shape}; expected ({volts.size} voltages, 2 or more powers)"
            )
        if not (np.isfinite(loss).all() and (loss >= 0.0).all() and (loss < 0.5).all()):
            raise ValueError("loss must be finite fractions of the rating from 0 to 0.5")
        if volts.size > 1 and (np.ptp(np.diff(volts)) > 1e-6 * volts[-1] or volts[1] <= volts[0]):
            raise ValueError(f"voltage_V is {volts.tolist()}; expected evenly growing voltages")
        if not 0.0 <= self.standby < 0.5:
            raise ValueError(f"standby is {self.standby!r}; expected a fraction from 0 to 0.5")


@dataclass(frozen=True)
class Limits:
    """What the battery management allows, as a planning run sees it. Charging fades from cold to hot."""

    charge_A: float
    discharge_A: float
    voltage_min_V: float
    voltage_max_V: float
    soc_min: float = 0.03
    soc_max: float = 0.98
    cold_none_K: float = ZERO_CELSIUS_K  # no charging below, lithium plating
    cold_full_K: float = ZERO_CELSIUS_K + 10.0
    hot_full_K: float = ZERO_CELSIUS_K + 45.0
    hot_none_K: float = ZERO_CELSIUS_K + 55.0
    cooling_on_K: float = ZERO_CELSIUS_K + 25.0  # pump and chiller follow the warmest cell
    cooling_full_K: float = ZERO_CELSIUS_K + 33.0

    def __post_init__(self) -> None:
        for low, high in (
            ("voltage_min_V", "voltage_max_V"),
            ("soc_min", "soc_max"),
            ("cold_none_K", "cold_full_K"),
            ("hot_full_K", "hot_none_K"),
            ("cooling_on_K", "cooling_full_K"),
        ):
            if not getattr(self, low) < getattr(self, high):
                raise ValueError(f"{low} is {getattr(self, low)!r}; expected less than {high}")
        for name in ("charge_A", "discharge_A"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a positive current")

    @classmethod
    def of(cls, pack: PackDesign) -> Limits:
        """The limits of a catalogue design."""
        return cls(
            pack.charge_current_max_A, pack.discharge_current_max_A, pack.voltage_min_V, pack.voltage_max_V
        )


@dataclass(frozen=True)
class Container:
    """Air, walls and HVAC of a container; the machine's power follows the air within a band.

    Heat of the packs' surfaces and a share of the converter losses warm the air, the walls exchange with the
    outside. Cooling begins at cool_above_K and is at cooling_W band_K above, heating likewise below.
    """

    air_J_per_K: float = 3.0e5  # 30 m3 of air and the sheet metal that follows it, 0.6 t
    wall_W_per_K: float = 45.0  # 75 m2 of sandwich wall at 0.6 W/(m2 K)
    converter_share: float = 0.0  # converters stand outside
    cool_above_K: float = ZERO_CELSIUS_K + 25.0
    heat_below_K: float = ZERO_CELSIUS_K + 12.0
    band_K: float = 3.0
    cooling_W: float = 8000.0
    heating_W: float = 4000.0
    cop: float = 3.0  # at cop_reference_K outside
    cop_per_K: float = -0.06  # compressors lose about 2 % per kelvin of outside air
    cop_reference_K: float = ZERO_CELSIUS_K + 35.0
    heating_cop: float = 1.0  # resistive
    fan_W: float = 300.0

    def __post_init__(self) -> None:
        for name in ("air_J_per_K", "wall_W_per_K", "band_K", "cooling_W", "heating_W", "cop", "heating_cop"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} of the container is {getattr(self, name)!r}; expected more than 0")
        if not self.heat_below_K < self.cool_above_K:
            raise ValueError("heat_below_K must be less than cool_above_K")
