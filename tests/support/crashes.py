"""The crash test: workers are killed at random while Athina fails at random; then the counts are verified.

`python -m tests.support.crashes --seconds 120` runs it for two minutes' worth of calls and prints the figures;
`--server slow` does so with a server that is slow and fails more often.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.support.athina_server import (
    CHAOS,
    AthinaServer,
    Exchange,
    Fault,
    accept,
    answer,
    busy,
    delay,
    lose_answer,
    reset,
)
from tests.support.processes import run, start

LOSES_ANSWER = {"lose_answer", "close_in_mid_answer", "close_in_mid_body"}


class Server(NamedTuple):
    """Athina's behaviour and the load on it: the faults of a share `faults` of requests, and the workers' settings.

    `pace` is in seconds between two calls of a worker; `connections` of a worker limits the duplicates of a kill.
    """

    chaos: tuple[Fault, ...] = CHAOS
    faults: float = 0.15
    pace: float = 0.002
    connections: int = 4


SERVERS = {
    "quick": Server(),
    # A third of the requests fails; of the others, a fifth is answered at once and the rest after 60 ms.
    "slow": Server(
        (*[accept] * 8, *[delay(0.06)] * 32, *[reset, answer(500), busy(0), lose_answer] * 5),
        faults=1.0,
        pace=0.02,
        connections=16,
    ),
}
_WORKER = """
    import os, sys, athina_trace
    life, returned, pace = int(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.argv[3]

    @athina_trace.athina_trace
    def answer(session_id, question):
        return f"answer to {question}"

    import time
    for number in range(10**6):
        session = f"{sys.argv[4]}-{number % 5}"
        answer(session, f"{life * 10**6 + number}")
        os.write(returned, f"{session} {life * 10**6 + number}\\n".encode())
        time.sleep(float(pace))
"""


@dataclass
class Figures:
    """The result of a crash test. `copies` counts acceptances of a log beyond the first."""

    kills: int
    returned: int
    accepted: int
    lost: int
    copies: int
    answers_lost: int
    copies_unexplained: int
    out_of_order: int

    def __str__(self) -> str:
        return "\n".join(f"{field.name.replace('_', ' '):>20} {getattr(self, field.name):>8}" for field in fields(self))


class CrashTest:
    """Three worker slots on one outbox, each a sequence of processes that are killed and restarted."""

    def __init__(
        self, folder: Path, *, seconds: float, seed: int, server: Server = SERVERS["quick"], calls: int = 0
    ) -> None:
        """Run for so many seconds, or longer on a busy machine, until so many calls have returned."""
        self._folder = folder
        self._seconds = seconds
        self._calls = calls
        self._random = Random(seed)
        self._server = server
        self._unanswered: set[int] = set()
        self._kills = 0
        chaos = tuple(self._noting(fault) for fault in server.chaos)
        self.athina = AthinaServer(faults=server.faults, seed=seed, chaos=chaos)

    def _noting(self, fault: Fault) -> Fault:
        def noted(exchange: Exchange) -> None:
            if getattr(fault, "__name__", "") in LOSES_ANSWER:
                self._unanswered.add(exchange.request.number)
            fault(exchange)

        return noted

    def run(self) -> Figures:
        """Kill and restart for so many seconds, then let one more process deliver the rest."""
        with self.athina:
            ends = time.monotonic() + self._seconds
            workers = [self._start(slot, 0) for slot in range(3)]
            life = 0
            while time.monotonic() < ends or (len(self._returned()) < self._calls and time.monotonic() < ends + 100):
                time.sleep(self._random.uniform(0.2, 0.7))
                slot, life = self._random.randrange(3), life + 1
                self._kill(workers[slot])
                workers[slot] = self._start(slot, life)
            for worker in workers:
                self._kill(worker)
            self.athina.clear()
            run("import athina_trace; assert athina_trace.flush(100)", timeout=120, **self._environment())
            return self._figures()

    def _returned(self) -> set[str]:
        path = self._folder / "returned"
        return set(path.read_text().splitlines()) if path.exists() else set()

    def _environment(self) -> dict[str, str]:
        return {
            "ATHINA_API_KEY": "crash-key",
            "ATHINA_BASE_URL": self.athina.url,
            "ATHINA_OUTBOX": str(self._folder / "outbox.db"),
            "ATHINA_CONNECTIONS": str(self._server.connections),
        }

    def _start(self, slot: int, life: int) -> subprocess.Popen[str]:
        arguments = (str(life), str(self._folder / "returned"), str(self._server.pace), f"slot{slot}")
        return start(_WORKER, *arguments, **self._environment())

    def _kill(self, worker: subprocess.Popen[str]) -> None:
        worker.kill()
        worker.communicate()
        self._kills += 1

    def _figures(self) -> Figures:
        returned = self._returned()
        accepted = [(f"{each.json['session_id']} {each.json['user_query']}", each) for each in self.athina.accepted]
        copies = Counter(name for name, _ in accepted)
        references = defaultdict(set)
        explained = Counter[str]()
        for name, each in accepted:
            references[name].add(each.json["external_reference_id"])
            explained[name] += each.number in self._unanswered
        assert all(len(each) == 1 for each in references.values()), "a copy has another reference"
        return Figures(
            kills=self._kills,
            returned=len(returned),
            accepted=len(copies),
            lost=len(returned - set(copies)),
            copies=sum(copies.values()) - len(copies),
            answers_lost=len(self._unanswered),
            copies_unexplained=sum(max(0, number - 1 - explained[name]) for name, number in copies.items()),
            out_of_order=_out_of_order([name for name, _ in accepted]),
        )


def _out_of_order(names: list[str]) -> int:
    newest: dict[str, int] = defaultdict(lambda: -1)
    seen: set[str] = set()
    wrong = 0
    for name in names:
        session, number = name.split(" ")
        wrong += name not in seen and int(number) < newest[session]
        seen.add(name)
        newest[session] = max(newest[session], int(number))
    return wrong


def main() -> None:
    """Run the long test and print its result."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--server", choices=SERVERS, default="quick")
    given = parser.parse_args()
    server = SERVERS[given.server]
    with tempfile.TemporaryDirectory() as folder:
        figures = CrashTest(Path(folder), seconds=given.seconds, seed=given.seed, server=server).run()
    print(f"{given.server} server, seed {given.seed}\n{figures}")  # noqa: T201 - the caller reads it
    assert figures.lost == figures.out_of_order == 0
    assert figures.copies_unexplained <= figures.kills * server.connections


if __name__ == "__main__":
    main()
