"""Which conversations are logged, where not all are."""

from __future__ import annotations

import hashlib


def keeps(conversation: str, rate: float) -> bool:
    """Whether a share `rate` (0 to 1) of all conversations has this one in it.

    Decided by a hash, so that every process decides alike, and a conversation that a small share keeps is kept by
    every larger one.
    """
    # Not `hash`, which differs from process to process.
    digest = hashlib.blake2b(conversation.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * 2**64
