"""Entity keys of ids that are texts: 63 bits of their MD5, as ingestion computes them."""

from __future__ import annotations

import hashlib


def key_of_text(text: str) -> int:
    """The key of a text: the last eight bytes of its MD5, little-endian, without the lowest bit."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") >> 1
