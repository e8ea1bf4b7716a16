"""Power cuts on the controller, model and C: B1–B4, B6, B10, C3, D1. The full campaign is ``ota faults``."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from bms_emulator.host_mcu import HostMcu
from ota import faults, frames, image, limits
from ota.errors import Reason
from ota.flash_model import Cut
from ota.invariants import Watch
from ota.mcu_model import Counters, Journal, Mcu


def _cases(factory: pytest.TempPathFactory, controller: Any) -> dict[str, faults.Case]:
    folder = factory.mktemp("cuts")
    return {flow: faults.make_case(folder / flow, flow, controller=controller) for flow in faults.FLOWS}


@pytest.fixture(scope="module")
def model_cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, faults.Case]:
    return _cases(tmp_path_factory, Mcu)


@pytest.fixture(scope="module", params=[Mcu, HostMcu], ids=["model", "c"])
def cases(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, faults.Case]:
    return _cases(tmp_path_factory, request.param)


@pytest.mark.parametrize("flow", faults.FLOWS)
def test_b1_b4_b10_c3_d1_cut_before_every_operation(cases: dict[str, faults.Case], flow: str) -> None:
    """Download, upgrade, confirmation, counters, revert, parameters: all of them, between operations."""
    case = cases[flow]
    for at in range(len(case.lengths)):
        assert faults.run_cuts(case, [Cut(at)]) == [], f"{flow}, before operation {at}"


@pytest.mark.parametrize("flow", ["revert", "set"])
def test_b2_torn_operations(cases: dict[str, faults.Case], flow: str) -> None:
    """Inside every operation; records at every ninth byte here, at every byte in ``ota faults``."""
    row = faults.campaign(cases[flow], faults.singles(cases[flow], 1, 9), "torn")
    assert row.violations == 0, row.example


def test_b3_pairs_and_fives_sampled(cases: dict[str, faults.Case]) -> None:
    case = cases["set"]
    for plan, kind in ((faults.pairs(case, 5), "pairs"), (faults.quintuples(case, 25, seed=1), "fives")):
        row = faults.campaign(case, plan, kind)
        assert row.violations == 0, row.example


def test_b3_three_cuts_while_unconfirmed_do_not_condemn_the_image(cases: dict[str, faults.Case]) -> None:
    """Found by ``ota faults --full``: lost power used up the boots and blacklisted a good set."""
    case = cases["parameters"]
    cuts = [Cut(9), Cut(6, 880), Cut(2, 1330), Cut(3), Cut(9, 1597)]
    assert faults.run_cuts(case, cuts) == []


# ---- the checker itself must be able to fail ---------------------------------------------------------------


def _run_all(case: faults.Case) -> set[str]:
    return {v.invariant for at in range(len(case.lengths)) for v in faults.run_cuts(case, [Cut(at)])}


@pytest.mark.parametrize("verifying", [True, False])
def test_checker_finds_a_boot_without_verification(
    model_cases: dict[str, faults.Case], monkeypatch: pytest.MonkeyPatch, verifying: bool
) -> None:
    """A bit flips in the staged slot; a ROM that does not verify runs it, and the checker sees it."""
    case = model_cases["full"]
    case.reset()
    for frame in frames.pack_manifest(case.signed):
        case.mcu.receive(frame)
    faults._feed(case.mcu, 0, case.containers[0], 0)
    case.mcu.flash.data[case.mcu.slots[1] + 1000] ^= 1
    if not verifying:
        monkeypatch.setattr(Mcu, "_verify_staged", lambda self, image_id, component: None)
        monkeypatch.setattr(image, "verify_integrity", lambda parsed: None)
        monkeypatch.setattr(image, "verify_signature", lambda parsed, keys: keys[0])
    faults.talk(case.mcu, frames.pack(frames.ACTIVATE, hashlib.sha256(case.signed).digest()[:8]))
    watch = Watch(case.allowed)
    watch.boots(case.mcu.boots)
    assert bool(watch.violations) is not verifying


def test_checker_finds_a_counter_raised_too_early(
    model_cases: dict[str, faults.Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = model_cases["revert"]
    original = Mcu._rom

    def early(self: Mcu, by_image: bool) -> bool:
        row = self.journal()
        if row is not None and row.state == 2:
            have = self.counters()
            self._put_counters(Counters(have.sequence + 1, 2, have.parameters, have.manifest))
        return original(self, by_image)

    monkeypatch.setattr(Mcu, "_rom", early)
    assert "I3" in _run_all(case)


def test_checker_finds_a_journal_with_one_copy(
    model_cases: dict[str, faults.Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erase, then write, in the same place: a cut in between loses what ran and how often it was tried."""
    case = model_cases["revert"]
    original = Mcu._put

    def single(self: Mcu, copies: tuple[int, int], record: bytes, sequence: int) -> None:
        original(self, (copies[0], copies[0]), record, sequence)
        if self.flash.read(copies[1], 4) != b"\xff" * 4:
            self.flash.erase(copies[1])

    monkeypatch.setattr(Mcu, "_put", single)
    assert _run_all(case)


# ---- journal ----------------------------------------------------------------------------------------------


def test_b6_every_combination_of_the_two_records(cases: dict[str, faults.Case]) -> None:
    """Erased, damaged, equal, different, wrapped: the newest valid one, and always something boots."""
    case = cases["update"]
    mcu = case.mcu
    old = Journal(7, 0, 0, 0, 0, 1, 0, 0, bytes(8))

    def record(sequence: int) -> bytes:
        return Journal(sequence, 0, 0, 0, 0, 1, 0, int(Reason.OK), bytes(8)).pack()

    blank = b"\xff" * len(old.pack())
    torn = record(9)[:20] + blank[20:]
    contents = {
        "erased": blank,
        "torn": torn,
        "flipped": bytes([record(9)[0] ^ 1]) + record(9)[1:],
        "5": record(5),
        "6": record(6),
        "wrapped": record(2**32 - 1),
        "zero": record(0),
    }
    expected = {
        ("5", "6"): 6,
        ("6", "5"): 6,
        ("wrapped", "zero"): 0,
        ("zero", "wrapped"): 0,
        ("torn", "5"): 5,
    }
    for first, a in contents.items():
        for second, b in contents.items():
            case.reset()
            for at, data in zip(mcu.journal_copies, (a, b), strict=True):
                mcu.flash.erase(at)
                mcu.flash.program(at, data)
            row = mcu.journal()
            if (first, second) in expected:
                assert row is not None
                assert row.sequence == expected[first, second]
            assert mcu.power_on(), (first, second)


def test_i6_wear_is_bounded(cases: dict[str, faults.Case]) -> None:
    """Erases of one sector in one uninterrupted update."""
    case = cases["update"]
    case.reset()
    before = list(case.mcu.flash.erases)
    faults.drive(case.mcu, case.signed, case.containers)
    worst = max(b - a for a, b in zip(before, case.mcu.flash.erases, strict=True))
    assert worst <= 2


def test_b9_bounded_number_of_boots(cases: dict[str, faults.Case]) -> None:
    case = cases["revert"]
    case.reset()
    faults.drive(case.mcu, case.signed, case.containers)
    new = case.mcu.flash  # the crashing image ran at most the permitted times
    digests = [b.firmware_digest for b in case.mcu.boots]
    assert digests.count(digests[0]) <= limits.BOOT_ATTEMPTS_MAX
    assert new.operations < 60
