"""Metadata attacks A3–A12, A15 on the Uptane verification, and the same verdicts as python-tuf's Updater."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from ota import trust
from ota.errors import OtaError, Reason
from ota.office import HARDWARE
from ota.repository import Assignment, Director, Repository, RoleKeys, TufSigner
from ota.signing import Algorithm, SoftwareKey
from ota.testbed import EPOCH_S, Testbed
from ota.trust import Ecu, SecureClock, TrustStore, Verdict, refresh, verify_bundles

from .conftest import make_bed

ECU = Ecu("ecu-d", HARDWARE)
DAY = 86_400


class World:
    """A repository pair with one order for one device."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.store = TrustStore(
            {"root.json": (bed.repository.metadata_dir / "1.root.json").read_bytes()},
            {"root.json": bed.director.roots[0]},
        )
        self.assign("1.1.0")

    def assignment(self, name: str) -> Assignment:
        full = self.bed.releases[name].name
        target = self.bed.repository.load(self.bed.family).signed.targets[full]
        return Assignment(full, ECU.serial, HARDWARE, target)

    def assign(self, *names: str, now_s: float = EPOCH_S) -> None:
        self.bed.director.assign("d", [self.assignment(n) for n in names], now_s)

    def bundles(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        image_root, director_root = self.store.root_versions()
        return self.bed.repository.bundle(image_root), self.bed.director.bundle("d", director_root)

    def verdict(self, now_s: float = EPOCH_S + 60, ecu: Ecu = ECU) -> Verdict:
        return verify_bundles(self.store, *self.bundles(), [ecu], now_s)

    def accept(self) -> None:
        got = self.verdict()
        assert got.error is None, got.error
        self.store = got.store

    def refused(self, **options: object) -> Reason:
        before = self.store.versions()
        got = self.verdict(**options)  # type: ignore[arg-type]
        assert got.error is not None
        assert got.plan == ()
        for name, version in got.store.versions().items():
            assert version >= before.get(name, 0), name  # I3
        return got.error.reason


@pytest.fixture
def world(bed: Testbed) -> World:
    return World(bed)


def test_good_order_is_planned(world: World) -> None:
    got = world.verdict()
    assert got.error is None
    (plan,) = got.plan
    assert plan.digest == world.bed.releases["1.1.0"].digest
    assert [d.base_digest for d in plan.deltas] == [world.bed.releases["1.0.0"].digest]
    world.store = got.store
    assert world.verdict().plan == got.plan  # again, with everything already stored


def test_a4_freeze_is_refused_after_expiry(world: World) -> None:
    assert world.refused(now_s=EPOCH_S + 3 * DAY) is Reason.EXPIRED
    world.accept()
    assert world.refused(now_s=EPOCH_S + 3 * DAY) is Reason.EXPIRED
    world.bed.repository.refresh_timestamp([world.bed.keys["online"]], EPOCH_S + 3 * DAY)
    world.assign("1.1.0", now_s=EPOCH_S + 3 * DAY)
    assert world.verdict(EPOCH_S + 3 * DAY).error is None


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "family"])
def test_a5_rollback_of_each_role(world: World, role: str) -> None:
    """Old, correctly signed metadata after newer has been seen."""
    old_image, old_director = world.bundles()
    bed = world.bed
    bed.release("1.2.0", bed.firmware("1.2.0", b"new" * 500))
    world.assign("1.2.0")
    world.accept()
    if role == "timestamp":
        image, director = old_image, world.bundles()[1]
    else:
        # re-sign a newer timestamp (and snapshot) that points back: an attacker with the online key
        online = [bed.keys["online"]]
        if role == "snapshot":
            stamp = bed.repository.edit("timestamp", EPOCH_S)
            stamp.signed.snapshot_meta.version = 1
            stamp.signed.snapshot_meta.length = stamp.signed.snapshot_meta.hashes = None
            bed.repository.commit("timestamp", stamp, online)
        else:
            name = "targets.json" if role == "targets" else f"{bed.family}.json"
            snap = bed.repository.edit("snapshot", EPOCH_S)
            snap.signed.meta[name].version -= 1
            snap.signed.meta[name].length = snap.signed.meta[name].hashes = None
            if snap.signed.meta[name].version == 0:
                snap.signed.meta.pop(name)
            bed.repository.commit("snapshot", snap, online)
            stamp = bed.repository.edit("timestamp", EPOCH_S)
            stamp.signed.snapshot_meta.version = snap.signed.version
            stamp.signed.snapshot_meta.length = stamp.signed.snapshot_meta.hashes = None
            bed.repository.commit("timestamp", stamp, online)
        image, director = _bundle_of(bed.repository), world.bundles()[1]
    before = world.store.versions()
    got = verify_bundles(world.store, image, director, [ECU], EPOCH_S + 60)
    assert got.error is not None
    assert got.error.reason in (Reason.ROLLBACK, Reason.MIX_AND_MATCH)
    assert all(got.store.versions()[k] >= v for k, v in before.items())
    # and the director's side
    got = verify_bundles(world.store, world.bundles()[0], old_director, [ECU], EPOCH_S + 60)
    assert got.error is not None
    assert got.error.reason is Reason.ROLLBACK


def _bundle_of(repository: Repository) -> dict[str, bytes]:
    """Every metadata file: what a hostile server could serve."""
    return {p.name: p.read_bytes() for p in repository.metadata_dir.glob("*.json")}


def test_a5_image_rollback_by_release_counter(world: World) -> None:
    installed = replace(ECU, release_counter=99)
    assert world.refused(ecu=installed) is Reason.VERSION_LOW


def test_a6_mix_and_match(world: World) -> None:
    """Targets of another snapshot: hash in the snapshot does not fit."""
    image, director = world.bundles()
    name = next(n for n in image if "family" in n)
    changed = Metadata.from_bytes(image[name])
    changed.signed.targets.pop(world.bed.releases["1.0.0"].name)
    changed.signatures.clear()
    changed.sign(TufSigner(world.bed.keys["family"]))
    got = verify_bundles(world.store, {**image, name: changed.to_bytes()}, director, [ECU], EPOCH_S)
    assert got.error is not None
    assert got.error.reason is Reason.MIX_AND_MATCH


def test_a7_oversize_and_deep_json(world: World) -> None:
    image, director = world.bundles()
    for data, reason in [
        (b"[" * 100_000, Reason.NESTING),
        (b'{"signed":' + b" " * 300_000 + b"}", Reason.OVERSIZE),
        (b'{"signed": 1', Reason.FORMAT),
        (b"\xff\xfe{}", Reason.FORMAT),
        (b"", Reason.FORMAT),
    ]:
        got = verify_bundles(world.store, {**image, "timestamp.json": data}, director, [ECU], EPOCH_S)
        assert got.error is not None
        assert got.error.reason is reason
    many = {f"{i}.x.json": b" " * 200_000 for i in range(4)}
    got = verify_bundles(world.store, {**image, **many}, director, [ECU], EPOCH_S)
    assert got.error is not None
    assert got.error.reason is Reason.OVERSIZE


def test_a8_stolen_director_key_installs_nothing(world: World) -> None:
    """The attacker can sign any director metadata; the image repository does not agree."""
    bed = world.bed
    good = world.assignment("1.1.0")

    def order(name: str, **changes: object) -> Reason:
        custom = json.loads(json.dumps(good.target.custom))
        length = changes.pop("length", good.target.length)
        hashes = changes.pop("hashes", good.target.hashes)
        serial = changes.pop("serial", ECU.serial)
        custom.update(changes)
        target = type(good.target)(length, hashes, name, {"custom": custom})  # type: ignore[arg-type]
        bed.director.assign("d", [Assignment(name, str(serial), HARDWARE, target)], EPOCH_S)
        return world.refused()

    assert order(f"{HARDWARE}/evil") is Reason.NOT_IN_IMAGE_REPOSITORY
    assert order(good.name, length=good.target.length + 1) is Reason.DIRECTOR_DISAGREES
    assert order(good.name, hashes={"sha256": "00" * 32}) is Reason.DIRECTOR_DISAGREES
    assert order(good.name, hardwareIds=["bms-b"]) is Reason.DIRECTOR_DISAGREES
    assert order(good.name, releaseCounter=77) is Reason.DIRECTOR_DISAGREES
    assert order(good.name, securityCounter=77) is Reason.DIRECTOR_DISAGREES
    assert order(good.name, merkleRoot="11" * 32) is Reason.DIRECTOR_DISAGREES
    assert order(good.name, kind="parameters") is Reason.DIRECTOR_DISAGREES
    assert order(good.name, serial="ecu-of-another") is Reason.WRONG_DEVICE
    world.assign("1.1.0", "1.0.0")
    assert world.refused() is Reason.DUPLICATE_FIELD
    world.assign("1.1.0")
    assert world.refused(ecu=Ecu(ECU.serial, "bms-b")) is Reason.HARDWARE


def test_a8_director_may_not_delegate(world: World) -> None:
    bed = world.bed
    bundle = dict(world.bundles()[1])
    name = next(n for n in bundle if n.endswith("targets.json"))
    targets = Metadata.from_bytes(bundle[name])
    targets.signed.delegations = bed.repository.load("targets").signed.delegations
    targets.signatures.clear()
    signer = TufSigner(bed.keys["online"])
    targets.sign(signer)
    bundle[name] = targets.to_bytes()
    from ota.repository import _meta_file

    snap_name = next(n for n in bundle if n.endswith("snapshot.json"))
    snap = Metadata.from_bytes(bundle[snap_name])
    snap.signed.meta["targets.json"] = _meta_file(1, bundle[name])
    snap.sign(signer)
    bundle[snap_name] = snap.to_bytes()
    stamp = Metadata.from_bytes(bundle["timestamp.json"])
    stamp.signed.snapshot_meta = _meta_file(1, bundle[snap_name])
    stamp.sign(signer)
    bundle["timestamp.json"] = stamp.to_bytes()
    got = verify_bundles(world.store, world.bundles()[0], bundle, [ECU], EPOCH_S)
    assert got.error is not None
    assert got.error.reason is Reason.DIRECTOR_DELEGATES


def test_a9_below_threshold(world: World) -> None:
    """One of two; the same signature twice; one key under two ids."""
    bed = world.bed
    one = bed.keys["targets1"]
    metadata = bed.repository.edit("targets", EPOCH_S)
    for signers in ([one], [one, one]):
        with pytest.raises(OtaError) as error:
            bed.repository.commit("targets", metadata, signers)
        assert error.value.reason is Reason.THRESHOLD
    # forced past the repository's own check: the client refuses too
    metadata.signatures.clear()
    metadata.sign(TufSigner(one))
    first = next(iter(metadata.signatures.values()))
    alias = type(first)("ab" * 32, first.signature)
    metadata.signatures["ab" * 32] = alias
    (bed.repository.metadata_dir / f"{metadata.signed.version}.targets.json").write_bytes(metadata.to_bytes())
    bed.publish()
    assert world.refused() is Reason.THRESHOLD


def test_a9_one_key_under_two_ids_in_the_role(tmp_path: Path) -> None:
    with pytest.raises(OtaError) as error:
        RoleKeys((SoftwareKey.from_seed(b"a").public, SoftwareKey.from_seed(b"a").public), 2)
    assert error.value.reason is Reason.THRESHOLD


def test_a10_root_rotations_in_a_row_and_new_threshold(world: World) -> None:
    """Offline from root 1 to root 6; keys, threshold and the online key change on the way."""
    bed = world.bed
    world.accept()
    keys = [bed.keys["root1"], bed.keys["root2"], bed.keys["root3"]]
    for version in range(2, 6):
        fresh = SoftwareKey.from_seed(f"root {version}".encode(), list(Algorithm)[version % 2])
        new = [*keys[1:], fresh]
        row = RoleKeys(tuple(k.public for k in new), 3 if version == 5 else 2)
        bed.repository.rotate({"root": row}, [*keys, fresh], EPOCH_S)
        keys = new
    online = SoftwareKey.from_seed(b"new online")
    role = RoleKeys((online.public,))
    bed.repository.rotate({"snapshot": role, "timestamp": role}, keys, EPOCH_S)
    bed.repository.publish([online], [online], EPOCH_S)
    assert bed.repository.latest("root") == 6
    got = world.verdict()
    assert got.error is None, got.error
    assert got.store.versions()["image/root.json"] == 6


def test_a10_fast_forward_is_recovered_by_rotation(world: World) -> None:
    """An attacker with the online key has raised the versions to the sky; new keys start again."""
    bed = world.bed
    stamp = bed.repository.edit("timestamp", EPOCH_S)
    stamp.signed.version = 2**31
    bed.repository.commit("timestamp", stamp, [bed.keys["online"]])
    world.accept()
    assert world.store.versions()["image/timestamp.json"] == 2**31
    fresh = SoftwareKey.from_seed(b"fresh online")
    role = RoleKeys((fresh.public,))
    bed.repository.rotate(
        {"snapshot": role, "timestamp": role}, [bed.keys["root1"], bed.keys["root2"]], EPOCH_S
    )
    (bed.repository.metadata_dir / "timestamp.json").unlink()
    bed.repository.publish([fresh], [fresh], EPOCH_S)
    got = world.verdict()
    assert got.error is None, got.error
    assert got.store.versions()["image/timestamp.json"] == 1


@pytest.mark.parametrize("attack", ["skip", "only new keys", "only old keys", "one old signature"])
def test_a10_bad_root_chains(world: World, attack: str) -> None:
    bed = world.bed
    old = [bed.keys["root1"], bed.keys["root2"]]
    new = [SoftwareKey.from_seed(f"n{i}".encode()) for i in range(2)]
    metadata = bed.repository.edit("root", EPOCH_S)
    root = metadata.signed
    for keyid in list(root.roles["root"].keyids):
        root.revoke_key(keyid, "root")
    for key in new:
        root.add_key(TufSigner(key).public_key, "root")
    if attack == "skip":
        root.version = 3
    signers = {"skip": old + new, "only new keys": new, "only old keys": old}.get(attack, [old[0], *new])
    for key in signers:
        metadata.sign(TufSigner(key), append=True)
    image, director = world.bundles()
    image = {**image, "2.root.json": metadata.to_bytes()}
    got = verify_bundles(world.store, image, director, [ECU], EPOCH_S)
    assert got.error is not None
    assert got.error.reason is Reason.ROOT_CHAIN
    assert got.store.image["root.json"] == world.store.image["root.json"]


def test_a12_every_byte_of_the_metadata(world: World) -> None:
    """No changed file may lead to another plan. Bytes outside the signed part may change without effect."""
    image, director = world.bundles()
    plan = world.verdict().plan
    accepted = 0
    files = [("director", n) for n in director] + [("image", n) for n in image if "snapshot" not in n]
    for repo, name in files:
        source = director if repo == "director" else image
        data = source[name]
        # every byte of the small ones, every seventh of the rest: the whole set takes minutes (ota fuzz)
        for at in range(0, len(data), 5 if len(data) < 900 else 37):
            mutant = {**source, name: data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :]}
            pair = (image, mutant) if repo == "director" else (mutant, director)
            got = verify_bundles(world.store, *pair, [ECU], EPOCH_S + 60)
            if got.error is None:
                assert got.plan == plan, (name, at)
                accepted += 1
    assert accepted < 60  # white space and unknown fields outside "signed"


# ---- the same verdicts as python-tuf's own client ----------------------------------------------------------


class _Files(FetcherInterface):
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[1]
        if name not in self.files:
            raise DownloadHTTPError(name, 404)
        yield self.files[name]


def _updater_accepts(folder: Path, stored: dict[str, bytes], files: dict[str, bytes]) -> bool:
    folder.mkdir(parents=True)
    for name, data in stored.items():
        (folder / name).write_bytes(data)
    try:
        Updater(str(folder), "http://x/", fetcher=_Files(files), bootstrap=None).refresh()
    except (RepositoryError, OSError, ValueError, DownloadHTTPError):
        return False
    return True


def test_same_verdict_as_the_updater(tmp_path: Path) -> None:
    """Mutated, missing, old and re-signed files through both; the clock of the Updater is the real one."""
    import random
    import time

    from ota import testbed

    rng = random.Random(3)
    real = time.time()
    original = testbed.EPOCH_S
    testbed.EPOCH_S = real
    try:
        bed = make_bed(tmp_path / "w")
    finally:
        testbed.EPOCH_S = original
    repository = bed.repository
    root1 = {"root.json": (repository.metadata_dir / "1.root.json").read_bytes()}
    first = repository.bundle(1)
    stored = refresh(root1, first, real)
    assert stored.error is None
    bed.release("1.2.0", bed.firmware("1.2.0", b"x" * 3000))
    repository.rotate(
        {"root": RoleKeys((bed.keys["root1"].public, bed.keys["root2"].public), 2)},
        [bed.keys["root1"], bed.keys["root2"]],
        real,
    )
    second = repository.bundle(1)
    cases: list[tuple[dict[str, bytes], dict[str, bytes]]] = [
        (root1, first),
        (root1, second),
        (stored.stored, second),
        (refresh(root1, second, real).stored, first),
    ]
    names = sorted(second)
    for n in range(60):
        files = dict(second)
        name = rng.choice(names)
        data = files[name]
        kind = n % 3
        if kind == 0:
            at = rng.randrange(len(data))
            files[name] = data[:at] + bytes([data[at] ^ 1 << rng.randrange(7)]) + data[at + 1 :]
        elif kind == 1:
            files.pop(name)
        else:
            files[name] = first.get(name, data[: rng.randrange(len(data))])
        cases.append(((root1, stored.stored)[n % 2], files))
    verdicts = []
    for n, (have, files) in enumerate(cases):
        ours = refresh(have, files, real).error is None
        kept = {
            k: v
            for k, v in have.items()
            if k in ("root.json", "timestamp.json", "snapshot.json", "targets.json")
        }
        theirs = _updater_accepts(tmp_path / f"u{n}", kept, files)
        assert ours == theirs, n
        verdicts.append(ours)
    assert 5 < sum(verdicts) < len(verdicts) - 5  # both kinds occur


# ---- time --------------------------------------------------------------------------------------------------


def test_a15_clock_attacks() -> None:
    key = SoftwareKey.from_seed(b"time")
    keys = [key.public]
    nonce = bytes(range(16))
    clock = SecureClock().learn(trust.sign_time(1000, nonce, key), nonce, keys, host_s=50.0)
    assert clock.now(60.0) == 1010.0
    assert clock.now(None) == 1000.0  # no clock: the last secure time
    assert SecureClock(1000.0).now(0.0) == 1000.0  # 1970
    ten_years = 10 * 365 * DAY
    ahead = SecureClock(1000.0)
    assert ahead.now(ten_years) == ten_years  # believed until a signed time comes, but not stored
    assert ahead.floor_s == 1000.0
    healed = ahead.learn(trust.sign_time(2000, nonce, key), nonce, keys, host_s=ten_years)
    assert healed.now(ten_years + 5) == 2005.0
    for data, used, reason in [
        (trust.sign_time(999, nonce, key), nonce, Reason.ROLLBACK),
        (trust.sign_time(3000, nonce, key), bytes(16), Reason.REPLAY),
        (trust.sign_time(3000, nonce, SoftwareKey.from_seed(b"x")), nonce, Reason.KEY_UNKNOWN),
        (b"\x00", nonce, Reason.FORMAT),
    ]:
        with pytest.raises(OtaError) as error:
            clock.learn(data, used, keys, 0.0)
        assert error.value.reason is reason


def test_director_root_rotation(world: World) -> None:
    bed = world.bed
    world.accept()
    fresh = SoftwareKey.from_seed(b"director online 2")
    metadata = Metadata.from_bytes(bed.director.roots[0])
    metadata.signatures.clear()
    metadata.signed.version = 2
    for role in ("targets", "snapshot", "timestamp"):
        for keyid in list(metadata.signed.roles[role].keyids):
            metadata.signed.revoke_key(keyid, role)
        metadata.signed.add_key(TufSigner(fresh).public_key, role)
    metadata.sign(TufSigner(bed.keys["director-root"]))
    bed.director.add_root(metadata, fresh)
    world.assign("1.1.0")
    got = world.verdict()
    assert got.error is None, got.error
    with pytest.raises(OtaError) as error:
        Director(metadata, fresh).bundle("nobody", 1)
    assert error.value.reason is Reason.NOT_FOUND
