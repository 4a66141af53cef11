"""The controller of concurrency against simulated servers: time is counted, nothing waits."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

from athina_trace._delivery.concurrency import Concurrency, Request
from athina_trace._delivery.response import Outcome

TAKEN = Outcome(200)
Server = Callable[["Simulation"], tuple[float, Outcome]]


class Simulation:
    """Senders that always have more to send, in simulated time: a server gives seconds and an outcome per request."""

    def __init__(self, server: Server, *, most: int = 64, seed: int = 1) -> None:
        self.controller = Concurrency(most)
        self.server = server
        self.random = Random(seed)
        self.now = 1000.0
        self.in_flight = 0
        self.most_in_flight = 0
        self.statuses = Counter[int | None]()
        self.taken: list[float] = []
        self._numbers = count()
        self._events: list[tuple[float, int, Request, Outcome]] = []

    def run(self, seconds: float) -> None:
        ends = self.now + seconds
        while True:
            self._begin()
            at = self._events[0][0] if self._events else self.now + max(self.controller.gate.wait(self.now), 0.001)
            if at > ends:
                self.now = ends
                return
            self.now = max(self.now, at)
            if self._events:
                self._end()

    def _begin(self) -> None:
        while self.in_flight < min(self.controller.limit, self.controller.room(self.now, 64)):
            number = next(self._numbers)
            request = self.controller.begin(self.now, f"key{number}", f"log{number}")
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            now, self.now = self.now, request.begins
            seconds, outcome = self.server(self)
            self.now = now
            heapq.heappush(self._events, (request.begins + seconds, number, request, outcome))

    def _end(self) -> None:
        _, _, request, outcome = heapq.heappop(self._events)
        self.in_flight -= 1
        self.statuses[outcome.status] += 1
        if outcome is TAKEN:
            self.taken.append(self.now)
        self.controller.end(request, outcome, self.now, waiting=True, chance=self.random.random())

    def rate(self, seconds: float) -> float:
        """Logs a second that Athina took in the last `seconds`."""
        return sum(1 for at in self.taken if at > self.now - seconds) / seconds


def slow(seconds: float) -> Server:
    return lambda _: (seconds, TAKEN)
