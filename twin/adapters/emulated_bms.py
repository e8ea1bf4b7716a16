"""Rung `emulated`: the signed firmware image on a cycle-accurate controller for each pack.

A plant step hands the front end one sample, lets the chip run for exactly its length, and then looks at the
pins: contactors, cooling and balancing are what the outputs say; limits, estimates and faults are read from
the firmware's memory as a debugger would, in the same records that the native rung uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from twin.adapters.catalogue import PackSheet
from twin.adapters.firmware_records import TICK_US, Codec
from twin.adapters.workshop import Workshop
from twin.ports import BmsCommands, BoolArray, MeasuredFrame

CYCLES_PER_US = 50


class EmulatedRungError(ValueError):
    """Something was asked of the emulated rung that it does not do; says what to choose instead."""

    exit_code = 2


class BoardModem:
    """The modem mailboxes of the boards."""

    def __init__(self, boards: list[Any]) -> None:
        self._boards = boards

    def send(self, pack: int, frame: bytes) -> None:
        self._boards[pack].mailbox.receive(frame)

    def receive(self, pack: int) -> list[bytes]:
        box = self._boards[pack].mailbox
        found, box.sent = box.sent, []
        return list(found)


class EmulatedBank:
    """One controller for each pack of a shard, all of one design, from the factory with one release."""

    def __init__(
        self, sheet: PackSheet, rate: str, image: str, serials: tuple[str, ...], workshop: Workshop
    ) -> None:
        from bms_emulator.board import BmsBoard
        from bms_emulator.ems import EmsView
        from bms_emulator.firmware.target import build_program
        from bms_emulator.native import NativeBms, read_outputs

        self._read = read_outputs
        if rate != "full":
            raise EmulatedRungError(
                "bms: {model: emulated} runs its firmware every 10 ms; set time.bms_rate: full, or choose "
                "{model: native}"
            )
        n = len(serials)
        rom, file = build_program("rom"), workshop.firmware(image)
        parameters = workshop.parameter_file(sheet, {}, 1)
        self._boards = []
        for k, serial in enumerate(serials):
            board = BmsBoard(keys=workshop.keys(), seed=k)
            board.manufacture(rom, file, parameters, workshop.identity(serial))
            board.power_on()
            self._boards.append(board)
        # The same C on this host decodes the context that the chip keeps in its RAM.
        self._reader = NativeBms([{"n_groups": 1, "n_temps": 1, "capacity_mAh": 1000}])
        outputs = np.zeros(n, dtype=self._reader.output_dtype)
        frames = np.repeat(self._reader.frames(), n)
        self._codec = Codec(sheet, frames, outputs)
        self.state_names, self.fault_names = self._codec.state_names, self._codec.fault_names
        self.commands: BmsCommands = self._codec.commands
        self.modem = BoardModem(self._boards)
        self.bus = [EmsView() for _ in range(n)]  # what the energy management has heard on CAN
        self.releases = [image] * n
        self._workshop = workshop
        self._resets = [0] * n
        self.ticks = 0
        self._l1_cycles = 0  # from the start of the tick that finds a runaway to the contactor outputs
        self._l1_faults = sum(
            1 << bit for bit, name in enumerate(self.fault_names) if name.startswith("RUNAWAY")
        )

    def request(self, closed: BoolArray) -> None:
        self._codec.frames["request"] = np.where(closed, self._codec.close_bit, 0)

    def step(self, frame: MeasuredFrame, dt_us: int) -> BmsCommands:
        self._codec.encode(frame, dt_us // TICK_US)
        outputs = self._codec.outputs
        for k, board in enumerate(self._boards):
            before = board.contactors
            latched = int(outputs["fault_latched"][k])
            board.put_inputs(self._codec.frames[k])
            sampled = board.sampled_at
            board.run_cycles(dt_us * CYCLES_PER_US)
            for _, identifier, data in board.can.log:
                self.bus[k].take(identifier, data)
            board.can.log.clear()
            opened = before & ~board.contactors and board.contactors_changed_at > sampled
            context = board.context
            if context:
                outputs[k] = self._read(context, self._reader)[0]
            else:  # in the boot ROM: nothing is commanded
                soc_ppm = outputs["soc_estimate_ppm"][k]
                outputs[k] = np.zeros((), dtype=outputs.dtype)
                outputs["soc_estimate_ppm"][k] = soc_ppm  # the energy management keeps the last it heard
            if len(board.log) != self._resets[k]:  # it may have started another image
                found = self._release(board)
                if found is not None:  # else it is still in its boot ROM: look again
                    self._resets[k] = len(board.log)
                    self.releases[k] = found
            if opened and int(outputs["fault_latched"][k]) & ~latched & self._l1_faults:
                self._l1_cycles = max(self._l1_cycles, board.since_tick(board.contactors_changed_at))
            outputs["contactor_command"][k] = board.contactors
            outputs["cooling_percent"][k] = board.cooling_percent
        self.ticks += len(self._boards) * (dt_us // TICK_US)
        return self._codec.decode()

    def _release(self, board: Any) -> str | None:
        """What stands in the slot that runs; None while the boot ROM is still choosing."""
        stats = board.stats()
        if stats is None:
            return None
        part = board.machine.board.partition(f"slot_{stats.slot}")
        return self._workshop.release_in(board.nvm.bytes_at(part.at, part.size))

    def figures(self) -> dict[str, float]:
        """What the chips measured about themselves: worst and mean cycles of each task, load, lateness."""
        found: dict[str, float] = {}
        rows = [stats for board in self._boards if (stats := board.stats()) is not None]
        for task in rows[0].task if rows else ():
            cycles = [row.task[task] for row in rows if row.task[task].count]
            if not cycles:
                continue
            found[f"{task}_cycles_min"] = float(min(c.min for c in cycles))
            found[f"{task}_cycles_mean"] = float(np.mean([c.mean for c in cycles]))
            found[f"{task}_cycles_max"] = float(max(c.max for c in cycles))
            ticks = [row.ticks for row, c in zip(rows, cycles, strict=False)]
            load = [c.total / (t * TICK_US * CYCLES_PER_US) for c, t in zip(cycles, ticks, strict=True) if t]
            found[f"{task}_load_max"] = float(max(load)) if load else 0.0
        if self._l1_cycles:
            found["l1_cycles_max"] = float(self._l1_cycles)
        found["overruns"] = float(sum(row.overruns for row in rows))
        found["resets"] = float(sum(len(board.log) for board in self._boards) - len(self._boards))
        return found
