"""Units: exact conversion, exact way back, and errors that help."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.units import DIMENSIONS, UnitError, factor, format_quantity, offset, parse


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("250 kW", "power", 250_000.0),
        ("25 degC", "temperature", 298.15),
        ("25 °C", "temperature", 298.15),
        ("77 degF", "temperature", 298.15),
        ("1.5 K", "temperature_difference", 1.5),
        ("3 d", "time", 259_200.0),
        ("1 d 12 h", "time", 129_600.0),
        ("3 d 04:12:07", "time", 274_327.0),
        ("04:30", "time", 16_200.0),
        ("36:00:00", "time", 129_600.0),
        ("1 week 2 d", "time", 777_600.0),
        ("-5 min", "time", -300.0),
        ("250 ms", "time", 0.25),
        ("40 ohm", "resistance", 40.0),
        ("40 Ω", "resistance", 40.0),
        ("2 %", "fraction", 0.02),
        ("60%", "fraction", 0.6),
        ("0.02", "fraction", 0.02),
        ("10 mHz", "frequency", 0.01),
        ("50 Hz", "frequency", 50.0),
        ("0.30 EUR/kWh", "energy_price", 1 / 12e6),
        ("85 EUR/MWh", "energy_price", 85 / 3.6e9),
        ("1900 kg", "mass", 1900.0),
        ("0.6 m^2", "area", 0.6),
        ("5 Ah", "charge", 18_000.0),
        ("5 Ah", "capacity", 5.0),
        ("120 mAh", "capacity", 0.12),
        ("50 km/h", "speed", 50 / 3.6),
        ("1e3 W", "power", 1000.0),
        ("1_000 W", "power", 1000.0),
        (".5 V", "voltage", 0.5),
        ("20 µV", "voltage", 2e-5),
        ("4", "count", 4.0),
    ],
)
def test_reads_what_operators_write(text: str, dimension: str, value: float) -> None:
    assert parse(text, dimension) == value


def test_conversion_is_exact_where_the_factor_is_no_binary_fraction() -> None:
    # 0.1 * 0.001 and 23 + 273.15 are each one rounding away from the literal; text times factor is not.
    assert parse("0.1 mV", "voltage") == 1e-4
    assert parse("0.7 mV", "voltage") == 7e-4
    assert parse("23.1 degC", "temperature") == 296.25


@pytest.mark.parametrize(
    ("text", "dimension", "said", "guess"),
    [
        ("5 kWh", "power", "'kWh' is a unit of energy, not of power", None),
        ("5 kw", "power", "no unit 'kw' of power", "5 kW"),
        ("250", "power", "'250' has no unit", None),
        ("3,5 V", "voltage", "'3,5 V' has a decimal comma", "3.5 V"),
        ("3,5 h", "time", "'3,5 h' has a decimal comma", "3.5 h"),
        ("-300 degC", "temperature", "-300 degC is below absolute zero", None),
        ("4 C", "count", "'4 C' has a unit; a count has none", "4"),
        ("1e400 W", "power", "'1e400 W' is too large for a number", None),
        ("1e30 kW", "power", "'1e30 kW' is beyond any power (limit 1000 GW)", None),
        ("nan W", "power", "'nan W' is not a finite number", None),
        ("-.inf", "power", "'-.inf' is not a finite number", None),
        ("kW", "power", "'kW' is not a number with a unit", None),
        ("", "power", "nothing given", None),
        ("5 h 3 d", "time", "'5 h 3 d': the parts of a duration go from large to small", None),
        ("1 d 25:00", "time", "'1 d 25:00': a clock time after days runs from 00:00 to 23:59:59", None),
        ("1 d 2", "time", "'1 d 2' has no unit", None),
    ],
)
def test_says_what_is_wrong(text: str, dimension: str, said: str, guess: str | None) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, dimension)
    assert (caught.value.message, caught.value.guess) == (said, guess)
    assert caught.value.expected


def test_an_absurd_exponent_costs_no_memory() -> None:
    with pytest.raises(UnitError):
        parse("1e999999999 W", "power")
    assert parse("1e-999999999 W", "power") == 0.0


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (250e3, "power", "250 kW"),
        (298.15, "temperature", "25 degC"),
        (273.15, "temperature", "0 degC"),
        (97_927.0, "time", "1 d 03:12:07"),
        (259_200.0, "time", "3 d"),
        (600.0, "time", "10 min"),
        (0.02, "frequency", "20 mHz"),
        (0.5e-3, "voltage", "0.5 mV"),
        (0.02, "fraction", "2 %"),
        (85 / 3.6e9, "energy_price", "85 EUR/MWh"),
        (0.0, "power", "0 W"),
    ],
)
def test_shows_the_unit_an_operator_would_choose(value: float, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text


def test_format_of_infinite_and_nan_is_for_reading() -> None:
    assert format_quantity(math.inf, "power") == "inf W"
    assert format_quantity(math.nan, "temperature") == "nan K"


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back_as_itself(dimension: str, value: float) -> None:
    limit = DIMENSIONS[dimension].limit
    value = math.fmod(value, limit)
    if dimension == "temperature":
        value = abs(value)
    assert parse(format_quantity(value, dimension), dimension) == value


@given(st.sampled_from(sorted(DIMENSIONS)), st.decimals(-9999, 9999, places=3, allow_nan=False))
def test_short_decimals_read_back_from_every_unit(dimension: str, number: object) -> None:
    for unit in DIMENSIONS[dimension].units:
        try:
            value = parse(f"{number} {unit}", dimension)
        except UnitError:  # below absolute zero, or beyond the limit
            continue
        assert parse(format_quantity(value, dimension), dimension) == value


@given(st.text(max_size=40), st.sampled_from(sorted(DIMENSIONS)))
def test_no_text_raises_anything_else(text: str, dimension: str) -> None:
    try:
        value = parse(text, dimension)
    except UnitError:
        return
    assert math.isfinite(value)


def test_examples_are_valid_and_names_unique() -> None:
    for dimension in DIMENSIONS.values():
        assert parse(dimension.example, dimension.name) > 0.0
        assert len(set(dimension.units)) == len(dimension.units)
        assert set(dimension.shown) <= set(dimension.units)


def test_factors_for_arrays_come_from_the_same_table() -> None:
    assert 25.0 * factor("degC", "temperature") + offset("degC", "temperature") == 298.15
    assert (factor("kW", "power"), offset("kW", "power")) == (1000.0, 0.0)
    assert factor("°F", "temperature") == pytest.approx(5 / 9)
    with pytest.raises(UnitError):
        factor("kWh", "power")
