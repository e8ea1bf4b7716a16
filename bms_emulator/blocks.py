"""Second engine: hot code translated to the host's instructions through LLVM.

The loop of `core.py` counts how often each place is jumped to. From time to time the machine looks at the
counts; hot places and what can be reached from them (as far as it has already run once) become one LLVM
function, a *module*, with one block per jump target. The predecoded word of each block's first instruction is
replaced by OP_BLOCK, so the loop enters translated code wherever it meets it and pays nothing elsewhere.

The same rules, from the same tables: cycles are summed at translation time; only division by zero, the
straddle of an indirect jump's target and the direction of branches are left to run time. A block is entered
only if its worst case ends before the next event (`limit`), so nothing can interrupt it. Whatever is rare
leaves to the loop *before* the instruction: device accesses, split or faulting accesses, stores into anything
that was decoded, CSRs, traps, sleep, fence.i, undecoded targets. The loop runs that instruction and comes
back at the next block.

A store into translated code discards its module (R_CODE). Compiled objects are kept on disk under a digest of
their text in the folder TWIN_CACHE, or the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .codegen import BODY, BRANCHES, ENDS, NAMES, Block, Instruction, Writer, cost, unpack
from .decode import TRANSLATED
from .isa import OP_BLOCK, OP_SPECIAL, OP_UNDECODED
from .state import F_EXECUTE, G_FLAGS, G_KIND, G_OFFSET, G_SIZE, K_MEMORY, S

if TYPE_CHECKING:
    from .machine import Machine

HOT = 50  # redirections to a place before it is translated
FIRST_LOOK = 100_000  # cycles after which the counts are looked at for the first time
LONGEST = 64  # instructions in a block
LARGEST = 4000  # instructions in a module
SCATTERED = (
    300  # modules are joined when they are left and entered more often than once in so many instructions
)
PATIENCE = 3  # a place whose code was overwritten so often is left to the loop


@dataclass
class _Module:
    """A translated function: its blocks and every halfword it was made from."""

    leaders: list[int]
    halfwords: list[int]
    words: list[int]  # predecoded words, as they were
    keep: Any  # the engine that owns the machine code


class Translator:
    """Finds hot code of one machine, translates it, and takes it back when it changes."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._modules: list[_Module] = []
        self._kept: list[Any] = []  # engines of discarded modules, until the program is replaced
        self._owner: dict[int, _Module] = {}
        self._overwritten: dict[int, int] = {}
        self._look_at = FIRST_LOOK
        self._calls = 0
        self._retired_then = 0
        self.translated = 0  # instructions translated so far
        self.compiled = 0  # modules compiled, not taken from the disk

    def next_look(self, cycle: int) -> int:
        """Cycle at which `look` wants to be called."""
        if self._look_at <= cycle:
            self._look_at = cycle + FIRST_LOOK
        return self._look_at

    def look(self, cycle: int) -> None:
        """Translate what has become hot. Looks become rarer as the run goes on."""
        if cycle < self._look_at:
            return
        machine = self._machine
        often = np.nonzero(machine._counts >= HOT)[0]
        hot = [int(at) for at in often if self._translatable(int(at)) and at not in self._owner]
        calls, retired = int(machine.st[S["BLOCK_CALLS"]]), machine.retired
        crossings, self._calls = calls - self._calls, calls
        done, self._retired_then = retired - self._retired_then, retired
        scattered = len(self._modules) > 1 and crossings * SCATTERED > done
        self._look_at = cycle + (FIRST_LOOK if hot else min(max(cycle // 2, FIRST_LOOK), 50_000_000))
        if scattered and len(self._owner) < LARGEST // 2:
            hot += [at for module in self._modules for at in module.leaders]
            self._discard(list(self._modules))
        if hot:
            self._translate(hot)

    def _word(self, at: int) -> int:
        return int(self._machine._code[at])

    def _translatable(self, at: int) -> bool:
        """Whether a block can start at `at`."""
        if self._overwritten.get(at, 0) >= PATIENCE:
            return False
        word = self._word(at)
        op = word & 255
        return op < OP_SPECIAL and not word & TRANSLATED and NAMES.get(op, "") in (BODY | ENDS)

    def _walk(self, at: int) -> list[Instruction]:
        """Straight-line code from `at` up to and including what ends a block."""
        body: list[Instruction] = []
        while len(body) < LONGEST and self._translatable(at):
            instruction = unpack(at, self._word(at))
            body.append(instruction)
            at += instruction.size
            if instruction.name in ENDS:
                break
        return body

    def _translate(self, hot: list[int]) -> None:
        machine = self._machine
        row_of = self._row_of
        row = row_of(hot[0])
        hot = [at for at in hot if row_of(at) == row]
        leaders: set[int] = set()
        todo = sorted(hot, key=lambda at: -int(machine._counts[at]))
        total = 0
        while todo and total < LARGEST:
            at = todo.pop(0)
            if at in leaders or not self._translatable(at) or row_of(at) != row:
                continue
            leaders.add(at)
            body = self._walk(at)
            total += len(body)
            last = body[-1]
            after = last.at + last.size
            todo.append(after)
            if last.name == "jal" or last.name in BRANCHES:
                todo.append(last.imm)
        blocks = []
        for number, at in enumerate(sorted(leaders)):
            body = self._walk(at)
            cut = next((n for n, i in enumerate(body) if n and i.at in leaders), len(body))
            body = body[:cut]
            blocks.append(Block(number, body, sum(cost(i) for i in body)))
        first = len(machine._blocks) if machine._blocks.any() else 0
        text = Writer(machine.regions, blocks, first).module()
        text += '!0 = !{!"branch_weights", i32 1, i32 1000}\n'
        function, keep, fresh = _compile(text)
        self.compiled += fresh
        rows = np.array([(function, b.number, b.body[0].word, b.worst) for b in blocks], dtype=np.int64)
        machine._blocks = np.concatenate([machine._blocks[:first], rows])
        words = {i.at: i.word for b in blocks for i in b.body}
        halfwords = sorted(words)
        module = _Module([b.at for b in blocks], halfwords, [words[at] for at in halfwords], keep)
        self._modules.append(module)
        for at in halfwords:
            self._owner[at] = module
            machine._code[at] |= TRANSLATED
        for block in blocks:
            word = (
                (block.body[0].word & ~0xFF & 0xFFFFFFFF)
                | OP_BLOCK
                | TRANSLATED
                | (first + block.number) << 32
            )
            machine._code[block.at] = word
        self.translated += len(halfwords)

    def _row_of(self, at: int) -> int:
        regions = self._machine.regions
        for row in range(len(regions)):
            if (
                regions[row, G_KIND] == K_MEMORY
                # a window onto the flash runs its bytes, the flash itself does not
                and regions[row, G_FLAGS] & F_EXECUTE
                and 0 <= at * 2 - regions[row, G_OFFSET] < regions[row, G_SIZE]
            ):
                return row
        return -1

    def overwritten(self) -> None:
        """The program stored into translated code (state word X_ADDR: flat halfword of the store)."""
        at = int(self._machine.st[S["X_ADDR"]])
        self.forget(max(at - 3, 0), at + 4)

    def forget(self, first: int, end: int) -> None:
        """Discard every module with an instruction in flat halfwords first..end."""
        hit = [
            module
            for module in self._modules
            if any(self._owner.get(at) is module for at in range(first, end))
        ]
        self._discard(hit)
        for module in hit:
            for at in module.halfwords:
                self._machine._code[at] = OP_UNDECODED
                self._machine._counts[at] = 0
            for at in module.leaders:
                self._overwritten[at] = self._overwritten.get(at, 0) + 1

    def _discard(self, modules: list[_Module]) -> None:
        """Put the predecoded words back as they were before the translation."""
        for module in modules:
            for at, word in zip(module.halfwords, module.words, strict=True):
                del self._owner[at]
                self._machine._code[at] = word
            self._modules.remove(module)
            self._kept.append(module.keep)

    def clear(self) -> None:
        """Forget everything: another program was loaded."""
        self._modules.clear()
        self._kept.clear()
        self._owner.clear()
        self._overwritten.clear()
        self._calls = self._retired_then = 0
        self._machine._blocks = np.zeros((1, 4), dtype=np.int64)
        self._machine._counts[:] = 0
        self._look_at = FIRST_LOOK


def cache_folder() -> Path:
    """Where compiled objects are kept: TWIN_CACHE, or battery-twin in the user's cache folder."""
    root = os.environ.get("TWIN_CACHE")
    if root:
        return Path(root) / "blocks"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "battery-twin" / "blocks"


def _compile(text: str) -> tuple[int, Any, bool]:
    """(address of the function, its owner, whether it had to be compiled) for LLVM text."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    cpu, features = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    target = binding.Target.from_default_triple()
    target_machine = target.create_target_machine(cpu=cpu, features=features, opt=2, jit=True)
    digest = hashlib.sha256(
        f"{binding.llvm_version_info}{cpu}{features}{OPTIMISATION}{text}".encode()
    ).hexdigest()
    path = cache_folder() / f"{digest}.o"
    try:
        kept: bytes | None = path.read_bytes()
    except OSError:
        kept = None
    module = binding.parse_assembly(text)
    if kept is None:
        module.verify()
        options = binding.create_pipeline_tuning_options(speed_level=OPTIMISATION)
        options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
        builder = binding.create_pass_builder(target_machine, options)
        builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, target_machine)
    engine.set_object_cache(_keeper(path), lambda _module: kept)
    engine.finalize_object()
    return engine.get_function_address("translated"), engine, kept is None


OPTIMISATION = 1


def _keeper(path: Path) -> Callable[[Any, bytes], None]:
    """Write an object file under its final name in one step: two processes may compile the same code."""

    def keep(_module: Any, data: bytes) -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)

    return keep
