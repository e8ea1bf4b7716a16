"""Merkle tree over blocks of a file, as in RFC 9162 §2.1 (Certificate Transparency).

Leaf = SHA-256(0x00 ‖ block), node = SHA-256(0x01 ‖ left ‖ right); an odd row is split at the largest power of
two, so no leaf is ever doubled. The prefixes keep a node from being passed off as a block. The root can be
computed in one pass with ⌈log2 n⌉ + 1 hashes of memory (``Running``), which is how the MCU does it.
"""

from __future__ import annotations

import hashlib

from .limits import BLOCK_SIZE


def leaf(block: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + block).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def blocks(data: bytes, size: int = BLOCK_SIZE) -> list[bytes]:
    """``data`` cut into blocks of ``size``; the last one may be shorter."""
    return [data[i : i + size] for i in range(0, len(data), size)]


class Running:
    """Root in one pass: holds one subtree hash per set bit of the leaf count.

    >>> r = Running(); [r.add(leaf(b)) for b in (b"a", b"b", b"c")] and r.root() == root([b"a", b"b", b"c"])
    True
    """

    def __init__(self) -> None:
        self.count = 0
        self._stack: list[bytes] = []

    def add(self, leaf_hash: bytes) -> bool:
        top = leaf_hash
        n = self.count
        while n & 1:
            top = node(self._stack.pop(), top)
            n >>= 1
        self._stack.append(top)
        self.count += 1
        return True

    def root(self) -> bytes:
        if not self._stack:
            return hashlib.sha256(b"").digest()
        top = self._stack[-1]
        for left in reversed(self._stack[:-1]):
            top = node(left, top)
        return top


def root_of_leaves(leaves: list[bytes]) -> bytes:
    running = Running()
    for item in leaves:
        running.add(item)
    return running.root()


def root(parts: list[bytes]) -> bytes:
    return root_of_leaves([leaf(part) for part in parts])


def file_leaves(data: bytes, size: int = BLOCK_SIZE) -> list[bytes]:
    return [leaf(part) for part in blocks(data, size)]


def file_root(data: bytes, size: int = BLOCK_SIZE) -> bytes:
    return root_of_leaves(file_leaves(data, size))
