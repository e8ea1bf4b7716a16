"""One BMS on a bench: a healthy frame, ideal or faulty contactors, a new sample in every tick."""

from __future__ import annotations

from typing import Any

import numpy as np

from bms_emulator.native import NativeBms, contactor_bit, request_bit

DESIGN: dict[str, Any] = {"n_groups": 14, "n_temps": 4, "capacity_mAh": 10_000}
PLUS, MINUS, PRECHARGE = (contactor_bit(name) for name in ("MAIN_PLUS", "MAIN_MINUS", "PRECHARGE"))


class Rig:
    """A NativeBms of one instance with its plant.

    Attributes
    ----------
    frame : (1,) input record; change it between ticks
    welded, stuck_open : contactor bits that ignore commands
    precharge_per_tick : share of the remaining voltage the link gains per tick while precharging
    """

    def __init__(self, variant: str = "release", **params: Any) -> None:
        self.bms = NativeBms([DESIGN | params], variant)
        self.frame = self.bms.frames()
        self.n_groups = int(self.bms.params["n_groups"][0])
        self.welded = 0
        self.stuck_open = 0
        self.precharge_per_tick = 0.5
        self.link_mV = 0.0
        self.frame["pack_current_mA"] = 0
        self.frame["cell_temperature_ddegC"][0, : self.bms.params["n_temps"][0]] = 250
        self.cells(37_000)

    @property
    def out(self) -> np.void:
        """The outputs of the last tick, as a copy."""
        return self.bms.outputs[0].copy()

    @property
    def state(self) -> str:
        return self.bms.state_names[self.out["state"]]

    @property
    def step_name(self) -> str:
        return self.bms.step_names[self.out["step"]]

    @property
    def faults(self) -> tuple[str, ...]:
        return self.bms.faults(0)

    @property
    def active(self) -> set[str]:
        mask = int(self.out["fault_active"])
        return {name for bit, name in enumerate(self.bms.fault_names) if mask >> bit & 1}

    def cells(self, voltage_100uV: Any) -> None:
        """Set the cell voltages (one value or one per group) and the pack voltage that belongs to them."""
        self.frame["cell_voltage_100uV"][0, : self.n_groups] = voltage_100uV
        total = int(self.frame["cell_voltage_100uV"][0, : self.n_groups].astype(np.int64).sum())
        self.frame["pack_voltage_mV"] = total // 10

    def request(self, *names: str) -> None:
        self.frame["request"] = sum(request_bit(name) for name in names)

    def tick(self, count: int = 1, tick_ms: int = 10) -> np.void:
        """Plant step, sample, BMS tick; count times."""
        for _ in range(count):
            command = int(self.bms.outputs["contactor_command"][0])
            closed = (command | self.welded) & ~self.stuck_open
            pack_mV = int(self.frame["pack_voltage_mV"][0])
            if closed & MINUS and closed & PLUS:
                self.link_mV = pack_mV
            elif closed & MINUS and closed & PRECHARGE:
                self.link_mV += (pack_mV - self.link_mV) * self.precharge_per_tick
            else:
                self.link_mV = 0.0
            self.frame["contactor_feedback"] = closed
            self.frame["link_voltage_mV"] = int(self.link_mV)
            self.frame["sample_counter"] += np.uint16(1)
            self.bms.step(self.frame, 1, tick_ms)
        return self.out

    def close(self) -> None:
        """Ask for the contactors and wait until they are closed."""
        self.request("CLOSE")
        for _ in range(300):
            self.tick()
            if self.state == "RUN":
                return
        raise AssertionError(f"not running but {self.step_name} with {self.faults}")

    def ticks_until(self, condition: Any, at_most: int = 5000) -> int:
        """Ticks of 10 ms until condition() holds after a tick."""
        for count in range(1, at_most + 1):
            self.tick()
            if condition():
                return count
        raise AssertionError("the condition never came true")
