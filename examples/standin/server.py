"""HTTP for the stand-in: finds the endpoint of a request, sends its answer whole or as server-sent events."""

import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from standin.wire import Answer, ApiError, Endpoint, Event, Json, Request, Routes, new_id

MISSING_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
)


class Router:
    """Endpoints by method and path, one request at a time: the state behind them needs no further locks."""

    def __init__(self, *tables: Routes) -> None:
        self._lock = threading.Lock()
        self._routes = [(_pattern(path), endpoint) for table in tables for path, endpoint in table.items()]

    def answer(self, line: str, query: dict[str, list[str]], body: Json) -> Answer:
        """Answer `METHOD /path`; an `ApiError` where nothing fits."""
        for pattern, endpoint in self._routes:
            if match := pattern.fullmatch(line):
                return self._call(endpoint, Request(body, query, match.groupdict()))
        raise ApiError(404, f"Invalid URL ({line})")

    def _call(self, endpoint: Endpoint, request: Request) -> Answer:
        with self._lock:
            answer = endpoint(request)
            return replace(answer, body=deepcopy(answer.body))  # it is written outside the lock


class Server(ThreadingHTTPServer):
    """The listening socket, on the loopback alone. `latency` is in seconds."""

    daemon_threads = True
    request_queue_size = 128  # many clients may knock at once

    def __init__(self, router: Router, *, port: int, latency: float) -> None:
        super().__init__(("127.0.0.1", port), type("Handler", (Handler,), {"router": router, "latency": latency}))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that left in the middle of a stream: clients may."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open for further requests."""

    router: Router
    latency: float
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _respond(self) -> None:
        started = time.monotonic()
        try:
            answer = self._ask()
        except ApiError as error:
            self._send_whole(error.status, error.body, started)
            return
        pause = self.latency if answer.thought else 0
        if answer.events is None:
            time.sleep(pause)
            self._send_whole(200, answer.body, started)
        else:
            self._send_events(answer.events, pause / max(len(answer.events), 1))

    do_GET = do_POST = do_DELETE = _respond  # noqa: N815 - the names that BaseHTTPRequestHandler looks for

    def _ask(self) -> Answer:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            raise ApiError(401, MISSING_KEY)
        url = urlsplit(self.path)
        return self.router.answer(f"{self.command} {url.path}", parse_qs(url.query), _parsed(body))

    def _send_whole(self, status: int, body: Json, started: float) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self._send_head(status, "application/json")
        self.send_header("openai-processing-ms", str(round((time.monotonic() - started) * 1000)))
        self.send_header("openai-poll-after-ms", str(max(round(self.latency * 500), 1)))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_events(self, events: Sequence[Event], pause: float) -> None:
        self._send_head(200, "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            time.sleep(pause)
            self._send_chunk(_encoded(event))
        self._send_chunk(b"")

    def _send_head(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("x-request-id", new_id("req_", size=32))

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep the terminal for the demo."""


def _pattern(line: str) -> re.Pattern[str]:
    """`GET /threads/{thread}` as a pattern, with or without the leading `/v1` of the base URL."""
    method, path = line.split()
    return re.compile(f"{method} (?:/v1)?" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def _parsed(body: bytes) -> Json:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        raise ApiError(400, "We could not parse the JSON body of your request.") from None
    return found if isinstance(found, dict) else {}


def _encoded(event: Event) -> bytes:
    data = event.data if isinstance(event.data, str) else json.dumps(event.data, ensure_ascii=False)
    name = f"event: {event.name}\n" if event.name else ""
    return f"{name}data: {data}\n\n".encode()
