"""The board for the stock riscv-tests environment, with a program of our own built in its manner.

What that environment does and an exact Ibex would refuse: it sets mtvec to 4-byte aligned labels to survive
writes to CSRs that do not exist. It runs the tests in user mode and reports through ecall and `tohost`.
"""

import struct
from pathlib import Path

import pytest

from bms_emulator.asm import Assembler
from bms_emulator.cli import main

BASE = 0x8000_0000


def elf(code: bytes, tohost: int) -> bytes:
    """A minimal executable: one segment for code, one for tohost, and the symbol."""
    names = b"\0tohost\0_start\0"
    strings = b"\0.symtab\0.strtab\0.shstrtab\0"
    symbols = bytes(16)
    symbols += struct.pack("<IIIBBH", 1, tohost, 8, 1 << 4 | 1, 0, 1)
    symbols += struct.pack("<IIIBBH", 8, BASE, 0, 1 << 4, 0, 1)
    at = 52 + 2 * 32
    code_at, names_at = at, at + len(code)
    symbols_at = names_at + len(names)
    strings_at = symbols_at + len(symbols)
    sections_at = strings_at + len(strings)
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 243, 1, BASE, 52, sections_at, 1, 52, 32, 2, 40, 4, 3
    )
    segments = struct.pack("<IIIIIIII", 1, code_at, BASE, BASE, len(code), len(code), 5, 4)
    segments += struct.pack("<IIIIIIII", 1, 0, tohost, tohost, 0, 64, 6, 4)
    sections = bytes(40)
    sections += struct.pack("<10I", 1, 2, 0, 0, symbols_at, len(symbols), 2, 1, 4, 16)
    sections += struct.pack("<10I", 9, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    sections += struct.pack("<10I", 17, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0)
    return head + segments + code + names + symbols + strings + sections


def program(expected: int) -> bytes:
    """Test 2 of a suite of one: 7 * 6 must be `expected`."""
    a = Assembler(BASE)
    a.jump(0, "reset")
    a.align(4)
    a.label("trap")
    a.csr("csrrs", 30, "mcause")
    a.li(31, 8)
    a.branch("beq", 30, 31, "write")
    a.op("ori", 3, 3, imm=1337)
    a.label("write")
    a.la(30, "tohost")
    a.label("again")
    a.op("sw", rs1=30, rs2=3)
    a.op("sw", rs1=30, rs2=0, imm=4)
    a.jump(0, "again")
    a.align(4)
    a.label("reset")
    a.half(0x0001)
    a.half(0x0001)
    for csr in (0x744, 0x180, 0x3B0, 0x3A0, 0x302, 0x303):  # none of them exists here
        after = f"after{csr}"
        a.la(5, after)
        a.csr("csrrw", 0, "mtvec", 5)
        a.csr("csrrw", 0, csr, 0)
        a.align(4)
        a.label(after)
    a.la(5, "trap")
    a.csr("csrrw", 0, "mtvec", 5)
    a.csr("csrrwi", 0, "mstatus", 0)
    a.la(5, "test")
    a.csr("csrrw", 0, "mepc", 5)
    a.op("mret")
    a.label("test")
    a.op("addi", 3, 0, imm=2)
    a.op("addi", 10, 0, imm=6)
    a.op("addi", 11, 0, imm=7)
    a.op("mul", 12, 10, 11)
    a.op("addi", 13, 0, imm=expected)
    a.branch("bne", 12, 13, "fail")
    a.op("addi", 3, 0, imm=1)
    a.op("ecall")
    a.label("fail")
    a.op("slli", 3, 3, imm=1)
    a.op("ori", 3, 3, imm=1)
    a.op("ecall")
    a.align(64)
    a.label("tohost")
    return a.bytes()


@pytest.mark.parametrize("engine", ["interp", "blocks"])
def test_pass_and_failure(tmp_path: Path, capsys, engine: str):
    for expected, code, message in ((42, 0, ""), (43, 1, "test 2 failed")):
        image = program(expected)
        path = tmp_path / f"t{expected}.elf"
        path.write_bytes(elf(image, BASE + len(image)))
        assert main(["run", str(path), "--board", "riscv-tests", "--engine", engine]) == code
        assert message in capsys.readouterr().err


def test_a_trap_to_nowhere_is_told(tmp_path: Path, capsys):
    a = Assembler(BASE)
    a.op("ecall")  # mtvec is 0
    path = tmp_path / "t.elf"
    path.write_bytes(elf(a.bytes(), BASE + 64))
    assert main(["run", str(path), "--board", "riscv-tests"]) == 3
    message = capsys.readouterr().err
    assert "trap without a handler" in message
    assert "ecall from machine mode" in message
    assert "0x80000000" in message
