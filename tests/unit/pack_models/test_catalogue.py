"""Catalogue files: what ships loads, what is broken is reported whole."""

import numpy as np
import pytest
import yaml

from pack_models import catalogue
from pack_models.catalogue import CatalogueError, cell, cell_names, load_cell, load_pack, pack, pack_names


@pytest.mark.parametrize("name", cell_names())
def test_every_cell_loads_and_is_sane(name):
    design = cell(name)
    assert design.voltage_min_V <= design.ocv_V[0] < design.ocv_V[-1] <= design.voltage_max_V + 0.01
    # Resistance falls with temperature at half charge, slow branch last. CALCE's 45 degC steps show 76 mohm,
    # those at 25 degC 71: what was measured stands in the file.
    middle = np.searchsorted(design.table_soc, 0.5)
    measured = slice(0, 2) if name == "inr20r_measured" else slice(None)
    assert (np.diff(design.resistance0_ohm[measured, middle]) < 0.0).all()
    assert (design.time_constant1_s < design.time_constant2_s).all()


@pytest.mark.parametrize("name", pack_names())
def test_every_pack_loads_and_is_sane(name):
    design = pack(name)
    assert design.n_cells == design.n_modules * design.groups_per_module * design.n_parallel
    assert (
        design.cell.voltage_min_V <= design.voltage_min_V < design.voltage_max_V <= design.cell.voltage_max_V
    )
    assert design.sensor_groups[0] == 0
    assert design.sensor_groups[-1] < design.n_series


def test_the_tower_is_what_its_name_says():
    tower = pack("tower_112s4p")
    assert (tower.n_series, tower.n_parallel, tower.n_cells) == (112, 4, 448)
    assert tower.nominal_voltage_V == pytest.approx(407.0, rel=0.03)  # sheet: 3.63 V a cell
    assert pack("ev_96s46p").energy_J == pytest.approx(82.0 * 3.6e6, rel=0.05)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(KeyError, match="did you mean 'bus_14s2p'"):
        pack("bus_l4s2p")
    with pytest.raises(KeyError, match="expected one of"):
        cell("nothing_like_it")


def _broken(tmp_path, source, name, change):
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    change(data)
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_all_mistakes_of_a_cell_at_once(tmp_path):
    def spoil(data):
        data["numbers"]["capacity_Ah"]["unit"] = "mAh"
        data["numbers"]["mass_kg"]["source"] = "hearsay"
        data["numbers"]["colour"] = {"value": 1, "unit": "1", "source": "fit"}
        data["curves"]["resistance0_ohm"]["values"][0][3] = -0.01
        data["curves"]["ocv_V"]["values"][5] = 1.0
        del data["curves"]["entropic_V_per_K"]

    source = catalogue.FOLDER / "cells" / "lgm50_chen2020.yaml"
    with pytest.raises(CatalogueError) as caught:
        load_cell(_broken(tmp_path, source, "lgm50_chen2020", spoil))
    text = str(caught.value)
    for said in (
        "numbers.capacity_Ah: unit 'mAh'; expected 'A.h'",
        "numbers.mass_kg: source 'hearsay' is not among",
        "colour: unknown key",
        "curves.resistance0_ohm: -0.01 is out of range",
        "curves.ocv_V: must not fall",
        "curves.entropic_V_per_K: missing",
    ):
        assert said in text


def test_all_mistakes_of_a_pack_at_once(tmp_path):
    def spoil(data):
        data["cell"] = "lgm50_chen202"
        data["n_parallel"] = 0
        data["numbers"]["voltage_min_V"]["value"] = 4.5
        data["thermal"]["coolant_W_per_K"] = 3.0

    with pytest.raises(CatalogueError) as caught:
        load_pack(_broken(tmp_path, catalogue.FOLDER / "packs" / "bus_14s2p.yaml", "bus_14s2p", spoil))
    text = str(caught.value)
    for said in (
        "did you mean 'lgm50_chen2020'",
        "n_parallel: 0 is not a whole number from 1",
        "numbers.voltage_min_V: not below voltage_max_V",
        "thermal.coolant_W_per_K: missing; expected",
    ):
        assert said in text


def test_text_that_is_no_yaml(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: [1,\n", encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"x\.yaml"):
        load_cell(path)


def test_a_cell_with_more_electrode_area_is_the_same_cell_but_larger():
    small, large = cell("lgm50_chen2020"), cell("prismatic_52ah")
    assert large.capacity_Ah == pytest.approx(10.0 * small.capacity_Ah)
    np.testing.assert_allclose(large.resistance0_ohm * 10.0, small.resistance0_ohm)
    np.testing.assert_array_equal(large.ocv_V, small.ocv_V)
    np.testing.assert_array_equal(large.time_constant2_s, small.time_constant2_s)
    assert (large.mass_kg, large.pybamm, large.form) == (0.9485, None, "prismatic")
    assert not large.resistance0_ohm.flags.writeable


def test_mistakes_of_a_cell_like_another(tmp_path):
    path = tmp_path / "bigger.yaml"
    path.write_text(
        "{name: bigger, about: x, form: y, like: lgm50_chen, sources: {s: t}, numbers: {"
        "area_factor: {value: -2.0, unit: '1', source: s}, mass_kg: {value: 1.0, unit: kg, source: s},"
        "heat_capacity_J_per_K: {value: 1.0, unit: J/K, source: s}, colour: 3}}",
        encoding="utf-8",
    )
    with pytest.raises(CatalogueError) as caught:
        load_cell(path)
    for said in ("area_factor: -2 is out of range", "did you mean 'lgm50_chen2020'", "colour: unknown key"):
        assert said in str(caught.value)


def test_mistakes_of_the_section_on_abuse(tmp_path):
    def spoil(data):
        data["abuse"]["ejected_fraction"]["value"] = 1.5
        data["abuse"]["case"] = 7
        data["abuse"]["housing_volume_m3"]["unit"] = "l"
        data["abuse"]["smell"] = 1
        data["abuse"]["composition"]["hydrogen"]["value"] = 0.2
        data["abuse"]["composition"]["argon"] = {"value": 0.0, "unit": "1", "source": "gas"}

    with pytest.raises(CatalogueError) as caught:
        load_pack(_broken(tmp_path, catalogue.FOLDER / "packs" / "bus_14s2p.yaml", "bus_14s2p", spoil))
    for said in (
        "abuse.ejected_fraction: 1.5 is out of range; expected at most 1",
        "abuse.case: 7 is not the name",
        "abuse.housing_volume_m3: unit 'l'; expected 'm3'",
        "abuse.smell: unknown key",
        "abuse.composition: adds up to 0.892; expected 1",
        "abuse.composition.argon: unknown gas; expected hydrogen, carbon_dioxide",
    ):
        assert said in str(caught.value)


def test_vent_gas_is_what_it_is_made_of():
    gas = pack("bus_14s2p").abuse
    assert gas.gas_combustible == pytest.approx(1.0 - gas.composition["carbon_dioxide"])
    assert 0.02 < gas.gas_kg_per_mol < 0.03
