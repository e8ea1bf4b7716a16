"""Packs whose parallel cells do not meet in a point: rails with resistance, contacts at every cell.

    pack = LadderBank(cell("lgm50_chen2020"), 2, 16, soc=0.8, rail_ohm=1e-4, contact_ohm=1e-2)
    pack.step(80.0, np.full(32, 298.15), dt_s=10.0)
    pack.cell_current_A.reshape(2, 16)

Between two groups in series runs one rail, n_parallel nodes long, joined by `rail_ohm`; every cell hangs
between two rails behind `contact_ohm`. The current enters and leaves at the ends `terminals` names. This is
the circuit liionpack solves (Tranter et al., J. Open Source Softw. 7 (2022) 4051), by nodal analysis as
there, but implicit: the cells' own end-of-step models V = e - r I are part of the network, so no step is too
long. Every cell is linearised at its current, the node potentials follow from one banded, positive definite
system, and the round is repeated until the currents agree with their tangents (1e-9 V).

The cells are those of `EcmBank`, with their shorts and fuses. `EcmBank` itself is the limit of ideal rails:
a group there is one node on either side, and its `busbar_resistance_ohm` lies between groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solveh_banded

from pack_models.catalogue.design import CellDesign
from pack_models.cells import bank as checks
from pack_models.cells.bank import FloatArray
from pack_models.cells.ecm import EcmBank
from pack_models.layout import Layout

TERMINALS = {"left": (0, 0), "right": (-1, -1), "left-right": (0, -1), "right-left": (-1, 0)}
TOLERANCE_V = 1e-9
ROUNDS = 30


class LadderBank:
    """One pack of n_series groups of n_parallel cells between rails.

    Parameters
    ----------
    rail_ohm : between neighbouring nodes of a rail, more than 0
    contact_ohm : (n_cells,) or one number, in series with each cell
    terminals : column where the current enters at the negative and leaves at the positive end
    soc, capacity_factor, resistance_factor, temperature_K : (n_cells,) or one number, as in `EcmBank`

    Attributes
    ----------
    soc, cell_current_A, heat_W : (n_cells,), group by group
    node_V : (n_series + 1, n_parallel) potentials of the rails, 0 at the negative terminal
    pack_voltage_V, pack_power_W : at the end of, and mean over the last step, at the terminals
    rounds : linear solutions the last step took
    """

    def __init__(
        self,
        design: CellDesign,
        n_series: int,
        n_parallel: int,
        soc: ArrayLike,
        rail_ohm: float,
        contact_ohm: ArrayLike = 0.0,
        terminals: str = "left",
        capacity_factor: ArrayLike = 1.0,
        resistance_factor: ArrayLike = 1.0,
        temperature_K: ArrayLike = 298.15,
    ) -> None:
        if terminals not in TERMINALS:
            raise ValueError(f"terminals is {terminals!r}; expected one of {', '.join(TERMINALS)}")
        if not (np.isfinite(rail_ohm) and rail_ohm > 0.0):
            raise ValueError(f"rail_ohm is {rail_ohm!r}; expected a positive resistance")
        n = n_series * n_parallel
        self.layout = Layout.uniform(1, n_series, n_parallel, n_series)
        # Every cell a pack of its own: the network around them is ours.
        self.cells = EcmBank(
            design, Layout.uniform(n, 1, 1, 1), soc, capacity_factor, resistance_factor, temperature_K
        )
        self.rail_ohm = float(rail_ohm)
        self.contact_ohm = checks.per_item("contact_ohm", contact_ohm, n, "cell", -1e-300)
        self.soc, self.heat_W = self.cells.soc, self.cells.heat_W
        self.cell_current_A = self.cells.pack_current_A
        self.node_V = np.zeros((n_series + 1, n_parallel))
        self.pack_voltage_V, self.pack_power_W, self.rounds = 0.0, 0.0, 0
        self._shape = (n_series, n_parallel)
        enter, leave = TERMINALS[terminals]
        self._enter, self._leave = (0, enter % n_parallel), (n_series, leave % n_parallel)
        self._energy_terminal_J = self._energy_wires_J = self._charge_C = 0.0
        # Nodes in the order that makes the band narrow.
        across = n_series + 1 <= n_parallel
        number = np.arange((n_series + 1) * n_parallel)
        self._node = (
            number.reshape(n_parallel, n_series + 1).T if across else number.reshape(n_series + 1, n_parallel)
        )
        self._solve(np.ones(n), np.ones(n), 0.0)  # bad shapes show here, not in the first step

    def _solve(self, e_V: FloatArray, r_ohm: FloatArray, current_A: float) -> tuple[FloatArray, FloatArray]:
        """Currents (n_cells,) and node potentials of the network of linear cells under a pack current."""
        node, (n_series, n_parallel) = self._node, self._shape
        band = (n_series + 1 if n_series + 1 <= n_parallel else n_parallel) + 1
        matrix, right = np.zeros((band, node.size)), np.zeros(node.size)  # lower form
        link_S = 1.0 / (r_ohm + self.contact_ohm)
        low, high = node[:-1].ravel(), node[1:].ravel()
        self._join(matrix, low, high, link_S)
        np.add.at(right, high, link_S * e_V)
        np.add.at(right, low, -link_S * e_V)
        if n_parallel > 1:
            left, right_of = node[:, :-1].ravel(), node[:, 1:].ravel()
            self._join(matrix, left, right_of, np.full(left.size, 1.0 / self.rail_ohm))
        right[node[self._leave]] -= current_A
        right[node[self._enter]] += current_A
        # The negative terminal is ground: its own large conductance holds it, which changes no current
        # because what enters the network also leaves it.
        matrix[0, node[self._enter]] += 1.0 / self.rail_ohm
        potential = solveh_banded(matrix, right, lower=True, check_finite=False)
        node_V = potential[node] - potential[node[self._enter]]
        across_V = (node_V[1:] - node_V[:-1]).ravel()
        return link_S * (e_V - across_V), node_V

    @staticmethod
    def _join(
        matrix: FloatArray, a: NDArray[np.int64], b: NDArray[np.int64], conductance_S: FloatArray
    ) -> None:
        """A conductance between nodes a and b, into the lower band of the matrix."""
        np.add.at(matrix[0], a, conductance_S)
        np.add.at(matrix[0], b, conductance_S)
        first, second = np.minimum(a, b), np.maximum(a, b)
        np.add.at(matrix, (second - first, first), -conductance_S)

    def step(self, pack_current_A: float, temperature_K: FloatArray, dt_s: float) -> None:
        """Advance by dt_s under a pack current, positive on discharge; temperature_K (n_cells,)."""
        if not np.isfinite(pack_current_A):
            raise ValueError(f"current of the pack is {pack_current_A:g} A; expected a finite number")
        amps = self.cell_current_A + (
            pack_current_A - self.cell_current_A.reshape(self._shape).sum(axis=1).mean()
        ) / float(self._shape[1])
        self.rounds = 0
        for _ in range(ROUNDS):
            self.rounds += 1
            e_V, r_ohm = self.cells.thevenin(temperature_K, dt_s, amps)
            now_A, node_V = self._solve(e_V, r_ohm, float(pack_current_A))
            away_V = np.abs(now_A - amps) * r_ohm
            amps = now_A
            if away_V.max() <= TOLERANCE_V * max(1.0, float(np.abs(node_V).max())):
                break
        else:
            worst = int(np.argmax(away_V))
            raise RuntimeError(
                f"cell {worst} ({self.layout.cell_name(worst)}): currents do not settle in {ROUNDS} rounds "
                f"({away_V[worst]:.2g} V apart); take a shorter step than {dt_s:g} s"
            )
        self.cells.step(amps, temperature_K, dt_s)
        self.node_V = node_V
        self.pack_voltage_V = float(node_V[self._leave])
        rails_A = np.diff(node_V, axis=1) / self.rail_ohm
        wires_W = float((self.contact_ohm * amps**2).sum() + self.rail_ohm * (rails_A**2).sum())
        self.pack_power_W = float(self.cells.pack_power_W.sum()) - wires_W
        self._energy_terminal_J += self.pack_power_W * dt_s
        self._energy_wires_J += wires_W * dt_s
        self._charge_C += pack_current_A * dt_s

    def set_internal_short(self, cell: int, resistance_ohm: float) -> None:
        """Put a resistor across one cell; infinity takes it away."""
        self.cells.set_internal_short(cell, resistance_ohm)

    def set_open_fuse(self, cell: int, is_open: bool) -> None:
        """Open (or replace) the fuse between one cell and its contact."""
        self.cells.set_open_fuse(cell, is_open)

    def balances(self) -> dict[str, float]:
        """Cumulative energies of the pack in J; what the cells gave (from their states) less what flowed."""
        book = {name: float(values.sum()) for name, values in self.cells.balances().items()}
        out = {name: book[f"energy_{name}_J"] for name in ("cell_heat", "short", "chemical", "throughput")}
        out |= {"terminal": self._energy_terminal_J, "wires": self._energy_wires_J + book["energy_busbar_J"]}
        out["residual"] = out["chemical"] - out["terminal"] - out["wires"] - out["cell_heat"] - out["short"]
        return {f"energy_{name}_J": value for name, value in out.items()}
