"""Target programs: same bytes from anywhere, sizes and stack told, what cannot be bounded refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bms_emulator.firmware import build
from bms_emulator.firmware.target import build_program, main
from bms_emulator.regmap import load_board

pytest.importorskip("ziglang", reason="ziglang compiles the firmware")


def copy_of_sources(folder: Path) -> Path:
    shutil.copytree(build.SOURCE_DIR, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_two_folders_give_the_same_bytes(tmp_path: Path):
    folder = copy_of_sources(tmp_path / "somewhere/else entirely")
    (folder / "out").mkdir()
    for name in ("rom", "app"):
        one, two = build_program(name), build_program(name, folder=folder, out_dir=folder / "out")
        assert len(list((folder / "out").glob(f"bms-{name}-*"))) == 1  # not taken from the cache
        assert one.elf == two.elf
        assert one.body == two.body
        assert str(tmp_path).encode() not in one.elf


def test_sizes_and_stack_fit_the_board(capsys: pytest.CaptureFixture[str]):
    board = load_board("bms")
    rom, app = build_program("rom"), build_program("app")
    assert rom.flash_bytes <= board.memory("rom").size - 256
    assert app.flash_bytes <= board.partition("slot_0").size - 0x1000
    for program in (rom, app):
        assert program.ram_bytes + program.stack_bytes < board.memory("ram").size
        assert program.deepest[0] == "chip_main"
        assert not program.open_calls
    assert main([]) == 0
    said = capsys.readouterr().out
    assert f"{app.stack_bytes} B" in said


def test_recursion_is_refused(tmp_path: Path):
    folder = copy_of_sources(tmp_path / "fw")
    source = folder / "hal" / "target" / "system.c"
    loop = """    for (uint32_t i = 0; i < size; ++i) {
        CONSOLE_DATA = (uint8_t)text[i];
    }
"""
    calls_itself = """    if (size > 0) {
        hal_console(text + 1, size - 1);
        CONSOLE_DATA = (uint8_t)text[0];
    }
"""
    assert loop in source.read_text()
    source.write_text(source.read_text().replace(loop, calls_itself))
    with pytest.raises(build.FirmwareBuildError, match=r"recursion: .*hal_console -> hal_console"):
        build_program("rom", folder=folder, out_dir=tmp_path)
