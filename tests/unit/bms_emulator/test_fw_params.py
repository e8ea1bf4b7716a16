"""Parameter sets: defaults are accepted, every range and relation is enforced with a reason and a name."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bms_emulator.firmware.interface import Verdict, load, names
from bms_emulator.firmware.parameters import ParameterError, check_params, make_params
from bms_emulator.native import NativeBms
from tests.unit.bms_emulator.fw_rig import DESIGN

FIRMWARE = load()
FIELDS = {name: (low, high) for name, low, high in FIRMWARE.param_fields()}
SCALARS = [
    name
    for name, (low, _) in FIELDS.items()
    if not FIRMWARE.param_dtype[name].shape and isinstance(low, int) and name != "schema"
]
FLOATS = [name for name, (low, _) in FIELDS.items() if isinstance(low, float)]


def refusal(**given_params):
    with pytest.raises(ParameterError) as caught:
        make_params([DESIGN | given_params])
    return caught.value


@given(
    n_groups=st.integers(1, 256),
    n_temps=st.integers(1, 64),
    capacity_mAh=st.integers(100, 2_000_000),
    charge=st.integers(100, 5_000_000),
    discharge=st.integers(100, 5_000_000),
)
def test_defaults_of_every_design_are_accepted(n_groups, n_temps, capacity_mAh, charge, discharge):
    design = {"n_groups": n_groups, "n_temps": n_temps, "capacity_mAh": capacity_mAh,
              "current_max_charge_mA": charge, "current_max_discharge_mA": discharge}  # fmt: skip
    params = make_params([design])
    for name, value in design.items():
        assert params[name][0] == value


@pytest.mark.parametrize("field", SCALARS)
@pytest.mark.parametrize("side", ["low", "high"])
def test_every_scalar_has_its_range(field, side):
    low, high = FIELDS[field]
    value = low - 1 if side == "low" else high + 1
    error = refusal(**{field: value})
    assert (error.reason, error.field) == ("OUT_OF_RANGE", field)
    assert f"{field} = {value}" in str(error)
    assert f"{low}…{high}" in str(error)


RELATIONS = {
    "limit beyond its row": ({"limit_trip.OVERTEMPERATURE_CHARGE.MSL": 1_501}, "OUT_OF_RANGE", "limit_trip"),
    "MSL inside RSL": ({"limit_trip.CELL_OVERVOLTAGE.MSL": 42_100}, "LEVEL_ORDER", "limit_trip"),
    "RSL outside MSL, downwards": ({"limit_trip.CELL_UNDERVOLTAGE.RSL": 24_000}, "LEVEL_ORDER", "limit_trip"),
    "clear beyond trip": ({"limit_clear.PACK_OVERVOLTAGE.RSL": 100_000}, "HYSTERESIS", "limit_clear"),
    "clear below trip": ({"limit_clear.CELL_UNDERVOLTAGE.MSL": 24_999}, "HYSTERESIS", "limit_clear"),
    "negative hold": ({"limit_hold_ms.PACK_OVERVOLTAGE.MSL": -1}, "OUT_OF_RANGE", "limit_hold_ms"),
    "ramp the wrong way": ({"ramp_full.CHARGE_BY_HEAT": 501}, "RAMP_ORDER", "ramp_full"),
    "ramp without slope": ({"ramp_full.CHARGE_BY_COLD": 0}, "RAMP_ORDER", "ramp_full"),
    "stop above start": ({"balancing_stop_100uV": 60}, "PAIR_ORDER", "balancing_start_100uV"),
    "cell window upside down": ({"cell_min_100uV": 43_000}, "PAIR_ORDER", "cell_max_100uV"),
    "off above on": ({"cooling_off_ddegC": 300}, "PAIR_ORDER", "cooling_on_ddegC"),
    "flat OCV": ({"ocv_soc_permille": [0, 500, 1000], "ocv_100uV": [30_000, 37_000, 37_000]},
                 "OCV_NOT_RISING", "ocv_100uV"),
    "SoC not rising": ({"ocv_soc_permille": [0, 0, 1000], "ocv_100uV": [30_000, 36_000, 37_000]},
                       "OCV_NOT_RISING", "ocv_soc_permille"),
    "OCV not to full": ({"ocv_soc_permille": [0, 999], "ocv_100uV": [30_000, 36_000]}, "OCV_WINDOW",
                        "ocv_soc_permille"),
    "OCV of another chemistry": ({"cell_max_100uV": 36_500}, "OCV_WINDOW", "ocv_100uV"),
    "OCV of unequal length": ({"ocv_soc_permille": [0, 1000], "ocv_100uV": [30_000]}, "WRONG_LENGTH",
                              "ocv_soc_permille"),
    "OCV without its partner": ({"ocv_100uV": [30_000, 36_000]}, "WRONG_LENGTH", "ocv_soc_permille"),
    "slot without a row": ({"diag_set_ms": [0] * 63 + [5]}, "UNUSED_NOT_ZERO", "diag_set_ms"),
    "fraction": ({"stuck_samples": 2.5}, "NOT_AN_INTEGER", "stuck_samples"),
    "nan": ({"stuck_samples": float("nan")}, "NOT_AN_INTEGER", "stuck_samples"),
    "text": ({"stuck_samples": "many"}, "NOT_AN_INTEGER", "stuck_samples"),
    "huge": ({"stuck_samples": 2**40}, "OUT_OF_RANGE", "stuck_samples"),
    "table too short": ({"ramp_zero": [1, 2]}, "WRONG_LENGTH", "ramp_zero"),
    "misspelt field": ({"n_group": 3}, "UNKNOWN_KEY", "n_group"),
    "misspelt row": ({"diag_set_ms.SAMPLE_STAIL": 3}, "UNKNOWN_KEY", "diag_set_ms.SAMPLE_STAIL"),
    "row without level": ({"limit_trip.CELL_OVERVOLTAGE": 3}, "UNKNOWN_KEY", "limit_trip"),
}  # fmt: skip


@pytest.mark.parametrize("case", RELATIONS)
def test_relations_and_keys(case):
    given_params, reason, field = RELATIONS[case]
    error = refusal(**given_params)
    assert (error.reason, error.field) == (reason, field)
    assert str(error).startswith("parameters[0]: ")


def test_messages_name_the_row_and_the_nearest_guess():
    assert "limit_trip.CELL_OVERVOLTAGE.MSL = 42100" in str(
        refusal(**{"limit_trip.CELL_OVERVOLTAGE.MSL": 42_100})
    )
    assert "did you mean 'n_groups'" in str(refusal(n_group=3))
    assert "did you mean 'SAMPLE_STALE'" in str(refusal(**{"diag_set_ms.SAMPLE_STAIL": 3}))
    with pytest.raises(ParameterError, match="capacity_mAh is missing"):
        make_params([{"n_groups": 3, "n_temps": 1}])
    with pytest.raises(ParameterError, match=r"parameters\[1\]"):
        make_params([DESIGN, DESIGN | {"precharge_tries": 0}])


def test_arrays_are_checked_too():
    params = make_params([DESIGN] * 2)
    NativeBms(params)
    params["n_temps"][1] = 65
    with pytest.raises(ParameterError, match=r"parameters\[1\]: n_temps = 65"):
        NativeBms(params)
    with pytest.raises(TypeError, match="param_dtype"):
        check_params(np.zeros(3))


def test_firmware_with_refused_parameters_stays_open():
    """On the target nobody raises an exception: the firmware itself must keep the contactors open."""
    params = make_params([DESIGN])
    params["n_groups"] = 100_000
    verdict = Verdict()
    assert FIRMWARE.c.bms_host_check(params.ctypes.data, ctypes.byref(verdict)) == 1
    bms = NativeBms([DESIGN])
    assert FIRMWARE.c.bms_host_init(bms._contexts.ctypes.data, params.ctypes.data) == 1
    frames = bms.frames()
    frames["cell_voltage_100uV"] = 37_000
    frames["cell_temperature_ddegC"] = 250
    frames["pack_current_mA"] = 0
    frames["pack_voltage_mV"] = frames["link_voltage_mV"] = 3_700
    for request in (1, 7, 1, 7):
        frames["request"] = request
        for _ in range(50):
            frames["sample_counter"] += np.uint16(1)
            out = bms.step(frames)
            assert out["contactor_command"][0] == 0
            assert bms.faults(0) == ("PARAMETERS_INVALID",)
    assert bms.state_names[out["state"][0]] == "ERROR"


@given(seed=st.integers(0, 2**32 - 1))
def test_random_words_are_judged_not_obeyed(seed):
    """Any bytes as a parameter set: a verdict with a known reason and a field that exists, and no crash."""
    rng = np.random.default_rng(seed)
    params = make_params([DESIGN])
    words = params.view(np.int32)
    hit = rng.integers(0, words.size, rng.integers(1, 20))
    words[hit] = rng.integers(-(2**31), 2**31, hit.size)
    verdict = Verdict()
    reason = FIRMWARE.c.bms_host_check(params.ctypes.data, ctypes.byref(verdict))
    assert reason < len(names("PARAM_REASON"))
    assert verdict.field < len(FIELDS)
    bms = NativeBms([DESIGN])
    assert FIRMWARE.c.bms_host_init(bms._contexts.ctypes.data, params.ctypes.data) == reason
    bms.step(bms.frames(), 20)
    assert bms.outputs["contactor_command"][0] == 0
