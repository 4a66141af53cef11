"""How athina_trace's own costs grow, without its peers; each figure from its own process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import runs
from .growth_worker import BUCKETS

Grid = list[list[str]]


def growth(url: str, *, quick: bool) -> list[tuple[str, Grid]]:
    """Return titles and tables."""
    rounds, calls = (1, 1000) if quick else (2, 3000)
    backlogs = (1, 1000, 10_000) if quick else (1, 1000, 10_000, 100_000)
    return [
        ("Added at the call, microseconds, by logs that wait", _row(backlogs, lambda n: _waiting(n, calls), rounds)),
        (
            "Wall time for each call, microseconds, by threads",
            _row((1, 2, 4, 8), lambda n: _one("threads", n, 4 * calls), rounds),
        ),
        (
            "Added at the call, microseconds, by processes on one outbox",
            _row((1, 2, 4, 8), lambda n: _processes(n, calls), rounds),
        ),
        ("The call, microseconds, by size of the question", _payloads(calls // 10)),
        ("Lateness of an event loop's timer, in thousandths of its ticks", _stalls(url, 5 if quick else 60)),
        ("Delivery", _delivery(url, 1000 if quick else 3000, rounds)),
    ]


def _work(*arguments: object) -> dict[str, Any]:
    with runs.state() as folder:
        return runs.work("growth_worker", *arguments, at=folder, longest=150.0)


def _one(*arguments: object) -> float:
    return float(_work(*arguments)["median"])


def _waiting(logs: int, calls: int) -> float:
    return _one("waiting", logs, calls)


def _row(numbers: tuple[int, ...], measure: Callable[[int], float], rounds: int) -> Grid:
    """Return medians over the rounds, and their ratios to the first."""
    taken: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(rounds):
        for number in numbers:
            taken[number].append(measure(number))
    medians = [statistics.median(taken[number]) for number in numbers]
    cells = [f"{median:.0f} ({median / medians[0]:.1f}x)" for median in medians]
    return [["", *(f"{number:,}" for number in numbers)], ["athina_trace", *cells]]


def _processes(number: int, calls: int) -> float:
    """Return the worst of the processes' medians."""
    start = time.time() + 1.0 + number / 2
    with runs.state() as folder, ThreadPoolExecutor(number) as pool:
        running = [
            pool.submit(runs.work, "growth_worker", "process", f"{start:.3f}", calls, at=folder) for _ in range(number)
        ]
        return max(float(each.result()["median"]) for each in running)


def _payloads(calls: int) -> Grid:
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    figures = [_work("payload", size, calls) for size in sizes]
    return [
        ["", *(f"{size // 1000:,} KB" for size in sizes)],
        ["athina_trace", *(f"{each['ours']:,.0f}" for each in figures)],
        ["json.dumps and a write", *(f"{each['plain']:,.0f}" for each in figures)],
    ]


def _stalls(url: str, seconds: int) -> Grid:
    runs.ask(url, "start")
    figures = _work("stalls", url, f"{seconds:.1f}")
    bounds = [str(bound) for bound in (*BUCKETS, BUCKETS[-1] * 2)]
    head = ["", *(f"< {bound} ms" for bound in BUCKETS), "more", "longest, ms", "longest call, ms"]
    rows = {"athina_trace": figures["ours"], "undecorated": figures["bare"]}
    return [
        head,
        *(
            [name, *_shares(each["buckets"], bounds), f"{each['longest']:.1f}", f"{each['call']:.1f}"]
            for name, each in rows.items()
        ),
    ]


def _shares(buckets: dict[str, int], bounds: list[str]) -> list[str]:
    total = sum(buckets.values())
    return [f"{buckets.get(bound, 0) / total * 1000:.2f}" for bound in bounds]


def _delivery(url: str, logs: int, rounds: int) -> Grid:
    runs.ask(url, "start")
    backlogs = [_work("backlog", url, logs) for _ in range(rounds)]
    busy = {name: statistics.median(each[name] for each in backlogs) for name in ("speed", "rate")}
    runs.ask(url, "start")
    _work("in_flight", url, logs)
    fast = runs.ask(url, "report")
    runs.ask(url, "start?0.05")
    slow = _work("in_flight", url, 1000)
    report = runs.ask(url, "report")
    runs.ask(url, "start")
    return [
        ["", "athina_trace"],
        ["speed that a busy thread keeps while a backlog drains", f"{busy['speed']:.0%}"],
        ["logs delivered each second meanwhile", f"{busy['rate']:.0f}"],
        ["connections to a quick server", f"{fast['connections'] - 1}"],
        ["requests in flight at a server that takes 50 ms", f"{report['in_flight']} of {slow['connections']}"],
        ["logs delivered to it each second", f"{report['delivered'] / slow['elapsed']:.0f}"],
    ]
