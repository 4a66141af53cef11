"""Measure the viewer's pages with 100,000 logs of 3 KB: `python -m tests.benchmarks.viewer [LOGS]`."""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from athina_trace._delivery.entry import Entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._serving.server import Server, listen
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox

_ROUNDS = 5
_PAGES = (
    "/", "/?before=50000", "/?customer=c5", "/?errors=1", "/?errors=1&before=40000", "/?q=common", "/?q=co",
    "/?q=common&customer=c5", "/?environment=prod&before=80000", "/?environment=prod&before=3000",
    "/?model=b&slug=slug1&before=20000", "/?state=refused", "/?state=waiting&customer=c9", "/?since=24h",
    "/?until=20d", "/?customer=nobody", "/logs", "/logs?before=30", "/logs?customer=c5&state=refused",
    "/logs?state=waiting", "/logs?q=common", "/logs?q=common&customer=c5&state=refused", "/logs?until=22d",
    "/logs?customer=nobody&environment=prod", "/charts", "/charts?by=customer", "/charts?by=customer&period=30d",
    "/charts?by=model&period=24h", "/delivery", "/log?id=r77", "/session?id=s00042", "/live",
    "/?q=mmo", "/?feedback=disliked", "/?sort=cost", "/?sort=turns&environment=prod", "/logs?slower=10s",
    "/logs?sort=latency", "/logs?sort=-cost&environment=prod", "/logs?sort=tokens&q=common",
    "/logs?sort=latency&state=waiting", "/logs?tool=none", "/compare", "/compare?by=session",
    "/logs?sort=state", "/logs?sort=-state&environment=prod", "/logs?sort=state&errors=1", "/delivery?refused=reason",
    "/delivery?waiting=question", "/delivery?waiting=attempts", "/compare?sort=latency", "/compare?by=model&sort=cost",
    "/session?id=s00042&list=logs&at=43&sort=-state", "/session?id=s00042&list=sessions&environment=prod",
    "/session?id=s00042&list=logs&at=43&environment=prod&sort=latency",
)  # fmt: skip


def main() -> None:
    """Make the outbox, index it, and print the median and the slowest time of each page."""
    number = int(sys.argv[1]) if sys.argv[1:] else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/outbox.db"
        _fill(path, number)
        print(f"{number} logs, {Path(path).stat().st_size / 1e6:.0f} MB")
        began = time.perf_counter()
        source = IndexedOutbox(path)
        source.refresh()
        print(f"read in within {time.perf_counter() - began:.1f} s")
        with Server(create_app(source), listen("127.0.0.1", 0)) as server:
            _measure(server.url)


def _fill(path: str, number: int) -> None:
    outbox = SqliteOutbox(path)
    entries = _entries(number)
    for _ in range(0, number, 2000):
        with outbox.transaction():
            outbox.store.add([next(entries) for _ in range(min(2000, number))])
    with outbox.transaction():
        for lease in outbox.lease(time.time(), keys=300, batch=100):
            for entry in lease.entries:
                outbox.refused(entry, time.time(), status=400, reason="user_query: Expected string")
            outbox.release(lease.ordering_key)
    outbox.close()


def _entries(number: int) -> Iterator[Entry]:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(5000)]
    texts = [" ".join(chance.choices(words, k=170)) for _ in range(1000)]
    for place in range(number):
        question = f"{' '.join(chance.choices(words, k=16))} common"
        system, context, answer = chance.choices(texts, k=3)
        fields = {
            "language_model_id": chance.choice("abc"),
            "prompt": [{"role": "system", "content": system[:500]}, {"role": "user", "content": question}],
            "user_query": question,
            "response": answer[:800],
            "context": context,
            "session_id": f"s{place % 10_000:05d}",
            "customer_id": f"c{place % 997}",
            "environment": "prod",
            "prompt_slug": f"slug{place % 7}",
            "external_reference_id": f"r{place}",
            "total_tokens": chance.randrange(2000),
            "response_time": round(chance.lognormvariate(6, 1)),
            **({"error": "boom"} if place % 50 == 0 else {}),
        }
        made = time.time() - (number - place) * 20
        yield Entry(f"s{place % 10_000:05d}", "log", f"r{place}", made, json.dumps(fields).encode())


def _measure(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for page in _PAGES:
            times = []
            for _ in range(_ROUNDS):
                began = time.perf_counter()
                client.get(page).raise_for_status()
                times.append((time.perf_counter() - began) * 1000)
            median, slowest = sorted(times)[_ROUNDS // 2], max(times)
            print(f"{median:7.1f} {slowest:7.1f} ms  {page}{'  <- over 100 ms' if median > 100 else ''}")


if __name__ == "__main__":
    main()
