"""What becomes of one deployment to one device; waves and gates over many build on these records.

A deployment ends in exactly one terminal state (I5). The state follows signed reports only, "success" only a
report whose *digests* are the ordered ones. A report that contradicts a terminal state (a roll back after
success, a late success after a stall) changes the state and stays in the history.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .errors import Reason
from .messages import ReportState


class Outcome(Enum):
    """State of a deployment as the server shows it."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    DOWNLOADED = "downloaded"
    STAGED = "staged"
    DEFERRED = "deferred"
    ACTIVATED = "activated"
    SUCCESS = "success"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    STALLED = "stalled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        Outcome.SUCCESS,
        Outcome.REFUSED,
        Outcome.FAILED,
        Outcome.CANCELLED,
        Outcome.SUPERSEDED,
        Outcome.STALLED,
    }
)
_FROM_REPORT = {
    ReportState.ACCEPTED: Outcome.ACCEPTED,
    ReportState.DOWNLOADED: Outcome.DOWNLOADED,
    ReportState.STAGED: Outcome.STAGED,
    ReportState.DEFERRED: Outcome.DEFERRED,
    ReportState.ACTIVATED: Outcome.ACTIVATED,
    ReportState.SUCCESS: Outcome.SUCCESS,
    ReportState.REFUSED: Outcome.REFUSED,
    ReportState.FAILED: Outcome.FAILED,
    ReportState.CANCELLED: Outcome.CANCELLED,
}


@dataclass
class Deployment:
    """One order for one device. ``digests``: SHA-256 of the files ordered, by image id."""

    id: bytes
    device: str
    counter: int
    digests: dict[int, bytes]
    created_s: float
    manifest: bytes
    outcome: Outcome = Outcome.OFFERED
    reason: Reason = Reason.OK
    last_report_s: float | None = None
    history: list[tuple[float, Outcome, Reason, str]] = field(default_factory=list)
    bytes_received: int = 0

    def move(self, now_s: float, outcome: Outcome, reason: Reason, detail: str = "") -> None:
        self.outcome, self.reason = outcome, reason
        self.history.append((now_s, outcome, reason, detail))


def judge(
    deployment: Deployment, state: ReportState, reason: Reason, running: dict[int, bytes]
) -> tuple[Outcome, Reason]:
    """What a report means: a claimed success with other digests is a failure."""
    outcome = _FROM_REPORT[state]
    if outcome is Outcome.SUCCESS:
        fits = all(running.get(image_id) == digest for image_id, digest in deployment.digests.items())
        return (Outcome.SUCCESS, Reason.OK) if fits else (Outcome.FAILED, Reason.DIGEST)
    if outcome is Outcome.CANCELLED and reason is Reason.SUPERSEDED:
        outcome = Outcome.SUPERSEDED
    return outcome, reason


def summary(deployments: list[Deployment]) -> dict[str, int]:
    """Counts per outcome; they add up to the number of deployments."""
    counts = {outcome.value: 0 for outcome in Outcome}
    for row in deployments:
        counts[row.outcome.value] += 1
    return counts
