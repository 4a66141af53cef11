"""A fleet on one machine, and everything that can go wrong with it.

There are six pods, a gateway with a client, three servers of NATS and two workers.

python examples/run_fleet.py                  a minute of it
python examples/run_fleet.py --seconds 600 --pods 8 --workers 3 --delete-disks --stop

Pods answer one another's conversations, each with an outbox on a disk of its own. The client knows the gateway alone,
and Athina's API. Workers deliver to a local Athina that fails at random. Meanwhile pods, workers, servers and the
gateway are killed, one after the other. At the end the books show that everything arrived, in the order of each
conversation.
"""

import argparse
import json
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.request import urlopen

from fleet.books import GATEWAY_CLIENT, Books, check
from fleet.machines import Machine, cluster, free_port, until_it_works

ATHINA_TRACE = [sys.executable, "-m", "athina_trace"]
CONVERSATIONS = 24
_NODE_REST_SECONDS = 15.0
_PATIENCE_SECONDS = 120.0
"""How long the stream may take to shrink by one log, once pods have stopped, and machines to start."""


class Fleet:
    """All machines, and those that are currently down."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        """Take the options of the command line; starts nothing yet."""
        self.folder = folder
        self.options = options
        self.chance = random.Random(options.seed)  # noqa: S311 - whom it hits is no secret
        self.nodes, relay = cluster(folder, options.nodes)
        self.port = free_port()
        self.relay = {
            "ATHINA_RELAY": relay,
            "ATHINA_API_KEY": "local",
            "ATHINA_BASE_URL": options.athina or f"http://127.0.0.1:{self.port}",
        }
        self.athina = Machine(
            "athina",
            [
                *[*ATHINA_TRACE, "serve", "--no-open", "--port", str(self.port), "--fail", "0.1"],
                *["--outbox", str(folder / "received.db")],
            ],
            folder,
        )
        self.workers = [
            Machine(f"worker-{number}", [*ATHINA_TRACE, "relay"], folder, **self.relay)
            for number in range(options.workers)
        ]
        port = free_port()
        (folder / "gateway").mkdir()
        self.gateway = Machine(
            "gateway",
            [*ATHINA_TRACE, "gateway", "--port", str(port)],
            folder,
            **self.relay,
            ATHINA_OUTBOX=str(folder / "gateway" / "outbox.db"),
        )
        script = str(Path(__file__).parent / "fleet" / "client.py")
        arguments = [f"http://127.0.0.1:{port}", str(folder / "book"), GATEWAY_CLIENT]
        self.client = Machine(GATEWAY_CLIENT, [sys.executable, script, *arguments], folder)
        self.pods = [self.pod(f"pod-{number}") for number in range(options.pods)]
        self.harm: Counter[str] = Counter()
        self.deleted: set[str] = set()
        self.nodes_rest_until = 0.0
        self.waking: list[tuple[float, Callable[[], None]]] = []

    def pod(self, name: str) -> Machine:
        """Make a pod with an empty disk."""
        disk = self.folder / name
        disk.mkdir()
        script = str(Path(__file__).parent / "fleet" / "pod.py")
        arguments = [str(self.folder / "conversations"), str(self.folder / "book"), name, str(self.chance.random())]
        outbox = str(disk / "outbox.db")
        return Machine(name, [sys.executable, script, *arguments], self.folder, **self.relay, ATHINA_OUTBOX=outbox)

    def start(self) -> None:
        """Start everything, from the servers up."""
        (self.folder / "conversations").mkdir()
        for number in range(CONVERSATIONS):
            (self.folder / "conversations" / f"thread-{number}").touch()
        (self.folder / "book").touch()
        for node in self.nodes:
            node.start()
        if not self.options.athina:
            self.athina.start()
        setup = ["--setup", "--partitions", "16", "--replicas", str(len(self.nodes)), "--ack-wait", "5"]
        print(until_it_works([*ATHINA_TRACE, "relay", *setup], self.relay))
        for machine in (*self.workers, self.gateway, *self.pods, self.client):
            machine.start()
        patience = time.monotonic() + _PATIENCE_SECONDS
        while not {machine.name for machine in (*self.pods, self.client)} <= self.names_in_book():
            if time.monotonic() > patience:
                raise SystemExit(f"not every machine answers: {self.gateway.last_words()}")
            time.sleep(0.1)

    def names_in_book(self) -> set[str]:
        """Return the machines that have answered something."""
        return {line.split(" ")[1] for line in (self.folder / "book").read_text().splitlines() if " " in line}

    def kill_one(self) -> str:
        """Kill or suspend one machine; return what happened."""
        machines = {"pod": self.pods, "worker": self.workers, "gateway": [self.gateway], "node": self.nodes}
        kind = self.chance.choices([*machines], [5, 2, 1, 1])[0]
        machine = self.chance.choice(machines[kind])
        if not machine.runs:
            return ""  # it comes back by itself
        if kind == "node":
            if time.monotonic() < self.nodes_rest_until:
                return ""  # two of three must agree, and one that comes back has to catch up first
            self.nodes_rest_until = time.monotonic() + _NODE_REST_SECONDS
        if self.options.stop and self.chance.random() < 0.3:  # noqa: PLR2004 - about every third
            machine.send(signal.SIGSTOP)
            self.later(self.chance.uniform(1.0, 8.0), lambda: machine.send(signal.SIGCONT))
            self.harm[f"{kind}s stopped"] += 1
            return f"{machine.name} is stopped"
        machine.end()
        self.harm[f"{kind}s killed"] += 1
        if kind == "pod" and self.options.delete_disks and self.chance.random() < 0.2:  # noqa: PLR2004 - every fifth
            return self.delete_disk(machine)
        self.later(self.chance.uniform(0.1, 3.0), machine.start)
        return f"{machine.name} is killed"

    def delete_disk(self, pod: Machine) -> str:
        """Delete a dead pod's disk, and replace the pod."""
        for path in (self.folder / pod.name).iterdir():
            if path.is_file():
                path.unlink()
        self.deleted.add(pod.name)
        self.pods[self.pods.index(pod)] = another = self.pod(f"{pod.name}+")
        another.start()
        self.harm["disks deleted"] += 1
        return f"{pod.name} is killed, its disk deleted"

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Schedule a machine's return."""
        self.waking.append((time.monotonic() + seconds, action))

    def wake(self, *, now: float) -> None:
        """Bring back the machines that are due."""
        due = [action for at, action in self.waking if at <= now]
        self.waking = [(at, action) for at, action in self.waking if at > now]
        for action in due:
            action()

    def arrived(self) -> list[str]:
        """Return the references of the logs that Athina has, in the order of their arrival."""
        if self.options.athina:
            with urlopen(f"{self.options.athina}/accepted") as answer:  # noqa: S310 - a test's own server
                bodies = [json.loads(json.loads(line)["body"]) for line in answer.read().splitlines()]
            return [str(body["external_reference_id"]) for body in bodies]
        with sqlite3.connect(self.folder / "received.db") as db:
            return [str(row[0]) for row in db.execute("SELECT reference FROM entry WHERE kind = 'log' ORDER BY id")]

    def run(self) -> None:
        """Answer questions, and kill machines, until the time is over."""
        began = time.monotonic()
        next_harm = next_line = began + 0.5
        while (now := time.monotonic()) < began + self.options.seconds:
            self.wake(now=now)
            event = ""
            if now > next_harm:
                event, next_harm = self.kill_one(), now + self.chance.uniform(0.3, 1.7)
            if event or now > next_line:
                made = (self.folder / "book").read_text().count("made ")
                print(f"{now - began:6.1f} s  {made:>7,} answered  {event}", flush=True)
                next_line = now + 5.0
            time.sleep(0.05)

    def drain(self) -> None:
        """Stop pods and gateway, publish the logs on their disks, and wait until the workers have delivered them."""
        self.wake(now=float("inf"))
        for machine in (self.client, self.gateway, *self.pods):
            machine.end()
        for machine in (*self.nodes, *self.workers):
            machine.send(signal.SIGCONT)
        for machine in (self.gateway, *self.pods):
            until_it_works([*ATHINA_TRACE, "flush"], machine.variables)
        print("all is published; waiting for the workers", flush=True)
        least, patience = self.waiting(), time.monotonic() + _PATIENCE_SECONDS
        while least:
            waiting = self.waiting()
            if waiting < least:
                least, patience = waiting, time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > patience:
                raise SystemExit(f"{waiting} logs stay in the stream: {self.workers[0].last_words()}")
            time.sleep(0.5)

    def waiting(self) -> int:
        """Return the number of logs in the stream."""
        shown = until_it_works([*ATHINA_TRACE, "relay", "--status", "--json"], self.relay)
        return int(json.loads(shown)["waiting"])

    def end(self) -> None:
        """Stop everything."""
        for machine in (self.client, self.gateway, *self.pods, *self.workers, self.athina, *self.nodes):
            machine.end(signal.SIGTERM if machine in self.workers else signal.SIGKILL)


def main() -> None:
    """Run the fleet, and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long pods answer and are harmed")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pods", type=int, default=6)
    parser.add_argument("--delete-disks", action="store_true", help="of some of the pods that are killed, too")
    parser.add_argument("--stop", action="store_true", help="stop machines for seconds, too, as a broken network does")
    parser.add_argument("--athina", help="the address of an Athina that runs already")
    parser.add_argument("--figures", help="a file for the books, as JSON")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="fleet-", ignore_cleanup_errors=True) as folder:
        fleet = Fleet(Path(folder), options)
        try:
            fleet.start()
            fleet.run()
            fleet.drain()
            books: Books = check(Path(folder) / "book", fleet.arrived(), fleet.deleted)
        finally:
            fleet.end()
    print("\n".join(f"{name:>16} {number:>8,}" for name, number in sorted(fleet.harm.items())))
    print(books)
    if options.figures:
        Path(options.figures).write_text(json.dumps({**fleet.harm, **asdict(books)}))
    if books.lost or books.out_of_order:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
