"""Tamper-evident log: one JSON record per line, each carrying the hash of the one before.

    {"seq": 3, "time_s": 1700000000, "actor": "alice", "action": "ceremony.sign", "detail": {…},
     "prev": "<hex>", "hash": "<hex>"}

``hash`` = SHA-256 over the canonical JSON (sorted keys, no spaces) of the record without ``hash``. Editing,
removing or reordering a record breaks the chain; cutting the end off is found only by comparing with a head
kept elsewhere (``verify(…, head=…)``), which is why every command that writes prints the new head. The log
proves that nothing was changed since the head was noted; it cannot prove that what was written is true.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import OtaError, Reason, require

GENESIS = "0" * 64
_FIELDS = {"seq", "time_s", "actor", "action", "detail", "prev", "hash"}
CLOCK_SLACK_S = 300  # hosts of different signers may disagree this much


@dataclass(frozen=True)
class Record:
    seq: int
    time_s: int
    actor: str
    action: str
    detail: Mapping[str, Any]
    prev: str
    hash: str


def _canonical(row: Mapping[str, Any]) -> bytes:
    return json.dumps(
        row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class AuditLog:
    """Append-only log in ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, time_s: int, actor: str, action: str, detail: Mapping[str, Any]) -> str:
        """Write one record and return the new head. The last record is checked before building on it."""
        records = verify(self.path) if self.path.exists() else []
        last = records[-1] if records else None
        if last is not None:
            slack = last.time_s - CLOCK_SLACK_S
            require(time_s >= slack, Reason.AUDIT_CLOCK, f"{time_s} after {last.time_s}")
        row: dict[str, Any] = {
            "seq": last.seq + 1 if last else 0,
            "time_s": int(time_s),
            "actor": actor,
            "action": action,
            "detail": dict(detail),
            "prev": last.hash if last else GENESIS,
        }
        row["hash"] = hashlib.sha256(_canonical(row)).hexdigest()
        with self.path.open("ab") as file:
            file.write(_canonical(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return str(row["hash"])

    def head(self) -> str:
        records = verify(self.path) if self.path.exists() else []
        return records[-1].hash if records else GENESIS


def verify(path: Path, head: str | None = None) -> list[Record]:
    """All records if the chain is whole; else AUDIT_CHAIN, AUDIT_CLOCK or (against ``head``) AUDIT_HEAD."""
    records: list[Record] = []
    previous = GENESIS
    for number, line in enumerate(path.read_bytes().splitlines()):
        where = f"line {number + 1}"
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or set(row) != _FIELDS:
                raise ValueError
            claimed = row.pop("hash")
            good = hashlib.sha256(_canonical(row)).hexdigest() == claimed and row["prev"] == previous
            record = Record(hash=claimed, **row)
        except (ValueError, TypeError, RecursionError):
            raise OtaError(Reason.AUDIT_CHAIN, where) from None
        require(good and record.seq == number, Reason.AUDIT_CHAIN, where)
        if records:
            forward = record.time_s >= records[-1].time_s - CLOCK_SLACK_S
            require(forward, Reason.AUDIT_CLOCK, where)
        previous = claimed
        records.append(record)
    require(head is None or previous == head, Reason.AUDIT_HEAD, f"ends with {previous[:16]}…")
    return records
