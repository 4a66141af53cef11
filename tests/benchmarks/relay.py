"""Compare the relay with direct delivery: `python -m tests.benchmarks.relay [--quick]`.

A NATS server from its wheel, a stand-in for Athina, the program and each worker run in their own processes, on
loopback. CPU is that of the program, or of all workers, per log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.support.nats_servers import NatsServers
from tests.support.ports import free_port

from .tables import terminal

SLOW = "constant"
QUICK = "quick"
Figures = dict[str, float]
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def athina(row: str) -> Iterator[str]:
    """Start a stand-in for Athina, from `servers.ROWS`; yield its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.servers", row, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.communicate()


def taken(url: str) -> int:
    with urlopen(f"{url}/seen") as answer:  # noqa: S310 - our own server
        return int(json.load(answer)["taken"])


def _log(logs: int, pace: float) -> None:
    """Run the program: log, wait until all is delivered, and return how long that took."""
    import athina_trace  # noqa: PLC0415 - the servers have no need of it

    athina_trace.log_inference(response="the first loads everything")
    athina_trace.flush(30)
    began, cpu = time.perf_counter(), time.process_time()
    for number in range(logs):
        if pace and number % 20 == 0:
            time.sleep(max(0.0, began + number / pace - time.perf_counter()))
        athina_trace.log_inference(user_query="q" * 200, response="r" * 800, session_id=f"session {number % 5000}")
    made = time.perf_counter() - began
    behind = athina_trace.status().waiting
    report = athina_trace.flush(120)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert report, report
    figures = {"rate": logs / seconds, "cpu": cpu / logs * 1e6, "made": logs / made, "behind": behind}
    print(json.dumps(figures), flush=True)
    athina_trace.shutdown(0)


def program(logs: int, *, pace: float = 0.0, **variables: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.relay", "--log", str(logs), "--pace", str(pace)]
        environment = {**os.environ, "ATHINA_OUTBOX": f"{folder}/outbox.db", **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def work(nats: NatsServers, url: str, logs: int, *, workers: int = 1) -> Figures:
    """Let workers deliver the stream; return logs per second from the first one on, and CPU per log."""
    environment = {
        **os.environ,
        "ATHINA_RELAY": nats.url,
        "ATHINA_BASE_URL": url,
        "ATHINA_API_KEY": "key",
        "ATHINA_CONNECTIONS": "128",
    }
    before = taken(url)
    command = [sys.executable, "-m", "athina_trace", "relay"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            for _ in range(workers)
        ]
        while taken(url) == before:
            time.sleep(0.01)
        first, began, cpu = taken(url), time.perf_counter(), sum(_cpu(each.pid) for each in processes)
        while taken(url) < before + logs:
            time.sleep(0.02)
        seconds, cpu = time.perf_counter() - began, sum(_cpu(each.pid) for each in processes) - cpu
        for each in processes:
            each.terminate()
    done = before + logs - first
    return {"rate": done / seconds, "cpu": cpu / done * 1e6}


def relayed(
    row: str, logs: int, *, partitions: int = 64, workers: int = 1
) -> tuple[dict[str, float], dict[str, float]]:
    """Publish so many logs, then let workers deliver them; return the figures of the program and of the workers."""
    with tempfile.TemporaryDirectory() as folder, NatsServers(Path(folder)) as nats, athina(row) as url:
        nats.set_up(partitions=partitions, max_bytes=2_000_000_000)
        published = program(logs, ATHINA_RELAY=nats.url)
        return published, work(nats, url, logs + 1, workers=workers)


def _each_call(variables: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.relay", "--calls"]
        environment = {**os.environ, "ATHINA_OUTBOX": f"{folder}/outbox.db", **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _calls() -> None:
    """Return the median of calls made one after the other, in milliseconds."""
    import statistics  # noqa: PLC0415 - the servers have no need of it

    import athina_trace  # noqa: PLC0415

    @athina_trace.athina_trace
    def answer(question: str) -> str:
        return question

    times = []
    for number in range(300):
        began = time.perf_counter()
        answer(f"question {number}")
        times.append(time.perf_counter() - began)
        time.sleep(0.002)
    print(statistics.median(times[20:]) * 1e3)


def function_as_a_service() -> list[list[str]]:
    """Measure what the stream's acknowledgement adds to a call if it makes the log durable."""
    rows = [["a call", "ms, median"]]
    with tempfile.TemporaryDirectory() as folder, NatsServers(Path(folder)) as nats:
        nats.set_up(partitions=16)
        rows.append(["on the local disk", f"{_each_call({'ATHINA_RELAY': nats.url}):.2f}"])
        durable = {"ATHINA_RELAY": nats.url, "ATHINA_OUTBOX": ":memory:", "ATHINA_FLUSH_EACH_CALL": "1"}
        rows.append(["in the stream, sync_interval 2 min", f"{_each_call(durable):.2f}"])
    with tempfile.TemporaryDirectory() as folder, NatsServers(Path(folder), sync=True) as nats:
        nats.set_up(partitions=16)
        rows.append(["in the stream, sync_interval always", f"{_each_call({**durable, 'ATHINA_RELAY': nats.url}):.2f}"])
    return rows


def trouble() -> list[list[str]]:
    """Measure a call while the broker fails, and one without a relay: each twice, in turn."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fine, full = (stack.enter_context(NatsServers(Path(folder) / name)) for name in ("fine", "full"))
        shut = stack.enter_context(NatsServers(Path(folder) / "shut", config='authorization { token: "another" }'))
        fine.set_up(partitions=16)
        full.set_up(partitions=16, max_bytes=20_000)
        urls = {
            "answers": fine.url,
            "is full": full.url,
            "refuses the credentials": shut.url,
            "is away": f"nats://127.0.0.1:{free_port()}",
        }
        cases = {"without a relay": {}, **{f"the broker {name}": {"ATHINA_RELAY": url} for name, url in urls.items()}}
        rounds = [{name: _each_call(variables) for name, variables in cases.items()} for _ in range(2)]
    least = {name: min(each[name] for each in rounds) for name in cases}
    base = least["without a relay"]
    return [
        ["", "a call, us, median", "times without"],
        *([name, f"{1e3 * each:.0f}", f"{each / base:.2f}"] for name, each in least.items()),
    ]


def side_by_side(logs: int) -> list[list[str]]:
    """Compare direct delivery and the relay, with a server that takes 50 ms and a quick one."""
    rows = [["", "logs/s", "CPU for each log, us", "times direct"]]
    for title, row in (("50 ms", SLOW), ("at once", QUICK)):
        with athina(row) as url:
            direct = program(logs, ATHINA_API_KEY="key", ATHINA_BASE_URL=url)
        published, worker = relayed(row, logs)
        for name, figures in (("direct", direct), ("program to the relay", published), ("one worker", worker)):
            rows.append(
                [
                    f"{name}, {title}",
                    f"{figures['rate']:,.0f}",
                    f"{figures['cpu']:.0f}",
                    f"{figures['cpu'] / direct['cpu']:.2f}",
                ]
            )
    return rows


def keeping_up(seconds: int) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder, NatsServers(Path(folder)) as nats:
        nats.set_up(partitions=64)
        figures = program(2000 * seconds, pace=2000.0, ATHINA_RELAY=nats.url)
    return [
        ["calls/s", "waiting after the last of them", "published/s"],
        [f"{figures['made']:,.0f}", f"{figures['behind']:,.0f} of {2000 * seconds:,}", f"{figures['rate']:,.0f}"],
    ]


def growth(*, quick: bool) -> list[list[str]]:
    rows = [["partitions", "workers", "backlog", "server", "logs/s", "CPU for each log, us"]]
    cases: list[tuple[int, int, int, str]] = [
        *((partitions, 1, 3000, SLOW) for partitions in (16, 64, 128)),
        *((128, workers, 6000, SLOW) for workers in (2, 4)),
        *((64, 1, backlog, QUICK) for backlog in ((1000, 10_000) if quick else (1000, 10_000, 100_000))),
    ]
    for partitions, workers, backlog, row in cases:
        _, figures = relayed(row, backlog, partitions=partitions, workers=workers)
        server = "50 ms" if row == SLOW else "at once"
        rows.append(
            [
                str(partitions),
                str(workers),
                f"{backlog:,}",
                server,
                f"{figures['rate']:,.0f}",
                f"{figures['cpu']:.0f}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.relay", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["side", "keep", "function", "trouble", "growth"])
    parser.add_argument("--log", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--calls", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.log is not None:
        _log(options.log, options.pace)
        return
    if options.calls:
        _calls()
        return
    tables: dict[str, tuple[str, Any]] = {
        "side": ("Side by side", lambda: side_by_side(3000 if options.quick else 10_000)),
        "keep": ("A program that makes 2,000 calls a second", lambda: keeping_up(5 if options.quick else 20)),
        "function": ("The acknowledgement of the stream as the durable point", function_as_a_service),
        "trouble": ("A call while the broker is in trouble", trouble),
        "growth": ("Growth", lambda: growth(quick=options.quick)),
    }
    for name, (title, measure) in tables.items():
        if options.only in (None, name):
            print(f"\n{title}\n")
            print(terminal(measure()))


if __name__ == "__main__":
    main()
