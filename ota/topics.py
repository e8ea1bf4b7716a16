"""MQTT topics: the one place that knows them.

    ota/1/<device>/down/desired   retained, QoS 1, server → device   what the device should run (signed)
    ota/1/<device>/down/data      QoS 0     server → device   metadata, block tables, blocks, refusals
    ota/1/<device>/down/ack       QoS 1     server → device   report received, next nonce (signed)
    ota/1/<device>/up/request     QoS 0     device → server   asks for metadata, tables, blocks
    ota/1/<device>/up/report      QoS 1     device → server   what the device runs and did (signed)
    ota/1/<device>/sync/#         QoS 1     device → itself   barrier that shows the broker has settled

A device id is also the common name of its certificate and its MQTT user name, so that a broker can enforce
with one pattern per direction that a device reads only its ``down`` and writes only its ``up``. Blocks and
requests need no broker acknowledgement: PUBACK says only that the broker has them, and the window of the
device repeats what does not arrive. Everything works with MQTT 3.1.1.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .errors import Reason, require

PREFIX = "ota/1"
SERVER_USER = "ota-server"
DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")

DESIRED = "down/desired"
DATA = "down/data"
ACK = "down/ack"
REQUEST = "up/request"
REPORT = "up/report"
SYNC = "sync/barrier"

QOS = {DESIRED: 1, DATA: 0, ACK: 1, REQUEST: 0, REPORT: 1, SYNC: 1}
RETAINED = frozenset({DESIRED})


def check_device(device: str) -> str:
    """``device`` itself if it is a permitted id; wildcards, slashes and control characters are not."""
    require(DEVICE_ID.fullmatch(device) is not None, Reason.FORMAT, "device id: a-z 0-9 -, at most 48")
    require(device != SERVER_USER, Reason.IDENTITY, "the server's name is not a device id")
    return device


@lru_cache(maxsize=8192)
def topic(device: str, leaf: str) -> str:
    return f"{PREFIX}/{check_device(device)}/{leaf}"


@lru_cache(maxsize=8192)  # the same few topics per device, thousands of times
def parse(name: str) -> tuple[str, str]:
    """(device, leaf) of a topic; FORMAT for anything else."""
    parts = name.split("/", 3)
    require(len(parts) == 4 and "/".join(parts[:2]) == PREFIX, Reason.FORMAT, "topic")
    require(parts[3] in QOS, Reason.FORMAT, "topic leaf")
    return check_device(parts[2]), parts[3]


def may_publish(user: str, name: str) -> bool:
    """Access rule of the brokers, stated once: mosquitto gets it as a file, the others call it."""
    own = f"{PREFIX}/{user}/"
    if user == SERVER_USER:
        return name.startswith(f"{PREFIX}/") and "+" not in name and "#" not in name
    return name.startswith((own + "up/", own + "sync/")) and "+" not in name and "#" not in name


def may_receive(user: str, name: str) -> bool:
    own = f"{PREFIX}/{user}/"
    if user == SERVER_USER:
        return name.startswith(f"{PREFIX}/")
    return name.startswith((own + "down/", own + "sync/"))


def mosquitto_acl() -> str:
    """The same rule as a mosquitto ACL file (user name = certificate common name)."""
    return (
        f"user {SERVER_USER}\ntopic readwrite {PREFIX}/#\n\n"
        f"pattern read {PREFIX}/%u/down/#\npattern write {PREFIX}/%u/up/#\n"
        f"pattern readwrite {PREFIX}/%u/sync/#\n"
    )
