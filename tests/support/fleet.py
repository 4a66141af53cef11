"""The fleet's soak: pods, workers, a gateway and servers are killed and stopped while Athina fails in every way it can.

`python -m tests.support.fleet --seconds 600` runs it for ten minutes and prints the counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.support.athina_server import CHAOS, AthinaServer, Exchange, Fault
from tests.support.crashes import LOSES_ANSWER
from tests.support.processes import ROOT

PARTITIONS = 16
"""Partitions of the fleet's relay: so many requests may be in flight when a machine fails."""


def soak(
    *, seconds: float, seed: int, pods: int = 8, workers: int = 3, faults: float = 0.1, quiet: bool = False
) -> Mapping[str, int]:
    """Run the fleet; return its counts, with `copies_unexplained`: those without a lost answer or a kill."""
    lost_answers = Counter[str]()

    def noting(fault: Fault) -> Fault:
        def noted(exchange: Exchange) -> None:
            if getattr(fault, "__name__", "") in LOSES_ANSWER:
                lost_answers[exchange.request.json["external_reference_id"]] += 1
            fault(exchange)

        return noted

    chaos = tuple(map(noting, CHAOS))
    with AthinaServer(faults=faults, seed=seed, chaos=chaos) as athina, tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [
            *[sys.executable, "examples/run_fleet.py", "--delete-disks", "--stop", "--athina", athina.url],
            *["--seconds", str(seconds), "--pods", str(pods), "--workers", str(workers), "--seed", str(seed)],
            *["--figures", str(figures)],
        ]
        lines = []
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as fleet:
            for line in fleet.stdout or ():
                lines.append(line)
                if not quiet:
                    print(line, end="", flush=True)  # noqa: T201 - the caller reads it
                if line.startswith("all is published"):
                    athina.clear()  # partitions are serial: hanging requests would double the duration
        assert figures.exists(), "".join(lines)
        books: dict[str, int] = json.loads(figures.read_text())
        questions: dict[str, set[str]] = defaultdict(set)
        arrivals = Counter[str]()
        for request in athina.accepted:
            reference = request.json["external_reference_id"]
            questions[reference].add(request.json["session_id"] + request.json["user_query"])
            arrivals[reference] += 1
    assert all(len(each) == 1 for each in questions.values()), "two logs have one reference"
    books["answers_lost"] = sum(lost_answers.values())
    books["copies_unexplained"] = sum(
        max(0, count - 1 - lost_answers[reference]) for reference, count in arrivals.items()
    )
    return books


def check(books: Mapping[str, int]) -> None:
    """Check that nothing is lost or out of order, and duplicated only if an answer or a claim was lost."""
    assert books["lost"] == 0, books
    assert books["out_of_order"] == 0, books
    # A client of the gateway repeats unanswered requests.
    harm = sum(number for name, number in books.items() if name.startswith(("workers ", "nodes ", "gateways ")))
    assert books["copies_unexplained"] <= harm * PARTITIONS, books


def main() -> None:
    """Run the long test and print its result."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    books = soak(seconds=given.seconds, seed=given.seed)
    print(f"seed {given.seed}", *(f"{name:>20} {number:>8,}" for name, number in books.items()), sep="\n")  # noqa: T201
    check(books)


if __name__ == "__main__":
    main()
