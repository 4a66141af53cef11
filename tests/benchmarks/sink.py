"""The sink: one HTTP server on loopback that accepts whatever the contestants send, and counts calls that arrived.

`GET /bench/start?<seconds of delay>` begins a measurement, `GET /bench/report` ends it. Bodies are kept as received
and read when the report is requested, so that counting does not affect the measurement.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import zlib
from importlib import import_module
from typing import Any

from .workload import FIRST_UNCOUNTED, MARK

_ANSWER = json.dumps(
    {
        "status": "success",
        "data": {"prompt_run_id": "run"},  # Athina
        "project_name": "benchmark",  # Logfire
        "project_url": "http://127.0.0.1/benchmark",
        "instance_flags": {"zstd_compression_enabled": True},  # LangSmith's quickest way
    }
).encode()
"""What each contestant's own server would say, in one."""


class Sink:
    """All that arrived since the last start."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.arrived: list[tuple[float, bytes, bytes]] = []
        self.in_flight = self.most_in_flight = self.connections = 0

    def start(self, delay: str) -> dict[str, Any]:
        self.delay = float(delay or 0)
        self.arrived.clear()
        self.most_in_flight = self.connections = 0
        return {}

    def report(self, _: str = "") -> dict[str, Any]:
        """Return the numbers of arrived calls and requests, and when the last new call arrived (in epoch seconds)."""
        calls: set[bytes] = set()
        last = 0.0
        for at, encoding, body in self.arrived:
            new = {mark for mark in MARK.findall(_unpacked(encoding, body)) if mark < FIRST_UNCOUNTED} - calls
            calls |= new
            last = at if new else last
        counts = {"requests": len(self.arrived), "in_flight": self.most_in_flight, "connections": self.connections}
        return {"delivered": len(calls), "last": last, **counts}


def _unpacked(encoding: bytes, body: bytes) -> bytes:
    if encoding == b"gzip":
        return zlib.decompress(body, wbits=31)
    if encoding == b"deflate":
        return zlib.decompress(body)
    if encoding == b"zstd":
        with import_module("zstandard").ZstdDecompressor().stream_reader(body) as reader:
            return bytes(reader.read())
    return body


class Conversation(asyncio.Protocol):
    """One connection: HTTP/1.1 with a length or in chunks, which is all that the contestants use."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._sink.connections += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            lines = self._data[:end].lower().split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines[1:])
            if b"100-continue" in headers.get(b"expect", b""):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body, after = _body(headers, self._data, end + 4)
            if after < 0:
                return
            self._data = self._data[after:]
            self._take(lines[0], headers.get(b"content-encoding", b""), body)

    def _take(self, request: bytes, encoding: bytes, body: bytes) -> None:
        sink = self._sink
        path = request.split(b" ")[1].decode()
        if path.startswith("/bench/"):
            verb, _, argument = path.removeprefix("/bench/").partition("?")
            self._answer(json.dumps(getattr(sink, verb)(argument)).encode())
            return
        sink.arrived.append((time.time(), encoding, body))
        sink.in_flight += 1
        sink.most_in_flight = max(sink.most_in_flight, sink.in_flight)
        if sink.delay:
            asyncio.get_running_loop().call_later(sink.delay, self._done)
        else:
            self._done()

    def _done(self) -> None:
        self._sink.in_flight -= 1
        self._answer(_ANSWER)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


def _body(headers: dict[bytes, bytes], data: bytes, start: int) -> tuple[bytes, int]:
    """Return the body that begins at `start` and its end, or -1 if it has not arrived yet."""
    if headers.get(b"transfer-encoding") != b"chunked":
        end = start + int(headers.get(b"content-length", b"0"))
        return (data[start:end], end) if len(data) >= end else (b"", -1)
    body = b""
    while (line := data.find(b"\r\n", start)) >= 0:
        size = int(data[start:line].split(b";")[0], 16)
        start = line + 2 + size + 2
        if len(data) < start:
            break
        if not size:
            return body, start
        body += data[line + 2 : start - 2]
    return b"", -1


async def serve(port: int) -> None:
    sink = Sink()
    server = await asyncio.get_running_loop().create_server(lambda: Conversation(sink), "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    # Run until the parent closes our standard input or ends.
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
