"""The part without a deadline: abuse model and State of Safety, parking, black box, arithmetic."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from bms_emulator.firmware.interface import load, names
from bms_emulator.native import NativeBms
from tests.unit.bms_emulator.fw_rig import DESIGN, Rig

RECORDS = names("RECORD")
# Kim, Pesaran, Spotnitz, J. Power Sources 170 (2007) 476, Table 1, as quoted in the shared kinetics file.
KIM_A = np.array([1.667e15, 2.5e13, 6.667e13, 5.14e25])
KIM_E = np.array([1.3508e5, 1.3508e5, 1.396e5, 2.74e5])
KIM_HW = np.array([2.57e5 * 610.4, 1.714e6 * 610.4, 3.14e5 * 1221.0, 1.55e5 * 406.9])
START = np.array([0.15, 0.75, 0.04, 1.0])
HEAT = KIM_HW * np.array([0.15, 0.75, 0.96, 1.0])  # J/m3 of each whole pathway


def kim(temperature_K, u):
    sei, anode, layer, cathode, electrolyte = u
    k = KIM_A * np.exp(-KIM_E / (8.314 * temperature_K))
    return np.array(
        [
            k[0] * sei,
            k[1] * anode * np.exp(-layer / 0.033),
            k[2] * cathode * (1 - cathode),
            k[3] * electrolyte,
        ]
    )


def adiabatic(start_K, until_s):
    """Temperature and State of Safety of the reference, integrated by scipy; only above 50 degC."""

    def f(_, u):
        r = kim(u[0], u[1:])
        return [KIM_HW @ r / (2580 * 830), -r[0], -r[1], r[1], r[2], -r[3]]

    times = np.arange(0, until_s, 1.0)
    y0 = [start_K, 0.15, 0.75, 0.033, 0.04, 1.0]
    s = solve_ivp(f, (0, times[-1]), y0, method="BDF", rtol=1e-9, atol=1e-12, t_eval=times)
    used = np.array([0.15 - s.y[1], 0.75 - s.y[2], s.y[4] - 0.04, 1.0 - s.y[5]])
    alpha = used / np.array([0.15, 0.75, 0.96, 1.0])[:, None]
    beyond = np.maximum(0, s.y[0] - 363.15) / (483.15 - 363.15)
    return s.y[0], np.clip(1 - HEAT / HEAT.sum() @ alpha - beyond, 0, 1)


def warm_frame(bms, celsius):
    frame = bms.frames()
    frame["cell_voltage_100uV"][:, :14] = 37_000
    frame["cell_temperature_ddegC"][:, :4] = round(celsius * 10)
    frame["pack_voltage_mV"], frame["pack_current_mA"], frame["sample_period_ticks"] = 51_800, 0, 100
    return frame


def test_state_of_safety_follows_the_full_kinetics_of_a_heating_cell():
    """One zone follows the adiabatic run from 130 degC; the sensor has 0.1 K steps, the model 1 s steps."""
    temperature_K, expected = adiabatic(273.15 + 130, 780)
    bms = NativeBms([DESIGN | {"cell_core_K_per_W": 0.01, "temps_lost_max": 4}])
    frame = warm_frame(bms, 25)
    seen = []
    for kelvin in temperature_K:
        frame["cell_temperature_ddegC"][0, 2] = round((kelvin - 273.15) * 10)
        frame["sample_counter"] += np.uint16(1)
        bms.step(frame, 100)
        seen.append(int(bms.outputs["safety_ppm"][0]) * 1e-6)
    # A result acts one second after its snapshot.
    error = np.abs(np.array(seen[1:]) - expected[:-1])
    assert error.max() < 0.01
    assert expected[0] > 0.6
    assert expected[-1] < 0.35, "the reference goes far enough to be a test"
    assert np.all(np.diff(seen[2:]) <= 1e-5), "never safer again while it heats"


def test_conversion_does_not_come_back_with_the_cold():
    """SoS is state, not temperature: a cell that was cooked stays marked."""
    bms = NativeBms([DESIGN])
    frame = warm_frame(bms, 25)
    for celsius, seconds in ((25, 30), (140, 400), (25, 600)):
        frame["cell_temperature_ddegC"][0, 1] = celsius * 10
        for _ in range(seconds):
            frame["sample_counter"] += np.uint16(1)
            bms.step(frame, 100)
        if celsius == 25 and seconds == 30:
            assert bms.outputs["safety_ppm"][0] == 1_000_000
    assert 700_000 < bms.outputs["safety_ppm"][0] < 995_000


def test_low_safety_warns_and_derates():
    rig = Rig(**{f"limit_trip.{limit}.{level}": 1_500 for level in names("LEVEL")
                 for limit in ("OVERTEMPERATURE_DISCHARGE", "OVERTEMPERATURE_CHARGE")},
              **{"ramp_zero.DISCHARGE_BY_HEAT": 1_500, "ramp_full.DISCHARGE_BY_HEAT": 1_400},
              **{f"limit_trip.CELL_TEMPERATURE_SPREAD.{level}": 3_000 for level in names("LEVEL")},
              runaway_t_max_ddegC=1_500, early_rate_mK_per_s=0, temperature_outlier_ddegC=3_000,
              cell_core_K_per_W=0.1)  # fmt: skip
    rig.close()
    rig.tick(3_000)
    full = int(rig.out["discharge_limit_mA"])
    assert rig.out["safety_ppm"] == 1_000_000
    rig.frame["cell_temperature_ddegC"][0, 0] = 1_050
    rig.tick(6_000)
    assert "SAFETY_LOW" in rig.active
    assert 0 < rig.out["safety_ppm"] < 900_000
    assert rig.out["discharge_limit_mA"] < full
    assert rig.state == "RUN", "a warning, not a trip"


def test_the_core_is_hotter_than_the_sensor_under_load():
    """Joule heat in steady state: 3 K/W times the heat of one cell."""
    bms = NativeBms([DESIGN | {"cell_core_K_per_W": 20.0, "abuse_onset_K": 320.0, "abuse_scale": 1.0}])
    frame = warm_frame(bms, 45)
    frame["pack_current_mA"] = 20_000
    for _ in range(4_000):
        frame["sample_counter"] += np.uint16(1)
        bms.step(frame, 100)
    cell_A, resistance = 20.0 / 2, 0.03
    core_K = 273.15 + 45 + 20.0 * cell_A**2 * resistance
    expected = 1 - (core_K - 320.0) / (483.15 - 320.0)
    assert int(bms.outputs["safety_ppm"][0]) * 1e-6 == pytest.approx(expected, abs=0.05)


# ---- arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "low", "high", "exact", "ulp"),
    [
        (0, -79.9, 0.0, lambda x: np.exp(x), 5),
        (1, 1e-4, 60.0, lambda x: -np.expm1(-x), 6),
        (2, 1e-20, 1e20, lambda x: np.sqrt(x), 2),
    ],
    ids=["exp", "1 - exp", "sqrt"],
)
def test_float32_functions_against_numpy(which, low, high, exact, ulp):
    rng = np.random.default_rng(which)
    x = (
        rng.uniform(low, high, 200_000)
        if which < 2
        else 10 ** rng.uniform(np.log10(low), np.log10(high), 200_000)
    )
    x = x.astype(np.float32)
    y = np.empty_like(x)
    load().c.bms_host_fmath(which, x.ctypes.data, y.ctypes.data, x.size)
    true = exact(x.astype(np.float64))
    error = np.abs(y - true) / np.spacing(true.astype(np.float32))
    assert error.max() <= ulp


# ---- parked --------------------------------------------------------------------------------------


def quiet(bms, celsius=20):
    frame = warm_frame(bms, celsius)
    frame["insulation_kohm"], frame["link_voltage_mV"] = 5_000, 0
    return frame


def advance(bms, frame, seconds):
    for _ in range(seconds):
        frame["sample_counter"] += np.uint16(1)
        bms.step(frame, 100)


def test_open_and_quiet_pack_parks_and_is_looked_at_rarely():
    bms = NativeBms([DESIGN | {"park_after_s": 60}])
    frame = quiet(bms)
    advance(bms, frame, 55)
    assert not bms.outputs["parked"][0]
    advance(bms, frame, 10)
    assert bms.outputs["parked"][0]
    assert bms.outputs["wake_in_s"][0] == 1_800
    # Asleep: time goes on, nothing is judged; a look lasts five seconds before it sleeps again.
    before_ms = int(bms.outputs["uptime_ms"][0])
    bms.sleep(0, 1_800_000)
    frame["sample_counter"] += np.uint16(1)
    bms.step(frame, 100)
    assert int(bms.outputs["uptime_ms"][0]) - before_ms == 1_801_000
    assert bms.faults(0) == ()
    advance(bms, frame, 2)
    assert not bms.outputs["parked"][0]
    advance(bms, frame, 6)
    assert bms.outputs["parked"][0]
    assert "PARKED" in [RECORDS[kind] for kind in bms.records(0)["kind"]]


def test_warm_or_gassing_pack_is_looked_at_often_and_a_request_wakes():
    bms = NativeBms([DESIGN | {"park_after_s": 20}])
    frame = quiet(bms, celsius=46)
    advance(bms, frame, 30)
    assert bms.outputs["wake_in_s"][0] == 60
    frame["request"] = 1
    frame["sample_counter"] += np.uint16(1)
    bms.step(frame, 1)
    assert not bms.outputs["parked"][0], "in the tick of the request"
    bms = NativeBms([DESIGN | {"park_after_s": 20}])
    frame = quiet(bms)
    frame["gas_ppm"] = 0
    advance(bms, frame, 30)
    assert bms.outputs["parked"][0]
    frame["gas_ppm"] = 400
    advance(bms, frame, 3)
    assert not bms.outputs["parked"][0], "a vent pulse keeps it awake"


# ---- black box -----------------------------------------------------------------------------------


def test_black_box_tells_a_trip_in_order_with_checksums():
    rig = Rig()
    rig.close()
    rig.tick(300)
    rig.frame["pack_current_mA"] = 60_000
    rig.tick(250)
    lines = rig.bms.records(0)
    assert np.all(np.diff(lines["sequence"].astype(np.int64)) == 1)
    for line in lines:
        raw = line.tobytes()
        assert zlib.crc32(raw[:28]) == line["crc"]
    latched = lines[lines["kind"] == RECORDS.index("LATCHED")]
    assert [rig.bms.fault_names[i] for i in latched["id"]] == ["OVERCURRENT_DISCHARGE"]
    assert latched["a"][0] == 60_000
    steps = [rig.bms.step_names[s] for s in lines[lines["kind"] == RECORDS.index("STEP")]["step"]]
    assert steps[-1] == "ERROR"
