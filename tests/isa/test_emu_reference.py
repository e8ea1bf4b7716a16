"""The RTL is the truth: every reference program exact in all eight words, every trace equal line by line."""

import csv
import gzip
import io
from pathlib import Path

import pytest

from bms_emulator.elf import read_image
from bms_emulator.machine import Machine, Stop
from bms_emulator.pipeline import Pipeline

HERE = Path(__file__).parent / "reference"
BASE = 0x0010_0000
ROWS = {row["name"]: row for row in csv.DictReader((HERE / "cycles.csv").open())}


def words(row: dict[str, str]) -> str:
    """The line the program prints: magic, cycles, instret, checksum, totals, mtime, first mcycle."""
    numbers = [int(row[n]) for n in ("cycles", "instret")]
    totals = [int(row[n]) for n in ("mcycle_total", "minstret_total", "mtime_end", "first_mcycle")]
    return " ".join(
        ["49425831", *(f"{n:08x}" for n in numbers), row["checksum"], *(f"{n:08x}" for n in totals)]
    )


@pytest.fixture(scope="module")
def interp() -> Machine:
    return Machine()


@pytest.fixture(scope="module")
def blocks() -> Machine:
    return Machine(engine="blocks")


def test_all_programs_are_here():
    assert len(ROWS) == 44
    assert {p.stem for p in (HERE / "img").glob("*.bin")} == set(ROWS)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_eight_words_exact(interp: Machine, name: str):
    interp.load(read_image(HERE / "img" / f"{name}.bin", BASE))
    outcome = interp.run(max_cycles=5_000_000)
    assert outcome.reason is Stop.HALT
    assert interp.console.decode().strip() == words(ROWS[name])


@pytest.mark.parametrize("name", sorted(n for n in ROWS if n.startswith("k_")))
def test_block_engine_gives_the_same_words_and_state(interp: Machine, blocks: Machine, name: str):
    for machine in (interp, blocks):
        machine.load(read_image(HERE / "img" / f"{name}.bin", BASE))
        assert machine.run(max_cycles=5_000_000).reason is Stop.HALT
    assert blocks.console.decode().strip() == words(ROWS[name])
    assert blocks.state_hash() == interp.state_hash()
    if interp.cycle > 200_000:
        assert blocks._translator is not None
        assert blocks._translator.translated > 100


@pytest.mark.parametrize("path", sorted((HERE / "trace").glob("*.gz")), ids=lambda p: p.name.split(".")[0])
def test_trace_equal_line_by_line(interp: Machine, path: Path):
    want = gzip.decompress(path.read_bytes())
    interp.load(read_image(HERE / "img" / f"{path.name.split('.')[0]}.bin", BASE))
    text = io.BytesIO()
    interp.trace_to(text)
    interp.run(max_cycles=5_000_000)
    interp.trace_to()
    assert text.getvalue()[: len(want)] == want


@pytest.mark.parametrize("name", ["wfi_fetch", "wfi_timer", "irqrand_1", "exc_sys16", "rand_00", "lw_misal"])
def test_clock_model_is_exact_too(name: str):
    model = Pipeline((HERE / "img" / f"{name}.bin").read_bytes())
    model.run(100_000)
    assert model.console.decode().strip() == words(ROWS[name])
