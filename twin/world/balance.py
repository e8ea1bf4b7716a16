"""Energy and charge of a whole run, added up on independent ways and compared.

Five ways must agree: what the cells lost (from their states) against what flowed at their terminals and
became heat; the packs' terminals against the converters' DC side; AC, PV and load against the grid meter;
heat released against heat stored and carried away; and, of modules beyond their onset, heat handed over,
reactions and electric energy set free against stored and lost (and the vent gas, in mol). Residuals are
relative to the throughput.
"""

from __future__ import annotations

import numpy as np

from twin.ports import FloatArray
from twin.world.pack import PackShard
from twin.world.site import RackSlice, SiteControl

CELL_TERMS = (
    "energy_terminal_J",
    "energy_cell_heat_J",
    "energy_entropic_J",
    "energy_short_J",
    "energy_balancing_J",
    "energy_busbar_J",
    "energy_chemical_J",
    "charge_terminal_C",
    "charge_short_C",
    "charge_balancing_C",
    "charge_stored_C",
)
THERMAL_TERMS = ("energy_heat_in_J", "energy_to_ambient_J", "energy_to_coolant_J", "energy_stored_J")
ABUSE_TERMS = (
    "energy_heat_in_J",
    "energy_reactions_J",
    "energy_short_J",
    "energy_lost_J",
    "energy_stored_J",
    "energy_pending_J",
    "energy_written_off_J",
    "gas_released_mol",
    "gas_escaped_mol",
)


def balances(sites: tuple[SiteControl, ...], shards: tuple[PackShard, ...]) -> dict[str, dict[str, float]]:
    """Ledgers by site and for 'all'; J, C, and the relative `energy_residual` and `charge_residual`."""
    cells = {id(shard): shard.cells.balances() for shard in shards}
    thermal = {id(shard): shard.thermal.balances() for shard in shards}
    for book in thermal.values():
        book["energy_throughput_J"] = np.sum([np.abs(book[name]) for name in THERMAL_TERMS], axis=0)
    abuse = {id(shard): shard.abuse.balances() for shard in shards if shard.abuse is not None}
    scopes = {site.name: _site(site, cells, thermal, abuse) for site in sites}
    names = dict.fromkeys(name for scope in scopes.values() for name in scope)
    overall = {
        name: max(scope.get(name, 0.0) for scope in scopes.values())
        if name.endswith("_residual")
        else sum(scope.get(name, 0.0) for scope in scopes.values())
        for name in names
    }
    return {"all": overall, **scopes}


def _site(
    site: SiteControl,
    cells: dict[int, dict[str, FloatArray]],
    thermal: dict[int, dict[str, FloatArray]],
    abuse: dict[int, dict[str, FloatArray]],
) -> dict[str, float]:
    def over(book: dict[int, dict[str, FloatArray]], name: str) -> float:
        return float(sum(book[id(part.shard)][name][part.packs].sum() for part in site.racks))

    def worst(book: dict[int, dict[str, FloatArray]], residual: str, scale: str) -> float:
        return max(_relative(book[id(part.shard)], residual, scale, part) for part in site.racks)

    ledger = site.ledger
    terms = {name: over(cells, name) for name in CELL_TERMS}
    terms |= {f"thermal_{name}": over(thermal, name) for name in THERMAL_TERMS}
    hot = [part for part in site.racks if id(part.shard) in abuse]
    books = {name: sum(abuse[id(p.shard)][name][p.packs].sum() for p in hot) for name in ABUSE_TERMS}
    terms |= {f"abuse_{name}": float(value) for name, value in books.items() if hot}
    abuse_residuals = [
        _relative(abuse[id(p.shard)], f"{kind}_residual_{unit}", f"{kind}_{scale}_{unit}", p)
        for p in hot
        for kind, scale, unit in (("energy", "throughput", "J"), ("gas", "released", "mol"))
    ]
    converter_J = sum(float(p.shard.energy_converter_loss_J[p.racks].sum()) for p in site.racks)
    dc_J = sum(float(p.shard.energy_dc_J[p.racks].sum()) for p in site.racks)
    throughput_J = over(cells, "energy_throughput_J") + 1.0  # of a site that never ran: 1 J
    grid_J = ledger.load_J - ledger.pv_J - ledger.served_J + ledger.auxiliary_J
    grid_scale_J = max(abs(ledger.load_J), abs(ledger.pv_J), throughput_J)
    return {
        "energy_charged_J": ledger.charged_J,
        "energy_discharged_J": ledger.discharged_J,
        "energy_requested_J": ledger.requested_J,
        "energy_converter_J": converter_J,
        "energy_auxiliary_J": ledger.auxiliary_J,
        "energy_hvac_J": ledger.hvac_J,
        "energy_load_J": ledger.load_J,
        "energy_pv_J": ledger.pv_J,
        "energy_grid_J": ledger.grid_J,
        **terms,
        "energy_residual": max(
            worst(cells, "energy_residual_J", "energy_throughput_J"),
            worst(thermal, "energy_residual_J", "energy_throughput_J"),
            abs(dc_J - terms["energy_terminal_J"]) / throughput_J,
            abs(dc_J - ledger.served_J - converter_J) / throughput_J,
            abs(grid_J - ledger.grid_J) / grid_scale_J,
            0.0 if site.container is None else abs(site.container.residual_J()) / throughput_J,
            *abuse_residuals,
        ),
        "charge_residual": worst(cells, "charge_residual_C", "charge_throughput_C"),
    }


def _relative(book: dict[str, FloatArray], residual: str, scale: str, part: RackSlice) -> float:
    """Largest residual of a pack over the larger of its throughput and one joule or coulomb."""
    return float(np.max(np.abs(book[residual][part.packs]) / np.maximum(book[scale][part.packs], 1.0)))
