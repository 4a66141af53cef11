"""Behaviours of a local Athina, from good to bad: each is a function of an `Exchange`."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    number: int
    """Order of arrival, from 1."""
    connection: int
    """Which connection it came on, from 1."""
    at: float
    """Monotonic seconds."""
    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)

    @cached_property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Exchange:
    """One request and the means to answer it: the argument of a fault."""

    request: Request
    connection: socket.socket
    store: Callable[[Request], str]
    stopping: threading.Event

    def accept(self) -> str:
        """Store the request, as Athina would, and return its id."""
        return self.store(self.request)

    def write(self, data: bytes) -> None:
        """Send these bytes."""
        self.connection.sendall(data)

    def wait(self, seconds: float) -> bool:
        """Wait, but only until the server stops or the client times out; return False then."""
        return not self.stopping.wait(seconds)

    def respond(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.write(response(status, body, headers))

    def close(self, *, reset: bool = False) -> None:
        """Close the connection, in an orderly way or with a reset."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        else:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


Fault = Callable[[Exchange], None]


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Make the bytes of a whole answer."""
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} x\r\n{head}\r\n".encode("latin-1") + body


def _stored(exchange: Exchange) -> bytes:
    return json.dumps({"status": "success", "data": {"prompt_run_id": exchange.accept()}}).encode()


def accept(exchange: Exchange) -> None:
    """Store the log and answer with success, as Athina does."""
    exchange.respond(200, _stored(exchange))


def answer(status: int, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with this status, by default with an error in Athina's form; a 2xx or 409 stores the log."""
    words = json.dumps({"error": f"status {status}", "details": {"message": "as the test asked"}}).encode()

    def fault(exchange: Exchange) -> None:
        stored = _stored(exchange) if status // 100 == 2 or status == 409 else words
        exchange.respond(status, stored if body is None else body, headers)

    return fault


def html(status: int) -> Fault:
    """Answer with HTML, like a proxy in front of Athina."""
    page = b"<html><head><style>b{}</style></head><body><h1>Bad &amp; sad</h1><p>nginx</p></body></html>"
    return answer(status, page, {"Content-Type": "text/html"})


def busy(retry_after: float | str, status: int = 429) -> Fault:
    """Answer 429, with `Retry-After` in seconds or with any other value."""
    return answer(status, None, {"Retry-After": str(retry_after)})


def redirect(url: str, status: int = 307) -> Fault:
    """Redirect."""
    return answer(status, b"", {"Location": url})


def delay(seconds: float, then: Fault = accept) -> Fault:
    """Wait first."""

    def fault(exchange: Exchange) -> None:
        if exchange.wait(seconds):
            then(exchange)

    return fault


def hang(exchange: Exchange) -> None:
    """Do not answer until the server stops."""
    exchange.wait(_PATIENCE)


def close_before_answer(exchange: Exchange) -> None:
    """Read the request and hang up."""
    exchange.close()


def reset(exchange: Exchange) -> None:
    """Reset the connection."""
    exchange.close(reset=True)


def lose_answer(exchange: Exchange) -> None:
    """Store the log, and hang up without an answer."""
    exchange.accept()
    exchange.close()


def close_in_mid_answer(exchange: Exchange) -> None:
    """Store the log, and hang up within the status line."""
    exchange.accept()
    exchange.write(b"HTTP/1.1 20")
    exchange.close()


def close_in_mid_body(exchange: Exchange) -> None:
    """Store the log, and hang up within the body of the answer."""
    exchange.write(response(200, _stored(exchange))[:-10])
    exchange.close()


def drip(data: bytes, interval: float) -> Fault:
    """Send these bytes one by one, repeatedly, forever."""

    def fault(exchange: Exchange) -> None:
        position = 0
        while exchange.wait(interval):
            exchange.write(data[position : position + 1])
            position = (position + 1) % len(data)

    return fault


def drip_headers(interval: float) -> Fault:
    """Send endless headers, byte by byte."""

    def fault(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 x\r\n")
        drip(b"a: b\r\n", interval)(exchange)

    return fault


def drip_body(interval: float, status: int = 200) -> Fault:
    """Send a body byte by byte, without an end."""

    def fault(exchange: Exchange) -> None:
        exchange.write(f"HTTP/1.1 {status} x\r\nConnection: close\r\n\r\n".encode())
        drip(b"x", interval)(exchange)

    return fault


def _flood(start: bytes, again: bytes) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.write(start)
        while exchange.wait(0):
            exchange.write(again)

    return fault


endless_body: Final = _flood(b"HTTP/1.1 500 x\r\nConnection: close\r\n\r\n", b"x" * 65_536)
endless_headers: Final = _flood(b"HTTP/1.1 500 x\r\n", b"x-more: and more\r\n" * 500)
continue_for_ever: Final = _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50)


def http10(exchange: Exchange) -> None:
    """Answer in HTTP/1.0, and close."""
    exchange.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + _stored(exchange))
    exchange.close()


def bad_json(exchange: Exchange) -> None:
    """Store the log and answer with invalid JSON."""
    exchange.accept()
    exchange.respond(200, b'{"data": {"prompt_run_id": ')


def wrong_encoding(exchange: Exchange) -> None:
    """Store the log, and answer with a wrong encoding and character set."""
    exchange.accept()
    exchange.respond(
        200, b"\xff\xfe{", {"Content-Encoding": "gzip", "Content-Type": "application/json; charset=utf-99"}
    )


def gzipped(status: int, body: bytes) -> Fault:
    """Compress the answer, although the client did not ask for it."""
    return answer(status, gzip.compress(body), {"Content-Encoding": "gzip"})


def raw(data: bytes) -> Fault:
    """Send exactly these bytes and hang up."""

    def fault(exchange: Exchange) -> None:
        exchange.write(data)
        exchange.close()

    return fault


CHAOS: Final[tuple[Fault, ...]] = (
    answer(500), html(502), busy(0), delay(0.05), close_before_answer, reset, lose_answer,
    close_in_mid_answer, close_in_mid_body,
    http10, bad_json, wrong_encoding,
)  # fmt: skip
"""Faults that occur in production. After each of them, a log is either delivered or to be retried, never
refused."""
