"""The socket on which an application is served, and the server."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

if TYPE_CHECKING:
    from typing_extensions import Self

_MAX_CONCURRENT = 200
"""Maximum number of concurrent requests; more are answered with 503."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server at `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, *, or_any_port: bool = False) -> socket.socket:
    """Listen at `host`; on any free port if `port` is 0, or if it is taken and `or_any_port` is set.

    Raises:
        OSError: the address is taken, or does not belong to this machine.
    """
    address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        if not or_any_port:
            if error.errno == errno.EADDRINUSE:
                raise OSError(error.errno, f"port {port} of {host} is in use: choose another one with --port") from None
            raise
        listener = socket.create_server((address, 0), family=family, backlog=128)
    # Connections inherit this option. asyncio sets it only on sockets with an explicit protocol number, which
    # create_server omits: the second packet of an answer would wait 40 ms for the acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket, *, token: str | None = None) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = map(str, listener.getsockname()[:2])
    # Addresses that mean "every interface" cannot be opened in a browser.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


class Server(uvicorn.Server):
    """uvicorn on a given socket, quiet; as a context manager it serves from a thread until the block ends."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONCURRENT,
            timeout_graceful_shutdown=1,  # a browser's idle connection must not delay Ctrl-C
            lifespan="on",
            ws="none",
        )
        super().__init__(config)
        self.listener = listener
        self._thread = threading.Thread(target=self.serve_here, name="athina-trace-server", daemon=True)

    @property
    def url(self) -> str:
        """The server's address, without a trailing slash."""
        return url_of(self.listener).rstrip("/")

    def serve_here(self) -> None:
        """Serve in this thread until stopped; in the main thread, Ctrl-C stops it."""
        self.run(sockets=[self.listener])

    def __enter__(self) -> Self:
        """Serve from a thread; connections made from now on are answered."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.should_exit = True
        self._thread.join(10.0)
        self.listener.close()
