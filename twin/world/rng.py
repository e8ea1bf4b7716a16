"""Random numbers by name: one seed, one stream per consumer.

Each consumer draws from a stream named after itself (`site/depot/rack-2/pack-1/spread`), so adding a
rack changes no other rack. Sensor noise is counter-based instead: a hash of (stream key, channel,
sample) is the random number, which makes it independent of order, of step history and of the number
of racks, and lets one compiled call serve a whole shard.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numba import njit

from twin.ports import FloatArray


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


class Streams:
    """All random streams of a run.

    >>> one, two = (Streams(7).generator("site/depot/rack-1") for _ in range(2))
    >>> one.normal() == two.normal()
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generator(self, name: str) -> np.random.Generator:
        """A fresh generator at the start of the stream of this name."""
        return np.random.Generator(
            np.random.Philox(key=int.from_bytes(_digest(self.seed, name)[:16], "little"))
        )

    def key(self, name: str) -> np.uint64:
        """The 64-bit key of a counter-based stream (see `add_noise`)."""
        return np.uint64(int.from_bytes(_digest(self.seed, name)[:8], "little"))


@njit(cache=True, inline="always")
def _mix(x: np.uint64) -> np.uint64:
    # splitmix64 finaliser (Steele, Lea, Flood, OOPSLA 2014): a bijection with full avalanche.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def add_noise(
    value: FloatArray, key: np.ndarray, channel: np.ndarray, sigma: FloatArray, sample: int
) -> None:
    """Add white Gaussian noise in place.

    value, sigma : (n,) same unit; key : (n,) uint64 stream of each entry; channel : (n,) its number in
    that stream; sample : running number of the instant. Box-Muller on two hashed uniforms.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    counter = _mix(np.uint64(sample) * golden + np.uint64(1))
    for i in range(value.size):
        if sigma[i] == 0.0:
            continue
        a = _mix(key[i] ^ _mix(counter + np.uint64(channel[i]) * golden))
        b = _mix(a + golden)
        u = (np.float64(a >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)  # in (0, 1]
        v = np.float64(b >> np.uint64(11)) * (1.0 / 9007199254740992.0)
        value[i] += sigma[i] * math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v)
