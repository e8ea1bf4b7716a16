"""Named streams and counter-based noise."""

import numpy as np
from scipy import stats

from twin.world.rng import Streams, add_noise


def noise(n, seed=1, name="a", sample=0, sigma=1.0, first_channel=0):
    value = np.zeros(n)
    key = np.full(n, Streams(seed).key(name))
    add_noise(value, key, first_channel + np.arange(n), np.full(n, sigma), sample)
    return value


def test_noise_is_standard_normal():
    draws = np.concatenate([noise(1000, sample=k) for k in range(50)])
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.02  # between channels
    by_time = np.array([noise(1, sample=k)[0] for k in range(5000)])
    assert stats.kstest(by_time, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(by_time[:-1], by_time[1:])[0, 1]) < 0.05


def test_noise_depends_on_seed_name_channel_and_sample_only():
    assert np.array_equal(noise(10), noise(10))
    assert np.array_equal(noise(10)[5:], noise(5, first_channel=5))
    for other in (noise(10, seed=2), noise(10, name="b"), noise(10, sample=1)):
        assert not np.any(other == noise(10))
    assert np.all(noise(4, sigma=0.0) == 0.0)


def test_streams_are_independent_of_order():
    one, two = Streams(3), Streams(3)
    first = one.generator("x").normal(size=3)
    two.generator("y").normal(size=100)
    assert np.array_equal(first, two.generator("x").normal(size=3))
    assert not np.array_equal(first, Streams(4).generator("x").normal(size=3))
