"""Reason codes: why something was refused, deferred or failed; one table for server, gateway and MCU.

A code never changes its number or its name; new codes are appended to their group. The number is what
travels in mailbox frames and reports (u16), the name is what people read in logs and on the command line.
Groups: 1xx form, 2xx trust, 3xx fitness for this device, 4xx delta, 5xx device and flash, 6xx deferral
(nothing is wrong, only not now), 7xx transport, 8xx deployment, 9xx keys, ceremony and audit.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Stable reason code; ``.meaning`` is the sentence shown to a person."""

    OK = 0
    # 1xx: the bytes are not what the format says
    FORMAT = 100
    TRUNCATED = 101
    TRAILING_DATA = 102
    OVERSIZE = 103
    NESTING = 104
    NOT_CANONICAL = 105
    DUPLICATE_FIELD = 106
    MISSING_FIELD = 107
    UNKNOWN_FIELD = 108
    UNSUPPORTED_VERSION = 109
    CHECKSUM = 110
    # 2xx: the bytes are not trusted
    SIGNATURE = 200
    SIGNATURE_MISSING = 201
    KEY_UNKNOWN = 202
    KEY_WEAK = 203
    ALGORITHM = 204
    THRESHOLD = 205
    DIGEST = 206
    LENGTH = 207
    EXPIRED = 208
    ROLLBACK = 209
    MIX_AND_MATCH = 210
    NOT_IN_IMAGE_REPOSITORY = 211
    DIRECTOR_DISAGREES = 212
    DIRECTOR_DELEGATES = 213
    REPLAY = 214
    WRONG_DEVICE = 215
    KEY_REVOKED = 216
    MERKLE = 217
    ROOT_CHAIN = 218
    TIME_UNTRUSTED = 219
    # 3xx: trusted, but not for this device or not with these parts
    HARDWARE = 300
    HARDWARE_REVISION = 301
    VENDOR = 302
    LOAD_ADDRESS = 303
    SECURITY_COUNTER_LOW = 304
    SECURITY_COUNTER_MISSING = 305
    SECURITY_COUNTER_CAPACITY = 306
    VERSION_LOW = 307
    SAME_VERSION_OTHER_IMAGE = 308
    DEPENDENCY = 309
    PARAMETER_SCHEMA = 310
    PARAMETER_RANGE = 311
    PARAMETER_PAIR = 312
    PARAMETER_COUNTER = 313
    SLOT_SIZE = 314
    BLACKLISTED = 315
    INCOMPLETE_SET = 316
    NOT_BOOTABLE = 317
    # 4xx: delta
    DELTA_BASE = 400
    DELTA_CODEC = 401
    DELTA_OUTPUT = 402
    DELTA_CORRUPT = 403
    # 5xx: device
    FLASH_PROGRAM = 500
    FLASH_ERASE = 501
    FLASH_READ = 502
    SELF_TEST = 503
    BOOT_ATTEMPTS = 504
    ROLLED_BACK = 505
    BUSY = 506
    CANCELLED = 507
    COUNTER_FULL = 508
    CRYPTO_ENGINE = 509
    # 6xx: deferred, nothing wrong
    DEFER_CHARGING = 600
    DEFER_CONTACTORS = 601
    DEFER_SOC_LOW = 602
    DEFER_SUPPLY_LOW = 603
    DEFER_FAULT_ACTIVE = 604
    DEFER_WINDOW = 605
    DEFER_CONDITIONS_UNKNOWN = 606
    # 7xx: transport
    TIMEOUT = 700
    SLOW_RETRIEVAL = 701
    DISCONNECTED = 702
    PINNING = 703
    TLS = 704
    ACL = 705
    IDENTITY = 706
    RETRIES_EXHAUSTED = 707
    NOT_FOUND = 708
    # 8xx: deployment
    UNKNOWN_DEPLOYMENT = 800
    SUPERSEDED = 801
    STALLED = 802
    TOO_LATE_TO_CANCEL = 803
    # 9xx: keys, ceremonies, audit
    PASSPHRASE = 900
    SIGNER_REPEATED = 901
    SIGNER_UNKNOWN = 902
    CEREMONY_EXPIRED = 903
    CEREMONY_STATE = 904
    DIGEST_NOT_CONFIRMED = 905
    AUDIT_CHAIN = 906
    AUDIT_HEAD = 907
    AUDIT_CLOCK = 908

    @property
    def meaning(self) -> str:
        return _MEANING[self]

    @property
    def is_deferral(self) -> bool:
        return 600 <= self < 700


_MEANING: dict[Reason, str] = {
    Reason.OK: "accepted",
    Reason.FORMAT: "the bytes do not have the announced format",
    Reason.TRUNCATED: "the data ends before its announced length",
    Reason.TRAILING_DATA: "bytes follow after the announced end",
    Reason.OVERSIZE: "longer than the limit for this kind of data",
    Reason.NESTING: "nested deeper than allowed",
    Reason.NOT_CANONICAL: "not in the one permitted encoding",
    Reason.DUPLICATE_FIELD: "a field that must be unique occurs twice",
    Reason.MISSING_FIELD: "a required field is missing",
    Reason.UNKNOWN_FIELD: "a field is not known or not allowed here",
    Reason.UNSUPPORTED_VERSION: "format version not supported",
    Reason.CHECKSUM: "the checksum does not match (transmission error)",
    Reason.SIGNATURE: "the signature is not valid for these bytes and this key",
    Reason.SIGNATURE_MISSING: "no signature",
    Reason.KEY_UNKNOWN: "signed by a key that is not trusted here",
    Reason.KEY_WEAK: "the key is of small order, off the curve or not canonical",
    Reason.ALGORITHM: "the algorithm is not allowed or does not belong to the key",
    Reason.THRESHOLD: "fewer valid signatures by different keys than the threshold",
    Reason.DIGEST: "the SHA-256 digest differs from the signed one",
    Reason.LENGTH: "the length differs from the signed one",
    Reason.EXPIRED: "the metadata has expired",
    Reason.ROLLBACK: "a version or counter is lower than one seen before",
    Reason.MIX_AND_MATCH: "the metadata files do not belong to one snapshot",
    Reason.NOT_IN_IMAGE_REPOSITORY: "the director names an artifact the image repository does not have",
    Reason.DIRECTOR_DISAGREES: "director and image repository disagree on hash, length, hardware or counter",
    Reason.DIRECTOR_DELEGATES: "director metadata must not delegate",
    Reason.REPLAY: "a nonce or counter has been used before",
    Reason.WRONG_DEVICE: "made for another device",
    Reason.KEY_REVOKED: "signed by a key that has been revoked",
    Reason.MERKLE: "a block hash does not lead to the signed Merkle root",
    Reason.ROOT_CHAIN: "the new root is not signed by the old and the new threshold, or a version is skipped",
    Reason.TIME_UNTRUSTED: "no trusted time is known and the decision needs one",
    Reason.HARDWARE: "built for another hardware class",
    Reason.HARDWARE_REVISION: "not built for this hardware revision",
    Reason.VENDOR: "built for another vendor",
    Reason.LOAD_ADDRESS: "linked for another slot or address",
    Reason.SECURITY_COUNTER_LOW: "security counter below the one stored in the device",
    Reason.SECURITY_COUNTER_MISSING: "no security counter",
    Reason.SECURITY_COUNTER_CAPACITY: "security counter above what the device can store",
    Reason.VERSION_LOW: "release counter or version lower than the installed one",
    Reason.SAME_VERSION_OTHER_IMAGE: "same version as the installed image, but other bytes",
    Reason.DEPENDENCY: "a part this image depends on is missing or too old",
    Reason.PARAMETER_SCHEMA: "firmware and parameter set do not share a schema version",
    Reason.PARAMETER_RANGE: "a parameter is outside its permitted range or not a number",
    Reason.PARAMETER_PAIR: "two parameters contradict each other",
    Reason.PARAMETER_COUNTER: "parameter set is not newer than the stored one",
    Reason.SLOT_SIZE: "does not fit into the slot",
    Reason.BLACKLISTED: "this image has failed on this device before",
    Reason.INCOMPLETE_SET: "only a part of a set that must be installed together is there",
    Reason.NOT_BOOTABLE: "not a bootable image",
    Reason.DELTA_BASE: "the delta was made for another base than the running image",
    Reason.DELTA_CODEC: "unknown or refused delta format",
    Reason.DELTA_OUTPUT: "the delta would write beyond its announced size",
    Reason.DELTA_CORRUPT: "the delta stream is damaged",
    Reason.FLASH_PROGRAM: "programming the flash failed",
    Reason.FLASH_ERASE: "erasing the flash failed",
    Reason.FLASH_READ: "reading the flash failed",
    Reason.SELF_TEST: "the self test after the update failed",
    Reason.BOOT_ATTEMPTS: "the new image did not confirm itself within its permitted boots",
    Reason.ROLLED_BACK: "the device has gone back to the previous image",
    Reason.BUSY: "another update is under way",
    Reason.CANCELLED: "cancelled on request",
    Reason.COUNTER_FULL: "the monotonic counter store is full",
    Reason.CRYPTO_ENGINE: "the crypto engine gave an error",
    Reason.DEFER_CHARGING: "waiting: the battery is charging",
    Reason.DEFER_CONTACTORS: "waiting: contactors are closed",
    Reason.DEFER_SOC_LOW: "waiting: state of charge below the limit for update and recovery",
    Reason.DEFER_SUPPLY_LOW: "waiting: 12 V supply too low",
    Reason.DEFER_FAULT_ACTIVE: "waiting: a battery fault is active",
    Reason.DEFER_WINDOW: "waiting: outside the permitted time window",
    Reason.DEFER_CONDITIONS_UNKNOWN: "waiting: no fresh report of the battery's condition",
    Reason.TIMEOUT: "no answer within the time limit",
    Reason.SLOW_RETRIEVAL: "slower than the minimum rate for too long",
    Reason.DISCONNECTED: "the connection was lost",
    Reason.PINNING: "the server key is not among the pinned ones",
    Reason.TLS: "no acceptable TLS connection",
    Reason.ACL: "not permitted to use this topic",
    Reason.IDENTITY: "topic and certificate name different devices",
    Reason.RETRIES_EXHAUSTED: "the permitted number of attempts is used up",
    Reason.NOT_FOUND: "the server does not have it",
    Reason.UNKNOWN_DEPLOYMENT: "no such deployment",
    Reason.SUPERSEDED: "replaced by a newer deployment",
    Reason.STALLED: "no report within the deployment's time limit",
    Reason.TOO_LATE_TO_CANCEL: "the new image has already been activated",
    Reason.PASSPHRASE: "wrong passphrase or damaged key file",
    Reason.SIGNER_REPEATED: "the same person or key has already signed",
    Reason.SIGNER_UNKNOWN: "not a signer of this ceremony",
    Reason.CEREMONY_EXPIRED: "the ceremony's time is over",
    Reason.CEREMONY_STATE: "not possible in the present state of the ceremony",
    Reason.DIGEST_NOT_CONFIRMED: "the signer confirmed another digest than the one to be signed",
    Reason.AUDIT_CHAIN: "the audit log has been changed",
    Reason.AUDIT_HEAD: "the audit log is shorter or other than its anchored head",
    Reason.AUDIT_CLOCK: "time runs backwards in the audit log",
}


class OtaError(Exception):
    """A refusal with its stable reason.

    Parameters
    ----------
    reason : the code
    detail : what exactly was found, in one short clause; must not contain secrets
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.name}: {reason.meaning}" + (f" ({detail})" if detail else ""))


def require(condition: bool, reason: Reason, detail: str = "") -> None:
    """Refuse with ``reason`` unless ``condition`` holds."""
    if not condition:
        raise OtaError(reason, detail)
