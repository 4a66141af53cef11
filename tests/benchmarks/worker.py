"""One contestant in one scenario, in its own process: `python -m tests.benchmarks.worker NAME SCENARIO URL CALLS`.

Prints one line of JSON: times in microseconds, in addition to those of the undecorated function.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from .peers import SETUPS, Peer
from .workload import FIRST_UNCOUNTED, arguments, async_handler, handler, nested, streaming_handler

TASKS = 1000
"""Calls at once in the scenario of asyncio."""
_WARM = 100


def times(function: Callable[..., Any], numbers: Sequence[int], pause: float = 0.0) -> list[int]:
    """Return the nanoseconds of each call."""
    clock, taken = time.perf_counter_ns, []
    for number in numbers:
        given = arguments(number)
        if pause:
            time.sleep(pause)
        began = clock()
        function(*given)
        taken.append(clock() - began)
    return taken


def added(bare: Sequence[int], decorated: Sequence[int], *, calls: int = 1) -> dict[str, float]:
    """Return the median and 99th percentile over the bare function's median, in microseconds."""
    base, ordered = sorted(bare)[len(bare) // 2], sorted(decorated)
    at = {"median": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]}
    return {name: (value - base) / 1000 / calls for name, value in at.items()}


def warm(function: Callable[..., Any]) -> None:
    for number in range(_WARM):
        function(*arguments(int(FIRST_UNCOUNTED) + number))


def measure(function: Callable[..., Any], decorated: Callable[..., Any], calls: int, pause: float = 0.0) -> Any:
    bare = times(function, range(calls), pause)
    warm(decorated)
    return added(bare, times(decorated, range(calls), pause))


def burst(peer: Peer, calls: int) -> dict[str, float]:
    bare = times(handler, range(calls))
    decorated = peer.decorate(handler)
    warm(decorated)
    peer.flush()
    memory, cpu, began = _peak(), time.process_time(), time.time()
    taken = added(bare, times(decorated, range(calls)))
    peer.flush()
    return {**taken, "began": began, "cpu": time.process_time() - cpu, "memory": _peak() - memory}


def _peak() -> float:
    """Return the largest resident memory so far, in megabytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1024 * 1024 if sys.platform == "darwin" else 1024)


def paced(peer: Peer, calls: int) -> dict[str, float]:
    measured: dict[str, float] = measure(handler, peer.decorate(handler), calls, pause=0.001)
    return measured


def at_once(peer: Peer, calls: int) -> dict[str, float]:
    """Measure microseconds per call of `TASKS` concurrent ones, from the first start to the last end."""
    rounds = range(max(calls // TASKS, 3))
    bare = [asyncio.run(_together(async_handler)) for _ in rounds]
    decorated = peer.decorate(async_handler)
    asyncio.run(_together(decorated))
    return added(bare, [asyncio.run(_together(decorated)) for _ in rounds], calls=TASKS)


async def _together(function: Callable[..., Any]) -> int:
    given = [arguments(number) for number in range(TASKS)]
    began = time.perf_counter_ns()
    await asyncio.gather(*(function(*each) for each in given))
    return time.perf_counter_ns() - began


def nested_calls(peer: Peer, calls: int) -> dict[str, float]:
    measured: dict[str, float] = measure(nested(lambda function: function), nested(peer.decorate), calls)
    return measured


def stream(peer: Peer, calls: int) -> dict[str, float]:
    decorated = peer.decorate(streaming_handler)
    measured: dict[str, float] = measure(
        lambda *args: [*streaming_handler(*args)], lambda *args: [*decorated(*args)], calls
    )
    return measured


def disabled(peer: Peer, calls: int) -> dict[str, float]:
    measured: dict[str, float] = measure(handler, peer.decorate(handler), calls)
    return measured


def outage(peer: Peer, calls: int) -> dict[str, float]:
    """Make a burst against a sink that is slow or down, without a flush except the automatic one at exit."""
    measured: dict[str, float] = measure(handler, peer.decorate(handler), calls)
    return {**measured, "ended": time.time()}


def killed(peer: Peer, calls: int) -> dict[str, float]:
    times(peer.decorate(handler), range(calls))
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def restarted(peer: Peer, calls: int) -> dict[str, float]:
    """Start the killed program again: it makes one more call, which does not count."""
    peer.decorate(handler)(*arguments(int(FIRST_UNCOUNTED)))
    peer.flush()
    return {}


SCENARIOS: dict[str, Callable[[Peer, int], dict[str, float]]] = {
    "burst": burst,
    "paced": paced,
    "asyncio": at_once,
    "nested": nested_calls,
    "stream": stream,
    "disabled": disabled,
    "down": outage,
    "slow": outage,
    "killed": killed,
    "restarted": restarted,
}


def main(name: str, scenario: str, url: str, calls: str) -> None:
    peer = SETUPS[name](url, enabled=scenario != "disabled")
    print(json.dumps(SCENARIOS[scenario](peer, int(calls))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
