"""A server with scripted answers for each method and path of OpenAI's API.

    with Server() as server:
        server.on("POST /responses", response("resp_1"))
        server.on("GET /threads/thread_1/runs/run_1", run(status="queued"), run())   # the last one stays

`requests` holds what was asked, in order: method, path with its query, and body.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .samples import Wire

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Failure:
    """An answer with an error status, in OpenAI's form for errors."""

    status: int
    message: str

    @property
    def body(self) -> Wire:
        return {"error": {"message": self.message, "type": "invalid_request_error", "param": None, "code": None}}


@dataclass(frozen=True)
class Events:
    """A stream of events, with their names if any; `breaks` closes the connection in the middle."""

    events: Sequence[Any]
    breaks: bool = False

    @classmethod
    def of_assistants(cls, *named: tuple[str, Any]) -> Events:
        return cls([*named, ("done", "[DONE]")])

    @classmethod
    def of_response(cls, *events: Wire) -> Events:
        return cls([(event["type"], {"sequence_number": n, **event}) for n, event in enumerate(events)])

    @classmethod
    def of_chat(cls, *chunks: Wire) -> Events:
        return cls([*((None, chunk) for chunk in chunks), (None, "[DONE]")])

    def encoded(self) -> list[bytes]:
        return [self._event(name, data).encode() for name, data in self.events]

    def _event(self, name: str | None, data: Any) -> str:
        text = data if isinstance(data, str) else json.dumps(data)
        return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"


Reply = Wire | Failure | Events | str
"""A text is a page that a proxy answers with."""


class Server:
    """A server on loopback for the length of a `with` block."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        self._replies: dict[str, list[Reply]] = defaultdict(list)
        self._lock = threading.Lock()
        self._http = _HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def on(self, line: str, *replies: Reply) -> Self:
        """Answer `METHOD /path` (without a query) with these, one after the other."""
        self._replies[line] += replies
        return self

    def take(self, method: str, target: str, body: str) -> Reply:
        path = target.split("?", maxsplit=1)[0].removeprefix("/v1")
        with self._lock:
            self.requests.append((method, target, body))
            waiting = self._replies.get(f"{method} {path}")
            if not waiting:
                return Failure(404, f"nothing is laid out for {method} {path}")
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # hundreds of tasks may connect at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report clients that disconnect early, as they may."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    script: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        reply = self.script.take(self.command, self.path, body)
        if isinstance(reply, Events):
            self._stream(reply)
        elif isinstance(reply, Failure):
            self._whole(reply.status, reply.body)
        else:
            self._whole(200, reply)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names that BaseHTTPRequestHandler looks for

    def _whole(self, status: int, body: Wire | str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Events) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in reply.encoded():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if not reply.breaks:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = reply.breaks

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep the tests' output clean."""
