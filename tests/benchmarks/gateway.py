"""Measure the requests per second of a gateway: `python -m tests.benchmarks.gateway [--rate 2000] [--processes 1]`.

Requests are due at a steady rate, whether the gateway keeps up or not, and each is timed from when it was due. The
gateway delivers to the benchmarks' sink meanwhile: server, load and sink share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from typing import Any

from . import runs

_CONNECTIONS = 64
_LOG = {
    "language_model_id": "gpt-4o",
    "prompt": [{"role": "system", "content": "You help customers." * 10}, {"role": "user", "content": "Where is it?"}],
    "response": "It reaches you tomorrow by 14:00. " * 10,
    "context": ["Parcels arrive between 9:00 and 18:00. " * 5] * 3,
    "user_query": "Where is my parcel?",
    "prompt_tokens": 120,
    "completion_tokens": 40,
    "custom_attributes": {"region": "eu", "attempt": 1},
}


_HEAD = (
    b"POST /api/v1/log/inference HTTP/1.1\r\nhost: 127.0.0.1\r\nathina-api-key: k\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


class _Client(asyncio.Protocol):
    """One connection with at most one request in flight."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._data = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def send(self, due: float, request: bytes) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if found and len(rest) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            self._data = b""
            self._load.answered(self, head.startswith(b"HTTP/1.1 200 "))


class Load:
    """A load generator that sends requests when they are due, on any free connection."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = 0
        self._free: deque[_Client] = deque()
        self._due: deque[float] = deque()
        self._number = 0

    async def connect(self, port: int) -> None:
        _, client = await asyncio.get_running_loop().create_connection(lambda: _Client(self), "127.0.0.1", port)
        self._free.append(client)

    def answered(self, client: _Client, good: bool) -> None:
        self.seconds.append(time.perf_counter() - client.due)
        self.failed += not good
        self._free.append(client)
        self._send()

    def _send(self) -> None:
        while self._free and self._due:
            self._number += 1
            body = json.dumps({**_LOG, "session_id": f"s{self._number % 1000}"}).encode()
            self._free.popleft().send(self._due.popleft(), _HEAD % len(body) + body)

    async def run(self, rate: float, seconds: float) -> float:
        """Send at `rate` for so many seconds; return when the last response arrived, in seconds from the start."""
        self.seconds, self.failed = [], 0
        began, count = time.perf_counter(), int(rate * seconds)
        planned = 0
        while len(self.seconds) < count and time.perf_counter() - began < 2 * seconds + 30:
            now = time.perf_counter() - began
            while planned < count and planned / rate <= now:
                self._due.append(began + planned / rate)
                planned += 1
            self._send()
            await asyncio.sleep(0.001)
        return time.perf_counter() - began


async def _measure(ports: list[int], warm_up: int, rate: float, seconds: float) -> tuple[Load, float]:
    load = Load()
    for _ in range(_CONNECTIONS // len(ports)):
        for port in ports:
            await load.connect(port)
    await load.run(500, warm_up / 500)
    return load, await load.run(rate, seconds)


def _start(sink: str, folder: str) -> subprocess.Popen[str]:
    settings = {"ATHINA_API_KEY": "k", "ATHINA_BASE_URL": sink, "XDG_STATE_HOME": folder, "ATHINA_EXIT_TIMEOUT": "60"}
    return subprocess.Popen(
        [sys.executable, "-m", "athina_trace", "gateway", "--port", "0"],
        env={**os.environ, **settings, "PYTHONPATH": str(runs.ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().strip().rpartition(":")[2])


def main() -> None:
    """Run gateways, load and sink, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gateway", description=__doc__)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm-up", type=int, default=500, help="requests before those that are measured")
    parser.add_argument("--processes", type=int, default=1, help="gateways that share an outbox, each on its own port")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, runs.sink() as sink:
        gateways = [_start(sink, folder) for _ in range(options.processes)]
        ports = [_port(each) for each in gateways]
        load, took = asyncio.run(_measure(ports, options.warm_up, options.rate, options.seconds))
        for gateway in gateways:
            gateway.send_signal(signal.SIGTERM)
        ended = [os.wait4(gateway.pid, 0) for gateway in gateways]
        delivered = runs.ask(sink, "report")["requests"]
    times = sorted(load.seconds)
    made = len(times) + options.warm_up
    processor = sum(usage.ru_utime + usage.ru_stime for _, _, usage in ended)
    print(f"asked for    {options.rate:.0f} requests/s over {options.seconds:g} s, on {_CONNECTIONS} connections")
    print(f"answered     {len(times) / took:.0f}/s in {took:.1f} s, {load.failed} of {len(times)} not with 200")
    for name, share in (("median", 0.5), ("99th", 0.99), ("99.9th", 0.999), ("longest", 1.0)):
        print(f"{name:<12} {1000 * times[min(len(times) - 1, int(share * len(times)))]:.1f} ms")
    codes = [os.waitstatus_to_exitcode(status) for _, status, _ in ended]
    print(f"delivered    {delivered} of {made}, exit codes {codes}")
    print(f"CPU          {1e6 * processor / made:.0f} µs for each log, delivery included")


if __name__ == "__main__":
    main()
