"""Local ports that nothing listens on."""

from __future__ import annotations

import random
import socket
from collections import deque
from contextlib import suppress

_SYSTEM_RANDOM = random.SystemRandom()  # tests seed the global one, equally in each of their processes
_given = deque[int](maxlen=100)


def free_port() -> int:
    """Return a port to listen on, or to be refused at.

    It is below the ephemeral ports, which a parallel test might take before it is used. No port is returned twice,
    since nothing may be listening on the first yet.
    """
    while True:
        port = _SYSTEM_RANDOM.randrange(15_000, 32_000)
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port
