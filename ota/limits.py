"""Every bound that must hold under attack (invariant I6), in one place.

Sizes in bytes, times in seconds. The C side uses the values marked (MCU).
"""

from __future__ import annotations

# ---- formats ---------------------------------------------------------------------------------------------
BLOCK_SIZE = 4096  # (MCU) delta, Merkle and transport block
IMAGE_MAX = 2 * 1024 * 1024  # a slot is smaller; the device adds its own slot size
IMAGE_HEADER_MAX = 4096  # (MCU) header incl. padding
TLV_AREA_MAX = 4096  # (MCU) each of the two TLV areas
TLV_COUNT_MAX = 32  # (MCU) per area
CBOR_MAX = 64 * 1024
CBOR_DEPTH_MAX = 6  # (MCU)
CBOR_ITEMS_MAX = 4096
MANIFEST_MAX = 2048  # (MCU) COSE manifest; has to fit into RAM at once
MANIFEST_COMPONENTS_MAX = 4  # (MCU)
PARAMETERS_MAX = 1024  # (MCU) rows in a parameter set
METADATA_FILE_MAX = 256 * 1024  # one TUF file
METADATA_BUNDLE_MAX = 512 * 1024
ROOT_ROTATIONS_MAX = 256  # per refresh
DELEGATIONS_MAX = 32
JSON_DEPTH_MAX = 16
FRAME_PAYLOAD_MAX = 1024  # (MCU) mailbox
MESSAGE_MAX = 256 * 1024  # MQTT payload accepted from anyone

# ---- download --------------------------------------------------------------------------------------------
WINDOW_BLOCKS = 8  # end-to-end: blocks asked for and not yet verified
REQUEST_TIMEOUT_S = 10.0  # until an unanswered request is repeated
BACKOFF_FIRST_S = 2.0
BACKOFF_MAX_S = 300.0
REQUEST_RETRIES_MAX = 40  # consecutive, without one verified block
MINIMUM_RATE_B_PER_S = 16.0  # averaged over RATE_WINDOW_S while connected
RATE_WINDOW_S = 3600.0
DOWNLOAD_DEADLINE_S = 7 * 86400.0
DELTA_TRIES_MAX = 1  # then the full image

# ---- MCU link --------------------------------------------------------------------------------------------
MCU_TIMEOUT_S = 5.0
MCU_RETRIES_MAX = 20
TRANSFER_BYTES_IN_FLIGHT = 8192

# ---- activation ------------------------------------------------------------------------------------------
CONDITIONS_MAX_AGE_S = 30.0  # older reports of the battery's condition do not count
BOOT_ATTEMPTS_MAX = 3  # (MCU) unconfirmed boots before going back
PROBATION_S = 600.0  # gateway waits this long for the confirmation after activation
SECURITY_COUNTER_MAX = 0xFFFF  # (MCU) capacity of the counter store
BLACKLIST_MAX = 8  # images remembered as failed

# ---- reports ---------------------------------------------------------------------------------------------
REPORT_RETRY_S = 15.0
REPORT_RETRY_MAX_S = 900.0
STALL_S = 7 * 86400.0  # server: deployment without any report
