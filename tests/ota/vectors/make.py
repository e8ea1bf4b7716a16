"""Makes the golden vectors in this folder: ``python tests/ota/vectors/make.py``.

formats.json      one example of every byte format, for the C side to be written against
signatures.json   signature edge cases in the manner of Wycheproof, with the verdict every verifier must give

The edge cases are computed here with textbook curve arithmetic on integers, independent of the crypto library
under test. Valid ones at the top are the published examples of RFC 8032 §7.1 and RFC 6979 §A.2.5.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# ---- Ed25519 on integers (RFC 8032 §5.1) -------------------------------------------------------------------
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)  # noqa: E741


def ed_x(y: int, sign: int) -> int | None:
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * I % P
    if (x * x - x2) % P:
        return None
    return P - x if x & 1 != sign else x


BASE = (ed_x(4 * pow(5, P - 2, P) % P, 0), 4 * pow(5, P - 2, P) % P)


def ed_add(a: Any, b: Any) -> Any:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, P - 2, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, P - 2, P) % P,
    )


def ed_mul(n: int, point: Any) -> Any:
    out = (0, 1)
    while n:
        if n & 1:
            out = ed_add(out, point)
        point = ed_add(point, point)
        n >>= 1
    return out


def ed_pack(point: Any) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def ed_small_order() -> list[Any]:
    """The eight points of small order: multiples of L times a point of full order 8 L."""
    y = 2
    while True:
        x = ed_x(y, 0)
        if x is not None:
            torsion = ed_mul(L, (x, y))
            if ed_mul(4, torsion) != (0, 1):
                return [ed_mul(k, torsion) for k in range(8)]
        y += 1


def ed_hash(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def ed_cases() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def case(comment: str, key: bytes, message: bytes, signature: bytes, valid: bool) -> None:
        rows.append(
            {
                "comment": comment,
                "algorithm": "ed25519",
                "key": key.hex(),
                "message": message.hex(),
                "signature": signature.hex(),
                "valid": valid,
            }
        )

    # RFC 8032 §7.1 tests 1–3
    for number, (k, m, s) in enumerate(
        [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ],
        1,
    ):
        case(f"RFC 8032 test {number}", bytes.fromhex(k), bytes.fromhex(m), bytes.fromhex(s), True)

    secret = int.from_bytes(hashlib.sha512(b"vector key").digest()[:32], "little") % L
    public = ed_mul(secret, BASE)
    key, message = ed_pack(public), b"message"

    def sign(r: int, r_point: Any = None, k: bytes = key, a: int = secret) -> bytes:
        r_bytes = ed_pack(ed_mul(r, BASE) if r_point is None else r_point)
        s = (r + ed_hash(r_bytes, k, message) * a) % L
        return r_bytes + s.to_bytes(32, "little")

    good = sign(12345)
    case("valid", key, message, good, True)
    case("other message", key, b"massage", good, False)
    case(
        "S + L (malleable)",
        key,
        message,
        good[:32] + (int.from_bytes(good[32:], "little") + L).to_bytes(32, "little"),
        False,
    )
    case("S = L", key, message, good[:32] + L.to_bytes(32, "little"), False)
    case("S = 0", key, message, good[:32] + bytes(32), False)
    case("S all ones", key, message, good[:32] + b"\xff" * 32, False)
    case("R flipped", key, message, bytes([good[0] ^ 1]) + good[1:], False)
    case("R sign flipped", key, message, good[:31] + bytes([good[31] ^ 0x80]) + good[32:], False)
    case("R = 0", key, message, bytes(32) + good[32:], False)
    case("R not canonical (p)", key, message, P.to_bytes(32, "little") + good[32:], False)
    case("R and S exchanged", key, message, good[32:] + good[:32], False)
    case("too short", key, message, good[:63], False)
    case("too long", key, message, good + b"\0", False)
    case("empty", key, message, b"", False)
    case("all zeros", key, message, bytes(64), False)
    small = ed_small_order()
    for i, point in enumerate(small):
        r_bytes = ed_pack((0, 1))
        case(f"small-order key {i}, R = identity, S = 0", ed_pack(point), message, r_bytes + bytes(32), False)
    for y in (P, P + 1):  # encodings of 0 and 1 that are not reduced
        case(
            f"non-canonical small key {y - P}",
            y.to_bytes(32, "little"),
            message,
            ed_pack((0, 1)) + bytes(32),
            False,
        )
    # valid only when multiplied by the cofactor: must be refused, the equation is the cofactorless one
    torsion = small[1]
    case(
        "R with a torsion part (cofactored only)",
        key,
        message,
        sign(777, ed_add(ed_mul(777, BASE), torsion)),
        False,
    )
    return rows


# ---- P-256 on integers -------------------------------------------------------------------------------------
Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def ec_add(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0]:
        if (a[1] + b[1]) % Q == 0:
            return None
        m = (3 * a[0] * a[0] - 3) * pow(2 * a[1], Q - 2, Q) % Q
    else:
        m = (b[1] - a[1]) * pow(b[0] - a[0], Q - 2, Q) % Q
    x = (m * m - a[0] - b[0]) % Q
    return x, (m * (a[0] - x) - a[1]) % Q


def ec_mul(n: int, point: Any) -> Any:
    out = None
    while n:
        if n & 1:
            out = ec_add(out, point)
        point = ec_add(point, point)
        n >>= 1
    return out


def der_int(value: int, pad: int = 0) -> bytes:
    raw = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    if raw[0] & 0x80:
        raw = b"\0" + raw
    raw = b"\0" * pad + raw
    return b"\x02" + bytes([len(raw)]) + raw


def der(r: int, s: int) -> bytes:
    body = der_int(r) + der_int(s)
    return b"\x30" + bytes([len(body)]) + body


def p256_cases() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def case(comment: str, key: bytes, message: bytes, signature: bytes, valid: bool) -> None:
        rows.append(
            {
                "comment": comment,
                "algorithm": "p256",
                "key": key.hex(),
                "message": message.hex(),
                "signature": signature.hex(),
                "valid": valid,
            }
        )

    # RFC 6979 §A.2.5, SHA-256, message "sample"
    d = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    r = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
    s = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
    point = ec_mul(d, G)
    key = b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")
    m = b"sample"
    case("RFC 6979 A.2.5", key, m, der(r, s), True)
    case("high or low s: the other one", key, m, der(r, N - s), True)
    case("other message", key, b"simple", der(r, s), False)
    for name, pair in {
        "r = 0": (0, s),
        "s = 0": (r, 0),
        "both 0": (0, 0),
        "r = n": (N, s),
        "s = n": (r, N),
        "r + n": (r + N, s),
        "s + n": (r, s + N),
        "r = 1, s = 1": (1, 1),
        "r = n - 1": (N - 1, s),
        "exchanged": (s, r),
    }.items():
        case(name, key, m, der(*pair), False)
    good = der(r, s)
    body = good[2:]
    case("trailing byte after", key, m, good + b"\0", False)
    case("trailing byte inside", key, m, b"\x30" + bytes([len(body) + 1]) + body + b"\0", False)
    case("long-form length", key, m, b"\x30\x81" + bytes([len(body)]) + body, False)
    case("indefinite length", key, m, b"\x30\x80" + body + b"\0\0", False)
    case(
        "leading zero in r",
        key,
        m,
        (lambda b: b"\x30" + bytes([len(b)]) + b)(der_int(r, 1) + der_int(s)),
        False,
    )
    raw_r = r.to_bytes(32, "big")
    negative = b"\x02\x20" + raw_r + der_int(s)
    case("r without its sign byte (negative)", key, m, b"\x30" + bytes([len(negative)]) + negative, False)
    case("wrong outer tag", key, m, b"\x31" + good[1:], False)
    case("wrong inner tag", key, m, good[:2] + b"\x03" + good[3:], False)
    case("empty", key, m, b"", False)
    case("only a header", key, m, b"\x30\x00", False)
    case("zero-length integers", key, m, b"\x30\x04\x02\x00\x02\x00", False)
    case("raw r||s instead of DER", key, m, raw_r + s.to_bytes(32, "big"), False)
    for cut in (1, 10, 40):
        case(f"truncated by {cut}", key, m, good[:-cut], False)
    off = b"\x04" + point[0].to_bytes(32, "big") + ((point[1] + 1) % Q).to_bytes(32, "big")
    case("key not on the curve", off, m, good, False)
    case("key is zero", b"\x04" + bytes(64), m, good, False)
    case(
        "key coordinate not reduced",
        b"\x04" + (point[0] % Q).to_bytes(32, "big") + b"\xff" * 32,
        m,
        good,
        False,
    )
    case("compressed key", b"\x02" + point[0].to_bytes(32, "big") + bytes(32), m, good, False)
    return rows


def formats() -> dict[str, Any]:
    from ota import delta, frames, image, manifest, merkle, messages, parameters
    from ota.signing import Algorithm, SoftwareKey
    from ota.testbed import SCHEMA, VALUES, firmware_body

    key = SoftwareKey.from_seed(b"golden")
    p256 = SoftwareKey.from_seed(b"golden", Algorithm.P256)
    vid, cid = image.vendor_uuid("example.org"), image.class_uuid("example.org", "bms-a")

    def firmware(body: bytes, signer: Any, version: str) -> bytes:
        return image.build(
            body,
            version=image.Version.parse(version),
            key=signer,
            security_counter=1,
            vendor_id=vid,
            class_id=cid,
            dependencies=[image.Dependency(1, image.Version(1, 0, 0))],
            parameter_schema=(1, 1),
            hardware_revisions=(1, 2),
            build_digest=hashlib.sha256(b"build").digest(),
            header_size=32,
        )

    old = firmware(firmware_body(5000), key, "1.0.0")
    new = firmware(firmware_body(5000, edits=3), key, "1.1.0+7")
    made = delta.create(old, new)
    component = manifest.Component(
        0,
        hashlib.sha256(new).digest(),
        len(new),
        image.Version.parse("1.1.0+7"),
        1,
        merkle.file_root(new),
        (1, 1),
        manifest.DeltaRef(hashlib.sha256(old).digest(), hashlib.sha256(made).digest(), len(made)),
    )
    signed = manifest.Manifest(
        5, vid, cid, (1, 2), "ecu-1", bytes(range(16)), 1_900_000_000, 0x1F, (component,)
    )
    status = frames.Status(
        frames.McuPhase.RECEIVING,
        1,
        messages.Reason.OK,
        0x03,
        0,
        4,
        2,
        9,
        (4096, 0),
        bytes(8),
        77,
        b"f" * 32,
        b"p" * 32,
        b"i" * 8,
    )
    return {
        "public key ed25519 spki": key.public.spki.hex(),
        "public key p256 spki": p256.public.spki.hex(),
        "image 1.0.0 ed25519": old.hex(),
        "image 1.1.0 ed25519": new.hex(),
        "image p256": firmware(b"tiny", p256, "1.0.0").hex(),
        "parameter set": parameters.build(
            SCHEMA, VALUES, counter=3, version=image.Version(1, 0, 0), key=key, vendor_id=vid, class_id=cid
        ).hex(),
        "delta 1.0.0 to 1.1.0": made.hex(),
        "full container 1.1.0": delta.container.wrap_full(new).hex(),
        "merkle root 1.1.0": merkle.file_root(new).hex(),
        "manifest ed25519": signed.sign(key).hex(),
        "manifest p256": signed.sign(p256).hex(),
        "frame hello": frames.pack(frames.HELLO).hex(),
        "frame data": frames.pack_data(0, 1016, b"abc").hex(),
        "frame activate": frames.pack(frames.ACTIVATE, b"12345678", 3).hex(),
        "frame status": frames.pack(frames.STATUS, status.pack(), 1).hex(),
        "frame progress": frames.pack_progress(frames.Progress(1, messages.Reason.MERKLE, 4096)).hex(),
        "frame answer": frames.pack_answer(
            frames.Answer(frames.ACTIVATE, messages.Reason.DEFER_CHARGING)
        ).hex(),
        "message desired": messages.Desired(7, "dev-1", bytes(16), messages.Action.INSTALL, 5)
        .sign(key)
        .hex(),
        "message block request": messages.pack_request(
            messages.BlockRequest(b"d" * 32, ((0, 3), (9, 1)))
        ).hex(),
        "message block": messages.pack_data(messages.BlockData(b"d" * 8, 2, b"block")).hex(),
    }


def dump(rows: Any) -> str:
    return json.dumps(rows, indent=1) + "\n"


if __name__ == "__main__":
    (HERE / "signatures.json").write_text(dump(ed_cases() + p256_cases()))
    (HERE / "formats.json").write_text(dump(formats()))
