"""Measure deliveries to slow, unreliable, strict and busy servers: `python -m tests.benchmarks.servers [ROW ...]`.

Each row is one server on loopback and one program that logs to it, in separate processes. The program reports how many
logs per second the server accepted; the server, how many requests it saw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from .tables import terminal

_TAKEN = b'{"status":"success","data":{"prompt_run_id":"run"}}'
_LOST = 0
"""No answer after the log was taken."""
_RESET = 1
"""No answer, and the log was not taken."""


@dataclass
class Seen:
    """The counts of a server."""

    taken: int = 0
    refused: int = 0
    bad: int = 0


class Allowance:
    """A rate limit: a number of requests in each second of the clock."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._second = self._used = 0

    def status(self) -> int:
        if self._second != int(time.time()):
            self._second, self._used = int(time.time()), 0
        self._used += 1
        return 200 if self._used <= self._number else 429


@dataclass
class Row:
    """One server, and the program that logs to it."""

    title: str
    goal: str
    delay: Callable[[], float] = lambda: 0.0
    status: Callable[[], int] = lambda: 200
    sessions: int = 60
    logs: int = 600
    seconds: float = 60.0
    """How long the program waits for its logs; where they are not all taken, this is what it measures."""
    busy: bool = False
    """Whether the program computes without a pause meanwhile."""


def _unreliable() -> int:
    return random.choice([_RESET, 500, 429, _LOST]) if random.random() < 1 / 3 else 200


_allowance = Allowance(100)
ROWS = {
    "unreliable": Row("a third fails at random, 60 sessions", "600 within 10 s", status=_unreliable, seconds=150.0),
    "slow": Row("300 ms for each request, 300 sessions", "150/s", delay=lambda: 0.3, sessions=300, logs=3000),
    "mixed": Row(
        "20 % at 0 ms, 80 % at 60 ms",
        "80 % of constant",
        delay=lambda: 0.06 if random.random() < 0.8 else 0.0,
        logs=3000,
    ),
    "constant": Row("48 ms for each request", "", delay=lambda: 0.048, logs=3000),
    "limited": Row(
        "100 a second, 429 beyond", "95/s, 429 < 100", status=_allowance.status, sessions=5000, logs=5000, seconds=20.0
    ),
    "quick": Row("answers at once", "no slower", sessions=5000, logs=5000),
    "busy": Row("the program computes without a pause", "300/s, 85 %", sessions=3000, logs=6000, busy=True),
}


async def _converse(row: Row, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(lines.get(b"content-length", 0)))
            if head.startswith(b"GET"):
                body = json.dumps(vars(seen)).encode()
                writer.write(b"HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                continue
            if delay := row.delay():
                await asyncio.sleep(delay)
            status = row.status()
            seen.taken += status in (200, _LOST)
            seen.refused += status == 429
            seen.bad += status not in (200, 429)
            if status in (_LOST, _RESET):
                writer.transport.abort()
                return
            body = _TAKEN if status == 200 else b"{}"
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


async def _serve(row: Row) -> None:
    seen = Seen()
    server = await asyncio.start_server(
        lambda reader, writer: _converse(row, seen, reader, writer), "127.0.0.1", 0, backlog=512
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    # Standard input is closed when the program or this process ends.
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(vars(seen)), flush=True)


def _compute(seconds: float) -> float:
    """Compute for `seconds`; return this thread's share of the process's computing.

    The share is of CPU time, since that of wall time depends on other programs.
    """
    ends, mine, all_threads = time.perf_counter() + seconds, time.thread_time(), time.process_time()
    while time.perf_counter() < ends:
        sum(range(10_000))
    return (time.thread_time() - mine) / (time.process_time() - all_threads)


def _work(row: Row) -> None:
    import athina_trace  # noqa: PLC0415 - the server has no need of it

    for number in range(row.logs):
        athina_trace.log_inference(user_query="q", response="r", session_id=f"session {number % row.sessions}")
    began, cpu = time.perf_counter(), time.process_time()
    speed = 1.0
    if row.busy:
        speed = _compute(5.0)
        report, elapsed = athina_trace.flush(0), time.perf_counter() - began
    else:
        report = athina_trace.flush(row.seconds)
        elapsed = time.perf_counter() - began
    counts = athina_trace.status()
    print(
        json.dumps(
            {
                "delivered": counts.delivered,
                "seconds": elapsed,
                "cpu": 0.0 if row.busy else (time.process_time() - cpu) / max(counts.delivered, 1),
                "speed": speed,
                "report": str(report),
            }
        )
    )
    athina_trace.shutdown(0)


def measure(name: str) -> list[str]:
    """Measure one row of the table."""
    command = [sys.executable, "-m", "tests.benchmarks.servers", name]
    with (
        subprocess.Popen([*command, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        assert server.stdout is not None
        environment = {
            **os.environ,
            "ATHINA_API_KEY": "key",
            "ATHINA_BASE_URL": f"http://127.0.0.1:{server.stdout.readline().strip()}",
            "ATHINA_OUTBOX": f"{folder}/outbox.db",
        }
        done = subprocess.run([*command, "--work"], env=environment, capture_output=True, text=True, check=True)
        seen = Seen(**json.loads(server.communicate()[0]))
    figures = json.loads(done.stdout.splitlines()[-1])
    row = ROWS[name]
    return [
        row.title,
        row.goal,
        f"{figures['delivered']} of {row.logs} in {figures['seconds']:.1f} s",
        f"{figures['delivered'] / figures['seconds']:.0f}/s",
        f"{figures['cpu'] * 1e6:.0f} us" if figures["cpu"] else "-",
        str(seen.refused or "-"),
        f"{figures['speed']:.0%}" if row.busy else "-",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.servers", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="which of them; all by default")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(_serve(ROWS[given.rows[0]]))
    elif given.work:
        _work(ROWS[given.rows[0]])
    else:
        head = ["server", "goal", "delivered", "rate", "CPU for each", "429", "the program's share"]
        print(terminal([head, *(measure(name) for name in given.rows or ROWS)]))


if __name__ == "__main__":
    main()
