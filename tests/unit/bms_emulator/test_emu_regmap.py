"""The memory map: what it refuses, and that the C header says the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bms_emulator.regmap import BoardError, board_names, c_header, load_board, main

GOOD = """
[board.b]
about = "x"
clock_Hz = 1000
reset_pc = 0x80
mtvec = "vectored"
[[board.b.memory]]
name = "ram"
base = 0x0
size = 0x1000
access = "rwx"
[[board.b.device]]
name = "timer"
driver = "timer"
base = 0x2000
irq = 7
"""


def test_boards_of_the_map():
    assert board_names() == ["reference", "riscv-tests", "bms"]
    board = load_board("reference")
    assert board.memories[0].base == 0x0010_0000
    assert board.device("timer").base == 0x0003_0000
    assert not board.direct_mtvec
    assert load_board("riscv-tests").direct_mtvec


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("base = 0x2000", "base = 0xfff", "multiples of 4"),
        ("base = 0x2000", "base = 0xffc", "ram and timer overlap"),
        ("size = 0x1000", "size = 0x1001", "multiples of 64"),
        ('access = "rwx"', 'access = "rwz"', "access must be"),
        ('driver = "timer"', 'driver = "tumer"', "no driver 'tumer'"),
        ("irq = 7", "irq = 5", "not a bit of mip"),
        ('"vectored"', '"both"', "vectored or direct"),
        ("base = 0x2000", "base = 0xfffffff8", "beyond 32 bits"),
    ],
)
def test_mistakes_name_the_row(tmp_path: Path, old: str, new: str, words: str):
    path = tmp_path / "map.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(BoardError, match=words):
        load_board("b", path)
    with pytest.raises(BoardError, match="expected one of b"):
        load_board("c", path)


def test_partitions_and_window():
    board = load_board("bms")
    at = 0
    for partition in board.partitions:
        assert partition.at == at
        assert partition.size % board.sector == 0
        at += partition.size
    assert board.memory("flash").size == at
    assert board.memory("xip").offset == board.memory("flash").offset + board.partition("slot_0").at
    assert board.partition("slot_0").size == board.partition("slot_1").size == board.memory("xip").size
    with pytest.raises(BoardError, match="no partition"):
        board.partition("slot_2")


def test_header_of_the_firmware_is_that_of_the_map():
    """Made by: python -m bms_emulator.regmap bms > bms_emulator/firmware/include/regs.h"""
    header = Path("bms_emulator/firmware/include/regs.h")
    assert header.read_text() == c_header(load_board("bms"))


def test_header_agrees_with_python(capsys):
    assert main(["reference"]) == 0
    text = capsys.readouterr().out
    assert text == c_header(load_board("reference"))
    found = {name: int(value, 16) for name, value in re.findall(r"#define (\w+) .*?0x([0-9a-f]{8})u", text)}
    board = load_board("reference")
    assert found["RAM_BASE"] == board.memories[0].base
    for device in board.devices:
        for register, offset, _, _ in device.registers:
            assert found[f"{device.name.upper()}_{register}"] == device.base + offset
    assert main(["nothing"]) == 2
    assert main([]) == 2


def test_header_compiles(tmp_path: Path):
    pytest.importorskip("ziglang", reason="ziglang compiles the header")
    (tmp_path / "regs.h").write_text(c_header(load_board("reference")))
    source = tmp_path / "a.c"
    source.write_text(
        '#include "regs.h"\nuint32_t now(void) { CONSOLE_DATA = 65; return TIMER_MTIME + TIMER_IRQ; }\n'
    )
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "riscv32-freestanding-none",
        "-std=c11",
        "-Wall",
    ]
    command += ["-Werror", "-c", "-o", str(tmp_path / "a.o"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
