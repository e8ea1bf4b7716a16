"""The battery controller as a whole: chip, flash, sensors, supply. What a twin's rung `emulated` runs.

    board = BmsBoard()
    board.manufacture(rom, image)            # programs of firmware/target.py, packed by firmware/package.py
    board.power_on()
    board.measure(truth, period_ticks=100)   # sensors see it now
    board.run(1.0)                           # seconds of simulated time
    board.contactors, board.cooling_percent, board.context, board.stats()
    board.can.log, board.mailbox.sent, board.console

Time goes on over resets and while the power is off (`cycle`). A reset opens all outputs. Faults:
`power_off`, `brown_out`, `clock_ppm`, `late_s`, and those of the devices (`nvm`, `afe`), of memory
(`machine.write_memory`) and of the processor (`machine.skip_instruction`, `set_register`).
"""

from __future__ import annotations

import marshal
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .devices import afe, can, gpio, hsm, mailbox, nvm, reset, watchdog
from .devices.chip import POWER_CUT, RESET
from .firmware.package import Identity, development_key, spki
from .firmware.target import Program
from .machine import Machine, Snapshot, Stop
from .state import S

STATS_MAGIC = 0x31545342
TICK_MS = 10
TASKS = ("rt", "update", "slow", "keep")
_STATS = struct.Struct("<8I")
_TASK = struct.Struct("<IIIIQ")
_IDENTITY_AT = 0xFF00
_JOURNAL = struct.Struct("<4sIBBBBBBH8s")
_COUNTERS = struct.Struct("<4sIIII")
CAUSES = {
    reset.POWER_ON: "power on",
    reset.WATCHDOG: "watchdog",
    reset.SOFTWARE: "software",
    reset.BROWN_OUT: "brown-out",
    reset.LOCKUP: "trap without handler",
}


@dataclass(frozen=True)
class TaskCycles:
    """Cycles of one task of the firmware since its start."""

    count: int
    min: int
    max: int
    last: int
    total: int

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class Stats:
    """What the firmware tells about itself through hal/target/stats.h."""

    context_at: int
    context_size: int
    boot: int
    ticks: int
    overruns: int
    frames: int
    actuated_at: int
    task: dict[str, TaskCycles]

    @property
    def slot(self) -> int:
        return self.boot & 1

    @property
    def safe_mode(self) -> bool:
        return bool(self.boot >> 16 & 1)


@dataclass(frozen=True)
class BoardSnapshot:
    """State of a board at one cycle."""

    machine: Snapshot
    own: bytes


class BmsBoard:
    """One controller with its devices. `keys`: public keys provisioned at manufacture; the development key by
    default."""

    def __init__(
        self,
        engine: str = "interp",
        keys: Sequence[hsm.KeySlot] | None = None,
        errors: afe.Errors | None = None,
        seed: int = 0,
    ) -> None:
        self.machine = Machine("bms", engine)
        board = self.machine.board
        flash = board.memory("flash")
        lines = {d.name: d.irq or 0 for d in board.devices}
        if keys is None:
            keys = (hsm.KeySlot(spki(development_key()), 0), hsm.KeySlot(spki(development_key()), 1))
        self.nvm = nvm.Nvm(self.machine, flash.base, flash.size, board.sector, lines["nvm"], seed)
        self.hsm = hsm.Hsm(self.machine, lines["hsm"], tuple(keys), f"{seed}/hsm")
        self.mailbox = mailbox.Mailbox(self.machine, board.memory("mailbox_buffer").base, lines["mailbox"])
        self.can = can.Can(self.machine)
        self.watchdog = watchdog.Watchdog(self.machine, self._bite)
        self.resets = reset.ResetController(self.machine)
        self.afe = afe.Afe(self.machine, board.memory("afe").base, errors or afe.Errors())
        for name in ("nvm", "hsm", "mailbox", "can", "watchdog"):
            self.machine.attach(name, getattr(self, name))
        self.machine.attach("reset", self.resets)
        self.machine.on_output = self._print
        self._gpio = board.device("gpio").slot
        self._seed = seed
        self.clock_ppm = 0.0
        self.console = bytearray()
        self.log: list[tuple[int, str]] = []  # resets and power: (cycle, what)
        self.powered = False
        self.halted = False
        self._bitten = ""
        self._remainder = 0.0
        self._sequence = 0
        self._starts = 0
        self.sampled_at = 0  # cycle of the newest sample
        self.late_s = 0.0  # fault: samples arrive so much later than they are taken
        self._late: list[tuple[int, bytes, int, int, int]] = []

    # --- manufacture and supply

    def manufacture(
        self,
        rom: Program,
        firmware: bytes,
        parameters: bytes = b"",
        identity: Identity | None = None,
        kept: bytes = b"",
    ) -> None:
        """Write ROM and flash as they leave the factory: first images in slot 0, confirmed."""
        machine, board = self.machine, self.machine.board
        machine.load(rom.image())
        machine.write_memory(board.memory("rom").base + _IDENTITY_AT, (identity or Identity()).pack())
        self.nvm.put_bytes(0, b"\xff" * board.memory("flash").size)
        self.afe.clear()
        for name, data in (("slot_0", firmware), ("parameters_0", parameters), ("kept", kept)):
            part = board.partition(name)
            if len(data) > part.size:
                raise ValueError(f"{name} holds {part.size} bytes, not {len(data)}")
            self.nvm.put_bytes(part.at, data)
        journal = _JOURNAL.pack(b"SLT1", 1, 0, 0, 0, 0, 1, 0, 0, bytes(8))
        counters = _COUNTERS.pack(b"CTR1", 1, _counter(firmware), _counter(parameters), 0)
        for name, record in (("journal_1", journal), ("counters_1", counters)):
            crc = struct.pack("<I", zlib.crc32(record))
            self.nvm.put_bytes(board.partition(name).at, record + crc)
        self.hsm.counters = [_counter(firmware), _counter(parameters), *([0] * (hsm.COUNTERS - 2))]
        self.powered = False

    def power_on(self, cause: int = reset.POWER_ON) -> None:
        """Supply on: RAM holds anything."""
        self._starts += 1
        ram = self.machine.board.memory("ram")
        noise = np.random.default_rng([self._seed, self._starts])
        self.machine.write_memory(ram.base, noise.bytes(ram.size))
        self.powered = True
        self._reset(cause, 0)

    def power_off(self) -> None:
        """Supply gone, now: an operation of the flash stops where it is."""
        self.nvm.power_cut(self.machine.cycle)
        self.powered = False
        self.log.append((self.machine.cycle, "power off"))
        self._outputs_off()

    def brown_out(self) -> None:
        """The supply drops for a moment: as off and on, but the reset controller knows."""
        self.power_off()
        self.power_on(reset.BROWN_OUT)

    def _outputs_off(self) -> None:
        self.machine.st[self._gpio : self._gpio + 16] = 0

    def _reset(self, cause: int, why: int) -> None:
        machine = self.machine
        self.nvm.power_cut(machine.cycle)
        machine.reset(machine.cycle)
        for device in (self.nvm, self.hsm, self.mailbox, self.can, self.watchdog):
            device.reset()
        self.resets.after(cause, why)
        self.log.append((machine.cycle, CAUSES[cause] + (f" {why}" if cause == reset.SOFTWARE else "")))
        self._bitten = ""
        self.halted = False

    def _bite(self, why: str) -> None:
        self._bitten = why
        self.machine.stop(RESET, 0)

    def _print(self, data: bytes) -> None:
        self.console += data

    # --- sensors

    def measure(
        self, truth: afe.Truth, period_ticks: int = 1, feedback: int | None = None, request: int = 0
    ) -> None:
        """A new sample of what is there; `feedback` of the contactors, by default what is commanded."""
        block = self.afe.convert(truth, period_ticks, self.time_s)
        self.put_sample(block, self.contactors if feedback is None else feedback, 0, request)

    def put_inputs(self, frame: np.void) -> None:
        """A new sample given as a record of the firmware's inputs (`native.NativeBms.frames`), as it is."""
        block = bytearray(afe.SIZE)
        names = frame.dtype.names or ()
        for name, at in (
            ("cell_voltage_100uV", 0),
            ("cell_temperature_ddegC", 0x200),
            ("pack_current_mA", 0x280),
            ("pack_current_redundant_mA", 0x284),
            ("pack_voltage_mV", 0x288),
            ("link_voltage_mV", 0x28C),
            ("sample_period_ticks", 0x290),
        ):
            if name in names:
                raw = np.asarray(frame[name]).tobytes()
                block[at : at + len(raw)] = raw
        for name, at, unit in (
            ("insulation_kohm", 0x2A0, 1),
            ("pressure_daPa", 0x2A4, 10),
            ("gas_ppm", 0x2A8, 1),
        ):
            code = int(frame[name])
            struct.pack_into("<I", block, at, 0xFFFFFFFF if code == 0xFFFF else code * unit)
        self.put_sample(
            bytes(block), int(frame["contactor_feedback"]), int(frame["condition"]), int(frame["request"])
        )

    def put_sample(self, block: bytes, feedback: int, condition: int, request: int) -> None:
        """A finished sample of the front end; its counter goes up."""
        if self.late_s > 0:
            due = self.machine.cycle + round(self.late_s * self.machine.board.clock_Hz)
            self._late.append((due, bytes(block), feedback, condition, request))
        else:
            self._deliver(block, feedback, condition, request)

    def _deliver(self, block: bytes, feedback: int, condition: int, request: int) -> None:
        data = bytearray(block)
        sequence = (self._sequence + 1) & 0xFFFF
        struct.pack_into("<HBBB", data, 0x294, sequence, feedback & 0xFF, condition & 0xFF, request & 0xFF)
        if self.afe.deliver(bytes(data)):
            self._sequence = sequence
            self.sampled_at = self.machine.cycle

    # --- running

    @property
    def time_s(self) -> float:
        """Time since the board was made, by its own clock."""
        return self.machine.cycle / self.machine.board.clock_Hz

    def run(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass; with `clock_ppm` the chip counts more or fewer of its own."""
        cycles = dt_s * self.machine.board.clock_Hz * (1 + self.clock_ppm * 1e-6) + self._remainder
        whole = int(cycles)
        self._remainder = cycles - whole
        self.run_cycles(whole)

    def run_cycles(self, n: int) -> None:
        """Let `n` clock cycles pass, over resets, or less up to a breakpoint; off, only the clock goes on."""
        machine = self.machine
        end = machine.cycle + n
        while machine.cycle < end:
            until = min([end, *(due for due, *_ in self._late)])
            if machine.cycle >= until:
                _, block, feedback, condition, request = self._late.pop(0)
                self._deliver(block, feedback, condition, request)
                continue
            if not self.powered or self.halted:
                machine.st[S["T"]] = until
                continue
            outcome = machine.run(until=until)
            if outcome.reason is Stop.BREAKPOINT:
                return
            if outcome.reason is Stop.LOCKUP:
                self._reset(reset.LOCKUP, 0)
            elif outcome.reason is Stop.HALT:
                why = int(machine.st[S["HALTED"]])
                if why == POWER_CUT:
                    self.power_off()
                elif why == RESET and self._bitten:
                    self._reset(reset.WATCHDOG, 0)
                elif why == RESET:
                    self._reset(reset.SOFTWARE, outcome.code)
                else:
                    self.halted = True

    # --- looking inside

    @property
    def contactors(self) -> int:
        """Bits of the outputs to the contactors."""
        return int(self.machine.st[self._gpio])

    @property
    def contactors_changed_at(self) -> int:
        """Cycle in which they last changed, since the last reset."""
        return int(self.machine.st[self._gpio + gpio.CHANGED])

    def since_tick(self, cycle: int) -> int:
        """Clock cycles from the start of the real-time tick in which `cycle` lies, to `cycle`.

        Below one period by definition, and without the time that a sample waited for its tick.
        """
        slot = self.machine.board.device("timer").slot
        period = self.machine.board.clock_Hz // 1000 * TICK_MS
        offset, compare = (int(word) for word in self.machine.st[slot : slot + 2])
        return (cycle + offset - compare) % period

    @property
    def cooling_percent(self) -> int:
        return int(self.machine.st[self._gpio + 1])

    @property
    def balancing(self) -> bytes:
        """One bit for each cell."""
        words = self.machine.st[self._gpio + 8 : self._gpio + 16].astype("<u4")
        return words.tobytes()

    def stats(self) -> Stats | None:
        """Figures of the running firmware; None before it has started."""
        base = self.machine.board.memory("ram").base
        raw = self.machine.read_memory(base, _STATS.size + _TASK.size * len(TASKS))
        magic, *head = _STATS.unpack_from(raw)
        if magic != STATS_MAGIC or not self.powered:
            return None
        rows = {
            name: TaskCycles(*_TASK.unpack_from(raw, _STATS.size + _TASK.size * i))
            for i, name in enumerate(TASKS)
        }
        context_at, context_size, boot, ticks, overruns, frames, actuated_at = head
        return Stats(context_at, context_size, boot, ticks, overruns, frames, actuated_at, rows)

    @property
    def context(self) -> bytes:
        """The firmware's context (bms_ctx_t) as it stands in RAM; same bytes as on the host."""
        stats = self.stats()
        if stats is None:
            return b""
        return self.machine.read_memory(stats.context_at, stats.context_size)

    # --- snapshots

    def snapshot(self) -> BoardSnapshot:
        """The complete state of the board."""
        own = (
            self.powered,
            self.halted,
            self._remainder,
            self._sequence,
            self._starts,
            self.sampled_at,
            self.clock_ppm,
            self.afe.samples,
            self.log,
            bytes(self.console),
            self.late_s,
            self._late,
            self.afe.stuck,
            self.afe.garbage,
            self.afe.lost,
        )
        return BoardSnapshot(self.machine.snapshot(), marshal.dumps(own, 2))

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Take back a state given by `snapshot`."""
        own: tuple[Any, ...] = marshal.loads(snapshot.own)
        self.powered, self.halted, self._remainder, self._sequence, self._starts = own[:5]
        self.sampled_at, self.clock_ppm, self.afe.samples, log, console = own[5:10]
        self.late_s, late, stuck, self.afe.garbage, self.afe.lost = own[10:]
        self.afe.stuck = dict(stuck)
        self.log, self.console, self._late = list(log), bytearray(console), list(late)
        self._bitten = ""
        self.machine.restore(snapshot.machine)


def _counter(image: bytes) -> int:
    """Security counter of an image: the first protected TLV; 0 if there is none."""
    if len(image) < 32:
        return 0
    header_size, body_size = struct.unpack_from("<H2xI", image, 8)
    at = header_size + body_size
    magic, size = struct.unpack_from("<HH", image, at)
    end = at + size
    at += 4
    while magic == 0x6908 and at < end:
        kind, length = struct.unpack_from("<HH", image, at)
        if kind == 0x50:
            return int(struct.unpack_from("<I", image, at + 4)[0])
        at += 4 + length
    return 0
