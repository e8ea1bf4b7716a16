"""Compiled single-particle models against PyBaMM's own solver (IDAKLU, rtol 1e-6), several parameter sets.

Here two minutes of the WLTC and forty minutes of noise; the whole cycles, the whole day and further sets are
`make compiler-study`, whose table lies in results/compiled_cells. The contract is 1 mV (spm), 2 mV (spme)
and 0.05 K; the bounds here are what is reached, with room.
"""

import dataclasses

import numpy as np
import pytest

from pack_models.cells.compiler.compiled import compiled
from pack_models.cells.compiler.engine import CompiledCells
from pack_models.cells.compiler.source import parameter_set, simulation
from pack_models.cells.compiler.validate import (
    BPX,
    compare,
    data_folder,
    noisy_day,
    reference,
    replay,
    source_of,
    wltc,
)

KELVIN = 273.15


def part(profile, first, last):
    return dataclasses.replace(profile, c_rate=profile.c_rate[first:last])


DRIVE = part(wltc(), 1490, 1610)  # the fast part, with the hardest acceleration
NOISE = noisy_day(40)

CASES = [
    # parameters, model, thermal, reached on the drive and the noisy hours (mV RMSE), with room
    ("Chen2020", "spm", "lumped", 0.005, 0.01),
    ("Prada2013", "spm", "isothermal", 0.005, 0.01),
    ("Ecker2015", "spm", "isothermal", 0.05, 0.1),  # D(c): no exact modes
    ("Chen2020", "spme", "lumped", 0.01, 0.1),
    ("Marquis2019", "spme", "isothermal", 0.01, 0.1),
    ("Mohtat2020", "spme", "isothermal", 0.01, 0.01),  # a constant electrolyte: exact
    ("Ai2020", "spme", "lumped", 0.02, 0.15),
    (BPX, "spme", "lumped", 0.05, 0.3),
]


@pytest.mark.parametrize(("name", "model", "thermal", "drive_mV", "noise_mV"), CASES)
def test_agrees_with_pybamm(name, model, thermal, drive_mV, noise_mV):
    if name == BPX and not (data_folder() / "bpx" / BPX).exists():
        pytest.skip(f"no {BPX}: set TWIN_DATA to the folder with the shared data")
    for profile, bound_mV in ((DRIVE, drive_mV), (NOISE, noise_mV)):
        found = compare(source_of(name, model, thermal), profile)
        assert found.rmse_mV < bound_mV
        assert found.largest_mV < 10.0 * bound_mV
        assert found.largest_K < 0.02


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("spm", {"SEI": "reaction limited", "thermal": "lumped"}),
        ("spme", {"SEI": "solvent-diffusion limited"}),
        ("spm", {"open-circuit potential": "current sigmoid"}),
    ],
)
def test_side_reactions_and_hysteresis(model, options):
    name = "OKane2022" if model == "spme" else "Chen2020"
    source = parameter_set(name, model, options)
    if "open-circuit potential" in options:
        plain = source.make_parameters

        def with_branches():
            values = plain()
            for side in ("Negative", "Positive"):
                ocp = values[f"{side} electrode OCP [V]"]
                # Branches 20 mV apart.
                for branch, shift in (("lithiation", -0.01), ("delithiation", 0.01)):
                    values.update(
                        {
                            f"{side} electrode {branch} OCP [V]": lambda x, ocp=ocp, shift=shift: (
                                ocp(x) + shift
                            )
                        },
                        check_already_exists=False,
                    )
            return values

        source = dataclasses.replace(source, make_parameters=with_branches, key=None)
    found = compare(source, NOISE)
    assert found.rmse_mV < 0.1
    assert found.largest_K < 0.02


def test_cold_and_hot():
    source = parameter_set("Chen2020", "spme")
    for temperature_K in (KELVIN, 45.0 + KELVIN):
        assert compare(source, part(DRIVE, 0, 60), temperature_K).rmse_mV < 0.02


def test_a_simulation_of_its_own_mesh():
    """Parameters, options and mesh are those of the Simulation, and a capacity-like input is per cell."""
    import pybamm

    values = pybamm.ParameterValues("Chen2020")
    values["Contact resistance [Ohm]"] = 0.004
    built = pybamm.Simulation(
        pybamm.lithium_ion.SPMe({"contact resistance": "true"}),
        parameter_values=values,
        var_pts={"x_n": 12, "x_s": 8, "x_p": 12, "r_n": 15, "r_p": 15},
    )
    area = "Electrode height [m]"
    source = simulation(built, inputs=(area,))
    model = compiled(source)
    assert model.to_states.shape[0] == 15 + 15 + 12 + 8 + 12 + 2
    short = part(DRIVE, 0, 60)
    voltage_V, _, _ = reference(source_with(source, area, 0.13), model, short, 298.15)
    cells = CompiledCells(model, np.full(3, 0.65), 298.15, inputs={area: [0.065, 0.13, 0.2]})
    for k, rate in enumerate(short.c_rate):
        cells.step(rate * model.window.nominal_Ah, 298.15, 1.0)
        assert cells.voltage_V[1] == pytest.approx(voltage_V[k], abs=2e-5)
    drop_V = np.diff(cells.voltage_V)
    assert (np.abs(drop_V) > 1e-3).all()  # twice the area, another voltage


def source_with(source, name, value):
    """The source with one parameter changed."""

    def parameters():
        values = source.make_parameters()
        values[name] = value
        return values

    return dataclasses.replace(source, make_parameters=parameters)


def test_a_long_step_is_as_good_as_many_short_ones():
    """Constant current: one step of ten minutes, or six hundred of a second."""
    for name, model, tolerance_V in (("Chen2020", "spm", 1e-9), ("Chen2020", "spme", 3e-4)):
        kernel = compiled(parameter_set(name, model))
        one, many = (CompiledCells(kernel, 0.8, 298.15) for _ in range(2))
        one.step(5.0, 298.15, 600.0)
        for _ in range(600):
            many.step(5.0, 298.15, 1.0)
        assert one.voltage_V[0] == pytest.approx(many.voltage_V[0], abs=tolerance_V)
        assert one.soc[0] == pytest.approx(many.soc[0], abs=1e-10)


def test_error_follows_the_tolerance():
    """What is stepped implicitly converges to PyBaMM as the tolerance falls."""
    source = parameter_set("ORegan2022", "spme")
    model = compiled(source)
    profile = part(NOISE, 0, 12)
    voltage_V, _, _ = reference(source, model, profile, 298.15)
    apart_mV = []
    for tolerance in (1e-2, 1e-3, 1e-4):
        cells = CompiledCells(model, 0.65, 298.15, tolerance=tolerance)
        own_V = []
        for rate in profile.c_rate:
            cells.step(rate * model.window.nominal_Ah, 298.15, profile.dt_s)
            own_V.append(cells.voltage_V[0])
        apart_mV.append(1e3 * float(np.sqrt(np.mean((np.array(own_V) - voltage_V) ** 2))))
    assert apart_mV[1] < 0.3 * apart_mV[0]
    assert apart_mV[2] < 0.5 * apart_mV[1]
    assert replay(model, profile, 298.15)[2] > 1.0
