"""Sampling: which conversations are logged."""

from __future__ import annotations

import hashlib
from typing import Final

_LENGTH: Final = 36
_UNMARKED: Final = 24
"""Characters of a UUID before its last group."""


def keeps(conversation: str, rate: float) -> bool:
    """Return whether a sample with this `rate` (0 to 1) includes a conversation.

    A hash decides, so that every process decides alike, and a larger sample includes all of a smaller one.
    """
    # Not `hash()`, which differs between processes.
    digest = hashlib.blake2b(conversation.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * 2**64


def sampled_by(reference: str) -> str:
    """Return the part of a reference that `left_out` does not change; calls without a session are sampled by it."""
    return reference[:_UNMARKED]


def left_out(reference: str) -> str:
    """Mark a UUID, in its last group, as that of a call that was not logged, so that every process can see it."""
    return reference[:_UNMARKED] + _mark(reference)


def says_left_out(reference: str) -> bool:
    """Return whether `left_out` marked this reference; one in 2^48 others looks the same by chance."""
    return len(reference) == _LENGTH and reference[_UNMARKED:] == _mark(reference)


def _mark(reference: str) -> str:
    start = reference[:_UNMARKED].encode("utf-8", "surrogatepass")
    return hashlib.blake2b(start, digest_size=6, person=b"left out").hexdigest()
