"""Forks wait while OpenSSL is making or opening something: it holds locks of its own then.

A child that is forked at that moment finds them held for ever, by a thread that it does not have. Its first secure
connection would never end, nor would anybody else deliver what it has leased.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from athina_trace import _fork

_LONGEST_SECONDS = 0.1
"""How long a fork may have to wait: a server that never ends its handshake must not stop the program."""

_changed = threading.Condition()
_under_way = 0


def postpone() -> None:
    """Let no fork happen until `allow` is called as often."""
    global _under_way  # noqa: PLW0603 - counted for the process
    with _changed:
        _under_way += 1


def allow() -> None:
    """End what `postpone` began."""
    global _under_way  # noqa: PLW0603 - counted for the process
    with _changed:
        _under_way -= 1
        _changed.notify_all()


@contextmanager
def postponed() -> Iterator[None]:
    """Let no fork happen meanwhile."""
    postpone()
    try:
        yield
    finally:
        allow()


def wait_before_fork() -> None:
    """Wait until nothing of OpenSSL's is under way, and let nothing begin."""
    _changed.acquire()  # and keep it: none may begin before the fork is over
    _changed.wait_for(lambda: not _under_way, timeout=_LONGEST_SECONDS)


def resume_after_fork_in_parent() -> None:
    """End what `wait_before_fork` began."""
    with suppress(RuntimeError):  # never acquired: this module was just being loaded when the fork began
        _changed.release()


def reset_after_fork_in_child() -> None:
    """Forget what threads of the parent were doing."""
    global _changed, _under_way  # noqa: PLW0603 - the threads that count here stayed behind
    _changed = threading.Condition()
    _under_way = 0


_fork.register(
    "tls",
    before=wait_before_fork,
    after_in_parent=resume_after_fork_in_parent,
    after_in_child=reset_after_fork_in_child,
)
