"""Decimation loses no extreme, words for numbers are what a reader expects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from twin.report.decimate import envelope, extremes, means
from twin.report.wording import clock, number, quantity

CURVE = arrays(np.float64, st.integers(1, 400), elements=st.floats(-1e6, 1e6) | st.just(math.nan))


@settings(max_examples=60, deadline=None)
@given(y=CURVE, points=st.integers(2, 60))
def test_extremes_keep_every_bin_s_lowest_and_highest(y: np.ndarray, points: int) -> None:
    t = np.arange(y.size, dtype=float)
    thin_t, thin_y = extremes(t, y, points)
    assert thin_t.size <= max(1.6 * points + 4, points)
    assert (np.diff(thin_t) > 0).all()
    np.testing.assert_array_equal(thin_y, y[thin_t.astype(int)])  # points of the curve, not new ones
    assert thin_t[0] == 0
    assert thin_t[-1] == y.size - 1
    if np.isfinite(y).any():
        assert np.nanmin(thin_y) == np.nanmin(y)
        assert np.nanmax(thin_y) == np.nanmax(y)
    if np.isnan(y).any():
        assert np.isnan(thin_y).any()  # a gap stays a gap


@settings(max_examples=60, deadline=None)
@given(y=CURVE, points=st.integers(1, 60))
def test_an_envelope_covers_its_curve(y: np.ndarray, points: int) -> None:
    t = np.arange(y.size, dtype=float)
    thin_t, low, high = envelope(t, y, y, points)
    assert thin_t.size <= max(points, 1) or y.size <= points
    owner = np.searchsorted(thin_t, t, side="right") - 1
    known = np.isfinite(y)
    assert (low[owner][known] <= y[known]).all()
    assert (high[owner][known] >= y[known]).all()


def test_means_are_means_and_leave_out_what_is_missing() -> None:
    y = np.column_stack([np.arange(10.0), np.where(np.arange(10) % 2, np.nan, 1.0)])
    t, mean = means(np.arange(10.0), y, 5)
    np.testing.assert_allclose(t, [0.5, 2.5, 4.5, 6.5, 8.5])
    np.testing.assert_allclose(mean[:, 0], t)
    np.testing.assert_allclose(mean[:, 1], 1.0)


@pytest.mark.parametrize(
    ("value", "dimension", "words"),
    [
        (10086844.0, "energy", "2.802 kWh"),
        (3.6e12, "energy", "1 GWh"),
        (36.5564, "money", "36.56 €"),
        (304.466, "temperature", "31.32 °C"),
        (0.88994, "fraction", "88.99 %"),
        (3e-12, "fraction", "3.0e-12"),
        (0.0, "fraction", "0 %"),
        (7200.0, "time", "2 h"),
        (5400.0, "time", "90 min"),
        (45.0, "time", "45 s"),
        (86400.0 * 3, "time", "3 d"),
        (0.0, "time", "0 s"),
        (14700.0, "power", "14.7 kW"),
        (-250.0, "power", "−250 W"),
        (0.0038, "voltage", "3.8 mV"),
        (4.1441, "voltage", "4.144 V"),
        (12.0, "count", "12"),
        (0.65, "cycles", "0.65"),
        (40.0, "resistance", "40 Ω"),
        (math.nan, "time", "–"),
        (None, "power", "–"),
    ],
)
def test_quantities_in_words(value: float | None, dimension: str, words: str) -> None:
    assert quantity(value, dimension) == words


def test_numbers_and_clocks() -> None:
    assert [number(x) for x in (0.0, 1234567.0, 0.5, -3.0, 1e-9, 12345.678)] == [
        "0", "1234567", "0.5", "−3", "1.0e-09", "12346",
    ]  # fmt: skip
    assert clock(97927.4) == "1 d 03:12:07"
