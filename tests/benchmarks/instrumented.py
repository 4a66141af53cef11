"""Measure what instrumentation adds to an undecorated `responses.create`, including its log on disk.

    python -m tests.benchmarks.instrumented [turns]

A client makes 300 calls to a server in its own process, which answers every request equally, except for the id, as soon
as it can; then the client is instrumented and makes as many again, and so on in turns. Each turn is compared with those
before and after it, since the speed of machines varies: the shorter the turns, the smaller the effect. The engine
pauses during such quick calls, and works after every few turns; its time outside calls is not in this figure.
Client, engine and server share one processor core if the system allows it: waking another one takes an unpredictable
time, up to several times what is measured here.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from openai import OpenAI

import athina_trace
from tests.openai.samples import output_text, response

_CALLS, _UNCOUNTED = 300, 100
_TURNS_TO_REST = 4
_REST = 0.5
_ID = "resp_00000001"
"""Of the answer; each has a number of as many digits in its place, since no server of OpenAI's repeats an id."""
_numbers = count(1)


def turn(client: OpenAI) -> float:
    """Return the median of a turn's calls, in microseconds."""
    times = []
    for _ in range(_UNCOUNTED + _CALLS):
        began = time.perf_counter()
        client.responses.create(model="gpt-4.1", input="What is the capital of France?")
        times.append(time.perf_counter() - began)
    return statistics.median(times[_UNCOUNTED:]) * 1e6


def measure(url: str, turns: int) -> tuple[float, float]:
    """Return the client's own time for a call, and the added time, in microseconds: medians over the turns."""
    client = OpenAI(base_url=url, api_key="any", max_retries=0)
    own, added = [turn(client)], []
    for number in range(turns):
        if number % _TURNS_TO_REST == 0:
            time.sleep(_REST)
        athina_trace.instrument_openai()
        took = turn(client)
        athina_trace.uninstrument_openai()
        own.append(turn(client))
        added.append(took - (own[-2] + own[-1]) / 2)
    return statistics.median(own), statistics.median(added)


@contextmanager
def server() -> Iterator[str]:
    """Run the server in its own process; yield the base URL."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def serve(told: Connection) -> None:
    """Answer every request equally, with as little work as possible."""
    body = json.dumps(response(_ID, output_text("The capital of France is Paris.")), indent=2).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told.send(listener.getsockname()[1])
        while True:
            threading.Thread(target=_answer, args=(listener.accept()[0], head + body), daemon=True).start()


def _answer(connection: socket.socket, answer: bytes) -> None:
    before, after = answer.split(_ID.encode())
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    while piece := connection.recv(65_536):
        received += piece
        head, end, body = received.partition(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        if end and len(body) >= int(length.partition(b":")[2]):
            received = b""
            connection.sendall(b"%b%0*d%b" % (before, len(_ID), next(_numbers), after))


def main() -> None:
    """Measure and print."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 80
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        with server() as url:
            athina_trace.configure(outbox=str(Path(folder) / "outbox.db"), api_key=None)
            own, added = measure(url, turns)
        print(f"the client alone {own:.0f} µs, instrumented {added:.0f} µs more: {added / own:.1%}", flush=True)
        athina_trace.shutdown(timeout=0)  # waiting logs do not matter here


if __name__ == "__main__":
    main()
