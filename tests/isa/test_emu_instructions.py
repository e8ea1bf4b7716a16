"""Every instruction with edge and random operands against unicorn, an oracle for architecture only."""

import random

import pytest

from bms_emulator.asm import compress, encode
from bms_emulator.decode import fields16
from bms_emulator.isa import CSR, CSRI, INSTRUCTIONS, NONE, SHIFT, B, I, J, R, S, U
from bms_emulator.machine import Machine

unicorn = pytest.importorskip("unicorn", reason="unicorn is the oracle of these tests")
from unicorn import riscv_const as rv  # noqa: E402

CODE, DATA = 0x0010_4000, 0x0018_0000
EDGES = (
    0,
    1,
    2,
    3,
    31,
    32,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0x80000001,
    0xFFFFFFFF,
)
TESTED = [
    row
    for row in INSTRUCTIONS
    if row.format not in (CSR, CSRI) and row.name not in ("ecall", "ebreak", "mret", "wfi")
]


class Oracle:
    """unicorn with the same RAM, stepped one instruction at a time."""

    def __init__(self) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        self.uc.mem_map(0x0010_0000, 0x0010_0000)

    def step(self, code: bytes, at: int, registers: list[int], data: bytes) -> tuple[list[int], int, bytes]:
        # Each instruction stands at its own fresh place: unicorn keeps translations of code it has seen.
        self.uc.mem_write(at, code)
        self.uc.mem_write(DATA, data)
        for i in range(1, 32):
            self.uc.reg_write(rv.UC_RISCV_REG_X0 + i, registers[i])
        self.uc.ctl_remove_cache(at, at + 8)
        self.uc.emu_start(at, 0, count=1)
        return (
            [self.uc.reg_read(rv.UC_RISCV_REG_X0 + i) & 0xFFFFFFFF for i in range(32)],
            self.uc.reg_read(rv.UC_RISCV_REG_PC) & 0xFFFFFFFF,
            bytes(self.uc.mem_read(DATA, len(data))),
        )


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(lockup_stops=False)


def check(machine: Machine, oracle: Oracle, code: bytes, at: int, registers: list[int], data: bytes) -> None:
    machine.write_memory(at, code)
    machine.write_memory(DATA, data)
    for i in range(1, 32):
        machine.set_register(i, registers[i])
    machine.pc = at
    machine.run(instructions=1)
    mine = ([machine.register(i) for i in range(32)], machine.pc, machine.read_memory(DATA, len(data)))
    theirs = oracle.step(code, at, registers, data)
    assert mine == theirs, (code.hex(), [hex(r) for r in registers])


def value(chance: random.Random) -> int:
    return chance.choice(EDGES) if chance.random() < 0.5 else chance.randrange(1 << 32)


def operands(row, chance: random.Random, at: int) -> tuple[int, list[int]]:
    """(encoding, register values) for one trial; addresses point into the data area at every alignment."""
    registers = [0] + [value(chance) for _ in range(31)]
    rd, rs1, rs2 = chance.randrange(32), chance.randrange(1, 32), chance.randrange(32)
    imm = 0
    if row.format == I and row.name == "jalr":
        imm = chance.randrange(-16, 16)
        registers[rs1] = (CODE + 0x1000 + chance.randrange(256) - imm) & 0xFFFFFFFF
    elif row.cycles == "memory":
        imm = chance.choice((-2048, 2047, 0, chance.randrange(-2048, 2048)))
        registers[rs1] = (DATA + 8 + chance.randrange(16) - imm) & 0xFFFFFFFF
    elif row.format == I:
        imm = chance.choice((-2048, -1, 0, 1, 2047, chance.randrange(-2048, 2048)))
    elif row.format == SHIFT:
        imm = chance.choice((0, 1, 31, chance.randrange(32)))
    elif row.format == B:
        imm = chance.choice((-4096, 4094, 4, 2 * chance.randrange(-500, 500)))
        if chance.random() < 0.3:
            registers[rs2] = registers[rs1] if rs2 else 0
    elif row.format == U:
        imm = chance.choice((0, 0x80000000, 0xFFFFF000, 0x1000, chance.randrange(1 << 20) << 12))
    elif row.format == J:
        imm = chance.choice((4, -2, 2 * chance.randrange(-8000, 8000)))
    elif row.format == NONE:
        return encode(row.name), registers
    assert row.format in (R, I, S, B, U, J, SHIFT)
    return encode(row.name, rd, rs1, rs2, imm), registers


@pytest.mark.parametrize("row", TESTED, ids=lambda r: r.name)
def test_instruction_like_unicorn(machine: Machine, oracle: Oracle, row):
    chance = random.Random(row.name)
    data = bytes(chance.randrange(256) for _ in range(40))
    for trial in range(40):
        at = CODE + 4 * trial + 2 * (trial & 1)
        word, registers = operands(row, chance, at)
        check(machine, oracle, word.to_bytes(4, "little"), at, registers, data)


@pytest.mark.parametrize("row", [r for r in INSTRUCTIONS if r.format == R], ids=lambda r: r.name)
def test_edge_operands_like_unicorn(machine: Machine, oracle: Oracle, row):
    chance = random.Random(row.name)
    at = CODE + 0x800
    for a in EDGES[::2]:
        for b in (*EDGES[1::2], 0):
            registers = [0] + [chance.randrange(1 << 32) for _ in range(31)]
            registers[6], registers[7] = a, b
            check(machine, oracle, encode(row.name, 5, 6, 7).to_bytes(4, "little"), at, registers, b"\0" * 8)


def test_many_compressed_encodings_like_unicorn(machine: Machine, oracle: Oracle):
    """Every 29th 16-bit word, if it is legal here."""
    chance = random.Random(16)
    data = bytes(chance.randrange(256) for _ in range(1024))
    tried = 0
    for word in range(chance.randrange(3), 1 << 16, 29):
        if word & 3 == 3:
            continue
        op, _, rs1, _, imm = fields16(word)
        if op == 0 or word == 0x9002:  # illegal, c.ebreak
            continue
        registers = [0] + [value(chance) for _ in range(31)]
        row = INSTRUCTIONS[op - 1]
        if row.cycles == "memory":
            registers[rs1] = (DATA + 64 - imm % 4 + 4 * chance.randrange(8)) & 0xFFFFFFFF
        elif row.name == "jalr":
            registers[rs1] = CODE + 0x1000 + 2 * chance.randrange(64)
        check(machine, oracle, word.to_bytes(2, "little") + b"\x01\0\x01\0", CODE + 0x400, registers, data)
        tried += 1
    assert tried > 900


def test_compress_is_the_decoder_backwards():
    for name, operands_ in (
        ("addi", (9, 9, 0, 5)),
        ("lw", (8, 9, 0, 4)),
        ("add", (5, 0, 6, 0)),
        ("jalr", (0, 1, 0, 0)),
    ):
        word = compress(name, *operands_)
        assert word is not None
        assert fields16(word)[1:] == operands_
    assert compress("mul", 5, 6, 7) is None
