"""Keys at rest, PKCS#11, ceremonies (H2) and the audit log (H4)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ota import audit, image, keystore
from ota.audit import AuditLog
from ota.ceremony import Ceremony
from ota.errors import OtaError, Reason
from ota.repository import Repository, RoleKeys
from ota.signing import Algorithm, PublicKey, SoftwareKey
from ota.testbed import EPOCH_S, Testbed

NOW = int(EPOCH_S)
PEOPLE = {name: SoftwareKey.from_seed(name.encode()) for name in ("alice", "bob", "carol")}


def reason(call: object, *arguments: object, **options: object) -> Reason:
    with pytest.raises(OtaError) as error:
        call(*arguments, **options)  # type: ignore[operator]
    return error.value.reason


# ---- key files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_h5_key_files_are_encrypted_and_round_trip(tmp_path: Path, algorithm: Algorithm) -> None:
    key = SoftwareKey.generate(algorithm)
    path = tmp_path / "k.pem"
    public = keystore.save(path, key, b"correct horse")
    assert b"ENCRYPTED" in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    again = keystore.load(path, b"correct horse")
    keystore.load_public(public).verify(b"m", again.sign(b"m"))
    assert reason(keystore.load, path, b"wrong horse") is Reason.PASSPHRASE
    assert reason(keystore.save, tmp_path / "x.pem", key, b"short") is Reason.PASSPHRASE
    with pytest.raises(FileExistsError):
        keystore.save(path, key, b"correct horse")
    assert key.public.kid.hex() in repr(key)
    assert "Private" not in repr(key)


def test_unencrypted_or_foreign_key_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.pem"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n")
    assert reason(keystore.load, path, b"whatever") is Reason.PASSPHRASE


def test_p256_signatures_are_deterministic() -> None:
    """RFC 6979: a rebuild gives the same bytes."""
    key = SoftwareKey.from_seed(b"d", Algorithm.P256)
    assert key.sign(b"image") == key.sign(b"image")


SOFTHSM = next(
    (
        p
        for p in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
        if Path(p).exists()
    ),
    None,
)


@pytest.mark.skipif(
    SOFTHSM is None or shutil.which("softhsm2-util") is None, reason="needs the Debian package softhsm2"
)
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_pkcs11_token_signs_images_and_ceremonies(
    tmp_path: Path, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pkcs11", reason="needs the python-pkcs11 package")
    assert SOFTHSM is not None
    # The token library reads its configuration once per process, so the work is done in a process of its own.
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(tmp_path / "softhsm.conf")}
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "ota", "--so-pin", "1234", "--pin", "5678"],
        env=environment,
        check=True,
        capture_output=True,
    )
    program = f"""
import sys
from ota import image, keystore
from ota.errors import OtaError
from ota.signing import Algorithm
algorithm = Algorithm({algorithm.value!r})
key = keystore.Pkcs11Key.generate({SOFTHSM!r}, "ota", "root", "5678", algorithm)
again = keystore.Pkcs11Key.open({SOFTHSM!r}, "ota", "root", "5678", algorithm)
assert again.public == key.public
again.public.verify(b"message", again.sign(b"message"))
data = image.build(b"body", version=image.Version(1, 0, 0), key=again, security_counter=1)
image.verify(data, image.Policy(keys=(key.public,)))
for label, pin in (("root", "0000"), ("none", "5678")):
    try:
        keystore.Pkcs11Key.open({SOFTHSM!r}, "ota", label, pin, algorithm).public
    except OtaError as error:
        print(error.reason.name)
"""
    python = Path(os.sys.executable)  # type: ignore[attr-defined]
    done = subprocess.run([python, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]
    assert done.stdout.split() == ["CRYPTO_ENGINE", "KEY_UNKNOWN"]


# ---- audit log --------------------------------------------------------------------------------------------


def filled_log(tmp_path: Path) -> tuple[AuditLog, str]:
    log = AuditLog(tmp_path / "audit.log")
    for i in range(5):
        head = log.append(NOW + i, "alice", f"act {i}", {"n": i})
    return log, head


def test_h4_whole_log_verifies(tmp_path: Path) -> None:
    log, head = filled_log(tmp_path)
    assert [r.seq for r in audit.verify(log.path, head)] == [0, 1, 2, 3, 4]
    assert log.head() == head


def test_h4_every_edit_is_found(tmp_path: Path) -> None:
    """Bytes changed; each line removed, doubled or moved; the end cut off; the clock turned back."""
    log, head = filled_log(tmp_path)
    good = log.path.read_bytes()
    for at in range(0, len(good), 3):
        log.path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert reason(audit.verify, log.path, head) in (Reason.AUDIT_CHAIN, Reason.AUDIT_HEAD), at
    lines = good.splitlines(keepends=True)
    for i in range(5):
        for changed in (lines[:i] + lines[i + 1 :], [*lines[: i + 1], *lines[i:]]):
            log.path.write_bytes(b"".join(changed))
            assert reason(audit.verify, log.path, head) in (Reason.AUDIT_CHAIN, Reason.AUDIT_HEAD)
    log.path.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    assert reason(audit.verify, log.path, head) is Reason.AUDIT_CHAIN
    log.path.write_bytes(b"".join(lines[:-1]))
    assert reason(audit.verify, log.path, head) is Reason.AUDIT_HEAD
    log.path.write_bytes(good)
    assert reason(log.append, NOW - 10_000, "mallory", "late", {}) is Reason.AUDIT_CLOCK


# ---- ceremonies -------------------------------------------------------------------------------------------


def targets_payload(tmp_path: Path) -> bytes:
    """Unsigned targets of a repository whose targets role needs two of three people."""
    roles = {
        name: RoleKeys(tuple(k.public for k in PEOPLE.values()), 2)
        for name in ("root", "targets", "snapshot", "timestamp")
    }
    _, unsigned = Repository.create(tmp_path / "repo", roles, EPOCH_S)
    return unsigned["root"].to_bytes()


def new_ceremony(tmp_path: Path, **options: int) -> Ceremony:
    signers = {name: key.public for name, key in PEOPLE.items()}
    payload = targets_payload(tmp_path)
    return Ceremony.start(tmp_path / "c", payload, "metadata", signers, 2, NOW, **options)


def test_h2_two_of_three_sign_and_the_transcript_shows_it(tmp_path: Path) -> None:
    ceremony = new_ceremony(tmp_path)
    ceremony.sign("alice", PEOPLE["alice"], ceremony.digest, NOW + 60)
    resumed = Ceremony.open(tmp_path / "c")
    resumed.sign("carol", PEOPLE["carol"], ceremony.digest.upper(), NOW + 120)
    result = resumed.finish(NOW + 180)
    repository = Repository(tmp_path / "repo")
    from tuf.api.metadata import Metadata

    repository.commit("root", Metadata.from_bytes(result))
    rows = audit.verify(tmp_path / "c" / "audit.log")
    assert [(r.actor, r.action) for r in rows] == [
        ("ceremony master", "ceremony.start"),
        ("alice", "ceremony.sign"),
        ("carol", "ceremony.sign"),
        ("ceremony master", "ceremony.finish"),
    ]
    assert all(r.detail["digest"] == ceremony.digest for r in rows[1:3])
    assert reason(resumed.finish, NOW + 200) is Reason.CEREMONY_STATE


def test_h2_refusals_are_logged(tmp_path: Path) -> None:
    c = new_ceremony(tmp_path, valid_for_s=3600)
    alice = PEOPLE["alice"]
    assert reason(c.sign, "alice", alice, "00" * 32, NOW) is Reason.DIGEST_NOT_CONFIRMED
    assert reason(c.sign, "dave", alice, c.digest, NOW) is Reason.SIGNER_UNKNOWN
    assert reason(c.sign, "bob", alice, c.digest, NOW) is Reason.SIGNER_UNKNOWN
    c.sign("alice", alice, c.digest, NOW + 1)
    assert reason(c.sign, "alice", alice, c.digest, NOW + 2) is Reason.SIGNER_REPEATED
    assert reason(c.finish, NOW + 3) is Reason.THRESHOLD
    assert reason(c.sign, "bob", PEOPLE["bob"], c.digest, NOW + 86_400) is Reason.CEREMONY_EXPIRED
    assert reason(c.finish, NOW + 86_400) is Reason.CEREMONY_EXPIRED
    refused = [r.detail["reason"] for r in audit.verify(c.audit.path) if r.action == "ceremony.refused"]
    assert len(refused) == 7


def test_h2_same_key_under_two_names_and_exchanged_payload(tmp_path: Path) -> None:
    twice = {"alice": PEOPLE["alice"].public, "alias": PEOPLE["alice"].public}
    payload = targets_payload(tmp_path)
    call = Ceremony.start
    assert reason(call, tmp_path / "d", payload, "metadata", twice, 2, NOW) is Reason.SIGNER_REPEATED
    c = Ceremony.start(tmp_path / "c", payload, "metadata", {"bob": PEOPLE["bob"].public}, 1, NOW)
    changed = json.loads(payload)
    changed["signed"]["version"] = 99
    (c.folder / "payload").write_text(json.dumps(changed))
    assert reason(Ceremony.open, c.folder) is Reason.DIGEST


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_image_ceremony(tmp_path: Path, algorithm: Algorithm) -> None:
    key = SoftwareKey.from_seed(b"release", algorithm)
    unsigned = image.build(b"body", version=image.Version(1, 0, 0), key=None, security_counter=1)
    c = Ceremony.start(tmp_path / "c", unsigned, "image", {"alice": key.public}, 1, NOW)
    c.sign("alice", key, c.digest, NOW)
    image.verify(c.finish(NOW), image.Policy(keys=(key.public,)))


def test_server_keeps_no_private_keys_in_files(bed: Testbed) -> None:
    """H5: nothing the repositories and the server write contains a private key."""
    bed.add_unit("d", bed.releases["1.0.0"].file)
    bed.order("d", "1.1.0")
    secrets = [
        k.private.private_bytes_raw() for k in bed.keys.values() if hasattr(k.private, "private_bytes_raw")
    ]
    for path in bed.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in secrets:
                assert secret not in data
                assert secret.hex().encode() not in data
            assert b"PRIVATE KEY" not in data


def test_public_keys_of_other_kinds_are_refused() -> None:
    assert reason(PublicKey.from_spki, b"\x30\x00") is Reason.ALGORITHM
    assert reason(PublicKey.from_pem, b"nonsense") is Reason.FORMAT
