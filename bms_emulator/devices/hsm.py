"""Crypto engine: SHA-256, signatures with provisioned keys, monotonic counters, random numbers.

Latencies in cycles, from published hardware figures: SHA-256 65 for each block (TI SLAU723A, table "SHA/MD5
performance"); ECDSA P-256 verification 2 938 000 (ST RM0456 rev. 6, table 524, 256 bits). No manual of
a microcontroller was found that gives Ed25519; taken is what it needs on the same engine, one double-base
ladder and one projective-to-affine step (tables 525, 526: 2 768 000 + 148 300). The
arithmetic is that of `cryptography`.
"""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from .chip import Chip, Registers, plain

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
    ("ALGORITHM", 0x1C, "rw", "1 Ed25519, 2 ECDSA P-256 with SHA-256, 3 ECDSA P-256 of a given SHA-256"),
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

VALID, INVALID = 0x3CA5965A, 0xC35A69A5
COUNTERS = 8
SHA_BLOCK_CYCLES = 65
P256_CYCLES = 2_938_000
ED25519_CYCLES = 2_768_000 + 148_300
COUNTER_CYCLES = 2 * 4084  # one step of a one-time-programmable word, as nvm.PROGRAM_CYCLES
_BUSY_BIT = 1 << 31
_ED_L = 2**252 + 27742317777372353535851937790883648493


@dataclass(frozen=True)
class KeySlot:
    """A provisioned public key: DER SubjectPublicKeyInfo, and what it may sign (0 images, 1 manifests)."""

    spki: bytes
    purpose: int

    @functools.cached_property
    def key_hash(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return hashlib.sha256(self.spki).digest()


@functools.lru_cache(maxsize=4096)
def verify(spki: bytes, algorithm: int, message: bytes, signature: bytes) -> bool:
    """Whether the signature (Ed25519, or r and s of P-256: 64 bytes) is valid, as `ota.signing` decides it.

    A key has one algorithm; the S of Ed25519 is below the order.

    Cached: fault campaigns boot the same images many thousand times.
    """
    try:
        key = serialization.load_der_public_key(spki)
        if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == 1 and len(signature) == 64:
            if int.from_bytes(signature[32:], "little") >= _ED_L:
                return False
            key.verify(signature, message)
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm in (2, 3) and len(signature) == 64:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            hashed = hashes.SHA256() if algorithm == 2 else utils.Prehashed(hashes.SHA256())
            key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashed))
            return True
    except (InvalidSignature, ValueError):
        return False
    return False


class Hsm(Registers):
    """The engine; `counters` survive everything, `keys` are provisioned at manufacture."""

    def __init__(self, chip: Chip, line: int, keys: tuple[KeySlot, ...], seed: str) -> None:
        names = "SOURCE LENGTH OUTPUT PURPOSE KEY ALGORITHM SIGNATURE SIGNATURE_LENGTH COUNTER_ID COUNTER_NEW"
        super().__init__(plain(REGISTERS, names))
        self._chip, self._line = chip, line
        self.keys = keys
        self._seed = seed
        self._draws = 0
        self.haste = 1  # campaigns of faults may let the engine be so many times faster
        self.counters = [0] * COUNTERS
        self.reset()

    def reset(self) -> None:
        """Nothing hashed, nothing verified; counters and keys stay."""
        self.reset_registers()
        self._message = b""
        self.result = 0
        self._pending: tuple[str, int] | None = None
        self._chip.set_line(self._line, False)

    def get(self, offset: int, cycle: int) -> int | None:
        if offset == 0x04:
            return _BUSY_BIT if self._pending else 0
        if offset == 0x28:
            return 0 if self._pending else self.result
        if offset == 0x30:
            return self.counters[self.value["COUNTER_ID"] % COUNTERS]
        return None

    def put(self, offset: int, value: int, cycle: int) -> bool:
        if offset != 0x00:
            return False
        if self._pending is not None:
            return True  # commands while busy are ignored
        self._chip.set_line(self._line, False)
        try:
            self._start(value, cycle)
        except ValueError:  # an address that is not memory: the engine gives nothing, and no valid result
            self.result = INVALID
            self._wait("done", INVALID, cycle + 1)
        return True

    def _wait(self, name: str, value: int, cycle: int) -> None:
        self._pending = (name, value)
        self._chip.schedule(NAME, name, cycle)

    def _bytes(self, pointer: str, size: str) -> bytes:
        return self._chip.read_memory(self.value[pointer], self.value[size])

    def _start(self, command: int, cycle: int) -> None:
        if command == 1:
            self._message, self.result = b"", 0
            self._wait("done", 0, cycle + 1)
        elif command == 2:
            before = len(self._message)
            self._message += self._bytes("SOURCE", "LENGTH")
            blocks = len(self._message) // 64 - before // 64
            self._wait("done", 0, cycle + 1 + SHA_BLOCK_CYCLES * blocks)
        elif command == 3:
            self._chip.write_memory(self.value["OUTPUT"], hashlib.sha256(self._message).digest())
            blocks = 2 if len(self._message) % 64 > 55 else 1
            self._wait("done", 0, cycle + SHA_BLOCK_CYCLES * blocks)
        elif command == 4:
            self._verify(cycle)
        elif command == 5:
            at = self.value["COUNTER_ID"] % COUNTERS
            new = max(self.counters[at], self.value["COUNTER_NEW"])
            # Takes effect at once: the hardware's own two copies make it atomic against a loss of power.
            self.counters[at] = new
            self._wait("done", 0, cycle + COUNTER_CYCLES)
        elif command == 6:
            self._draws += 1
            chance = random.Random(f"{self._seed}/{self._draws}")
            self._chip.write_memory(self.value["OUTPUT"], chance.randbytes(self.value["LENGTH"]))
            self._wait("done", 0, cycle + SHA_BLOCK_CYCLES * (1 + self.value["LENGTH"] // 32))

    def _verify(self, cycle: int) -> None:
        self.result = 0
        digest = self._chip.read_memory(self.value["KEY"], 32)
        message = self._bytes("SOURCE", "LENGTH")
        signature = self._bytes("SIGNATURE", "SIGNATURE_LENGTH")
        algorithm = self.value["ALGORITHM"]
        slot = next(
            (k for k in self.keys if k.key_hash == digest and k.purpose == self.value["PURPOSE"]), None
        )
        if slot is None:
            self._wait("verified", INVALID, cycle + 64)
            return
        good = verify(slot.spki, algorithm, message, signature)
        duration = ED25519_CYCLES if algorithm == 1 else P256_CYCLES
        duration += SHA_BLOCK_CYCLES * (len(message) // 64 + 1)
        self._wait("verified", VALID if good else INVALID, cycle + duration // self.haste)

    def event(self, name: str, cycle: int) -> None:
        """The command is done."""
        if self._pending is None:
            return
        what, value = self._pending
        self._pending = None
        if what == "verified":
            self.result = value
        self._chip.set_line(self._line, True)

    def state(self) -> tuple[Any, ...]:
        return (self._message, self.result, self._pending, self.counters, self._draws)

    def take(self, state: tuple[Any, ...]) -> None:
        self._message, self.result, self._pending, counters, self._draws = state
        self.counters = list(counters)
