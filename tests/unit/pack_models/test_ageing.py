"""Ageing laws: closed forms, changing conditions, rainflow, saved state, knee, counters, errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pack_models.ageing import AgeingBank, Knee, ageing_model, ageing_names
from pack_models.ageing.parameters import load_ageing
from pack_models.ageing.rainflow import count
from pack_models.catalogue import CatalogueError

DAY_S = 86400.0
R = 8.3144598


def graphite_V(soc):
    x = 0.0085 + soc * (0.78 - 0.0085)
    return (
        0.6379
        + 0.5416 * math.exp(-305.5309 * x)
        + 0.044 * math.tanh(-(x - 0.1958) / 0.1088)
        - 0.1978 * math.tanh((x - 1.0571) / 0.0854)
        - 0.6875 * math.tanh((x + 0.0117) / 0.0529)
        - 0.0175 * math.tanh((x - 0.5692) / 0.0875)
    )


def sanyo_V(soc):
    curve = ageing_model("schmalstieg_nmc").curve
    return float(np.interp(soc, curve[:, 0], curve[:, 1]))


def rested(name, soc, T, t):
    """Published calendar laws, written out: (capacity, resistance) factors after t seconds."""
    d = t / DAY_S
    if name == "naumann_lfp":
        loss = 1.2571e-5 * math.exp(-17126 / R * (1 / T - 1 / 298.15)) * (2.8575 * (soc - 0.5) ** 3 + 0.60225)
        rise = 3.4194e-10 * math.exp(-71827 / R * (1 / T - 1 / 298.15))
        return 1 - loss * math.sqrt(t), 1 + rise * (-3.3903 * (soc - 0.5) ** 2 + 1.5604) * t
    if name == "schmalstieg_nmc":
        loss = (7.543 * sanyo_V(soc) - 23.75) * 1e6 * math.exp(-6976 / T)
        rise = (5.270 * sanyo_V(soc) - 16.32) * 1e5 * math.exp(-5986 / T)
        return 1 - loss * d**0.75, 1 + rise * d**0.75
    if name == "kokam_nmc":
        k = 2.66e7 * math.exp(-17.8 * 308.15 / T) * math.exp(-5.21 * graphite_V(soc) / 0.123 * 308.15 / T)
        return 1 - k * d**0.357, 1 + (0.0570 * k) * d**1.25
    k = 8.37e4 * math.exp(-5.21e3 / T) * math.exp(-3.56e3 * graphite_V(soc) / T)
    return 1 - k * d**0.526, 1.0


@pytest.mark.parametrize("name", ageing_names())
@pytest.mark.parametrize(("soc", "T"), [(0.5, 298.15), (0.9, 318.15), (0.13, 288.0)])
def test_rest_is_the_closed_form(name, soc, T):
    bank = AgeingBank.from_model(name, 2, soc=soc)
    for _ in range(400):  # days in uneven pieces
        for dt_s in (61_000.0, 25_400.0):
            bank.accumulate(np.full(2, soc), np.full(2, T), dt_s)
    bank.refresh()
    capacity, resistance = rested(name, soc, T, 400 * DAY_S)
    # Kokam's capacity cannot exceed 1.01 - start of the material path: no matter here.
    assert bank.capacity_factor == pytest.approx(capacity, abs=1e-9)
    assert bank.resistance_factor == pytest.approx(resistance, abs=1e-9)


def test_virtual_time_goes_on_from_the_present_loss():
    """A hot year between two cool ones: each law goes on from the virtual time that gives its loss."""
    bank = AgeingBank.from_model("naumann_lfp", 1, soc=0.5)
    year, loss = 365 * DAY_S, 0.0
    for T in (288.15, 318.15, 288.15):
        bank.accumulate(np.array([0.5]), np.array([T]), year)
        k = 1.2571e-5 * math.exp(-17126 / R * (1 / T - 1 / 298.15)) * 0.60225
        loss = k * math.sqrt((loss / k) ** 2 + year)
    bank.refresh()
    assert bank.capacity_factor[0] == pytest.approx(1 - loss, abs=1e-12)


def cycled(name, n, low, high, C, T=298.15):
    """A bank after n full cycles between low and high at a constant rate, in 12 steps each way."""
    bank = AgeingBank.from_model(name, 1, soc=low, refresh_every_s=1e12)
    up = np.linspace(low, high, 13)[1:]
    path = np.concatenate([up, up[::-1][1:], [low]])
    dt = (high - low) / 12 / C * 3600.0
    for _ in range(n):
        for soc in path:
            bank.accumulate(np.array([soc]), np.array([T]), dt)
    bank.refresh()
    return bank


@pytest.mark.parametrize(("low", "high", "C"), [(0.1, 0.9, 0.5), (0.0, 1.0, 1.0), (0.35, 0.65, 0.25)])
def test_cycles_are_the_closed_form(low, high, C):
    n, D = 150, high - low
    fec = n * D
    bank = cycled("naumann_lfp", n, low, high, C)
    assert bank.cycles[0] == pytest.approx(fec, rel=1e-12)
    loss = 0.01 * (0.0630 * C + 0.0971) * (4.0253 * (D - 0.6) ** 3 + 1.0923) * math.sqrt(fec)
    rise = 0.01 * (-0.0020 * C + 0.0021) * (6.8477 * (D - 0.5) ** 3 + 0.9182) * fec
    assert bank.parts[0, 2] == pytest.approx(loss, abs=1e-9)
    assert bank.parts[0, 3] == pytest.approx(rise, abs=1e-9)

    bank = cycled("schmalstieg_nmc", n, low, high, C)
    fine = np.linspace(low, high, 200_001)
    volt = np.interp(fine, *ageing_model("schmalstieg_nmc").curve[:, :2].T)
    mean = math.sqrt(np.trapezoid(volt**2, fine) / D)
    passed_Ah = fec * 2 * 2.05
    loss = (7.348e-3 * (mean - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * D) * math.sqrt(passed_Ah)
    rise = max(2.153e-4 * (mean - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * D, 1.5e-5) * passed_Ah
    assert bank.parts[0, 2] == pytest.approx(loss, abs=1e-9)
    assert bank.parts[0, 3] == pytest.approx(rise, abs=1e-9)

    T = 303.15
    bank = cycled("lfp_250ah", n, low, high, C, T)
    k = (4.38e-8 + 1.55e-8 * D + 1.68e-7 * C) * (math.exp(2.19e3 / T) + math.exp(-1.55e5 / T))
    assert bank.parts[0, 2] == pytest.approx(k * fec**0.828, abs=1e-9)

    bank = cycled("kokam_nmc", n, low, high, C, T)
    k = 3.80e3 * math.exp(-18.4 * 308.15 / T) * math.exp(1.04 * math.exp(D**2))
    assert bank.parts[0, 2] == pytest.approx(k * fec**0.778, abs=1e-9)
    half = 1e4 + 153 * (T - 273.15 - 55) * D * 0.5 * (low + high) / 0.6
    x = (math.log(1 + 1e-8) - math.log1p(-1e-8)) ** 0.1 + fec / half
    assert bank.parts[0, 4] == pytest.approx(1.01 - 2 * (0.5 - 1 / (1 + math.exp(x**10))), abs=1e-9)


def test_standard_example_of_rainflow():
    """ASTM E1049-85, figure 6: -2, 1, -3, 5, -1, 3, -4, 4, -2."""
    ranges = count(np.array([-2.0, 1.0, -3.0, 5.0, -1.0, 3.0, -4.0, 4.0, -2.0]))
    table: dict[float, float] = {}
    for low, high, weight, _, _ in ranges:
        table[high - low] = table.get(high - low, 0.0) + weight
    assert table == {3.0: 0.5, 4.0: 1.5, 6.0: 0.5, 8.0: 1.0, 9.0: 0.5}


def rainflow_of_the_standard(series):
    """E1049-85, 5.4.4, read literally over the whole list of reversals: sorted (range, weight)."""
    points = [series[0]]
    for value in series[1:]:
        if len(points) >= 2 and (points[-1] - points[-2]) * (value - points[-1]) >= 0:
            points[-1] = value
        elif value != points[-1]:
            points.append(value)
    found, stack = [], []
    for point in points:
        stack.append(point)
        while len(stack) >= 3:
            x, y = abs(stack[-1] - stack[-2]), abs(stack[-2] - stack[-3])
            if x < y:
                break
            if len(stack) == 3:
                found.append((y, 0.5))
                stack.pop(0)
            else:
                found.append((y, 1.0))
                del stack[-3:-1]
    found += [(abs(b - a), 0.5) for a, b in itertools.pairwise(stack)]
    return sorted(found)


@given(st.lists(st.integers(0, 64), min_size=2, max_size=60))
@settings(max_examples=150, deadline=None)
def test_rainflow_as_a_stream_is_that_of_the_standard(values):
    series = np.array(values) / 64.0
    ranges = count(series)
    assert sorted((h - low, w) for low, h, w, _, _ in ranges) == rainflow_of_the_standard(series.tolist())
    # whatever closed where: the charge that moved is all there
    assert (2 * ranges[:, 2] * (ranges[:, 1] - ranges[:, 0])).sum() == pytest.approx(
        np.abs(np.diff(series)).sum()
    )


def test_a_short_residue_loses_no_throughput():
    """With room for 4 reversals only, ever smaller swings fall out as the half cycles they are."""
    swings = 0.5 + 0.5 * (-0.93) ** np.arange(60)
    tight, roomy = (AgeingBank.from_model("naumann_lfp", 1, soc=swings[0], depth=d) for d in (4, 100))
    for bank in (tight, roomy):
        for soc in swings[1:]:
            bank.accumulate(np.array([soc]), np.array([300.0]), 3600.0)
        bank.refresh()
    assert tight.cycles[0] == pytest.approx(np.abs(np.diff(swings)).sum() / 2)
    assert tight.parts == pytest.approx(roomy.parts, rel=1e-9)


def duty(n_cells, dt_s, days=30.0):
    """Charge and temperature of cells that do two unlike swings a day with pauses; (steps, n_cells) each."""
    t = np.arange(1, round(days * DAY_S / dt_s) + 1) * dt_s
    hour = (t / 3600.0) % 24.0
    knots = [0, 1, 4, 6, 8, 11, 17, 21, 24]
    base = np.interp(hour, knots, [0.2, 0.2, 0.7, 0.7, 0.5, 0.95, 0.95, 0.2, 0.2])
    size = np.linspace(0.6, 1.0, n_cells)
    soc = 0.55 + (base[:, None] - 0.55) * size
    T = 298.15 + 8.0 * np.sin(2 * np.pi * hour / 24.0)[:, None] * size
    return soc, T


@pytest.mark.parametrize("name", ageing_names())
@pytest.mark.parametrize(("days", "steps_s"), [(2.0, (1.0, 60.0, 600.0)), (60.0, (60.0, 600.0))])
def test_the_step_does_not_matter(name, days, steps_s):
    """The year's loss is up to 12^p larger than the month's: these bounds keep it below 2e-4."""
    results = []
    for dt_s in steps_s:
        soc, T = duty(2, dt_s, days)
        bank = AgeingBank.from_model(name, 2, soc=0.55 + (0.2 - 0.55) * np.array([0.6, 1.0]))
        for k in range(len(soc)):
            bank.accumulate(soc[k], T[k], dt_s)
        bank.refresh()
        results.append(bank.capacity_factor.copy())
    assert np.ptp(results, axis=0).max() < 7e-5


@pytest.mark.parametrize("name", ageing_names())
def test_a_split_run_is_the_same_run(name):
    soc, T = duty(5, 600.0, days=4.3)
    whole, first = (AgeingBank.from_model(name, 5, soc=0.4, pace=np.linspace(0.9, 1.1, 5)) for _ in range(2))
    for k in range(len(soc)):
        whole.accumulate(soc[k], T[k], 600.0)
    for k in range(251):
        first.accumulate(soc[k], T[k], 600.0)
    second = AgeingBank.from_model(name, 5, soc=0.9)
    second.set_state(first.get_state())
    for k in range(251, len(soc)):
        second.accumulate(soc[k], T[k], 600.0)
    for a, b in zip(whole.get_state().values(), second.get_state().values(), strict=True):
        assert (a == b).all()


def test_reading_changes_nothing():
    soc, T = duty(3, 600.0, days=3.0)
    often, seldom = (AgeingBank.from_model("kokam_nmc", 3, soc=0.4, refresh_every_s=s) for s in (600.0, 1e9))
    for k in range(len(soc)):
        often.accumulate(soc[k], T[k], 600.0)
        seldom.accumulate(soc[k], T[k], 600.0)
    seldom.refresh()
    # Kokam counts cycles of the nominal capacity: the factor in force when they close, hence not to the bit.
    assert often.capacity_factor == pytest.approx(seldom.capacity_factor, abs=1e-6)


def test_pace_scales_losses():
    slow, fast = (AgeingBank.from_model("naumann_lfp", 1, soc=0.2, pace=p) for p in (0.5, 2.0))
    for bank in (slow, fast):
        for soc in (0.9, 0.2) * 40:
            bank.accumulate(np.array([soc]), np.array([310.0]), 7200.0)
        bank.refresh()
    assert (1 - fast.capacity_factor) == pytest.approx(4 * (1 - slow.capacity_factor))
    assert (fast.resistance_factor - 1) == pytest.approx(4 * (slow.resistance_factor - 1))


def test_knee_sets_in_where_declared():
    knee = Knee(half_cycles=60.0)
    with_knee, without = (AgeingBank.from_model("naumann_lfp", 1, soc=0.0, knee=k) for k in (knee, None))
    history = []
    for _ in range(60):
        for soc in (1.0, 0.0):
            for bank in (with_knee, without):
                bank.accumulate(np.array([soc]), np.array([298.15]), 3600.0)
        for bank in (with_knee, without):
            bank.refresh()
        history.append((without.capacity_factor[0], with_knee.capacity_factor[0]))
    early, late = history[25], history[-1]
    assert early[0] == early[1]
    x = (60.0 / 60.0) ** 10
    assert late[1] == pytest.approx(1.01 - (1 - 2 / (1 + math.exp(x))))
    assert late[0] > 0.95


def test_conditions_beyond_the_measurements_are_counted():
    bank = AgeingBank.from_model("naumann_lfp", 3, soc=0.5)  # measured 20 to 40 degC, to 1C
    T = np.array([283.15, 298.15, 333.15])
    for soc in (0.9, 0.1) * 10:
        bank.accumulate(np.full(3, soc), T, 0.4 * 3600.0)  # 0.8 in 24 min: 2C
    for _ in range(24):
        bank.accumulate(np.full(3, 0.1), T, 3600.0)
    outside = bank.outside()
    assert outside["colder_h"] == pytest.approx([32.0, 0.0, 0.0])
    assert outside["hotter_h"] == pytest.approx([0.0, 0.0, 32.0])
    assert (outside["rate_cycles"] > 3.0).all()
    assert (outside["depth_cycles"] == 0.0).all()


def test_a_worn_out_cell_keeps_a_capacity():
    bank = AgeingBank.from_model("kokam_nmc", 1, soc=1.0)
    bank.accumulate(np.array([1.0]), np.array([340.0]), 200 * 365 * DAY_S)
    bank.refresh()
    assert 0.0 < bank.capacity_factor[0] < 0.05
    assert np.isfinite(bank.resistance_factor[0])


def test_wrong_input_is_named():
    with pytest.raises(KeyError, match="did you mean 'naumann_lfp'"):
        ageing_model("nauman_lfp")
    bank = AgeingBank.from_model("naumann_lfp", 3)
    fine = np.full(3, 0.5)
    for soc, T, words in (
        (np.array([0.5, np.nan, 0.5]), fine + 298, "cell 1 at state of charge nan"),
        (fine, np.array([298.0, 298.0, -4.0]), "cell 2 .* -4 K"),
        (fine[:2], fine + 298, "expected \\(3,\\)"),
    ):
        with pytest.raises(ValueError, match=words):
            bank.accumulate(soc, T, 60.0)
    with pytest.raises(ValueError, match="dt_s is 0"):
        bank.accumulate(fine, fine + 298, 0.0)
    with pytest.raises(ValueError, match="knee of its own"):
        AgeingBank.from_model("kokam_nmc", 1, knee=Knee(1000.0))
    with pytest.raises(ValueError, match="half_cycles is -1"):
        Knee(-1.0)


def test_a_broken_file_gets_all_its_mistakes(tmp_path):
    text = """
name: wrong
about: x
chemistry: y
form: large_lfp
sources: {a: b}
numbers:
  calendar_k: {value: .nan, unit: "1", source: a}
  calendar_a: {value: 1.0, unit: K, source: a}
  spare: {value: 1.0, unit: "1", source: a}
valid:
  temperature_range_K: {values: [300.0, 200.0], unit: K, source: nowhere}
"""
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(CatalogueError) as caught:
        load_ageing(path)
    words = str(caught.value)
    for part in ("calendar_k: nan", "unit 'K'; expected '1'", "spare: unknown", "nowhere", "cycle_power"):
        assert part in words
    path.write_text(text.replace("large_lfp", "large_lpf"))
    with pytest.raises(CatalogueError, match="did you mean 'large_lfp'"):
        load_ageing(path)
