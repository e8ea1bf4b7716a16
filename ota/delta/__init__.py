"""Deltas for small devices: independent 4 KiB blocks, each a patch against the whole old image.

``container`` is the format that travels and that the MCU applies; ``patch`` holds the codec of one block
(bsdiff + heatshrink in the layout of the detools project), ``heatshrink`` its reference decompressor,
``compare`` the other codecs, for the table that says why this one.

    >>> from ota import delta
    >>> old, new = bytes(range(256)) * 64, bytes(range(256)) * 60 + b"new" * 400
    >>> d = delta.create(old, new)
    >>> delta.apply(old, d) == new, len(d) < len(new) // 10
    (True, True)
"""

from .container import Delta, apply, create, read

__all__ = ["Delta", "apply", "create", "read"]
