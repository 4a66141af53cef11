"""Everything that is done around a fork of the process, in one order.

Before a fork, in the order of `PLACES`: locks are taken from the outside in, as our code takes them, so that a fork
cannot meet another thread half-way. Afterwards the parent lets go of them from the inside out. The child begins with
what identifies it, and then gives up, from the outside in, what belongs to its parent.
"""

from __future__ import annotations

# Both register first, so that their locks are free while we wait for a thread that may log or submit work to a pool.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final, NamedTuple

PLACES: Final = (
    "clock",  # references are drawn from fresh randomness
    "runtime",  # a runtime is not forked half made; the child makes its own
    "capture",  # locks of the logs that are being written
    "answers",  # which answers the parent's logs have
    "chains",  # what was asked in conversations
    "openai",  # what the parent waits for, and will log
    "litellm",  # the same
    "tls",  # OpenSSL is not forked while it holds locks of its own
    "database",  # SQLite's connections do not survive a fork
    "ownership",  # lock files say that the parent lives
    "segments",  # files that the parent writes to
)
"""Who may register, and when each is called."""

Hook = Callable[[], object]


class _Hooks(NamedTuple):
    before: Hook | None
    after_in_parent: Hook | None
    after_in_child: Hook | None


_registered: dict[str, _Hooks] = {}


def register(
    place: str,
    *,
    before: Hook | None = None,
    after_in_parent: Hook | None = None,
    after_in_child: Hook | None = None,
) -> None:
    """Call these around each fork from now on.

    A module that is loaded while another thread forks may have its `after` called without its `before`. Hooks must
    neither log nor wait for a thread in the child, which has only one. Raises `ValueError` for an unknown place.
    """
    if place not in PLACES:
        raise ValueError(f"no place {place!r} in the order of a fork: {PLACES}")
    _registered[place] = _Hooks(before, after_in_parent, after_in_child)


def _in_order() -> list[_Hooks]:
    return [_registered[place] for place in PLACES if place in _registered]


def _call(hooks: Iterable[Hook | None]) -> None:
    """Call all of them, whatever one raises: Python prints the last error."""
    with ExitStack() as stack:
        for hook in reversed(list(hooks)):
            if hook is not None:
                stack.callback(hook)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _call(each.before for each in _in_order()),
        after_in_parent=lambda: _call(each.after_in_parent for each in reversed(_in_order())),
        after_in_child=lambda: _call(each.after_in_child for each in _in_order()),
    )
