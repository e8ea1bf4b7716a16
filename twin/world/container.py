"""Containers of a site: the air around its racks, held between two set-points by cooling and heating.

    air C dT/dt = heat of the packs' surfaces and converters + walls (T_outside - T) - cooling + heating

Implicit in time, so any plant step is stable. The machine's power follows the air within a band beyond its
set-point, as an inverter machine does, up to what it has. Its electric power counts as auxiliary power of the
site. All containers of a site are alike and hold their racks evenly, so one is computed for all.
"""

from __future__ import annotations

from twin.scenario.schema import Container


class ContainerAir:
    """The air of one of `design.count` containers that share the heat of a site."""

    def __init__(self, design: Container, air_K: float) -> None:
        self.design = design
        self.air_K = air_K
        self.electric_W = 0.0  # of all containers
        self.energy_J = {"heat_in": 0.0, "wall": 0.0, "cooled": 0.0, "heated": 0.0, "electric": 0.0}
        self._start_K = air_K

    def step(self, heat_W: float, outside_K: float, dt_s: float) -> None:
        """Advance by dt_s with the heat of all racks and converters of the site."""
        box, heat_W = self.design, heat_W / self.design.count
        store, wall = box.warming_J / dt_s, box.walls_W / 10.0
        drive, base = store * self.air_K + wall * outside_K + heat_W, store + wall
        cooled, heated, end_K = 0.0, 0.0, drive / base
        if end_K > box.cool_above_K:
            slope = box.cooling_W / box.band_K
            held_K = (drive + slope * box.cool_above_K) / (base + slope)
            cooled = min(slope * (held_K - box.cool_above_K), box.cooling_W)
            end_K = (drive - cooled) / base
        elif end_K < box.heat_below_K:
            slope = box.heating_W / box.band_K
            held_K = (drive + slope * box.heat_below_K) / (base + slope)
            heated = min(slope * (box.heat_below_K - held_K), box.heating_W)
            end_K = (drive + heated) / base
        electric = cooled / box.cop + heated / box.heating_cop + (box.fan_W if cooled + heated > 0.0 else 0.0)
        self.air_K = end_K
        self.electric_W = electric * box.count
        for name, power_W in (
            ("heat_in", heat_W),
            ("wall", wall * (end_K - outside_K)),
            ("cooled", cooled),
            ("heated", heated),
            ("electric", electric),
        ):
            self.energy_J[name] += power_W * dt_s * box.count

    def residual_J(self) -> float:
        """What came in less what went out and is stored: rounding only."""
        e = self.energy_J
        stored = self.design.warming_J * (self.air_K - self._start_K) * self.design.count
        return e["heat_in"] + e["heated"] - e["cooled"] - e["wall"] - stored
