"""The command line: output, verdicts and messages."""

from pathlib import Path

import pytest

from bms_emulator.asm import Assembler
from bms_emulator.bench import IMAGES
from bms_emulator.cli import main

BASE = 0x0010_0000
CRC = IMAGES / "k_crc32.elf"


def binary(path: Path, body) -> Path:
    a = Assembler(BASE)
    a.to(BASE + 0x80)
    body(a)
    path.write_bytes(a.bytes())
    return path


def test_console_goes_to_stdout_and_halt_is_0(capsys):
    assert main(["run", str(CRC)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "49425831 0000f100 0000a6c2 ad0fc612 00012895 0000cf2d 0001289d 00000003 \n"
    assert shown.err == ""


def test_cycle_limit_names_the_place(capsys):
    assert main(["run", str(CRC), "--max-cycles", "20000"]) == 3
    message = capsys.readouterr().err
    assert "cycle limit at cycle 2000" in message
    assert "<kernel+" in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda a: [a.li(5, 0x6000_0000), a.op("jalr", 0, 5)], ["instruction access fault", "0x60000000"]),
        (lambda a: [a.csr("csrrw", 0, "mtvec", 0), a.op("ebreak")], ["breakpoint", "0x00100084", "ebreak"]),
        (
            lambda a: [a.li(5, 0x700), a.csr("csrrw", 0, "mtvec", 5), a.word(0xFFFFFFFF)],
            ["illegal", ".word 0xffffffff"],
        ),
        (lambda a: [a.op("wfi")], ["cycle limit", "asleep in wfi"]),
        (lambda a: [a.label("x"), a.jump(0, "x")], ["cycle limit", "jal zero, 0x00100080"]),
    ],
)
def test_what_never_ends_well_ends_with_3(tmp_path: Path, capsys, body, words: list[str]):
    path = binary(tmp_path / "t.bin", body)
    assert main(["run", str(path), "--max-cycles", "100000"]) == 3
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message


def test_a_program_that_reports_a_bad_trap_is_not_a_pass(tmp_path: Path, capsys):
    """The run-time of the reference programs prints bad00000, mcause, mepc and halts."""

    def body(a: Assembler) -> None:
        a.li(5, 0x0002_0000)
        for character in b"bad00000 00000005 00100080 \n":
            a.op("addi", 6, 0, imm=character)
            a.op("sb", rs1=5, rs2=6)
        a.op("addi", 6, 0, imm=1)
        a.op("sw", rs1=5, rs2=6, imm=8)

    assert main(["run", str(binary(tmp_path / "t.bin", body))]) == 3
    message = capsys.readouterr().err
    assert "unexpected trap" in message
    assert "load access fault" in message
    assert "lui t0, 0x20" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.elf", None, "cannot be read"),
        ("text.elf", b"hello", "not an ELF file"),
        ("half.elf", CRC.read_bytes()[:500], "truncated"),
        ("big.bin", b"\1" * (2 << 20), "larger than memory"),
        ("empty.bin", b"", "empty"),
    ],
)
def test_bad_images_end_with_2_and_one_line(
    tmp_path: Path, capsys, name: str, content: bytes | None, words: str
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["run", str(path)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_traces_profile_and_their_mistakes(tmp_path: Path, capsys):
    trace, access = tmp_path / "t.csv", tmp_path / "m.csv"
    command = ["run", str(CRC), "--trace", str(trace), "--mmio-trace", str(access), "--profile"]
    assert main(command) == 0
    lines = trace.read_text().split("\n")
    assert lines[:3] == ["mtime_end,pc,insn", "4,00100080,b00022f3", "6,00100084,0240006f"]
    assert len(lines) > 50_000
    rows = [line.split(",") for line in access.read_text().split("\n")[1:-1]]
    assert {row[2] for row in rows} == {"r", "w"}
    assert rows[-1][2:] == ["w", "00020008", "00000001"]
    printed = bytes(int(row[4], 16) & 0xFF for row in rows if row[3] == "00020000").decode()
    shown = capsys.readouterr()
    assert shown.out == printed
    assert "kernel (0x001002f6)" in shown.err
    assert main(["run", str(CRC), "--trace", str(tmp_path / "no" / "t.csv")]) == 2
    assert "cannot write the trace" in capsys.readouterr().err


def test_usage_mistakes():
    for arguments in ([], ["run"], ["run", "x", "--engine", "warp"], ["run", "x", "--max-cycles", "-5"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
