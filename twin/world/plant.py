"""The world: sites and shards on the SimPy clock, faults that happen, events that are written down.

Processes: the plant steps everything; one process per fault waits for its time. Whatever is worth a
row in the event table goes through the recorder; faults and trips also open a zoom window.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twin.ports import IntArray
from twin.telemetry.frame import PackInfo
from twin.telemetry.sink import RunWriter
from twin.world.balance import balances
from twin.world.clock import SECOND_US, Clock, to_us
from twin.world.faults.base import Fault, FaultTarget
from twin.world.pack import PackPath, PackShard
from twin.world.recorder import Event, Recorder
from twin.world.site import SiteControl, ambient_of_packs
from twin.world.updates import UpdateDesk

ACTIVATION_S = 10.0  # precharge and closing take a few seconds, in steps that can show it


@dataclass
class BmsWatch:
    """Turns changes of the BMS outputs of a shard into events."""

    shard: PackShard
    state: np.ndarray = field(init=False)
    level: np.ndarray = field(init=False)
    fault_mask: np.ndarray = field(init=False)
    tripped: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        commands = self.shard.bms.commands
        self.state, self.level = commands.state.copy(), commands.level.copy()
        self.fault_mask, self.tripped = commands.fault_mask.copy(), commands.tripped.copy()

    def changes(self, t_us: int) -> list[Event]:
        """Events since the last call; cheap when nothing changed."""
        commands, bms = self.shard.bms.commands, self.shard.bms
        changed = (
            (commands.state != self.state)
            | (commands.level != self.level)
            | (commands.fault_mask != self.fault_mask)
            | (commands.tripped != self.tripped)
        )
        if not changed.any():
            return []
        events: list[Event] = []
        for p in np.flatnonzero(changed):
            path = self.shard.paths[p]

            def add(kind: str, severity: str, value: float, text: str, path: PackPath = path) -> None:
                events.append(
                    Event(t_us, path.site, path.rack, path.pack, -1, "bms", kind, severity, value, "1", text)
                )

            new_faults = int(commands.fault_mask[p]) & ~int(self.fault_mask[p])
            for bit in range(new_faults.bit_length()):
                if new_faults >> bit & 1:
                    add("fault", "warning", bit, bms.fault_names[bit])
            if commands.level[p] != self.level[p]:
                level = int(commands.level[p])
                text = ("all limits kept", "operating limit", "recommended limit", "safety limit")[level]
                add("limit", ("info", "info", "warning", "alarm")[level], level, text)
            if commands.tripped[p] and not self.tripped[p]:
                add("trip", "alarm", 1.0, "protection opens the contactors")
            if commands.state[p] != self.state[p]:
                state = int(commands.state[p])
                add("state", "info", state, bms.state_names[state])
        self.state[:], self.level[:] = commands.state, commands.level
        self.fault_mask[:], self.tripped[:] = commands.fault_mask, commands.tripped
        return events


OUTSIDE = ("a cell is emptier", "a cell is fuller", "a cell is colder", "a cell is hotter")


class WindowWatch:
    """Says once for each pack and side when cells leave the range their model was identified for."""

    def __init__(self, shard: PackShard) -> None:
        self.shard = shard
        self.said = np.zeros(shard.cells.outside_steps.shape, dtype=bool)

    def changes(self, t_us: int) -> list[Event]:
        new = (self.shard.cells.outside_steps > 0) & ~self.said
        self.said |= new
        events = []
        for p, side in zip(*np.nonzero(new), strict=True):
            path = self.shard.paths[p]
            text = f"{OUTSIDE[side]} than the range of its model; its figures are extrapolated from here on"
            events.append(
                Event(
                    t_us,
                    path.site,
                    path.rack,
                    path.pack,
                    -1,
                    "plant",
                    "out_of_range",
                    "warning",
                    1.0,
                    "1",
                    text,
                )
            )
        return events


def abuse_events(shard: PackShard, t_us: int) -> list[Event]:
    """What happened to cells beyond their onset in the step just done."""
    if shard.abuse is None or not shard.abuse.events:
        return []
    starts = shard.cells.layout.pack_cell_start
    events = []
    for said in shard.abuse.events:
        p = int(np.searchsorted(starts, said.cell, side="right")) - 1
        path, cell = shard.paths[p], said.cell - int(starts[p]) + 1
        what = (said.kind, said.severity, said.value, said.unit, said.text)
        events.append(Event(t_us, path.site, path.rack, path.pack, cell, "plant", *what))
    return events


@dataclass
class World:
    """Everything that lives on the clock. Built by assemble.py, run by `run`."""

    clock: Clock
    sites: tuple[SiteControl, ...]
    shards: tuple[PackShard, ...]
    site_of_pack: tuple[IntArray, ...]  # per shard
    faults: tuple[tuple[Fault, FaultTarget], ...]
    packs: tuple[PackInfo, ...]  # data sheets, shard by shard
    code_names: dict[str, dict[int, str]]  # of the coded telemetry columns
    firmware: dict[str, str]  # release -> image and build, in the order of the telemetry's codes
    fidelity: dict[str, str]  # ladder -> rungs in use
    profiles: dict[str, str]  # site/what -> digest of the series
    measured_period_us: int
    truth_period_us: int
    updates: UpdateDesk | None = None
    clean_up: Callable[[], None] = lambda: None  # removes what lies outside this process's memory
    steps: int = 0

    def run(self, writer: RunWriter, progress: Callable[[int], None] | None = None) -> None:
        """Simulate from 0 to the end, writing rows; `progress` is told the time in us now and then."""
        self._recorder = Recorder(writer, self.shards, self.sites, tuple(self.firmware))
        self._progress = progress or (lambda now_us: None)
        self._watches = [BmsWatch(shard) for shard in self.shards]
        self._windows = [WindowWatch(shard) for shard in self.shards]
        for fault, target in self.faults:
            self.clock.add_knot(to_us(fault.at_s))
            if fault.until_s is not None:
                self.clock.add_knot(to_us(fault.until_s))
            self.clock.env.process(self._fault(fault, target))
        if self.updates is not None:
            self.updates.start(self.clock)
        self.clock.zoom("activation", at_least_s=ACTIVATION_S)
        self.clock.env.process(self._plant())
        try:
            self.clock.env.run()
        finally:
            for shard in self.shards:
                if shard.abuse is not None:
                    shard.abuse.close()

    def close(self) -> None:
        """End brokers, processes and temporary folders; the world cannot run after it."""
        if self.updates is not None:
            self.updates.chain.close()
        self.clean_up()

    def figures(self) -> dict[str, dict[str, float]]:
        """What the controllers of each kind measured about themselves, by pack design."""
        found: dict[str, dict[str, float]] = {}
        for shard in self.shards:
            figures = shard.bms.figures()
            if figures:
                name = shard.design if shard.design not in found else f"{shard.design} ({len(found) + 1})"
                found[name] = figures
        if self.updates is not None:
            found["updates"] = self.updates.chain.traffic()
        return found

    def balances(self) -> dict[str, dict[str, float]]:
        """Energy and charge of the run so far (see balance.py)."""
        return balances(self.sites, self.shards)

    def step_counts(self) -> dict[str, int]:
        """How much was computed."""
        n_cells = sum(shard.cells.soc.size for shard in self.shards)
        return {
            "plant_steps": self.steps,
            "cell_steps": self.steps * n_cells,
            "cells": n_cells,
            "packs": len(self.packs),
            "firmware_ticks": sum(shard.bms.ticks for shard in self.shards),
        }

    def _plant(self) -> Generator[Any, Any, None]:
        clock = self.clock
        while clock.now_us < clock.end_us:
            dt_us = clock.next_step_us()
            t_s = clock.now_s
            yield clock.env.timeout(dt_us)
            self._step(t_s, dt_us)

    def _step(self, t_s: float, dt_us: int) -> None:
        dt_s, now = dt_us * 1e-6, self.clock.now_us
        for site in self.sites:
            site.prepare(t_s, dt_s)
        for number, shard in enumerate(self.shards):
            try:
                shard.step(dt_us, ambient_of_packs(self.sites, self.site_of_pack[number]))
            except (ValueError, RuntimeError) as error:
                raise PlantError(
                    f"{shard.paths[0].site} ({shard.design}) at {format_time(now)}: {error}"
                ) from error
        for site in self.sites:
            site.settle(dt_s)
        for number, shard in enumerate(self.shards):
            for event in self._watches[number].changes(now):
                self._recorder.event(event)
                if event.kind in ("trip", "fault"):
                    self.clock.zoom(event.kind)
            for event in abuse_events(shard, now):
                self._recorder.event(event)
                self.clock.zoom(event.kind)
            if now % self.measured_period_us == 0:
                self._recorder.measured(now, shard)
            if now % self.truth_period_us == 0:
                self._recorder.truth(now, shard)
                for event in self._windows[number].changes(now):
                    self._recorder.event(event)
        if self.updates is not None:
            self.updates.step(now, self.clock, self.shards, self._recorder.event)
        if now % self.measured_period_us == 0:
            self._recorder.meter(now)
            self._progress(now)
        self.steps += 1

    def _fault(self, fault: Fault, target: FaultTarget) -> Generator[Any, Any, None]:
        # The zero timeout lets the plant finish the step that ends at this very instant first.
        yield self.clock.env.timeout(to_us(fault.at_s))
        yield self.clock.env.timeout(0)
        self._happens(fault, target, begins=True)
        if hasattr(fault, "evolve"):
            self.clock.env.process(self._evolve(fault, target))
        if fault.until_s is not None:
            yield self.clock.env.timeout(to_us(fault.until_s) - to_us(fault.at_s))
            yield self.clock.env.timeout(0)
            self._happens(fault, target, begins=False)

    def _evolve(self, fault: Any, target: FaultTarget) -> Generator[Any, Any, None]:
        """Let a fault change on its way, after the plant step that ends at each second."""
        begun_us = self.clock.now_us
        until_us = self.clock.end_us if fault.until_s is None else to_us(fault.until_s)
        while self.clock.now_us + SECOND_US < until_us:
            yield self.clock.env.timeout(SECOND_US)
            yield self.clock.env.timeout(0)
            if not fault.evolve(target, (self.clock.now_us - begun_us) / SECOND_US):
                return

    def _happens(self, fault: Fault, target: FaultTarget, begins: bool) -> None:
        note = fault.apply(target) if begins else fault.clear(target)
        site, rack, pack, cell = (*target.path.split("/"), "", "", "")[:4]
        self._recorder.event(
            Event(
                t_us=self.clock.now_us,
                site=site,
                rack=rack,
                pack=pack,
                cell=int(cell.removeprefix("cell-")) if cell else -1,
                source="fault",
                kind=_snake(type(fault).__name__),
                severity="warning" if begins else "info",
                value=note.value,
                unit=note.unit,
                text=note.text,
            )
        )
        self.clock.zoom("fault")


class PlantError(RuntimeError):
    """The simulated plant left the range its models know: who, when, what."""

    exit_code = 1


def format_time(t_us: int) -> str:
    """'3 d 04:12:07' since the start."""
    seconds, days = (t_us // 1_000_000) % 86_400, t_us // 86_400_000_000
    return f"{days} d {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
