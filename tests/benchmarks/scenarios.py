"""The scenarios: which workers run, how often and against what; each gives one or more figures per contestant."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import runs
from .peers import CANNOT_BE_DISABLED, CONTESTANTS, IMPORTS, YARDSTICK

Figures = dict[str, float]


@dataclass(frozen=True)
class Scenario:
    """`measure(contestant, url, calls)` returns figures; it is called `rounds` times per contestant, in turn."""

    measure: Callable[[str, str, int], Figures]
    calls: int
    rounds: int
    contestants: tuple[str, ...] = CONTESTANTS


def _simple(name: str) -> Callable[[str, str, int], Figures]:
    def measure(contestant: str, url: str, calls: int) -> Figures:
        with runs.state() as folder:
            return runs.work("worker", contestant, name, url, calls, at=folder)

    return measure


def _burst(contestant: str, url: str, calls: int) -> Figures:
    runs.ask(url, "start")
    figures = _simple("burst")(contestant, url, calls)
    report = runs.ask(url, "report")
    delivered = max(report["delivered"], 1)
    return {
        **{name: figures[name] for name in ("median", "p99", "memory")},
        "delivered": report["delivered"],
        "cpu": figures["cpu"] / delivered * 1e6,
        "last": report["last"] - figures["began"],
    }


def _slow(contestant: str, url: str, calls: int) -> Figures:
    runs.ask(url, "start?0.2")
    figures = _simple("slow")(contestant, url, calls)
    runs.ask(url, "start")
    return figures


def _down(contestant: str, _url: str, calls: int) -> Figures:
    """Run without a server; then start the program once more with one."""
    port = runs.free_port()
    with runs.state() as folder:
        figures = runs.work("worker", contestant, "down", f"http://127.0.0.1:{port}", calls, at=folder)
        with runs.sink(port) as url:
            runs.work("worker", contestant, "restarted", url, calls, at=folder)
            return {**figures, "delivered": runs.ask(url, "report")["delivered"]}


def _killed(contestant: str, url: str, calls: int) -> Figures:
    """Use `kill -9` right after the last call; then start the program once more."""
    runs.ask(url, "start")
    with runs.state() as folder:
        runs.work("worker", contestant, "killed", url, calls, at=folder)
        runs.work("worker", contestant, "restarted", url, calls, at=folder)
    return {"delivered": runs.ask(url, "report")["delivered"]}


def _import(contestant: str, _url: str, _calls: int) -> Figures:
    return {"import": runs.milliseconds(IMPORTS[contestant]) - runs.milliseconds("pass")}


def scenarios(*, quick: bool) -> dict[str, Scenario]:
    def of(measure: Any, calls: int, rounds: int, contestants: tuple[str, ...] = CONTESTANTS) -> Scenario:
        return Scenario(measure, calls // 5 if quick else calls, 1 if quick else rounds, contestants)

    can_be_disabled = tuple(name for name in CONTESTANTS if name not in CANNOT_BE_DISABLED)
    return {
        "burst": of(_burst, 5000, 5, (*CONTESTANTS, YARDSTICK)),
        "paced": of(_simple("paced"), 1000, 3),
        "asyncio": of(_simple("asyncio"), 5000, 2),
        "nested": of(_simple("nested"), 1000, 3),
        "stream": of(_simple("stream"), 500, 3),
        "disabled": of(_simple("disabled"), 5000, 3, can_be_disabled),
        "slow": of(_slow, 1000, 1),
        "down": of(_down, 1000, 1),
        "killed": of(_killed, 1000, 3),
        "import": of(_import, 5, 9, tuple(IMPORTS)),
    }


def summary(rounds: list[Figures]) -> Figures:
    """Return medians over the rounds, and the worst of the numbers of delivered logs."""
    names = rounds[0].keys() if rounds else ()
    return {
        name: (min if name == "delivered" else statistics.median)([figures.get(name, 0.0) for figures in rounds])
        for name in names
    }
