"""Makes forks wait while OpenSSL creates a context or does a handshake, since it then holds its internal locks.

In a child that is forked at that moment, those locks stay held forever, by a thread that it does not have. Its first
TLS connection would hang, and nobody else would deliver what it has leased.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from athina_trace import _fork

_LONGEST_SECONDS = 0.1
"""How long a fork may wait: a server that never completes its handshake must not stop the program."""

_changed = threading.Condition()
_under_way = 0


def postpone() -> None:
    """Delay forks until `allow` has been called as often."""
    global _under_way  # noqa: PLW0603 - counted for the process
    with _changed:
        _under_way += 1


def allow() -> None:
    """Allow forks again after `postpone`."""
    global _under_way  # noqa: PLW0603 - counted for the process
    with _changed:
        _under_way -= 1
        _changed.notify_all()


@contextmanager
def postponed() -> Iterator[None]:
    """Delay forks during the block."""
    postpone()
    try:
        yield
    finally:
        allow()


def wait_before_fork() -> None:
    """Wait until OpenSSL is idle, and keep it so until the fork is over."""
    _changed.acquire()  # held until the fork is over, so that nothing begins
    _changed.wait_for(lambda: not _under_way, timeout=_LONGEST_SECONDS)


def resume_after_fork_in_parent() -> None:
    """Release the lock that `wait_before_fork` acquired."""
    with suppress(RuntimeError):  # never acquired: this module was being imported when the fork began
        _changed.release()


def reset_after_fork_in_child() -> None:
    """Forget what threads of the parent were doing."""
    global _changed, _under_way  # noqa: PLW0603 - the counted threads do not exist in the child
    _changed = threading.Condition()
    _under_way = 0


_fork.register(
    "tls",
    before=wait_before_fork,
    after_in_parent=resume_after_fork_in_parent,
    after_in_child=reset_after_fork_in_child,
)
