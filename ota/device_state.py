"""State, events and commands of the gateway agent (``device``), and the durable form of the state.

What is frozen here is data only; the transitions are in ``device``. The durable form is CBOR; the rest
(timers, what was asked, what the MCU said) is rebuilt by asking again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from . import cbor, frames, limits, messages, trust
from .delta import container
from .errors import OtaError, Reason
from .messages import ReportState
from .signing import PublicKey, SigningKey


class Phase(IntEnum):
    IDLE = 0
    METADATA = 1
    DOWNLOAD = 2
    TRANSFER = 3
    STAGED = 4
    ACTIVATING = 5
    PROBATION = 6


@dataclass(frozen=True)
class Config:
    """What does not change while the agent runs. ``secret``: 16 random bytes, for nonces and jitter."""

    device: str
    ecu_serial: str
    hardware_id: str
    vendor_id: bytes
    class_id: bytes
    hardware_revision: int
    key: SigningKey
    director_keys: tuple[PublicKey, ...]
    time_keys: tuple[PublicKey, ...]
    secret: bytes


# ---- events and commands ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connected:
    """The link is up and subscribed."""


@dataclass(frozen=True)
class Disconnected:
    pass


@dataclass(frozen=True)
class DesiredReceived:
    data: bytes


@dataclass(frozen=True)
class DataReceived:
    data: bytes


@dataclass(frozen=True)
class AckReceived:
    data: bytes


@dataclass(frozen=True)
class FromMcu:
    frame: bytes


@dataclass(frozen=True)
class Tick:
    """Time has passed; nothing else."""


@dataclass(frozen=True)
class Restarted:
    """The process came back with the state it had stored."""


Event = Connected | Disconnected | DesiredReceived | DataReceived | AckReceived | FromMcu | Tick | Restarted


@dataclass(frozen=True)
class Publish:
    leaf: str
    payload: bytes


@dataclass(frozen=True)
class Keep:
    """Store a verified block of an artifact durably before the state that counts it."""

    digest: bytes
    index: int
    block: bytes


@dataclass(frozen=True)
class Forget:
    """The artifact is not needed any more."""

    digest: bytes


@dataclass(frozen=True)
class SendMcu:
    frame: bytes


@dataclass(frozen=True)
class SendPieces:
    """Send bytes ``offset`` … ``offset + length`` of an artifact's container as DATA frames.

    ``wrap``: the artifact is a full image and has to be put into a container first (``wrap_full``).
    """

    image_id: int
    digest: bytes
    offset: int
    length: int
    wrap: bool


@dataclass(frozen=True)
class Note:
    """For the log of the gateway: something was refused, deferred or given up (I7)."""

    reason: Reason
    detail: str


Command = Publish | Keep | Forget | SendMcu | SendPieces | Note


# ---- state ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One artifact to fetch for one image of the set. ``have``: bit i set = block i kept."""

    image_id: int
    digest: bytes
    length: int
    merkle_root: bytes
    delta: bool
    leaves: tuple[bytes, ...] | None = None
    have: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.length // limits.BLOCK_SIZE)

    @property
    def complete(self) -> bool:
        return self.have == (1 << self.blocks) - 1

    @property
    def container_length(self) -> int:
        return self.length if self.delta else container.HEADER.size + 34 * self.blocks + self.length


@dataclass(frozen=True)
class State:
    """Everything the agent knows. Fields above the line survive a restart (``dump``, ``load``)."""

    phase: Phase
    store: trust.TrustStore
    desired_counter: int = 0
    deployment: bytes = messages.NONE
    not_before_s: int = 0
    manifest: bytes = b""
    items: tuple[Item, ...] = ()
    delta_tries: int = 0
    report_counter: int = 1
    report_nonce: bytes = messages.NONE
    outbox: tuple[tuple[bytes, ReportState, Reason, str], ...] = ()
    nonce_counter: int = 0
    bytes_received: int = 0
    outcome: ReportState | None = None
    outcome_digests: tuple[bytes, bytes] = (b"", b"")
    # ---- lost at a restart
    clock: trust.SecureClock = field(default_factory=trust.SecureClock)
    connected: bool = False
    uptime_s: float = 0.0
    host_s: float | None = None
    nonce: bytes = b""
    status: frames.Status | None = None
    status_at_s: float = -1e9
    outstanding: frozenset[int] = frozenset()
    attempts: int = 0
    retry_at_s: float = 0.0
    mcu_attempts: int = 0
    mcu_retry_at_s: float = 0.0
    mcu_refusals: int = 0
    manifest_accepted: bool = False
    sent_until: tuple[int, int] = (0, 0)
    mcu_offset: tuple[int, int] = (0, 0)
    phase_since_s: float = 0.0
    rate_since_s: float = 0.0
    rate_bytes: int = 0
    report_attempts: int = 0
    report_at_s: float = 0.0
    report_in_flight: bytes = b""
    deferred: Reason = Reason.OK
    pending_desired: bytes = b""


def start(store: trust.TrustStore) -> State:
    """Agent fresh from the factory, trusting the roots in ``store``."""
    return State(Phase.IDLE, store, clock=trust.SecureClock(store.secure_time_s))


# ---- durable form -----------------------------------------------------------------------------------------

DURABLE = (
    "phase",
    "store",
    "desired_counter",
    "deployment",
    "not_before_s",
    "manifest",
    "items",
    "delta_tries",
    "report_counter",
    "report_nonce",
    "outbox",
    "nonce_counter",
    "bytes_received",
    "outcome",
    "outcome_digests",
)


def dump(state: State) -> bytes:
    """The part of the state that must survive a restart, as CBOR."""
    s = state
    return cbor.encode(
        {
            1: int(s.phase),
            2: dict(s.store.image),
            3: dict(s.store.director),
            4: int(s.store.secure_time_s),
            5: s.desired_counter,
            6: s.deployment,
            7: s.not_before_s,
            8: s.manifest,
            9: [
                [
                    *(i.image_id, i.digest, i.length, i.merkle_root, i.delta),
                    None if i.leaves is None else b"".join(i.leaves),
                    i.have.to_bytes(512, "little").rstrip(b"\0"),
                ]
                for i in s.items
            ],
            10: s.delta_tries,
            11: s.report_counter,
            12: s.report_nonce,
            13: [[d, int(st), int(r), text] for d, st, r, text in s.outbox],
            14: s.nonce_counter,
            15: s.bytes_received,
            16: None if s.outcome is None else int(s.outcome),
            17: list(s.outcome_digests),
        }
    )


def load(data: bytes) -> State:
    """State from ``dump``; FORMAT if the file is damaged. Follow with the event ``Restarted``."""
    try:
        row = cbor.decode(data, 4 * limits.METADATA_BUNDLE_MAX)
        items = tuple(
            Item(
                image_id,
                digest,
                length,
                root,
                delta,
                None if leaves is None else tuple(leaves[k : k + 32] for k in range(0, len(leaves), 32)),
                int.from_bytes(have, "little"),
            )
            for image_id, digest, length, root, delta, leaves, have in row[9]
        )
        return State(
            Phase(row[1]),
            trust.TrustStore(row[2], row[3], float(row[4])),
            row[5],
            row[6],
            row[7],
            row[8],
            items,
            row[10],
            row[11],
            row[12],
            tuple((d, ReportState(st), Reason(r), text) for d, st, r, text in row[13]),
            row[14],
            row[15],
            None if row[16] is None else ReportState(row[16]),
            (row[17][0], row[17][1]),
            clock=trust.SecureClock(float(row[4])),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise OtaError(Reason.FORMAT, f"stored agent state: {type(error).__name__}") from None
