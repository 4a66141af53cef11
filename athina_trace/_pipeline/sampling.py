"""Which conversations are logged, where not all are."""

from __future__ import annotations

import hashlib
from typing import Final

_LENGTH: Final = 36
_UNMARKED: Final = 24
"""Characters of a UUID, and of those in front of its last group."""


def keeps(conversation: str, rate: float) -> bool:
    """Return whether a share `rate` (0 to 1) of all conversations has this one in it.

    Decided by a hash, so that every process decides alike, and a conversation that a small share keeps is kept by
    every larger one.
    """
    # Not `hash`, which differs from process to process.
    digest = hashlib.blake2b(conversation.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * 2**64


def sampled_by(reference: str) -> str:
    """Return the part of a reference that `left_out` leaves as it is: what a call without a session is sampled by."""
    return reference[:_UNMARKED]


def left_out(reference: str) -> str:
    """Return the same UUID with a last group that says that no log was made under it, for every process to see."""
    return reference[:_UNMARKED] + _mark(reference)


def says_left_out(reference: str) -> bool:
    """Return whether `left_out` gave this reference; of others, one in 2^48 looks so by chance."""
    return len(reference) == _LENGTH and reference[_UNMARKED:] == _mark(reference)


def _mark(reference: str) -> str:
    start = reference[:_UNMARKED].encode("utf-8", "surrogatepass")
    return hashlib.blake2b(start, digest_size=6, person=b"left out").hexdigest()
