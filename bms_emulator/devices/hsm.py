"""Crypto engine: SHA-256, signatures with provisioned keys, monotonic counters, random numbers."""

from __future__ import annotations

NAME = "hsm"
REGISTERS = (
    (
        "COMMAND",
        0x00,
        "w",
        "1 begin hash, 2 add, 3 end to DIGEST, 4 verify, 5 raise counter, 6 random to OUTPUT",
    ),
    ("STATUS", 0x04, "r", "bit 31 busy"),
    ("SOURCE", 0x08, "rw", "address of the bytes to hash, or of the message to verify"),
    ("LENGTH", 0x0C, "rw", "their number; of random bytes too"),
    ("OUTPUT", 0x10, "rw", "address that digest or random bytes are written to"),
    ("PURPOSE", 0x14, "rw", "key slots to look in: 0 image keys, 1 manifest keys"),
    ("KEY", 0x18, "rw", "address of the SHA-256 of the key's SubjectPublicKeyInfo"),
    ("ALGORITHM", 0x1C, "rw", "1 Ed25519, 2 ECDSA P-256 with SHA-256"),
    ("SIGNATURE", 0x20, "rw", "address"),
    ("SIGNATURE_LENGTH", 0x24, "rw", "bytes"),
    (
        "RESULT",
        0x28,
        "r",
        "0x3CA5965A: the signature is valid; 0xC35A69A5: not, 0: nothing verified since begin",
    ),
    ("COUNTER_ID", 0x2C, "rw", "counter to read or raise, 0-7"),
    ("COUNTER", 0x30, "r", "value of that counter"),
    ("COUNTER_NEW", 0x34, "rw", "value to raise to; lower ones do nothing"),
)
SIZE = 0x38
