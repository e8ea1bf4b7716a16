"""Power cuts on the emulated board and on the host: a sample of ``boot_campaign`` (table in results/boot)."""

from __future__ import annotations

import itertools

import pytest

from bms_emulator.host_mcu import HostMcu
from ota import faults
from ota.flash_model import Cut
from tests.agreement import boot_campaign

pytest.importorskip("ziglang", reason="ziglang compiles the firmware")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[faults.Case, faults.Case]:
    """An update by delta with real firmware: on the board, and with the same images on the host."""
    folder = tmp_path_factory.mktemp("boot")
    return (
        boot_campaign.board_case(folder / "board", "update"),
        boot_campaign.board_case(folder / "host", "update", HostMcu),
    )


def test_b1_board_and_host_end_alike_after_the_same_operations(cases: tuple[faults.Case, faults.Case]):
    board, host = cases
    assert board.uncut == host.uncut
    mcu = board.mcu
    assert isinstance(mcu, boot_campaign.BoardMcu)
    own = [mcu.board.machine.board.partition(name) for name in ("kept", "blackbox")]
    made = [
        size
        for _, at, size in mcu.board.nvm.operations
        if size != 4 and not any(p.at <= at < p.at + p.size for p in own)
    ]
    # The firmware writes its own records in between; the host counts raising a counter of the HSM.
    assert made == [size for size in host.lengths if size != 4]


def test_b1_b2_cuts_on_the_board(cases: tuple[faults.Case, faults.Case]):
    board, _ = cases
    last = len(board.lengths)
    plan = list(itertools.islice(boot_campaign.before(board), 3, None, 20))
    # Torn: the records of activation, confirmation and counters at the end.
    plan += [
        *([Cut(at, 5 + at % 19)] for at in range(last - 6, last)),
        [Cut(last - 3, 9), Cut(2, 13), Cut(1)],
    ]
    row = faults.campaign(board, iter(plan), "sample")
    assert row.runs == len(plan) > 8
    assert row.violations == 0, row.example


def test_b2_b3_every_byte_of_records_and_torn_pairs_on_the_host(cases: tuple[faults.Case, faults.Case]):
    _, host = cases
    for plan in (boot_campaign.torn(host, 2048), boot_campaign.torn_pairs(host, 60)):
        row = faults.campaign(host, plan, "sample")
        assert row.runs >= 60
        assert row.violations == 0, row.example
