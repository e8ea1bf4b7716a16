"""Case files: what is wrong is said at once, with the key and the allowed range; a partial output says so."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pack_models.propagation import __main__ as cli
from pack_models.propagation import fem, outputs
from pack_models.propagation.case import CASES, Case, load_case, parse_case
from pack_models.propagation.errors import CaseError, MissingDolfinxError, PropagationError, SolverError
from pack_models.propagation.fields import volume_field
from pack_models.propagation.run import run_case

SMALL: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("two_cells.yaml").read_text(encoding="utf-8"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with one key replaced; None deletes it."""
    data: Any = copy.deepcopy(SMALL)
    keys = [int(k) if k.isdigit() else k for k in path.split(".")]
    part = data
    for key in keys[:-1]:
        part = part[key]
    if value is None:
        del part[keys[-1]]
    else:
        part[keys[-1]] = value
    return dict(data)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_case_of_the_package_is_valid(path: Path) -> None:
    case = load_case(path)
    assert case.about
    assert case.run.until_s > 0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "geometry.between.x.thickness_m",
            0,
            "geometry.between.x.thickness_m: 0 is out of range; expected more than 0",
        ),
        (
            "geometry.layers.bottom.0.thickness_m",
            0,
            "geometry.layers.bottom[0].thickness_m: 0 is out of range",
        ),
        ("geometry.cells.size_m", [0.02, 0.0, 0.05], "geometry.cells.size_m[1]: 0 is out of range"),
        ("geometry.between.x.material", "filed_gap", "did you mean 'filled_gap'?"),
        (
            "geometry.boxes",
            [{"name": "bar", "material": "copper", "from_m": [0, 0, 0.04], "to_m": [0.01, 0.01, 0.06]}],
            "geometry: 'bar' overlaps 'cell 0'",
        ),
        (
            "geometry.boxes",
            [{"name": "bar", "material": "copper", "from_m": [0, 0, 0.06], "to_m": [0.01, 0.01, 0.06]}],
            "zero or negative thickness along z",
        ),
        ("geometry.kind", "pak", "did you mean 'pack'?"),
        ("cell.kinetics", "kim", "no set named 'kim'; expected one of"),
        ("cell.rate_ceiling_1_s", 0, "cell.rate_ceiling_1_s: 0 is out of range; expected more than 0"),
        ("cell.soc", 1.2, "cell.soc: 1.2 is out of range; expected between 0 and 1"),
        (
            "cell.material.cp_J_kgK",
            -830,
            "cell.material.cp_J_kgK: -830 is out of range; expected more than 0",
        ),
        ("cell.material.k_W_mK", [0.8, 20], "is not a list of 3 numbers"),
        ("boundaries.others.h_W_m2K", -1, "boundaries.others.h_W_m2K: -1 is out of range"),
        ("boundaries.botom", {"h_W_m2K": 1}, "did you mean 'bottom'?"),
        ("triggers.0.cell", 7, "triggers[0].cell: 7 is not a whole number between 0 and 1"),
        ("triggers.0.until_s", 0, "triggers[0].until_s: 0 is out of range"),
        ("run.step", {"largest_s": 0}, "run.step.largest_s: 0 is out of range; expected more than 0"),
        ("run.until_s", 0, "run.until_s: 0 is out of range; expected more than 0"),
        ("run.until_s", None, "run.until_s: missing"),
        ("initial_C", -400, "initial_C: -400 is out of range; expected between"),
        ("cells", {"9": {"soc": 0.5}}, "cells.9: no such cell; expected a number from 0 to 1"),
        ("runn", {}, "runn: unknown key; did you mean 'run'?"),
    ],
)
def test_a_wrong_case_is_refused_with_key_and_range(path: str, value: Any, said: str) -> None:
    with pytest.raises(CaseError) as caught:
        parse_case(changed(path, value), "small", "small.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("small.yaml: ")


def test_inline_set_with_activation_energy_alone() -> None:
    reaction = {"consumes": "r", "E_J_mol": 1.1e5, "heat_J_kg": 1e6, "amount_kg_m3": 600}
    with pytest.raises(
        CaseError, match=r"cell\.kinetics\.reactions\.x\.A_1_s: missing: E_J_mol without A_1_s"
    ):
        parse_case(changed("cell.kinetics", {"species": {"r": 1.0}, "reactions": {"x": reaction}}))


def test_all_mistakes_at_once() -> None:
    data = changed("run.until_s", -5)
    data["cell"]["soc"] = 2
    data["geometry"]["between"]["x"]["thickness_m"] = 0
    with pytest.raises(CaseError) as caught:
        parse_case(data)
    assert len(caught.value.problems) == 3
    assert "3 problems; nothing was run" in str(caught.value)


def small(until_s: float = 60.0) -> Case:
    """The two cells."""
    return parse_case(changed("run.until_s", until_s), "small")


def test_grid_holds_exactly_the_volumes_of_the_case() -> None:
    case = small()
    for model in ("network", "fem"):
        grid = case.grid(model)
        volume = grid.volume_m3()
        for cell in (0, 1):
            assert volume[grid.cell == cell].sum() == pytest.approx(0.02 * 0.05 * 0.05, rel=1e-12)
        assert volume.sum() == pytest.approx(0.042 * 0.05 * 0.054, rel=1e-12)


def test_cylinders_keep_their_volume_and_pitch() -> None:
    case = load_case("cylinders_foam")
    grid = case.grid("network")
    volume = grid.volume_m3()[grid.cell == 4].sum()
    assert volume == pytest.approx(np.pi / 4 * 0.018**2 * 0.065, rel=1e-9)
    x = [s.box[0] for s in case.layout.solids if s.cell in (0, 1)] if case.layout else []
    assert x[1] - x[0] == pytest.approx(0.019)


def test_model_is_never_changed_silently() -> None:
    with pytest.raises(CaseError, match="does not fit"):
        run_case(small(), "lumped")


def test_outputs_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    out = tmp_path / "out"
    assert cli.main(["run", str(file), "--out", str(out), "--refine"]) == 0
    printed = capsys.readouterr().out
    assert "energy imbalance" in printed
    assert "refined to" in printed
    summary = outputs.read_summary(out)
    assert summary["status"] == "complete"
    assert summary["energy_J"]["imbalance"] < 1e-10
    assert summary["refinement"]["mesh"] == [18, 2, 3]
    assert len(summary["cells"]) == 2
    assert {p.name for p in out.iterdir()} == {
        "summary.json",
        "cells.csv",
        "cell_traces.png",
        "temperature_maps.png",
        "ignition_times.png",
        "energy_split.png",
    }
    rows = (out / "cells.csv").read_text().splitlines()
    assert rows[0].startswith("time_s,cell,temperature_mean_K,temperature_max_K,conversion_")
    assert "NaN" not in (out / "summary.json").read_text()


def test_a_failed_run_is_marked_partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    out = tmp_path / "out"

    def diverge(*_: Any, **__: Any) -> None:
        raise SolverError("conjugate gradients did not converge")

    monkeypatch.setattr("pack_models.propagation.run.run_case", diverge)
    assert cli.main(["run", str(file), "--out", str(out)]) == 1
    assert json.loads((out / "summary.json").read_text())["status"] == "failed"
    with pytest.raises(PropagationError, match="partial: SolverError: conjugate gradients"):
        outputs.read_summary(out)


def test_divergence_is_a_clear_error() -> None:
    case = small()
    from pack_models.propagation.run import network_march

    _, problem, march = network_march(case)
    problem.capacity_J_K[0] = np.nan
    with pytest.raises(SolverError, match=r"did not converge.*run\.step\.largest_s"):
        march.advance(10.0)


def test_command_line_refuses_a_wrong_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(changed("run.step", {"largest_s": 0})), encoding="utf-8")
    assert cli.main(["run", str(file)]) == 2
    assert "bad.yaml: run.step.largest_s: 0 is out of range" in capsys.readouterr().err


def test_missing_dolfinx_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWIN_DOLFINX_PYTHON", "/nonexistent/python")
    fem.find_interpreter.cache_clear()
    try:
        with pytest.raises(
            MissingDolfinxError, match=r"apt-get install python3-dolfinx.*conda-forge.*network"
        ):
            fem.find_interpreter()
        assert cli.main(["run", "pack3x4", "--model", "fem"]) == 3
        assert "needs dolfinx" in capsys.readouterr().err
    finally:
        fem.find_interpreter.cache_clear()


def test_fem_outputs_and_version(tmp_path: Path, dolfinx: str) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(changed("run.until_s", 20)), encoding="utf-8")
    assert cli.main(["run", str(file), "--model", "fem", "--out", str(tmp_path / "out"), "--no-figures"]) == 0
    summary = outputs.read_summary(tmp_path / "out")
    assert summary["dolfinx"] == dolfinx
    assert summary["energy_J"]["imbalance"] < 1e-6
    assert "temperature_K" in (tmp_path / "out" / "fields.xdmf").read_text()


def test_field_on_a_face_obeys_the_film() -> None:
    case = small()
    grid = case.grid("network")
    hot = np.full(int(np.prod(grid.shape)), 400.0)
    field = volume_field(0.0, grid, hot, case.boundaries)
    half = 0.5 * (grid.x[1] - grid.x[0])
    k = grid.k_W_mK[grid.material[0, 0, -1], 0]
    surface = (k / half * 400.0 + 10.0 * 298.15) / (k / half + 10.0)
    assert field.at((0.0, 0.025, 0.025)) == pytest.approx(surface, abs=1e-9)


def test_whole_numbers_are_asked_for_and_meshes_end_somewhere() -> None:
    data = load_case("pack3x4").data
    cells = {**data["geometry"]["cells"], "count": ["a", 2.5, 1]}
    with pytest.raises(CaseError) as caught:
        parse_case({**data, "geometry": {**data["geometry"], "cells": cells}})
    assert "geometry.cells.count[0]: 'a' is not a number" in str(caught.value)
    assert "geometry.cells.count[1]: 2.5 is not a whole number; expected at least 1" in str(caught.value)
    huge = parse_case({**data, "run": {**data["run"], "mesh": {"network": [5000, 5000, 100]}}})
    with pytest.raises(CaseError, match=r"run\.mesh: makes .* volumes; expected at most 5e\+06"):
        huge.grid("network")


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    assert cli.main(["run", "pack3x4", "--model", "lumped", "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()
