"""Limits in front of the HTTP parser: the number of connections, their timeouts, the size of a request's headers.

uvicorn has no timeout for receiving a request, so a few hundred connections that send a byte a minute would block all
others.
"""

from __future__ import annotations

import asyncio
import contextvars
import select
from itertools import islice
from typing import Any, Final, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MAX_CONNECTIONS: Final = 1000
HEAD_SECONDS: Final = 10.0
"""For the headers of a request, from their first byte; for the first request, from the connection."""
BODY_SECONDS: Final = 30.0
"""For the body, from the end of the headers."""
TURN_SECONDS: Final = 1.0
"""How long a complete request may wait for its turn before it is refused."""
_MAX_HEAD: Final = 65_536
"""Approximate bytes of a request's headers: what arrives together with their end does not count."""
_MOST_AHEAD: Final = 524_288
"""Bytes of a request besides its body: chunk framing, trailers, and unread data."""
_MOST_LOOKED_AT: Final = 16
"""Connections that are checked for one that can be closed: each check is a system call."""
_MOST_REQUESTS: Final = 32
"""Pipelined requests on one connection; hardly any client sends even two."""

_current: contextvars.ContextVar[ClientConnection | None] = contextvars.ContextVar("gateway_connection", default=None)


def current() -> ClientConnection | None:
    """Return the connection of the current request; None if the application runs in another server."""
    return _current.get()


class Connections:
    """All connections of a server, and their limits."""

    def __init__(
        self,
        limit: int = MAX_CONNECTIONS,
        *,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        """Set the limits.

        Args:
            limit: maximum number of connections.
            head_seconds: how long a client may take to send the headers of a request.
            body_seconds: how long it may take to send the body.
            turn_seconds: how long a complete request may wait for its turn.
        """
        self.limit = limit
        self.head_seconds = head_seconds
        self.body_seconds = body_seconds
        self.turn_seconds = turn_seconds
        self.open: dict[ClientConnection, None] = {}
        """The oldest first."""
        self.refused = 0
        """How many were closed at once because there were too many."""
        self.slow = 0
        """How many were closed because their client was too slow."""

    def protocol(self, **given: Any) -> asyncio.Protocol:
        """Return a protocol for a new connection, for uvicorn's `Config(http=…)`."""
        make = cast("type[Any]", AutoHTTPProtocol)
        return ClientConnection(self, make(**given))

    def admit(self, connection: ClientConnection) -> bool:
        """Accept a connection, in place of an idle one if there are too many; return False if none is idle."""
        if len(self.open) >= self.limit:
            # Clients reopen idle connections when they need them, so holding many of them does not help an attacker.
            quiet = islice((each for each in self.open if each.is_idle), _MOST_LOOKED_AT)
            idle = next((each for each in quiet if not each.has_unread), None)
            if idle is None:
                self.refused += 1
                return False
            del self.open[idle]
            idle.close()
        self.open[connection] = None
        return True


class ClientConnection(asyncio.Protocol):
    """A connection: passes everything on to uvicorn's protocol, and ends requests that take too long."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._all = connections
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_admitted = self._is_busy = self._is_stuck = False
        self._received_at = 0.0
        """When the last bytes were received, by the event loop's clock."""
        self._head = 0
        """Bytes received since the last request was answered."""
        self._ahead = 0
        """Bytes received after the headers of the current request, besides the body that has been read."""

    @property
    def is_idle(self) -> bool:
        """Whether there is no request, not even an incomplete one."""
        return not self._is_busy and self._head == 0

    @property
    def has_unread(self) -> bool:
        """Whether the client has sent data that was not read yet: under load, that is a request."""
        if self._transport is None:
            return False
        unread = select.poll()
        unread.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return bool(unread.poll(0))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or answer that there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        self._is_admitted = self._all.admit(self)
        if not self._is_admitted:
            self._answer_and_close(503, "Service Unavailable")
            return
        self._limit(self._all.head_seconds)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on data from the client, and enforce the limits on headers."""
        if not self._is_admitted:
            return
        self._received_at = asyncio.get_running_loop().time()
        if self._is_busy:
            self._ahead += len(data)
            if self._ahead > _MOST_AHEAD:
                self._answer_and_close(400, "Bad Request")
                return
        else:
            self._head += len(data)
            if self._timer is None:
                self._limit(self._all.head_seconds)
        # The task that answers the request inherits it.
        _current.set(self)
        self._inner.data_received(data)
        # uvicorn resumes reading with each answer, however much waits. Its other protocol parses one request at a time.
        if len(getattr(self._inner, "pipeline", ())) > _MOST_REQUESTS:
            self._answer_and_close(429, "Too Many Requests")
        if self._head > _MAX_HEAD:
            # After the task that the end of the headers starts, which notes that the rest is a body.
            asyncio.get_running_loop().call_soon(self._check_head)

    def _check_head(self) -> None:
        if not self._is_busy and self._head > _MAX_HEAD:
            self._answer_and_close(431, "Request Header Fields Too Large")

    def request_begins(self) -> None:
        """Note that the headers are complete: the body has its own time limit."""
        self._is_busy, self._head, self._ahead = True, 0, 0
        self._limit(self._all.body_seconds)

    def body_was_read(self, count: int) -> None:
        """Note how much of a body the application read; chunk framing may take a quarter of that."""
        self._ahead -= count + count // 4

    def body_is_complete(self) -> bool:
        """Note that the body is complete; return whether the request's turn came in time.

        Under overload, every request waits. Without a limit, every answer would come after its client had given up, and
        its work would be wasted.
        """
        self._unlimit()
        return asyncio.get_running_loop().time() - self._received_at <= self._all.turn_seconds

    def request_ends(self) -> None:
        """Note that the request was answered."""
        if not self._is_stuck:
            self._unlimit()
        self._is_busy, self._head = False, 0

    def eof_received(self) -> bool | None:
        """Pass on that the client has closed its side."""
        return self._inner.eof_received() if self._is_admitted else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unlimit()
        self._all.open.pop(self, None)
        if self._is_admitted:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the client reads too slowly; it has as much time as for a body."""
        self._is_stuck = True
        self._limit(self._all.body_seconds)
        if self._is_admitted:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client reads again."""
        self._is_stuck = False
        self._unlimit()
        if self._is_admitted:
            self._inner.resume_writing()

    def close(self) -> None:
        """Close the connection, even if the client has not read everything."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()  # a client that does not read would keep it open
            else:
                self._transport.close()

    def _limit(self, seconds: float) -> None:
        self._unlimit()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _unlimit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._all.slow += 1
        self._answer_and_close(408, "Request Timeout")

    def _answer_and_close(self, status: int, phrase: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            retry = "retry-after: 1\r\n" if status == 503 else ""  # noqa: PLR2004 - another server may have room
            answer = f"HTTP/1.1 {status} {phrase}\r\n{retry}content-length: 0\r\nconnection: close\r\n\r\n"
            self._transport.write(answer.encode())
            self.close()
