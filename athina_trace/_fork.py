"""Hooks around a fork of the process, run in one defined order.

Before a fork, locks are acquired in the order of `PLACES`, the order in which our code acquires them, so that no other
thread is half-way through an operation. Afterwards the parent releases them in reverse order. The child first renews
what identifies it, and then, in the order of `PLACES`, gives up what belongs to its parent.
"""

from __future__ import annotations

# Imported so that their fork hooks register before ours: while we wait for a thread, it may log or use a pool.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final, NamedTuple

PLACES: Final = (
    "clock",  # the child's references must differ from its parent's
    "runtime",  # no fork while a runtime is being made; the child makes its own
    "capture",  # locks of the logs that are being written
    "answers",  # which answers the parent's logs have
    "chains",  # the questions of conversations
    "openai",  # answers that the parent waits for, and will log
    "litellm",  # the same
    "tls",  # no fork while OpenSSL holds its own locks
    "database",  # SQLite's connections do not survive a fork
    "ownership",  # lock files that show that the parent is alive
    "segments",  # files that the parent writes to
)
"""The hooks that may be registered, in the order in which they run."""

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
    """Call these hooks around each fork from now on.

    If a module registers while another thread forks, its `after` hooks may be called without `before`. In the child,
    which has a single thread, hooks must neither log nor wait for a thread. Raises `ValueError` for an unknown place.
    """
    if place not in PLACES:
        raise ValueError(f"no place {place!r} in the order of a fork: {PLACES}")
    _registered[place] = _Hooks(before, after_in_parent, after_in_child)


def _in_order() -> list[_Hooks]:
    return [_registered[place] for place in PLACES if place in _registered]


def _call(hooks: Iterable[Hook | None]) -> None:
    """Call all hooks, even if one raises: Python prints the last error."""
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
