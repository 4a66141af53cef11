"""Ports of our own machine that nothing listens at."""

from __future__ import annotations

import random
import socket
from collections import deque
from contextlib import suppress

_SYSTEM_RANDOM = random.SystemRandom()  # others are seeded by tests, alike in each of their processes
_given = deque[int](maxlen=100)


def free_port() -> int:
    """A port to listen at, or to be refused at.

    Below those that the system gives to whatever connects or asks for any port: between its choice and its use one of
    them would be taken, now and then, by a test beside. No port is given twice: nobody may listen at the first yet.
    """
    while True:
        port = _SYSTEM_RANDOM.randrange(15_000, 32_000)
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port
