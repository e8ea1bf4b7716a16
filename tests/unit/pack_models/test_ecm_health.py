"""State of health: capacity and resistance as cells age, and tables with layers over it."""

import dataclasses

import numpy as np
import pytest

from pack_models.catalogue import FOLDER as CATALOGUE
from pack_models.catalogue import CatalogueError, cell, load_cell
from pack_models.cells.ecm import EcmBank
from pack_models.layout import Layout

M50 = cell("lgm50_chen2020")
SHAPE = np.linspace(0.8, 1.2, M50.table_soc.size)
# Open circuits of cells with 90 and 80 % left: lower by 30 and 70 mV in the middle, the ends stay.
BULGE = M50.ocv_soc * (1.0 - M50.ocv_soc) * 4.0
AGED = dataclasses.replace(
    M50,
    aged_soh=np.array([0.9, 0.8]),
    aged_ocv_V=np.maximum.accumulate(np.stack([M50.ocv_V - 0.03 * BULGE, M50.ocv_V - 0.07 * BULGE]), axis=1),
    aged_resistance_shape=np.stack([0.5 * (1.0 + SHAPE), SHAPE]),
)
ROOM_K = 298.15


def bank(design, soc, **more):
    return EcmBank(design, Layout.uniform(1, len(soc), 1, len(soc)), soc, **more)


def test_open_circuit_between_the_layers():
    soc = [0.2, 0.5, 0.8]
    cells, T = bank(AGED, soc), np.full(3, ROOM_K)
    for left, weights in (
        (1.0, (1, 0, 0)),
        (0.95, (0.5, 0.5, 0)),
        (0.9, (0, 1, 0)),
        (0.84, (0, 0.4, 0.6)),
        (0.7, (0, 0, 1)),
    ):
        cells.set_health(left, 1.0)
        layers = [np.interp(soc, AGED.ocv_soc, curve) for curve in (AGED.ocv_V, *AGED.aged_ocv_V)]
        expected = np.einsum("k,kc->c", weights, layers)
        np.testing.assert_allclose(cells.open_circuit_V(T), expected, atol=3e-4, err_msg=str(left))


def test_resistance_takes_growth_and_shape():
    """A short step from rest: the drop is R0 of the layer times the growth."""
    soc, T = [0.1, 0.5, 0.9], np.full(3, ROOM_K)
    drops = {}
    for left, growth in ((1.0, 1.0), (1.0, 1.5), (0.8, 1.5)):
        cells = bank(AGED, soc)
        cells.set_health(left, growth)
        rest_V = cells.open_circuit_V(T)
        cells.step(np.array([5.0]), T, 1e-3)
        drops[left, growth] = rest_V - cells.group_voltage_V
    np.testing.assert_allclose(drops[1.0, 1.5] / drops[1.0, 1.0], 1.5, rtol=1e-3)
    np.testing.assert_allclose(
        drops[0.8, 1.5] / drops[1.0, 1.5], np.interp(soc, AGED.table_soc, SHAPE), rtol=2e-3
    )


@pytest.mark.parametrize("hysteresis_V", [0.0, 0.02])
@pytest.mark.parametrize("n_parallel", [1, 3])
def test_books_close_while_cells_age(hysteresis_V, n_parallel):
    design = dataclasses.replace(
        AGED, hysteresis_V=np.full_like(AGED.ocv_V, hysteresis_V), hysteresis_rate=20.0
    )
    n = 4 * n_parallel
    draw = np.random.default_rng(3)
    cells = EcmBank(design, Layout.uniform(1, 4, n_parallel, 4), draw.uniform(0.4, 0.6, n))
    T = np.full(n, ROOM_K)
    for k in range(12):
        cells.step(np.array([5.0 * n_parallel * (-1) ** (k // 3)]), T, 300.0)
        cells.set_health(1.0 - 0.02 * k * draw.uniform(0.9, 1.1, n), 1.0 + 0.05 * k)
    book = cells.balances()
    assert abs(book["energy_residual_J"][0]) < 1e-11 * book["energy_throughput_J"][0]
    assert abs(book["charge_residual_C"][0]) < 1e-11 * book["charge_throughput_C"][0]


def test_half_the_capacity_empties_twice_as_fast():
    cells = bank(M50, [0.8, 0.8])
    cells.set_health(np.array([1.0, 0.5]), 1.0)
    cells.step(np.array([5.0]), np.full(2, ROOM_K), 60.0)
    assert 0.8 - cells.soc[1] == pytest.approx(2.0 * (0.8 - cells.soc[0]), rel=1e-12)
    with pytest.raises(ValueError, match="capacity of cell 1 is nan"):
        cells.set_health(np.array([1.0, np.nan]), 1.0)


def test_aged_curves_of_a_file_are_checked(tmp_path):
    text = (CATALOGUE / "cells" / "lgm50_chen2020.yaml").read_text(encoding="utf-8")
    path = tmp_path / "lgm50_chen2020.yaml"
    path.write_text(
        text.split("\naged:")[0]
        + "\naged:\n"
        + '  aged_soh: {unit: "1", source: fit, values: [0.9, 0.7]}\n'
        + '  aged_ocv_V: {unit: "V", source: fit, values: [[3.0, 4.0], [3.0, 4.0]]}\n'
        + '  aged_resistance_shape: {unit: "1", source: hearsay, values: [[1.0]]}\n',
        encoding="utf-8",
    )
    with pytest.raises(CatalogueError) as caught:
        load_cell(path)
    said = "\n".join(caught.value.problems)
    assert "aged.aged_soh: must fall from 1 in even steps" in said
    assert "aged.aged_ocv_V: shape (2, 2)" in said
    assert "'hearsay' is not among" in said
