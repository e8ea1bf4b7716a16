"""Encodings: every instruction there and back; random bytes as code; traces and profiles add up."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bms_emulator import blocks, isa
from bms_emulator.asm import Assembler, AssemblyError, compress, encode
from bms_emulator.bench import IMAGES, endless_kernel
from bms_emulator.decode import fields16, fields32
from bms_emulator.disasm import disassemble
from bms_emulator.elf import Image, read_image
from bms_emulator.machine import Machine, Stop

RAM = 0x0010_0000


@pytest.mark.parametrize("row", isa.INSTRUCTIONS, ids=lambda r: r.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_decode_is_encode_backwards(row: isa.Instruction, data):
    register = st.integers(0, 31)
    rd, rs1, rs2 = (data.draw(register) for _ in range(3))
    imm = {
        isa.I: st.integers(-2048, 2047),
        isa.S: st.integers(-2048, 2047),
        isa.SHIFT: st.integers(0, 31),
        isa.B: st.integers(-2048, 2047).map(lambda n: 2 * n),
        isa.J: st.integers(-(1 << 19), (1 << 19) - 1).map(lambda n: 2 * n),
        isa.U: st.integers(-(1 << 19), (1 << 19) - 1).map(lambda n: 4096 * n),
        isa.CSR: st.integers(0, 4095),
        isa.CSRI: st.integers(0, 4095),
    }.get(row.format, st.just(0))
    value = data.draw(imm)
    word = encode(row.name, rd, rs1, rs2, value)
    used = {
        isa.R: (rd, rs1, rs2, 0),
        isa.I: (rd, rs1, 0, value),
        isa.SHIFT: (rd, rs1, 0, value),
        isa.S: (0, rs1, rs2, value),
        isa.B: (0, rs1, rs2, value),
        isa.U: (rd, 0, 0, value),
        isa.J: (rd, 0, 0, value),
        isa.CSR: (rd, rs1, 0, value),
        isa.CSRI: (rd, rs1, 0, value),
        isa.NONE: (0, 0, 0, 0),
    }[row.format]
    assert fields32(word) == (isa.OP[row.name], *used)
    assert disassemble(word, RAM).split()[0] == row.name
    short = compress(row.name, *used)
    if short is not None:
        assert fields16(short) == (isa.OP[row.name], *used)


def test_rows_do_not_overlap():
    """No 32-bit word matches two rows, so their order means nothing."""
    for i, one in enumerate(isa.INSTRUCTIONS):
        for other in isa.INSTRUCTIONS[i + 1 :]:
            both = one.mask & other.mask
            assert (one.match ^ other.match) & both, (one.name, other.name)


def test_number_of_legal_compressed_encodings():
    """Zca without floating point, all hints included: counted from the specification's tables."""
    legal = sum(fields16(word)[0] != 0 for word in range(1 << 16) if word & 3 != 3)
    per_row = {
        "c.addi4spn": 255 * 8, "c.lw": 2048, "c.sw": 2048,
        "c.addi": 2048, "c.jal": 2048, "c.li": 2048, "c.lui, c.addi16sp": 32 * 63,
        "c.srli": 256, "c.srai": 256, "c.andi": 512, "c.sub-and": 256,
        "c.j": 2048, "c.beqz": 2048, "c.bnez": 2048,
        "c.slli": 1024, "c.lwsp": 31 * 64, "c.jr": 31, "c.mv": 32 * 31,
        "c.ebreak, c.jalr": 32, "c.add": 32 * 31, "c.swsp": 2048,
    }  # fmt: skip
    assert legal == sum(per_row.values())


def test_assembler_mistakes():
    a = Assembler(0)
    for mistake in (
        lambda: a.op("addi", 1, 1, imm=5000),
        lambda: a.op("slli", 1, 1, imm=32),
        lambda: encode("beq", imm=3),
        lambda: encode("lui", imm=5),
        lambda: [a.label("x"), a.label("x")],
        lambda: [a.jump(0, "nowhere"), a.bytes()],
        lambda: a.to(0),
    ):
        with pytest.raises(AssemblyError):
            mistake()


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_as_code(seed: int, monkeypatch: pytest.MonkeyPatch):
    """A memory of noise, two engines, 250 000 instructions each seed: no exception, and the same state."""
    monkeypatch.setattr(blocks, "FIRST_LOOK", 2000)
    monkeypatch.setattr(blocks, "HOT", 5)
    noise = np.random.default_rng(seed).integers(0, 256, 1 << 20, dtype=np.uint8)
    if seed % 2:  # half of the words legal: more than traps happens
        words = noise.view(np.uint32)
        legal = np.array(
            [encode(r.name, 9, 10, 11) for r in isa.INSTRUCTIONS if r.cycles != "wfi"], dtype=np.uint32
        )
        words[::2] = legal[np.random.default_rng(seed).integers(0, len(legal), words[::2].size)]
    image = Image(((RAM, noise.tobytes(), noise.size),), None)
    interp, translated = (Machine(engine=engine, lockup_stops=False) for engine in ("interp", "blocks"))
    interp.load(image)
    translated.load(image)
    outcome = interp.run(instructions=250_000, max_cycles=2_000_000)
    assert outcome.reason in (Stop.INSTRUCTIONS, Stop.HALT, Stop.CYCLES)
    translated.run(until=interp.cycle)
    assert translated.cycle >= interp.cycle
    interp.run(until=translated.cycle)
    assert interp.state_hash() == translated.state_hash()
    assert 0 <= interp.pc < 1 << 32
    assert interp.register(0) == 0
    assert interp.csr("mstatus") & ~0x221888 == 0


@settings(max_examples=25, deadline=None)
@given(code=st.binary(min_size=2, max_size=200), seed=st.integers(0, 1000))
def test_any_bytes_run_and_slices_agree(code: bytes, seed: int):
    image = Image(((RAM + 0x80, code, len(code)),), None)
    straight, sliced = _pair()
    straight.load(image)
    sliced.load(image)
    straight.run(until=3000)
    chance = np.random.default_rng(seed)
    while sliced.cycle < 3000 and sliced.run(
        until=min(3000, sliced.cycle + int(chance.integers(1, 300)))
    ).reason in (Stop.CYCLES,):
        continue
    assert straight.state_hash() == sliced.state_hash()


_KEPT: list[Machine] = []


def _pair() -> list[Machine]:
    if not _KEPT:
        _KEPT.extend(Machine(lockup_stops=False) for _ in range(2))
    return _KEPT


def test_profile_adds_up_to_the_cycles():
    image = read_image(IMAGES / "k_crc32.elf")
    machine = Machine()
    machine.load(image)
    machine.profile_on()
    start = machine.cycle
    machine.run(max_cycles=1_000_000)
    rows = machine.profile()
    assert sum(row.cycles for row in rows) == machine.cycle - start
    assert rows[0].name == "kernel"
    assert rows[0].cycles == 61690  # the region's 61 696 cycles less the call and the counters around it


def test_traced_run_is_the_same_run_in_any_slices():
    image = read_image(IMAGES / "k_ekf_q16.elf")
    texts = []
    for slice_cycles in (10**9, 977):
        machine = endless_kernel(image, "interp", 1)
        text = io.BytesIO()
        machine.trace_to(text)
        while machine.run(max_cycles=slice_cycles).reason is Stop.CYCLES:
            continue
        texts.append(text.getvalue())
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n") > 200_000
