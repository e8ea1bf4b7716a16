"""The estimators on the emulated controller: the same bits as on this host, and what they cost there."""

from pathlib import Path

import numpy as np
import pytest

from bms_emulator.elf import read_image
from bms_emulator.firmware.build import SOURCE_DIR, TARGET, compile_c
from bms_emulator.firmware.estimators import LIMITS, POWERS, NativeEstimator, default_parameters
from bms_emulator.machine import Machine

HERE = Path(__file__).parent / "est_bare"
N_CELLS, N_FRAMES, CLOCK_HZ = 112, 240, 50_000_000
LIMIT_VALUES = dict(zip(LIMITS, (2.8, 4.2, 15.0, 7.0, 333.0, 130.0, 283.0, 112.0), strict=True))


def recording(seed=4):
    """Frames (n, 5) and group voltages (n, N_CELLS) of a random drive with rests, gaps and a lost channel."""
    rng = np.random.default_rng(seed)
    dt_s = np.where(rng.random(N_FRAMES) < 0.05, 30.0, 1.0)
    dt_s[0] = 0.0
    amps = np.repeat(rng.normal(2.0, 5.0, N_FRAMES // 8), 8)
    amps[80:120] = 0.0
    soc = 0.7 - np.cumsum(dt_s * amps) / (3600.0 * 5.0)
    volts = 3.3 + 0.8 * soc - 0.05 * amps
    frames = np.stack([dt_s, amps, amps, volts, 283.0 + 10.0 * rng.random(N_FRAMES)], axis=1)
    frames[50, 3] = 0.0  # not measured
    cells = np.round(1e4 * (volts[:, None] + rng.normal(0.0, 0.004, N_CELLS))).astype(np.uint16)
    cells[:, 7] = 65535
    return frames.astype(np.float32), cells


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Context and power on the host and on the target, and the target's cycle counts."""
    params = default_parameters(5.0, {"est_hysteresis_V": np.full(13, 0.01), "est_hysteresis_rate": 20.0})
    frames, cells = recording()
    host = NativeEstimator(params, 0.6, 0.1, 5.0)
    for frame, row in zip(frames, cells, strict=True):
        host.step(frame, row)
    host.power(LIMIT_VALUES)
    power = host.power(LIMIT_VALUES)

    out = tmp_path_factory.mktemp("est") / "est.elf"
    sources = [str(SOURCE_DIR / "app" / name) for name in ("ekf.c", "soh.c", "sop.c")]
    flags = [flag + "+zicsr" if flag.startswith("-mcpu=") else flag for flag in TARGET]
    own = [str(HERE / "program.c"), str(HERE / "start.S")]
    compile_c([*flags, "-T", str(HERE / "link.ld"), *own, *sources, "-o", str(out)], SOURCE_DIR)
    machine = Machine("reference", engine="blocks")
    machine.load(read_image(out))
    start, limits = ([0.6, 0.1, 5.0], [LIMIT_VALUES[name] for name in LIMITS])
    machine.write_memory(0x00140000, params.tobytes())
    machine.write_memory(0x00142000, np.array(start, dtype="<f4").tobytes())
    machine.write_memory(0x00142100, np.array(limits, dtype="<f4").tobytes())
    machine.write_memory(0x00142200, np.array([N_FRAMES, N_CELLS], dtype="<u4").tobytes())
    machine.write_memory(0x00150000, frames.tobytes())
    machine.write_memory(0x00180000, cells.tobytes())
    outcome = machine.run(max_cycles=2_000_000_000)
    assert outcome.reason.name == "HALT", outcome
    context = machine.read_memory(0x00144000, host.context.nbytes)
    said = np.frombuffer(machine.read_memory(0x00142300, 8 * len(POWERS)), dtype="<f4").reshape(-1, 2)
    cycles = np.frombuffer(machine.read_memory(0x00142400, 16), dtype="<u4")
    return host.context.tobytes(), context, power, said, cycles


def test_every_bit_of_the_context_is_the_same(both):
    host, target, _, _, _ = both
    assert host == target


def test_power_is_the_same(both):
    _, _, power, said, _ = both
    assert [power[name] for name in POWERS] == [tuple(map(float, row)) for row in said]
    assert all(power[name][0] > 0.0 for name in POWERS)


def test_fits_a_tenth_of_the_processor_once_a_second(both):
    """Filter, 112 groups and power every second, on 50 MHz without a floating-point unit."""
    cycles = both[4]
    print(f"cycles: step mean {cycles[0] / N_FRAMES:.0f}, largest {cycles[1]}, power {cycles[2:]}")
    assert cycles[1] + cycles[3] < 0.03 * CLOCK_HZ, cycles
    assert cycles[1] + cycles[2] < 0.1 * CLOCK_HZ, "the first time, when all four are worked out"
