"""The machine door: load a program, run it, look inside, take it back to a snapshot.

    machine = Machine("reference")
    machine.load(read_image(Path("k_ekf_q16.elf")))
    outcome = machine.run(max_cycles=10_000_000)
    outcome.reason           # Stop.HALT
    machine.console          # b"49425831 ..."
    machine.cycle            # cycle of entry of the next instruction; clock_Hz of them are a second

Time is in clock cycles from reset. The whole state is one int64 array and one byte array (`state.py`), so a
snapshot is two copies. Two engines give the same state: "interp" runs the loop of `core.py`; "blocks" also
translates hot code (`blocks.py`).

Devices written in Python are attached by name to `python` rows of the memory map; they see every access at
its exact cycle, can raise interrupt lines and ask to be called at a cycle.
"""

from __future__ import annotations

import enum
import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from . import bus, core, isa
from .csr import MSTATUS_RESET, NUMBERS, csr_read, csr_write, exists, mcycle
from .decode import TRANSLATED, locate, pack
from .devices import HOT
from .disasm import REGISTERS, disassemble
from .elf import Image, ImageError, Symbol
from .profile import FunctionCycles, per_function
from .regmap import Board, load_board
from .state import (
    CANON_END,
    DEVICES,
    F_EXECUTE,
    G_OFFSET,
    GRANULE_BITS,
    K_MEMORY,
    LOG_COLUMNS,
    M_BLOCKS,
    M_BUDGET,
    M_LOCKUP,
    M_MMIO,
    M_PROFILE,
    M_TRACE,
    NEVER,
    R_BUDGET,
    R_CODE,
    R_CYCLES,
    R_HALT,
    R_LOCKUP,
    R_LOG,
    R_MMIO,
    R_OUT,
    R_STOP,
    SIZE,
    S,
)
from .timing import RESET_CYCLE, RESET_MCYCLE_OFFSET
from .trace import ROWS, TraceWriter

_OUT_BYTES = 1 << 14
_WATCHED = 2  # bit of the code map: a store here must take the slow path
ENGINES = ("interp", "blocks")


class Stop(enum.Enum):
    """Why `run` came back."""

    CYCLES = "cycle limit"
    HALT = "halted"
    BREAKPOINT = "breakpoint"
    INSTRUCTIONS = "instruction limit"
    LOCKUP = "trap without a handler"


@dataclass(frozen=True)
class Outcome:
    """End of a `run`. `code` is the word stored to the halt register or to tohost (reason HALT)."""

    reason: Stop
    cycle: int
    code: int = 0


@dataclass(frozen=True)
class Snapshot:
    """State of a machine at one cycle: bytes only, independent of the machine."""

    state: bytes
    memory: bytes
    console: bytes
    events: tuple[tuple[int, int, str, str], ...]
    devices: tuple[tuple[str, bytes], ...]


class PythonDevice(Protocol):
    """A device behind a `python` row. Offsets in bytes; whole words, `lanes` has one bit for each byte."""

    def read(self, offset: int, cycle: int) -> int | None:
        """Word at `offset` in `cycle`; None is an access fault."""

    def write(self, offset: int, lanes: int, value: int, cycle: int) -> bool | None:
        """Store the lanes of `value`; False is an access fault."""

    def event(self, name: str, cycle: int) -> None:
        """What was scheduled under `name` is due."""

    def snapshot(self) -> bytes:
        """State of the device."""

    def restore(self, state: bytes) -> None:
        """Take back a state given by `snapshot`."""


class Machine:
    """One board with its processor. `engine` is "interp" or "blocks"."""

    def __init__(
        self, board: str | Board = "reference", engine: str = "interp", lockup_stops: bool = True
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"no engine {engine!r}; expected one of {', '.join(ENGINES)}")
        self.board = load_board(board) if isinstance(board, str) else board
        self.regions = self.board.regions.copy()
        self.engine = engine
        self.lockup_stops = lockup_stops
        self.symbols: tuple[Symbol, ...] = ()
        self.st = np.zeros(SIZE, dtype=np.int64)
        self.mem = np.zeros(self.board.flat_size, dtype=np.uint8)
        halfwords = self.board.flat_size // 2
        self._regs = self.st[:17].view(np.int32)
        self._out = np.zeros(_OUT_BYTES, dtype=np.uint8)
        self._code = np.full(halfwords + 1, isa.OP_UNDECODED, dtype=np.int64)
        self._codemap = np.zeros((self.board.flat_size >> GRANULE_BITS) + 2, dtype=np.uint8)
        self._marks = np.zeros((0, 2), dtype=np.int64)
        self._log = np.zeros((1, LOG_COLUMNS), dtype=np.int64)
        self._profile = np.zeros(1, dtype=np.int64)
        self._blocks = np.zeros((1, 4), dtype=np.int64)
        self._counts = np.zeros(halfwords + 1 if engine == "blocks" else 1, dtype=np.uint32)
        self._console = bytearray()
        self.on_output: Callable[[bytes], object] | None = None
        self._writer: TraceWriter | None = None
        self._devices: dict[str, PythonDevice] = {}
        self._places = [(d.name, d.base, d.size) for d in self.board.devices if d.driver not in HOT]
        self._events: list[tuple[int, int, str, str]] = []
        self._event_number = 0
        self._entry: int | None = None
        self._translator = None
        if engine == "blocks":
            from .blocks import Translator

            self._translator = Translator(self)
        self.reset()

    # --- loading and reset

    def load(self, image: Image) -> None:
        """Put a program into memory and reset the processor to start it.

        The reference board starts at its fixed reset address, like the chip; a board with `tohost` starts at
        the ELF entry and ends when the program stores a non-zero word to the symbol `tohost`.
        """
        placed = []
        for address, data, size in image.segments:
            memory = next((m for m in self.board.memories if m.base <= address < m.base + m.size), None)
            if memory is None:
                raise ImageError(
                    f"segment at 0x{address:08x} lies outside the memory of board {self.board.name} ("
                    + ", ".join(
                        f"{m.name} 0x{m.base:08x}-0x{m.base + m.size - 1:08x}" for m in self.board.memories
                    )
                    + ")"
                )
            if address + size > memory.base + memory.size:
                raise ImageError(
                    f"image larger than memory: segment 0x{address:08x} + {size} bytes ends beyond"
                    f" {memory.name}, which ends at 0x{memory.base + memory.size:08x}"
                )
            placed.append((memory.offset + address - memory.base, data))
        start = self.board.reset_pc
        if image.entry is not None and self.board.tohost:
            start = image.entry
        if locate(self.regions, start)[1] < 0:
            raise ImageError(f"entry 0x{start:08x} is not in executable memory")
        self.mem[:] = 0
        for at, data in placed:
            self.mem[at : at + len(data)] = np.frombuffer(data, dtype=np.uint8)
        self.symbols = image.symbols
        self._entry = start
        self._forget_all_code()
        self.reset()
        tohost = image.symbol("tohost") if self.board.tohost else None
        if tohost is not None:
            at, row = locate(self.regions, tohost.address)
            if row < 0 or tohost.address & 3:
                raise ImageError(f"symbol tohost at 0x{tohost.address:08x} is not an aligned word in memory")
            self.st[S["WATCH"]] = tohost.address
            self._codemap[at >> GRANULE_BITS] |= _WATCHED

    def reset(self, at_cycle: int = 0) -> None:
        """Processor and hot devices as after power-on; memory stays, mtime and mcycle start from 0.

        The cycle count of the machine goes on from `at_cycle`: a reset in the middle of a simulation gives
        the present cycle, so that time does not run backwards for the world around it.
        """
        st = self.st
        watch = int(st[S["WATCH"]]) if self._entry is not None else -1
        st[:] = 0
        start = self._entry if self._entry is not None else self.board.reset_pc
        st[S["T"]] = at_cycle + RESET_CYCLE
        st[S["PC"]] = start
        st[S["PRIV"]] = 3
        st[S["MSTATUS"]] = MSTATUS_RESET
        st[S["MCYCLE_OFF"]] = RESET_MCYCLE_OFFSET - at_cycle
        st[S["MTVEC_DIRECT"]] = self.board.direct_mtvec
        st[S["MTVEC"]] = 0 if self.board.direct_mtvec else (self.board.reset_pc & 0xFFFFFF00) | 1
        st[S["BUBBLE_T"]] = st[S["BUBBLE_END"]] = -1
        st[S["PREV_IP"]] = st[S["X_PC"]] = -1
        st[S["WATCH"]] = watch
        bus.no_lines(st)
        bus.reset_devices(st, self.regions)
        at, row = locate(self.regions, start)
        if row >= 0:
            straddles = start & 2 and self.mem[at] & 3 == 3
            st[S["KEY"]] = (at >> 2) + bool(straddles) - self.cycle
        self._console.clear()
        self._events.clear()

    # --- running

    @property
    def cycle(self) -> int:
        """Cycle of entry of the next instruction (asleep: the cycle up to which the machine has slept)."""
        return int(self.st[S["T"]])

    @property
    def retired(self) -> int:
        """Instructions retired since reset (minstret, were it never written)."""
        return int(self.st[S["INSTRET"]])

    @property
    def asleep(self) -> bool:
        """Whether the processor waits in wfi."""
        return bool(self.st[S["ASLEEP"]])

    @property
    def console(self) -> bytes:
        """Everything printed since reset."""
        return bytes(self._console)

    def run(
        self, max_cycles: int | None = None, until: int | None = None, instructions: int | None = None
    ) -> Outcome:
        """Run for `max_cycles`, or until cycle `until`, or for a number of instructions; whichever comes
        first.

        Ends earlier at a halt, a breakpoint, or (with `lockup_stops`) a trap whose handler cannot be
        executed. An instruction whose cycle of entry is the end is not run. Slicing a run changes nothing in
        it.
        """
        if max_cycles is None and until is None and instructions is None:
            raise ValueError("say how far to run: max_cycles, until or instructions")
        end = NEVER - 64
        if max_cycles is not None:
            end = min(end, self.cycle + max_cycles)
        if until is not None:
            end = min(end, until)
        mode = M_LOCKUP if self.lockup_stops else 0
        if instructions is not None:
            self.st[S["BUDGET"]] = instructions
            mode |= M_BUDGET
        if self._writer is not None:
            mode |= (M_TRACE if self._writer.instructions else 0) | (M_MMIO if self._writer.accesses else 0)
        if self._profile.size > 1:
            mode |= M_PROFILE
        if self._translator is not None:
            mode |= M_BLOCKS
        while True:
            stop = end
            if self._events:
                stop = min(end, max(self._events[0][0], self.cycle))
            if self._translator is not None:
                stop = min(stop, self._translator.next_look(self.cycle))
            if self.st[S["HALTED"]]:
                return Outcome(Stop.HALT, self.cycle, int(self.st[S["HALT_CODE"]]))
            reason = core.run(
                self.st,
                self.mem,
                self._out,
                self._code,
                self._codemap,
                self._counts,
                self.regions,
                self._marks,
                self._log,
                self._profile,
                self._blocks,
                stop,
                mode,
            )
            self._drain()
            if reason == R_CYCLES:
                while self._events and self._events[0][0] <= self.cycle:
                    cycle, _, device, name = heapq.heappop(self._events)
                    self._devices[device].event(name, cycle)
                if self._translator is not None:
                    self._translator.look(self.cycle)
                if self.cycle >= end:
                    return Outcome(Stop.CYCLES, self.cycle)
            elif reason == R_HALT:
                return Outcome(Stop.HALT, self.cycle, int(self.st[S["HALT_CODE"]]))
            elif reason == R_STOP:
                return Outcome(Stop.BREAKPOINT, self.cycle)
            elif reason == R_BUDGET:
                return Outcome(Stop.INSTRUCTIONS, self.cycle)
            elif reason == R_LOCKUP:
                return Outcome(Stop.LOCKUP, self.cycle)
            elif reason == R_MMIO:
                self._serve()
            elif reason == R_CODE:
                assert self._translator is not None
                self._translator.overwritten()
            else:
                assert reason in (R_LOG, R_OUT)

    def step(self) -> Outcome:
        """One instruction, stepping off a breakpoint that stands on it."""
        self.skip_breakpoint()
        return self.run(instructions=1)

    def skip_one(self) -> None:
        """Injected fault: the next instruction is fetched and does nothing, once. In the cycle count it is
        as if it had never been."""
        at, _ = locate(self.regions, self.pc)
        self.pc += 4 if self.mem[at] & 3 == 3 else 2

    def skip_breakpoint(self) -> None:
        """Let the next `run` pass a breakpoint on the present instruction."""
        self.st[S["X_PC"]] = self.pc

    def _drain(self) -> None:
        n = int(self.st[S["OUT_N"]])
        if n:
            new = self._out[:n].tobytes()
            self._console += new
            if self.on_output is not None:
                self.on_output(new)
            self.st[S["OUT_N"]] = 0
        n = int(self.st[S["LOG_N"]])
        if n:
            if self._writer is not None:
                self._writer.write(self._log, n)
            self.st[S["LOG_N"]] = 0

    # --- devices in Python

    def attach(self, name: str, device: PythonDevice) -> None:
        """Connect a Python object to the `python` row of that name."""
        if self.board.device(name).driver in HOT:
            raise ValueError(f"device {name!r} of board {self.board.name} is not a python row")
        self._devices[name] = device

    def schedule(self, device: str, name: str, cycle: int) -> None:
        """Call `device.event(name, cycle)` when the machine reaches `cycle`."""
        self._event_number += 1
        heapq.heappush(self._events, (cycle, self._event_number, device, name))

    def stop(self, why: int, code: int) -> None:
        """Let `run` end before the next instruction with Stop.HALT: something outside the processor (reset
        controller, supply) ends its work. `why` stays in state word HALTED until the next reset."""
        self.st[S["HALTED"]], self.st[S["HALT_CODE"]] = why, code

    def show(self, window: str, part: str) -> None:
        """Let a window of the memory map show a partition of the flash from the next access on."""
        row = next(i for i, m in enumerate(self.board.memories) if m.name == window)
        at = self.board.memory("flash").offset + self.board.partition(part).at
        if self.regions[row, G_OFFSET] == at:
            return
        self.regions[row, G_OFFSET] = at
        if self._translator is not None:  # translated code knows where the window was
            self._forget_all_code()

    def set_line(self, line: int, high: bool) -> None:
        """Drive interrupt line `line` (bit of mip) from now on, that is from the present cycle."""
        at = S["LINES"] + line
        if not high:
            self.st[at] = NEVER
        elif self.st[at] == NEVER:
            self.st[at] = self.cycle

    def _serve(self) -> None:
        """Answer the access that the loop came back for."""
        st = self.st
        address, flags = int(st[S["X_ADDR"]]), int(st[S["X_WRITE"]])
        part = flags >> 1
        name, base = next((n, at) for n, at, size in self._places if at <= address < at + size)
        device = self._devices.get(name)
        cycle = self.cycle + part
        fault = device is None
        value = 0
        if device is not None and flags & 1:
            fault = device.write(address - base, int(st[S["X_SIZE"]]), int(st[S["X_VALUE"]]), cycle) is False
        elif device is not None:
            answer = device.read(address - base, cycle)
            fault = answer is None
            value = 0 if answer is None else answer & 0xFFFFFFFF
        st[S["X_RESULT0"] + part] = value
        st[S["X_READY"]] |= 1 << part
        if fault:
            st[S["X_FAULT"]] |= 1 << part

    # --- looking inside

    @property
    def pc(self) -> int:
        """Address of the next instruction."""
        return int(self.st[S["PC"]])

    @pc.setter
    def pc(self, value: int) -> None:
        self.st[S["PC"]] = value & 0xFFFFFFFE

    def register(self, number: int | str) -> int:
        """Register by number or ABI name, as an unsigned word."""
        return int(self._regs[self._register(number)]) & 0xFFFFFFFF

    def set_register(self, number: int | str, value: int) -> None:
        """Write a register; x0 stays 0."""
        index = self._register(number)
        if index:
            self._regs[index] = np.uint32(value & 0xFFFFFFFF).astype(np.int32)

    @staticmethod
    def _register(number: int | str) -> int:
        index = REGISTERS.index(number) if isinstance(number, str) else number
        if not 0 <= index < 32:
            raise ValueError(f"no register {number!r}")
        return index

    def csr(self, number: int | str) -> int:
        """CSR by number or name, as the next instruction would read it."""
        return int(csr_read(self.st, self._csr(number), self.cycle, self.retired))

    def set_csr(self, number: int | str, value: int) -> None:
        """Write a CSR as if between two instructions."""
        csr_write(self.st, self._csr(number), value & 0xFFFFFFFF, self.cycle - 1, self.retired - 1)

    @staticmethod
    def _csr(number: int | str) -> int:
        index = NUMBERS.get(number, -1) if isinstance(number, str) else number
        if not exists(index):
            raise ValueError(f"no CSR {number!r}")
        return index

    @property
    def mcycle(self) -> int:
        """64-bit mcycle at the present cycle."""
        return int(mcycle(self.st, self.cycle))

    def _flat(self, address: int, size: int) -> int:
        for row, memory in enumerate(self.board.memories):
            if memory.base <= address and address + size <= memory.base + memory.size:
                return int(self.regions[row, G_OFFSET]) + address - memory.base
        raise ValueError(f"0x{address:08x}..+{size} is not memory of board {self.board.name}")

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes from memory (not from devices)."""
        at = self._flat(address, size)
        return self.mem[at : at + size].tobytes()

    def write_memory(self, address: int, data: bytes) -> None:
        """Write bytes to memory, whatever its access rights; code there is decoded again."""
        at = self._flat(address, len(data))
        self.mem[at : at + len(data)] = np.frombuffer(data, dtype=np.uint8)
        self._forget_code(at, len(data))

    def was_run(self, memory: str, offset: int, size: int) -> bool:
        """Whether an instruction in those bytes of a memory was executed since they were last written."""
        first = (self.board.memory(memory).offset + offset) >> 1
        return bool((self._code[first : first + size // 2] != isa.OP_UNDECODED).any())

    def forget_runs(self) -> None:
        """Let `was_run` start anew."""
        self._forget_all_code()

    def instruction_at(self, address: int) -> str:
        """Disassembled instruction, or what is wrong with the address."""
        at, row = locate(self.regions, address)
        if row < 0:
            return "(not executable memory)"
        return disassemble(int(core.raw_word.py_func(self.mem, at >> 1)), address)

    def first_exception(self) -> tuple[int, int]:
        """(cause, pc) of the latest exception that was not raised inside the handler of another one."""
        return int(self.st[S["CAUSE"]]), int(self.st[S["TRAP_PC"]])

    def where(self, address: int) -> str:
        """Address with the function it lies in, for messages."""
        inside = [s for s in self.symbols if s.is_function and s.address <= address]
        if not inside:
            return f"0x{address:08x}"
        best = max(inside, key=lambda s: s.address)
        return f"0x{address:08x} <{best.name}+{address - best.address}>"

    # --- snapshots

    def snapshot(self) -> Snapshot:
        """The complete state, devices included."""
        state = self.st.copy()
        state[CANON_END:DEVICES] = 0
        return Snapshot(
            state=state.tobytes(),
            memory=self.mem.tobytes(),
            console=bytes(self._console),
            events=tuple(sorted(self._events)),
            devices=tuple((name, self._devices[name].snapshot()) for name in sorted(self._devices)),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Take back a snapshot of a machine with the same board; runs on exactly as the other did."""
        state = np.frombuffer(snapshot.state, dtype=np.int64)
        memory = np.frombuffer(snapshot.memory, dtype=np.uint8)
        if state.size != self.st.size or memory.size != self.mem.size:
            raise ValueError("the snapshot is of another board")
        watch = self.st[S["WATCH"]]
        self.st[:] = state
        self.st[S["WATCH"]] = watch
        self.st[S["PREV_IP"]] = self.st[S["X_PC"]] = -1
        # Decoded code stays where memory is the same: compare only where there is code at all.
        whole = self.mem.size >> GRANULE_BITS << GRANULE_BITS
        per_granule = (1 << GRANULE_BITS) // 2
        now = self.mem[:whole].view(np.uint16).reshape(-1, per_granule)
        then = memory[:whole].view(np.uint16).reshape(now.shape)
        places = np.nonzero(self._codemap[: now.shape[0]] & 1)[0]
        granule, halfword = np.nonzero(now[places] != then[places])
        changed = places[granule] * per_granule + halfword
        self.mem[:] = memory
        for index in changed:
            self._forget_code(int(index) * 2, 2)
        self._console[:] = snapshot.console
        self._events = list(snapshot.events)
        for name, kept in snapshot.devices:
            self._devices[name].restore(kept)

    def state_hash(self) -> str:
        """SHA-256 of everything that decides how the machine runs on; equal for equal machines."""
        state = self.st.copy()
        state[CANON_END:DEVICES] = 0
        digest = hashlib.sha256(state.tobytes())
        digest.update(self.mem.data)
        digest.update(self._console)
        for name in sorted(self._devices):
            digest.update(name.encode() + self._devices[name].snapshot())
        due = [(cycle, device, name) for cycle, _, device, name in sorted(self._events)]
        return (
            digest.hexdigest()
            if not due
            else hashlib.sha256(f"{digest.hexdigest()}{due}".encode()).hexdigest()
        )

    # --- breakpoints, trace, profile

    def set_breakpoint(self, address: int) -> None:
        """Stop before the instruction at `address`."""
        self._mark(address, isa.OP_STOP)

    def clear_breakpoint(self, address: int) -> None:
        """Remove a breakpoint (or a skip) from `address`."""
        self._mark(address, None)

    def skip_instruction(self, address: int) -> None:
        """Injected fault: the instruction at `address` is fetched and does nothing, in one cycle."""
        self._mark(address, isa.OP_SKIP)

    def _mark(self, address: int, kind: int | None) -> None:
        at, row = locate(self.regions, address)
        if row < 0:
            raise ValueError(f"0x{address:08x} is not executable memory")
        rows = [tuple(m) for m in self._marks.tolist() if m[0] != at >> 1]
        if kind is not None:
            rows.append((at >> 1, kind))
        self._marks = np.array(rows, dtype=np.int64).reshape(-1, 2)
        self._forget_code(at, 2)

    def trace_to(self, instructions: BinaryIO | None = None, accesses: BinaryIO | None = None) -> None:
        """Write a CSV trace of what runs from now on to binary files (None, None: stop tracing)."""
        self._writer = TraceWriter(instructions, accesses) if instructions or accesses else None
        self._log = np.zeros((ROWS if self._writer else 1, LOG_COLUMNS), dtype=np.int64)

    def profile_on(self) -> None:
        """Count cycles per instruction address from now on."""
        self._profile = np.zeros(self.board.flat_size // 2 + 1, dtype=np.int64)

    def profile(self) -> list[FunctionCycles]:
        """Cycles per function since `profile_on`."""
        index = np.nonzero(self._profile)[0]
        addresses = np.zeros(index.size, dtype=np.int64)
        for base, size, offset, flags, kind, _ in self.regions.tolist():
            if kind == K_MEMORY and flags & F_EXECUTE:
                inside = (index * 2 >= offset) & (index * 2 < offset + size)
                addresses[inside] = index[inside] * 2 - offset + base
        return per_function(self._profile[index], addresses, self.symbols)

    # --- decoded code

    def _forget_code(self, at: int, size: int) -> None:
        """Drop what was decoded (or translated) from flat bytes at..at+size."""
        first, end = at >> 1, min((at + size + 1) >> 1, self._code.size - 1)
        if (
            first and (int(self._code[first - 1]) >> 24) & 3 == 2
        ):  # a 32-bit instruction reaches into the range
            first -= 1
        if self._translator is not None and (self._code[first:end] & TRANSLATED).any():
            self._translator.forget(first, end)
        self._code[first:end] = isa.OP_UNDECODED

    def _forget_all_code(self) -> None:
        if self._translator is not None:
            self._translator.clear()
        self._code[:] = isa.OP_UNDECODED
        self._code[-1] = pack(isa.OP_FETCH_FAULT, 0, 0, 0, 1, 0, 0)
        self._codemap[:] = 0
