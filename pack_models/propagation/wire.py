"""Frames between our process and the one that has dolfinx: a JSON head and raw arrays, over a local socket.

Frame: 4-byte length of the head, head (JSON: values, and name, dtype, shape of every array), the arrays in
order. A Unix socket in a private folder rather than stdin/stdout: MPI launchers forward the latter only in
part, and libraries print to them.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import numpy as np

from .errors import PropagationError


def send(link: socket.socket, values: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
    """Send one frame."""
    packed = {k: np.ascontiguousarray(a) for k, a in (arrays or {}).items()}
    head = json.dumps(
        {"values": values, "arrays": [[k, a.dtype.str, a.shape] for k, a in packed.items()]}
    ).encode()
    link.sendall(struct.pack("<I", len(head)) + head + b"".join(a.tobytes() for a in packed.values()))


def _exactly(link: socket.socket, count: int) -> bytes:
    parts = []
    while count > 0:
        part = link.recv(min(count, 1 << 20))
        if not part:
            raise PropagationError("the other process closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive(link: socket.socket) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Wait for one frame."""
    (length,) = struct.unpack("<I", _exactly(link, 4))
    head = json.loads(_exactly(link, length))
    arrays = {}
    for name, dtype, shape in head["arrays"]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(_exactly(link, size), dtype=dtype).reshape(shape).copy()
    return head["values"], arrays
