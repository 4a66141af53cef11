"""One measurement of athina_trace alone, in its own process: `python -m tests.benchmarks.growth_worker NAME ...`.

Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import athina_trace as api

from .worker import added, times, warm
from .workload import ANSWER, arguments, handler

Figures = dict[str, Any]


def _settled() -> None:
    """Let the engine collect all logs."""
    api.flush(60.0)


def waiting(logs: int, calls: int) -> Figures:
    """Measure a call while so many undelivered logs wait."""
    api.configure()
    decorated = api.athina_trace(handler)
    warm(decorated)
    times(decorated, range(logs))
    _settled()
    return added(times(handler, range(calls)), times(decorated, range(calls)))


def threads(number: int, calls: int) -> Figures:
    """Measure the wall time per call in microseconds, all threads together."""
    api.configure()
    decorated = api.athina_trace(handler)
    warm(decorated)
    given = [[arguments(call) for call in range(calls // number)] for _ in range(number)]
    start = threading.Barrier(number + 1)

    def work(mine: list[Any]) -> None:
        start.wait()
        for each in mine:
            decorated(*each)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in given]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return {"median": (time.perf_counter() - began) / (calls // number * number) * 1e6}


def process(start: float, calls: int) -> Figures:
    """Measure a call in one of several processes, which all begin at `start` (seconds since the epoch)."""
    api.configure()
    decorated = api.athina_trace(handler)
    warm(decorated)
    bare = times(handler, range(calls))
    time.sleep(max(0.0, start - time.time()))
    return added(bare, times(decorated, range(calls)))


def payload(size: int, calls: int) -> Figures:
    """Measure a call with a question of so many bytes, and `json.dumps` and a write of the same."""
    api.configure()
    decorated = api.athina_trace(lambda question: ANSWER)
    question = ("How do I send this parcel back, please? " * (size // 40 + 1))[:size]
    with tempfile.TemporaryFile() as file:

        def plainly() -> None:
            log = {"prompt": [{"role": "user", "content": question}], "user_query": question, "response": ANSWER}
            os.write(file.fileno(), json.dumps(log).encode())

        return {"ours": _median(lambda: decorated(question), calls), "plain": _median(plainly, calls)}


def _median(function: Callable[[], Any], calls: int) -> float:
    taken = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        function()
        taken.append(time.perf_counter_ns() - began)
    return sorted(taken)[calls // 2] / 1000


BUCKETS = (1, 2, 5, 10, 20, 50)
"""Upper bounds, milliseconds."""
_LARGE = "The parcel is not what I ordered. " * 3000  # 100 KB


def stalls(url: str, seconds: float) -> Figures:
    """Measure how late a 1 ms timer of an event loop is during 300 calls a second, every hundredth with 100 KB."""
    api.configure(api_key="key", base_url=url)
    decorated = api.athina_trace(handler)
    warm(decorated)
    _settled()
    # A full collection of all imported objects takes 30 ms at any time: only our own objects should count.
    gc.collect()
    gc.freeze()
    return {"bare": asyncio.run(_lateness(handler, seconds / 4)), "ours": asyncio.run(_lateness(decorated, seconds))}


async def _lateness(function: Callable[..., Any], seconds: float) -> dict[str, Any]:
    late: list[float] = []
    longest_call = 0.0
    timer = asyncio.create_task(_tick(late))
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        messages, question, context, session = arguments(number)
        began = time.perf_counter()
        function(messages, question, [_LARGE] if number % 100 == 0 else context, session)
        longest_call = max(longest_call, (time.perf_counter() - began) * 1000)
        number += 1
        await asyncio.sleep(1 / 300)
    timer.cancel()
    buckets = Counter(next((bound for bound in BUCKETS if each < bound), BUCKETS[-1] * 2) for each in late)
    shown = {str(bound): count for bound, count in sorted(buckets.items())}
    return {"buckets": shown, "longest": max(late), "call": longest_call}


async def _tick(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - began) * 1000 - 1)


def backlog(url: str, logs: int) -> Figures:
    """Measure the speed of a busy thread while a backlog drains, and how many logs are delivered meanwhile."""
    alone = _speed(1.0)
    api.configure(api_key="key", base_url=url)
    decorated = api.athina_trace(handler)
    times(decorated, range(logs))
    before = api.status().delivered
    speed = _speed(3.0)
    rate = (api.status().delivered - before) / 3.0
    api.shutdown(0)
    # It runs alone before and after, since the load of other programs changes.
    return {"speed": 2 * speed / (alone + _speed(1.0)), "rate": rate}


def _speed(seconds: float) -> float:
    """Return the rounds per second of a pure Python loop."""
    rounds, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(20_000):
            pass
        rounds += 1
    return rounds / (time.perf_counter() - began)


def in_flight(url: str, logs: int) -> Figures:
    """Deliver a backlog to a slow server; the sink reports how many concurrent requests it had."""
    api.configure(api_key="key", base_url=url)
    times(api.athina_trace(handler), range(logs))
    return {"elapsed": api.flush(60.0).elapsed, "connections": api.Settings().connections}


MEASUREMENTS: dict[str, Callable[..., Figures]] = {
    each.__name__: each for each in (waiting, threads, process, payload, stalls, backlog, in_flight)
}


def main(name: str, *arguments: str) -> None:
    given = [each if each.startswith("http") else float(each) if "." in each else int(each) for each in arguments]
    print(json.dumps(MEASUREMENTS[name](*given)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
