"""Reads bodies of requests, compressed or not, within limits on each body and on all together."""

from __future__ import annotations

import zlib
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from athina_trace._serving.athina_api import RefusedRequest
from athina_trace.gateway import connections

MAX_BODY: Final = 10_000_000
"""Maximum bytes of a body, decompressed."""
BUSY_SECONDS: Final = 1
"""Seconds after which a client may try again if the gateway is overloaded."""
_AT_ONCE: Final = 64_000_000
"""Maximum bytes of all bodies being read or processed; a gateway may need several times as much memory."""
_HELD: Final = "athina_trace.held"
_GZIP: Final = 31
"""zlib's word for a gzip header and the largest window."""


class Bodies:
    """Reads bodies; `limit`: maximum bytes of one."""

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._limit = limit
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """Read a body to its end. Raises `RefusedRequest`."""
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise RefusedRequest(415, "Unsupported Media Type", f"content-encoding {encoding!r} is not gzip")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limit:
            raise self._too_large()
        inflate = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
        connection = connections.current()
        body = bytearray()
        try:
            async for chunk in request.stream():
                if connection is not None:
                    connection.body_was_read(len(chunk))
                data = chunk if inflate is None else self._inflated(inflate, chunk, self._limit - len(body))
                body += data
                if len(body) > self._limit:
                    raise self._too_large()
                request.scope[_HELD] = request.scope.get(_HELD, 0) + len(data)
                self._held += len(data)
                if self._held > _AT_ONCE:
                    raise too_busy(f"other requests already hold {_AT_ONCE} bytes; send this one again")
        except ClientDisconnect:
            raise RefusedRequest(400, "Bad Request", "the body ended early") from None
        if inflate is not None and (not inflate.eof or inflate.unused_data):
            raise RefusedRequest(400, "Bad Request", "the body is not one complete gzip stream")
        if connection is not None and not connection.body_is_complete():
            raise too_busy("this gateway is overloaded; send this request again")
        return bytes(body)

    def release(self, scope: Scope) -> None:
        """Note that a request was answered, and its body is no longer in memory."""
        self._held -= scope.pop(_HELD, 0)

    @staticmethod
    def _inflated(inflate: zlib._Decompress, chunk: bytes, room: int) -> bytes:
        # One byte over the limit shows that there is too much, so a compression bomb is never unpacked.
        try:
            return inflate.decompress(chunk, room + 1) if chunk and not inflate.eof else b""
        except zlib.error as error:
            raise RefusedRequest(400, "Bad Request", f"the body is not gzip: {error}") from None

    def _too_large(self) -> RefusedRequest:
        return RefusedRequest(
            413, "Payload Too Large", f"a body may have at most {self._limit} bytes, even decompressed"
        )


def too_busy(message: str) -> RefusedRequest:
    """Return the answer to a request that may succeed in a moment."""
    return RefusedRequest(429, "Too Many Requests", message, retry_after=BUSY_SECONDS)
