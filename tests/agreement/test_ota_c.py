"""The update code in C against its specification in Python: codes, parsers, whole sequences, sanitizers.

Samples; the long forms are ``tests/agreement/fuzz.py`` and ``sequences.py``, tables in ``results/ota``. Ids
of the fault cases stand in the names.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bms_emulator.firmware.build import SOURCE_DIR
from bms_emulator.host_mcu import Parsers
from ota import delta, frames, image, limits, signing
from ota.delta import container, patch
from ota.errors import OtaError, Reason
from ota.signing import Algorithm, PublicKey
from tests.agreement import fuzz, sequences

ROOT = Path(__file__).resolve().parents[2]
FORMATS = {
    name: bytes.fromhex(data)
    for name, data in json.loads((ROOT / "tests/ota/vectors/formats.json").read_text()).items()
}


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> fuzz.Fuzzer:
    return fuzz.Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> sequences.World:
    return sequences.make_world(tmp_path_factory.mktemp("world"))


# ---- one table on both sides ------------------------------------------------------------------------------


def test_reason_codes_are_those_of_the_table() -> None:
    rows = re.findall(r"X\((\w+), (\d+)\)", (SOURCE_DIR / "update/reason.h").read_text())
    assert len(rows) > 50
    assert {name: int(number) for name, number in rows} == {name: int(Reason[name]) for name, _ in rows}
    boot = re.findall(r"REASON_(\w+) = (\d+)", (SOURCE_DIR / "boot/image.h").read_text())
    assert {name: int(number) for name, number in boot} == {name: int(Reason[name]) for name, _ in boot}


def test_bounds_are_those_of_limits() -> None:
    text = "".join(
        (SOURCE_DIR / "update" / n).read_text() for n in ("manifest.h", "frames.h", "cbor.h", "container.h")
    )
    values = dict(re.findall(r"#define (\w+) (\d+)u", text))
    assert int(values["MANIFEST_MAX"]) == limits.MANIFEST_MAX
    assert int(values["FRAME_PAYLOAD_MAX"]) == limits.FRAME_PAYLOAD_MAX
    assert int(values["CBOR_DEPTH_MAX"]) == limits.CBOR_DEPTH_MAX
    assert int(values["BLOCK"]) == limits.BLOCK_SIZE
    assert int(values["STATUS_SIZE"]) == frames._STATUS.size
    conditions = dict(re.findall(r"#define CONDITION_(\w+) \(1u << (\d)\)", text))
    assert {n: 1 << int(b) for n, b in conditions.items()} == {
        n: getattr(frames, f"CONDITION_{n}") for n in conditions
    }


# ---- parsers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", fuzz.Fuzzer.KINDS)
def test_a7_c2_parsers_give_the_verdict_of_the_specification(fuzzer: fuzz.Fuzzer, kind: str) -> None:
    for _ in range(400):
        python, c, data = fuzzer.one(kind)
        assert python == c, data.hex()


def test_c2_every_truncation_and_a_bomb(fuzzer: fuzz.Fuzzer) -> None:
    """Every prefix of a record, and a record that says it makes a gigabyte: refused, nothing beyond it."""
    record, size = fuzzer.records[0]
    for n in range(1, len(record)):
        said, _ = fuzzer.c.patch(fuzzer.old, record[:n], size, piece=97)
        assert said == fuzz.reason(patch.decode_block, fuzzer.old, record[:n], size)
        assert said != Reason.OK
    bomb = bytes([4]) + patch.pack_size(10**9) + record[3:]
    assert fuzzer.c.patch(fuzzer.old, bomb, size)[0] == Reason.DELTA_OUTPUT
    longest = delta.heatshrink.compress(bytes(200_000), 11, 9)
    bomb = bytes([4]) + patch.pack_size(size) + bytes([(11 - 4) << 4 | (9 - 3)]) + longest
    assert fuzzer.c.patch(fuzzer.old, bomb, size)[0] == Reason.DELTA_OUTPUT


def test_c7_blocks_made_by_detools(fuzzer: fuzz.Fuzzer) -> None:
    """A foreign encoder's patch of one block is applied in C."""
    import io

    import detools

    target = fuzzer.new[4096:8192]
    for compression in ("heatshrink", "none"):
        made = io.BytesIO()
        detools.create_patch(io.BytesIO(fuzzer.old), io.BytesIO(target), made, compression=compression)
        reason, block = fuzzer.c.patch(fuzzer.old, made.getvalue(), len(target), piece=300)
        assert (reason, block) == (0, target)


def test_golden_vectors_are_accepted(fuzzer: fuzz.Fuzzer) -> None:
    from dataclasses import replace

    keys = [PublicKey.from_spki(FORMATS[f"public key {a} spki"]) for a in ("ed25519", "p256")]
    parsed = image.parse(FORMATS["image 1.0.0 ed25519"])
    assert parsed.vendor_id is not None
    assert parsed.class_id is not None
    config = replace(
        fuzzer.config,
        vendor_id=parsed.vendor_id,
        class_id=parsed.class_id,
        hardware_revision=2,
        image_keys=tuple(keys),
        manifest_keys=tuple(keys),
    )
    c = Parsers(config)
    assert c.manifest(FORMATS["manifest ed25519"])[0] == 0
    assert c.manifest(FORMATS["manifest p256"])[0] == 0
    for name in ("image 1.0.0 ed25519", "image 1.1.0 ed25519", "image p256"):
        assert c.image(FORMATS[name]) == 0, name
    assert c.image(FORMATS["parameter set"], bootable=False) == 0
    for name, data in FORMATS.items():
        if name.startswith("frame "):
            assert c.frame(data) == 0, name
    made = FORMATS["delta 1.0.0 to 1.1.0"]
    assert c.container(made) == 0
    old, new = FORMATS["image 1.0.0 ed25519"], FORMATS["image 1.1.0 ed25519"]
    for i, (at, size) in enumerate(container.read(made).spans):
        want = new[4096 * i : 4096 * (i + 1)]
        if container.read(made).kinds[i] == container.KIND_PATCH:
            assert c.patch(old, made[at : at + size], len(want)) == (0, want)


def test_a13_signature_vectors_in_the_crypto_engine() -> None:
    """The verifier behind hal_verify gives the one permitted verdict on every edge case."""
    from bms_emulator.devices.hsm import verify

    rows = json.loads((ROOT / "tests/ota/vectors/signatures.json").read_text())
    seen = 0
    for row in rows:
        algorithm = Algorithm(row["algorithm"])
        message, signature = bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
        prefix = signing.ED25519_SPKI_PREFIX if algorithm is Algorithm.ED25519 else signing.P256_SPKI_PREFIX
        spki = prefix + bytes.fromhex(row["key"])
        try:
            PublicKey.from_spki(spki)
        except OtaError:
            continue  # such a key is never provisioned
        if algorithm is Algorithm.P256:
            try:  # the engine takes r and s; the strict DER form is boot/image.c's
                signature = signing.der_to_raw(signature)
            except OtaError:
                continue
        seen += 1
        number = 1 if algorithm is Algorithm.ED25519 else 2
        assert verify(spki, number, message, signature) is row["valid"], row["comment"]
    assert seen > 20


# ---- the agent --------------------------------------------------------------------------------------------


def test_e9_i1_i4_random_sequences_end_alike(world: sequences.World) -> None:
    """Updates interrupted, damaged, cancelled, repeated: same answers, same flash after every event."""
    for seed in range(24):
        found, _ = sequences.play(world, seed)
        assert not found, found


def test_sequences_reach_what_they_are_for(world: sequences.World) -> None:
    """The comparison is of use only if updates get through, are refused, and are cut."""
    total = sum((sequences.play(world, seed, 40)[1] for seed in range(100, 106)), start=sequences.Counter())
    for name in ("ANSWER 04 OK", "PROGRESS OK", "STATUS TEST OK", "STATUS IDLE OK"):
        assert total[name] > 0, total


def test_a7_b15_garbage_frames_never_touch_what_runs(fuzzer: fuzz.Fuzzer) -> None:
    """Sample of ``fuzz.py --only mailbox``: whole, damaged and re-checksummed frames into a live agent."""
    n, seen = fuzzer.mailbox(2500)
    assert n == 2500
    assert len(seen) > 8


# ---- sanitizers -------------------------------------------------------------------------------------------


def _sanitized(code: list[str], library: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, *code], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.fixture(scope="module")
def asan() -> str:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc with its sanitizer library")
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("gcc without its sanitizer library")
    return found


def test_c2_corpora_under_the_sanitizers(asan: str) -> None:
    done = _sanitized(
        ["tests/agreement/fuzz.py", "--number", "250", "--variant", "asan", "--seed", "11"], asan
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mailbox,asan,250" in done.stdout


def test_the_sanitizer_can_fail(asan: str) -> None:
    """A block that is larger than its buffer must end the process."""
    code = (
        "import ctypes, random, tempfile; from pathlib import Path; from tests.agreement.fuzz import Fuzzer;"
        "f = Fuzzer(Path(tempfile.mkdtemp()), 1, 'asan'); r, n = f.records[0];"
        "b = ctypes.create_string_buffer(n // 2);"
        "f.c.mcu.flash.data[f.c.mcu.slots[0]:f.c.mcu.slots[0] + len(f.old)] = f.old;"
        "f.c._c.host_patch(f.c.mcu.pointer, r, len(r), len(f.old), n, 64, ctypes.byref(b)); print('went on')"
    )
    done = _sanitized(["-c", code], asan)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
    assert "went on" not in done.stdout


def test_undefined_behaviour_traps_over_the_corpora(tmp_path: Path) -> None:
    """The ubsan variant (ziglang) over a sample, in this process: a trap would end it."""
    fuzzer = fuzz.Fuzzer(tmp_path, 5, "ubsan")
    rng = random.Random(5)
    for _ in range(300):
        python, c, data = fuzzer.one(rng.choice(fuzz.Fuzzer.KINDS))
        assert python == c, data.hex()
    fuzzer.mailbox(300)
