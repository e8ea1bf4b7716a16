"""Speed of the emulator: both engines, tracing, slicing, snapshots, start-up; beside `unicorn` in the same
run.

The kernels are the reference programs k_ekf_q16 (Kalman filter step of a battery cell) and k_crc32. Each is
called over and over by a small loop while a 1 kHz timer interrupt (at 50 MHz) is served, so that the figures
are those of long runs with exact cycles and interrupts on. Times are CPU time (median of several) because
machines are shared.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .asm import Assembler
from .board import BmsBoard
from .devices.afe import Truth
from .elf import Image, read_image
from .machine import Machine, Stop

IMAGES = Path(__file__).parent / "images"
KERNELS = ("k_ekf_q16", "k_crc32")
_CALLS = {"k_ekf_q16": 60, "k_crc32": 300}
_STUB, _HANDLER, _SAVE = 0x001F_8000, 0x001F_8100, 0x001F_8200
_VECTOR_7 = 0x0010_0000 + 4 * 7
_TIMER, _HALT = 0x0003_0000, 0x0002_0008
_PERIOD_HIGH = 0xC000  # 49 152 cycles: about 1 kHz at 50 MHz


def machine_name() -> str:
    """Processor and interpreter, for the head of the table."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = lines[0] if lines else model
    return f"{model}, {os.cpu_count()} CPUs, {platform.system()}, Python {platform.python_version()}"


def _stub() -> tuple[bytes, bytes, bytes]:
    """(loop that calls the kernel in s10 s11 times and halts, timer handler, jump for its vector)."""
    loop = Assembler(_STUB)
    loop.label("again")
    loop.op("jalr", 1, 26)
    loop.op("addi", 27, 27, imm=-1)
    loop.branch("bne", 27, 0, "again")
    loop.label("end")
    loop.li(5, _HALT)
    loop.op("addi", 6, 0, imm=1)
    loop.op("sw", rs1=5, rs2=6)
    handler = Assembler(_HANDLER)
    handler.csr("csrrw", 5, "mscratch", 5)
    for i, register in enumerate((6, 7, 28)):
        handler.op("sw", rs1=5, rs2=register, imm=4 * i)
    handler.li(6, _TIMER)
    handler.op("lw", 7, 6, imm=8)
    handler.op("lui", 28, imm=_PERIOD_HIGH)
    handler.op("add", 7, 7, 28)
    handler.op("sw", rs1=6, rs2=7, imm=8)
    for i, register in enumerate((6, 7, 28)):
        handler.op("lw", register, 5, imm=4 * i)
    handler.csr("csrrw", 5, "mscratch", 5)
    handler.op("mret")
    vector = Assembler(_VECTOR_7)
    vector.labels["handler"] = _HANDLER
    vector.jump(0, "handler")
    return loop.bytes(), handler.bytes(), vector.bytes()


def endless_kernel(image: Image, engine: str, calls: int, interrupts: bool = True) -> Machine:
    """A machine about to call the image's kernel `calls` times, set-up code already run."""
    machine = Machine("reference", engine)
    machine.load(image)
    kernel = image.symbol("kernel")
    assert kernel is not None
    machine.set_breakpoint(kernel.address)
    assert machine.run(max_cycles=1_000_000).reason is Stop.BREAKPOINT
    machine.clear_breakpoint(kernel.address)
    loop, handler, vector = _stub()
    machine.write_memory(_STUB, loop)
    machine.write_memory(_HANDLER, handler)
    machine.write_memory(_VECTOR_7, vector)
    machine.set_register(26, kernel.address)
    machine.set_register(27, calls)
    machine.pc = _STUB
    if interrupts:
        machine.set_csr("mscratch", _SAVE)
        machine.set_csr("mie", 1 << 7)
        machine.set_csr("mstatus", 1 << 3)
    return machine


def _median_rate(run: Callable[[], int], repeats: int) -> float:
    """Median over `repeats` of (instructions / CPU second)."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        instructions = run()
        rates.append(instructions / (time.process_time() - start))
    return statistics.median(rates)


def engine_rate(name: str, engine: str, repeats: int) -> float:
    """Instructions per CPU second of one engine on one kernel, translation excluded."""
    machine = endless_kernel(read_image(IMAGES / f"{name}.elf"), engine, _CALLS[name])
    start = machine.snapshot()
    before = machine.retired
    assert machine.run(max_cycles=1_000_000_000).reason is Stop.HALT  # warms up: decodes, translates

    def once() -> int:
        outcome = machine.run(max_cycles=1_000_000_000)
        assert outcome.reason is Stop.HALT
        return machine.retired - before

    def again() -> int:
        machine.restore(start)
        return once()

    again()
    return _median_rate(again, repeats)


def trace_rate(repeats: int) -> float:
    """Instructions per CPU second with the instruction trace written as CSV to the null device."""
    machine = endless_kernel(read_image(IMAGES / "k_ekf_q16.elf"), "interp", 5)
    start, before = machine.snapshot(), machine.retired

    def once() -> int:
        machine.restore(start)
        machine.run(max_cycles=1_000_000_000)
        return machine.retired - before

    with open(os.devnull, "wb") as sink:
        machine.trace_to(sink)
        once()
        return _median_rate(once, repeats)


def sliced_rate(repeats: int, slice_cycles: int = 1500) -> float:
    """Instructions per CPU second when the machine is run in slices of about a thousand instructions."""
    machine = endless_kernel(read_image(IMAGES / "k_ekf_q16.elf"), "interp", 5)
    start, before = machine.snapshot(), machine.retired

    def once() -> int:
        machine.restore(start)
        while machine.run(max_cycles=slice_cycles).reason is Stop.CYCLES:
            continue
        return machine.retired - before

    once()
    return _median_rate(once, repeats)


def unicorn_rate(name: str, repeats: int) -> float | None:
    """Instructions per CPU second of unicorn (functional) on the same calls; None if not installed."""
    try:
        import unicorn
        from unicorn import riscv_const as rv
    except ImportError:
        return None
    machine = endless_kernel(read_image(IMAGES / f"{name}.elf"), "interp", _CALLS[name], interrupts=False)
    ram = machine.board.memories[0]
    content = machine.read_memory(ram.base, ram.size)
    registers = [machine.register(i) for i in range(32)]
    before = machine.retired
    assert machine.run(max_cycles=1_000_000_000).reason is Stop.HALT
    instructions = machine.retired - before
    emulator = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
    emulator.mem_map(ram.base, ram.size)

    def once() -> int:
        emulator.mem_write(ram.base, content)
        for i in range(1, 32):
            emulator.reg_write(rv.UC_RISCV_REG_X0 + i, registers[i])
        emulator.emu_start(_STUB, _STUB + 12)
        return instructions

    once()
    return _median_rate(once, repeats)


def snapshot_times(repeats: int) -> tuple[float, float]:
    """Median seconds to take and to restore a snapshot of the reference board (1 MiB)."""
    machine = endless_kernel(read_image(IMAGES / "k_ekf_q16.elf"), "interp", 1)
    take, back = [], []
    for _ in range(repeats * 10):
        start = time.perf_counter()
        kept = machine.snapshot()
        middle = time.perf_counter()
        machine.run(max_cycles=1000)
        again = time.perf_counter()
        machine.restore(kept)
        take.append(middle - start)
        back.append(time.perf_counter() - again)
    return statistics.median(take), statistics.median(back)


def start_up(cold: bool) -> float:
    """CPU seconds of a process that runs k_crc32 once; cold: with empty compile caches."""
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        if cold:
            environment |= {"NUMBA_CACHE_DIR": folder, "TWIN_CACHE": folder}
        command = [sys.executable, "-m", "bms_emulator", "run", str(IMAGES / "k_crc32.elf")]
        subprocess.run(
            [sys.executable, "-c", "import scipy.linalg, numba.np.arrayobj"], env=environment, check=True
        )
        before = os.times()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@dataclass(frozen=True)
class WholeFirmware:
    """The firmware with everything in it on the board: simulated seconds for each of CPU time, and load."""

    groups: int
    sample_s: float
    real_time: float
    rt_mean: float  # cycles of the RT task
    rt_max: int
    load: float  # share of cycles in which the processor does not sleep
    overruns: int


def board_of(groups: int) -> BmsBoard:
    """A board with the whole firmware and parameters for so many groups, just started."""
    from .firmware.package import Identity, development_key, package
    from .firmware.parameters import make_params
    from .firmware.paramset import pack_set, schema
    from .firmware.target import build_program

    design = {"n_groups": groups, "n_temps": groups // 4, "capacity_mAh": 100_000}
    key, version = development_key(), schema()["version"]
    body = build_program("app").body
    firmware = package(body, (1, 0, 0, 0), key, Identity(), schema=version)
    sets = package(
        pack_set(make_params([design])[0], 1), (1, 0, 0, 0), key, Identity(), schema=version, bootable=False
    )
    board = BmsBoard()
    board.manufacture(build_program("rom"), firmware, sets)
    board.power_on()
    board.run(0.5)
    return board


def l1_latency(groups: int = 112) -> tuple[float, float]:
    """Seconds from the sample that meets the runaway criterion to the opening contactor, and the part of it
    after the start of the RT tick: the rest is the wait for that tick.

    One sensor rises by 8 K/s; samples every 10 ms.
    """
    board = board_of(groups)
    timer = board.machine.board.device("timer").slot
    rising_K = 0.0
    for i in range(4000):
        link = 3.7 * groups if board.contactors else 0.0
        temperature_K = 298.15 + 0.05 * np.sin(0.1 * i) + np.zeros(groups // 4)
        rising_K += 0.08 * (i > 400)
        temperature_K[5] += rising_K
        cell_V = 3.7 + 0.0005 * np.sin(np.arange(groups) + i)
        board.measure(Truth(cell_V, temperature_K, 0.0, float(cell_V.sum()), link), 1, request=1)
        closed = board.contactors & 3 == 3
        board.run(0.01)
        if closed and board.contactors & 3 != 3:
            opened = board.contactors_changed_at
            # mtimecmp is the next tick by now, or the one after it
            tick = int(board.machine.st[timer + 1] - board.machine.st[timer])
            while tick > opened:
                tick -= board.machine.board.clock_Hz // 100
            clock_Hz = board.machine.board.clock_Hz
            return (opened - board.sampled_at) / clock_Hz, (opened - tick) / clock_Hz
    raise AssertionError("L1 did not act")


def whole_firmware(groups: int, sample_s: float, seconds: float, repeats: int) -> WholeFirmware:
    """A connected pack under a changing load on the emulated board, interpreter, after its start."""
    board = board_of(groups)
    period = round(sample_s * 100)

    def live(duration: float) -> None:
        for i in range(round(duration / sample_s)):
            current = 15.0 * (1 + i % 7) if board.contactors & 3 == 3 else 0.0
            cell_V = 3.7 + 0.001 * np.sin(np.arange(groups) + i) - 1e-4 * current
            link = float(cell_V.sum()) if board.contactors else 0.0
            truth = Truth(cell_V, np.full(groups // 4, 298.15), current, float(cell_V.sum()), link)
            board.measure(truth, period, request=1)
            board.run(sample_s)

    live(4.0)
    assert board.contactors & 3 == 3, "the pack does not connect"
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        live(seconds)
        rates.append(seconds / (time.process_time() - start))
    stats = board.stats()
    assert stats is not None
    rt = stats.task["rt"]
    busy = sum(task.total for task in stats.task.values())
    return WholeFirmware(
        groups,
        sample_s,
        statistics.median(rates),
        rt.mean,
        rt.max,
        busy / (stats.ticks * board.machine.board.clock_Hz / 100),
        stats.overruns,
    )


def bench(repeats: int = 5) -> str:
    """Measure everything and give the table as text."""
    lines = [
        f"machine: {machine_name()}",
        f"median of {repeats}, CPU time, timer interrupt every 49152 cycles",
        "",
    ]
    lines.append(
        f"{'kernel':12}{'interp MIPS':>13}{'blocks MIPS':>13}{'unicorn MIPS':>14}{'ratio':>8}{'ratio':>8}"
    )
    for name in KERNELS:
        interp = engine_rate(name, "interp", repeats) / 1e6
        blocks = engine_rate(name, "blocks", repeats) / 1e6
        unicorn = unicorn_rate(name, repeats)
        row = f"{name:12}{interp:13.0f}{blocks:13.0f}"
        if unicorn is not None:
            row += f"{unicorn / 1e6:14.0f}{interp * 1e6 / unicorn:8.2f}{blocks * 1e6 / unicorn:8.2f}"
        lines.append(row)
    take, back = snapshot_times(repeats)
    warm = statistics.median(start_up(False) for _ in range(3))
    lines += [
        "(ratios: interpreter and blocks to unicorn, which keeps no cycles)",
        "",
        f"instruction trace on   {trace_rate(repeats) / 1e6:8.1f} MIPS (k_ekf_q16, CSV to the null device)",
        f"slices of 1500 cycles  {sliced_rate(repeats) / 1e6:8.1f} MIPS (k_ekf_q16, interpreter)",
        f"snapshot, restore      {take * 1e3:8.2f} ms, {back * 1e3:.2f} ms (1 MiB)",
        f"start-up, warm cache   {warm:8.2f} s (process, k_crc32)",
        f"start-up, cold cache   {start_up(True):8.2f} s",
        "",
        "whole firmware on the board at 50 MHz (interpreter):",
    ]
    for groups, sample_s in ((14, 1.0), (112, 0.1), (112, 0.01)):
        whole = whole_firmware(groups, sample_s, 5.0, repeats)
        lines.append(
            f"{groups:4d} groups, sample every {1e3 * sample_s:4.0f} ms: {whole.real_time:6.1f} x real time,"
            f" RT tick mean {whole.rt_mean:6.0f} max {whole.rt_max:6d} cycles of 500000,"
            f" load {whole.load:5.1%}, {whole.overruns} overruns"
        )
    total, after = l1_latency()
    lines.append(
        f"L1 runaway, sample to contactor {1e3 * total:.2f} ms, {1e3 * after:.2f} ms of it after the tick"
    )
    return "\n".join(lines)
