"""The one checker of "nothing lost" (I1–I8), fed by observations of any device: model or emulator.

    watch = Watch(allowed=[(old_fw, old_par), (new_fw, new_par)], kept=b"…")
    watch.device(mcu counters, running digests, kept bytes)      after every power-on or step
    watch.boots(boots since the last call)                       each power-on
    watch.trust(store.versions())                                after every step of the gateway
    watch.server(deployments)                                    whenever
    assert not watch.violations

I1 bootable · I2 nothing unverified runs · I3 monotonic · I4 state kept, old or new set, never a mix ·
I5 the server tells the truth · I6 bounded · I7 explained · I8 a lost server never stops a healthy device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .campaign import Deployment, Outcome, summary
from .errors import Reason


class BootSeen(Protocol):
    """What has to be seen of one boot; ``mcu_model.Boot`` fits."""

    @property
    def running(self) -> bool: ...
    @property
    def verified(self) -> bool: ...
    @property
    def security_counter(self) -> int: ...
    @property
    def image_counter(self) -> int: ...
    @property
    def firmware_digest(self) -> bytes: ...
    @property
    def parameter_digest(self) -> bytes: ...


@dataclass(frozen=True)
class Violation:
    invariant: str
    detail: str


@dataclass
class Watch:
    """Collects observations of one device and says what they violate.

    ``allowed``: (firmware, parameter) file digests that may run together; ``kept``: bytes that must stay;
    ``max_boots``: power-ons or resets within which something must run (I1); ``max_erases`` per sector and
    ``max_bytes`` on the air (I6), None: not judged.
    """

    allowed: Sequence[tuple[bytes, bytes]]
    kept: bytes = b""
    max_boots: int = 3
    max_erases: int | None = None
    max_bytes: int | None = None
    violations: list[Violation] = field(default_factory=list)
    _counters: tuple[int, ...] = ()
    _versions: dict[str, int] = field(default_factory=dict)
    _dark: int = 0

    def _say(self, invariant: str, detail: str) -> None:
        self.violations.append(Violation(invariant, detail))

    def boots(self, seen: Iterable[BootSeen]) -> None:
        """Boots in order; a series of resets counts until something stays up (``settled``)."""
        for boot in seen:
            if not boot.running:
                self._dark += 1
                if self._dark >= self.max_boots:
                    self._say("I1", f"{self._dark} power-ons without a running image")
                continue
            self._dark = 0
            if not boot.verified:
                self._say("I2", "an image ran that does not verify")
            if boot.image_counter < boot.security_counter:
                self._say("I2", f"counter {boot.image_counter} ran below {boot.security_counter}")
            pair = (boot.firmware_digest, boot.parameter_digest)
            if pair not in self.allowed:
                self._say("I4", f"ran a mixed or unknown set {pair[0].hex()[:8]}/{pair[1].hex()[:8]}")

    def device(self, counters: tuple[int, ...], kept: bytes, confirmed_counter: int, erases: int = 0) -> None:
        """Monotonic counters of the device, and the highest security counter of a confirmed image so far."""
        for before, after in zip(self._counters, counters, strict=False):
            if after < before:
                self._say("I3", f"device counters {self._counters} -> {counters}")
        if counters and counters[0] > confirmed_counter:
            self._say("I3", f"counter {counters[0]} raised before confirmation ({confirmed_counter})")
        self._counters = counters
        if self.kept and kept != self.kept:
            self._say("I4", "protected state changed")
        if self.max_erases is not None and erases > self.max_erases:
            self._say("I6", f"{erases} erases of one sector, limit {self.max_erases}")

    def trust(self, versions: Mapping[str, int]) -> None:
        """Metadata versions (``TrustStore.versions``); under rotated keys a new root may restart them."""
        rooted = {k for k in versions if k.endswith("root.json")}
        new_root = any(versions[k] > self._versions.get(k, 0) for k in rooted)
        for name, version in versions.items():
            before = self._versions.get(name, 0)
            if version < before and (name in rooted or not new_root):
                self._say("I3", f"{name} {before} -> {version}")
        self._versions = dict(versions)

    def server(self, deployments: Sequence[Deployment], running: tuple[bytes, bytes] | None = None) -> None:
        """``running``: digests the device truly runs, to hold a claimed success against."""
        counts = summary(list(deployments))
        if sum(counts.values()) != len(deployments):
            self._say("I5", "outcomes do not add up")
        for row in deployments:
            if row.outcome is Outcome.SUCCESS and running is not None:
                truth = {0: running[0], 1: running[1]}
                if any(truth[i] != digest for i, digest in row.digests.items()):
                    self._say("I5", "server shows success, device runs something else")
            failed = row.outcome in (Outcome.REFUSED, Outcome.FAILED, Outcome.STALLED)
            if failed and row.reason is Reason.OK:
                self._say("I7", f"{row.outcome.value} without a reason")
            if self.max_bytes is not None and row.bytes_received > self.max_bytes:
                self._say("I6", f"{row.bytes_received} B received, limit {self.max_bytes} B")

    def refused(self, reasons: Sequence[str], wanted: str) -> None:
        """A refusal must have been explained by ``wanted`` (I7)."""
        if wanted not in reasons:
            self._say("I7", f"{wanted} expected among {list(reasons)[-5:]}")

    def alive(self, running: bool) -> None:
        """The battery's own functions go on without server, link or update (I8)."""
        if not running:
            self._say("I8", "device stopped")

    def check(self) -> None:
        """Raise AssertionError with all violations."""
        assert not self.violations, "; ".join(f"{v.invariant}: {v.detail}" for v in self.violations[:8])
