"""Compare athina_trace with its peers: `python -m tests.benchmarks [--quick] [--only burst,killed]`.

All contestants do the same work in turn, each in its own process, against one sink on loopback.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import handlers, runs
from .growth import growth
from .peers import PACKAGES
from .scenarios import Figures, Scenario, scenarios, summary
from .tables import TABLES, Results, grid, markdown, terminal, turned

_ALL = [*scenarios(quick=True), "growth", "handlers", "spans"]


def measured(scenario: Scenario, url: str) -> dict[str, Figures]:
    """Return medians for each contestant; every round measures all of them in turn."""
    taken: dict[str, list[Figures]] = {name: [] for name in scenario.contestants}
    for _ in range(scenario.rounds):
        for name in scenario.contestants:
            taken[name].append(scenario.measure(name, url, scenario.calls))
    return {name: summary(rounds) for name, rounds in taken.items()}


def _ends_of_spans(turns: int) -> list[list[str]]:
    with runs.state() as folder:
        figures = runs.work("spans", turns, "as-json", at=folder)
    named = {"alone": "nothing", "added": "added with AthinaSpanProcessor"}
    return [
        [*named.values()],
        [f"{figures[name]:,.1f}" if name in figures else "— (no opentelemetry)" for name in named],
    ]


def versions() -> str:
    """Return the measured versions and the machine."""
    parts = [f"{name} {_version(package)}" for name, package in PACKAGES.items()]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{dt.datetime.now(tz=dt.timezone.utc).date()}, {machine}; {', '.join(parts)}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(from the source tree)"


def report(results: Results, more: list[tuple[str, list[list[str]]]], *, as_markdown: bool) -> str:
    measured = [table for table in TABLES if any(column.scenario in results for column in table.columns)]
    # Contestants are columns: titles are too long for a terminal.
    turn = (lambda rows: rows) if as_markdown else turned
    tables = [(table.title, turn(grid(table, results))) for table in measured]
    shown, head = (markdown, "**{}**") if as_markdown else (terminal, "{}")
    parts = [f"{head.format(title)}\n\n{shown(rows)}\n" for title, rows in [*tables, *more]]
    return "\n".join([f"{versions()}\n", *parts])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of a fifth of the calls")
    parser.add_argument("--only", default="", help=f"these, with commas between: {', '.join(_ALL)}")
    parser.add_argument("--markdown", type=Path, help="write the tables here, too")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else _ALL
    results: dict[str, dict[str, Figures]] = {}
    with runs.sink() as url:
        for name, scenario in scenarios(quick=options.quick).items():
            if name in chosen:
                began = time.perf_counter()
                results[name] = measured(scenario, url)
                print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        more = growth(url, quick=options.quick) if "growth" in chosen else []
        if "handlers" in chosen:
            more.append((handlers.TITLE, handlers.measure(url, rounds=1 if options.quick else 5)))
        if "spans" in chosen:
            more.append(("The end of a model's span, microseconds", _ends_of_spans(turns=10 if options.quick else 30)))
    print(report(results, more, as_markdown=False))
    if options.markdown:
        options.markdown.write_text(report(results, more, as_markdown=True), encoding="utf-8")


if __name__ == "__main__":
    main()
