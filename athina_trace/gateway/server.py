"""The gateway's server: uvicorn with our limits. After SIGTERM, waiting logs are sent within the exit timeout."""

from __future__ import annotations

import resource
import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from athina_trace import _runtime
from athina_trace.gateway.connections import Connections

_OTHER_FILES = 400
"""Other open files of this process: up to 256 connections to Athina, the outbox, and Python's own."""
_KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle: longer than for load balancers, so that they never use a closed one."""


def allow_files(connections: int) -> int:
    """Raise the limit on open files for this many connections; return how many are possible."""
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(connections, soft - _OTHER_FILES))
    return connections


class GatewayServer(uvicorn.Server):
    """Serves one application; `limits` applies to all its connections."""

    def __init__(self, app: ASGIApp, limits: Connections) -> None:
        protocol: Any = limits.protocol  # called like the class that is asked for
        config = uvicorn.Config(
            app,
            http=protocol,
            loop="asyncio",  # uvloop accepts one connection per iteration: others would wait unseen in the kernel
            log_level="error",  # a warning for each request that is not HTTP would fill a disk
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            lifespan="off",
            ws="none",
        )
        super().__init__(config)
        self._ends_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start shutting down: running requests get half of the exit timeout."""
        runtime = _runtime.active()
        if self._ends_at is None and runtime is not None:
            seconds = runtime.settings.exit_timeout
            self._ends_at = time.monotonic() + seconds
            half: Any = seconds / 2  # typed as an integer, but used as given
            self.config.timeout_graceful_shutdown = half
        super().handle_exit(sig, frame)

    def serve_until_signal(self, listener: socket.socket) -> int:
        """Serve until SIGTERM or Ctrl-C; return the exit code.

        Running requests are answered, and waiting logs are delivered, all within the setting `exit_timeout`.
        """
        caught: list[int] = []

        def note(number: int, _frame: FrameType | None) -> None:
            caught.append(number)

        # uvicorn raises the signal again at its end: Python would end the process there, with logs waiting.
        before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.run(sockets=[listener])
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            listener.close()
        if self._ends_at is not None:
            _runtime.shutdown(max(0.0, self._ends_at - time.monotonic()))
        return 130 if signal.SIGINT in caught else 0
