"""`relay`: deliver the logs in a NATS stream; set up the stream; show its status."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import between, whole_between
from athina_trace.cli.server_options import port_number
from athina_trace.cli.terminal import Column, CommandError, Terminal, UsageError
from athina_trace.settings import Settings
from athina_trace.viewer import formatting

if TYPE_CHECKING:
    from athina_trace.relay.setup import Findings
    from athina_trace.relay.status import RelayStatus
    from athina_trace.relay.worker import RelayWorker

_SIZES = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_FOLLOW_SECONDS = 2.0
_PARTITIONS = (
    Column("Partition", 9, right=True),
    Column("Waiting", 9, right=True),
    Column("Rate", 8, right=True),
    Column("Oldest", 12, right=True),
    Column("In flight", 9),
)
_WORKERS = (
    Column("Worker", 30),
    Column("Delivered", 10, right=True),
    Column("Refused", 8, right=True),
    Column("Failed", 8, right=True),
    Column("Holds", 6, right=True),
    Column("Up", 8, right=True),
    Column("State"),
)


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "relay",
        help="deliver the logs that programs published to a NATS stream",
        description="Take logs from the stream in ATHINA_RELAY and deliver them to Athina, until SIGTERM or "
        "Ctrl-C. Any number of these workers share the work.",
    )
    doing = command.add_mutually_exclusive_group()
    doing.add_argument("--setup", action="store_true", help="create or check the stream instead")
    doing.add_argument("--status", action="store_true", help="show how far behind the stream is instead")
    worker = command.add_argument_group("a worker")
    worker.add_argument(
        "--metrics-port",
        type=port_number,
        metavar="PORT",
        help="serve /healthz, /readyz and /metrics (0: any free port)",
    )
    worker.add_argument(
        "--metrics-host", default="127.0.0.1", metavar="HOST", help="where to serve them (default: this machine only)"
    )
    made = command.add_argument_group("with --setup")
    made.add_argument(
        "--partitions", type=whole_between(1, 1024), help="conversations in flight at once, 1 to 1024 (default: 64)"
    )
    made.add_argument("--replicas", type=whole_between(1, 5), help="servers that store each log, 1 to 5 (default: 1)")
    made.add_argument(
        "--max-bytes", type=_size, metavar="SIZE", help="such as 20G; beyond it, new logs are refused (default: 1G)"
    )
    made.add_argument(
        "--duplicate-window",
        type=between(1, 86_400),
        metavar="SECONDS",
        help="how long a log that is published again is recognised (default: 600)",
    )
    made.add_argument(
        "--ack-wait",
        type=between(1, 86_400),
        metavar="SECONDS",
        help="how long until a dead worker's log goes to another one (default: 30)",
    )
    shown = command.add_argument_group("with --status")
    shown.add_argument("--json", action="store_true", help="one JSON object")
    shown.add_argument("--follow", action="store_true", help="repeat every two seconds, until Ctrl-C")
    command.set_defaults(run=run)


def _size(text: str) -> int:
    factor = _SIZES.get(text[-1:].upper(), 0)
    number = text[:-1] if factor else text
    if not (number.isascii() and number.isdigit() and int(number[:15]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 500M, 20G or a number of bytes")
    return int(number) * (factor or 1)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Deliver until a signal, set up the stream, or show its status."""
    settings = Settings.build()
    if settings.relay is None:
        raise UsageError("there is no ATHINA_RELAY: set it to the servers, such as nats://host:4222")
    require_packages("nats", "the command relay")
    if options.setup:
        return _set_up(options, terminal)
    if options.status:
        return _show(options, terminal)
    return _work(settings, options, terminal)


def _work(settings: Settings, options: argparse.Namespace, terminal: Terminal) -> int:
    from athina_trace.cli.relay_connection import run_relay  # noqa: PLC0415 - an optional extra
    from athina_trace.relay.connection import Address  # noqa: PLC0415
    from athina_trace.relay.worker import RelayWorker  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # we report its errors ourselves
    address = Address.of(settings)

    async def deliver() -> RelayWorker:
        worker = RelayWorker(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        metrics = ""
        if options.metrics_port is not None:
            metrics = f", metrics at {await _serve_probes(worker, options.metrics_host, options.metrics_port)}"
        terminal.say(f"Delivering from {address} to {settings.base_url}{metrics}   (Ctrl-C or SIGTERM ends it)")
        terminal.flush()
        await worker.run()
        return worker

    done = run_relay(deliver(), address)
    terminal.say(f"{done.counters.delivered} delivered, {done.counters.refused} refused")
    return 0


async def _serve_probes(worker: RelayWorker, host: str, port: int) -> str:
    """Serve a worker's probes and metrics; return the address of the metrics."""
    from athina_trace.relay.probes import Probes  # noqa: PLC0415 - an optional extra

    try:
        server = await Probes(worker).listen(host, port)
    except OSError as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error}") from None
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.sockets[0].getsockname()[1]}/metrics"


def _set_up(options: argparse.Namespace, terminal: Terminal) -> int:
    from athina_trace.cli.relay_connection import ask_relay  # noqa: PLC0415 - an optional extra
    from athina_trace.relay.setup import Wanted, set_up  # noqa: PLC0415

    wanted = Wanted(options.partitions, options.replicas, options.max_bytes, options.duplicate_window, options.ack_wait)
    found: Findings = ask_relay(lambda client, names: set_up(client, names, wanted))
    for each in found.made:
        terminal.say(f"made      {each}")
    for name, value in found.facts.items():
        shown = formatting.byte_size(value) if name == "max_bytes" and value > 0 else value
        terminal.say(f"{name:<18} {shown}")
    for each in found.notes:
        terminal.say(f"note      {each}.")
    for each in found.faults:
        terminal.complain(each)
    if found.faults:
        raise CommandError(
            f"the stream {found.facts['stream']} would lose logs: publish nothing to it until this is corrected"
        )
    return 0


def _show(options: argparse.Namespace, terminal: Terminal) -> int:
    from athina_trace.cli.relay_connection import ask_relay  # noqa: PLC0415 - an optional extra
    from athina_trace.relay.status import read  # noqa: PLC0415

    async def look(client: Any, names: Any) -> None:
        while True:
            status = await read(client, names)
            if options.json:
                terminal.json(asdict(status))
            else:
                _print(status, terminal)
            terminal.flush()
            if not options.follow:
                return
            await asyncio.sleep(_FOLLOW_SECONDS)
            if not options.json:
                terminal.say()

    ask_relay(look)
    return 0


def _print(status: RelayStatus, terminal: Terminal) -> None:
    limit = f" of {formatting.byte_size(status.max_bytes)}" if status.max_bytes > 0 else ""
    oldest = f", the oldest since {formatting.readable_time(status.waiting_since)}" if status.waiting_since else ""
    terminal.say(f"{'waiting':<12} {formatting.integer(status.waiting)}{oldest}")
    terminal.say(f"{'rate':<12} {status.rate} logs/s")
    terminal.say(f"{'on disk':<12} {formatting.byte_size(status.bytes)}{limit}")
    hint = ": see `athina-trace logs --relay`" if status.refused else ""
    terminal.say(f"{'refused':<12} {formatting.integer(status.refused)}{hint}")
    behind = status.behind()
    count = sum(1 for each in status.partitions if each.lag)
    terminal.say(f"{'partitions':<12} {len(status.partitions)}, {count} with waiting logs")
    for fault in status.faults:
        terminal.complain(fault)
    if behind:
        terminal.table(
            _PARTITIONS,
            (
                (
                    each.number,
                    each.lag,
                    f"{each.rate}/s",
                    formatting.duration((time.time() - each.waiting_since) * 1000) if each.waiting_since else None,
                    "yes" if each.in_flight else "no",
                )
                for each in behind
            ),
        )
    if not status.workers:
        terminal.complain("no worker answers: start one with `athina-trace relay`")
        return
    terminal.table(
        _WORKERS,
        (
            (
                each["name"],
                each["delivered"],
                each["refused"],
                each["failed"],
                each["held"],
                formatting.duration((time.time() - each["began"]) * 1000),
                each["paused"] or "delivers",
            )
            for each in status.workers
        ),
    )
