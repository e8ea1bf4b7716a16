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
    # Resistance falls with temperature at half charge, slow branch last.
    middle = np.searchsorted(design.table_soc, 0.5)
    assert (np.diff(design.resistance0_ohm[:, middle]) < 0.0).all()
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
