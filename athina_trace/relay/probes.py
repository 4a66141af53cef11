"""A worker's HTTP endpoints for an orchestrator and Prometheus: `/healthz`, `/readyz` and `/metrics`.

Served by the worker's own loop, so that a hanging worker does not answer. Written without a framework, since a worker
needs none and only the first line of a request matters.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from athina_trace import _guard
from athina_trace._delivery.metrics import CONTENT_TYPE, Metric, exposition, of_process, single
from athina_trace.relay.worker import RelayWorker

_MAX_HEAD: Final = 8192
_MAX_CONNECTIONS: Final = 64
_SECONDS: Final = 5.0
"""Maximum duration of a connection: longer than the request for the stream's figures."""
_TEXT: Final = "text/plain; charset=utf-8"


class Probes:
    """Answers for one worker. The answers contain no secrets and no parts of logs."""

    def __init__(self, worker: RelayWorker) -> None:
        self._worker = worker
        self._open = 0

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Listen at this address. Raises OSError if it is taken, or does not belong to this machine."""
        return await asyncio.start_server(self._connected, host, port, limit=_MAX_HEAD)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MAX_CONNECTIONS:
                await asyncio.wait_for(self._exchange(reader, writer), _SECONDS)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # too slow, gone, or no HTTP
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        if method in (b"GET", b"HEAD"):
            status, content_type, body = await self._answer(
                rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
            )
        else:
            status, content_type, body = "405 Method Not Allowed", _TEXT, "only GET is supported\n"
        data = body.encode()
        lines = (f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(data)}")
        writer.write("\r\n".join((*lines, "connection: close", "", "")).encode() + (b"" if method == b"HEAD" else data))
        writer.close()
        await writer.wait_closed()

    async def _answer(self, path: str) -> tuple[str, str, str]:
        """Return status, type and body."""
        if path == "/healthz":
            return "200 OK", _TEXT, "ok\n"
        if path == "/readyz":
            obstacle = self._worker.obstacle
            return (
                ("200 OK", _TEXT, "ready\n")
                if obstacle is None
                else ("503 Service Unavailable", _TEXT, f"{obstacle}\n")
            )
        if path == "/metrics":
            return "200 OK", CONTENT_TYPE, exposition(await self._metrics())
        return "404 Not Found", _TEXT, "not found: try /healthz, /readyz or /metrics\n"

    async def _metrics(self) -> list[Metric]:
        backlog = await self._worker.backlog()
        report = self._worker.report()
        metrics = [
            single(
                "relay_delivered_total", "counter", "Logs of this worker that Athina accepted.", report["delivered"]
            ),
            single(
                "relay_refused_total",
                "counter",
                "Logs of this worker that Athina refused; they are kept.",
                report["refused"],
            ),
            single("relay_failed_total", "counter", "Failed attempts, each of which is repeated.", report["failed"]),
            single("relay_held", "gauge", "Logs that this worker has claimed.", report["held"]),
            single("relay_connected", "gauge", "1 if the stream reports how many logs wait.", backlog is not None),
            *of_process(self._worker.traffic(), paused=bool(report["paused"]), faults=_guard.faults),
        ]
        if backlog is None:
            return metrics  # neither of the next two is 0: it is not known
        waiting, since = backlog
        age = 0.0 if since is None else max(0.0, time.time() - since)
        return [
            *metrics,
            single("relay_waiting", "gauge", "Logs in the stream, for all workers.", waiting),
            single("relay_oldest_waiting_seconds", "gauge", "Age of the oldest log in the stream.", age),
        ]
