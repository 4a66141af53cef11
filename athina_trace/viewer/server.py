"""Where an application listens, and for how long."""

from __future__ import annotations

import ipaddress
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

if TYPE_CHECKING:
    from typing_extensions import Self

_CONCURRENT = 200
"""Requests at once; more are turned away with 503."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, *, spare: bool = False) -> socket.socket:
    """A socket that listens at `host`; on any free port where the port is 0, or taken and `spare` allowed.

    Raises OSError where the address is taken or not this machine's.
    """
    try:
        return socket.create_server(_address(host, port), family=_family(host), backlog=128)
    except OSError:
        if not spare:
            raise
        return socket.create_server(_address(host, 0), family=_family(host), backlog=128)


def _address(host: str, port: int) -> tuple[str, int]:
    return ("127.0.0.1" if host == "localhost" else host, port)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def url_of(listener: socket.socket, *, token: str | None = None) -> str:
    """The address to open in a browser on this machine."""
    host, port = map(str, listener.getsockname()[:2])
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - told, not bound
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


class Server(uvicorn.Server):
    """uvicorn on a socket of ours, quiet; as a context manager it serves from a thread until the block ends."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONCURRENT,
            timeout_graceful_shutdown=1,
            lifespan="on",
            ws="none",
        )
        super().__init__(config)
        self.listener = listener
        self._thread = threading.Thread(target=self.serve_here, name="athina-trace-server", daemon=True)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return url_of(self.listener).rstrip("/")

    def serve_here(self) -> None:
        """Serve until told to stop; in the main thread Ctrl-C tells."""
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
