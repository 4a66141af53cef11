"""A local Athina on a real socket, which records what arrives and misbehaves on demand.

    with AthinaServer() as athina:
        athina.script(answer(500), busy(2), lose_answer)  # one fault for each of the next requests, in order of arrival
        athina.when(lambda request: request.json["session_id"] == "s1", hang)  # for every request that matches
        ...
        athina.wait_for(3, timeout=5)

`requests` holds everything that arrived, `accepted` what Athina would have stored, both in order of arrival.
A fault is any function of an `Exchange`. From a shell: `python -m tests.support.athina_server --port 8080
--faults 0.2 --seed 7`; the first line on standard output is the base URL, and `GET /accepted` gives the
accepted requests as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tests.support.athina_faults import (
    CHAOS,
    Exchange,
    Fault,
    Request,
    accept,
    answer,
    bad_json,
    busy,
    close_before_answer,
    close_in_mid_answer,
    close_in_mid_body,
    continue_for_ever,
    delay,
    drip_body,
    drip_headers,
    endless_body,
    endless_headers,
    gzipped,
    hang,
    html,
    http10,
    lose_answer,
    raw,
    redirect,
    reset,
    response,
    wrong_encoding,
)
from tests.support.ports import free_port

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

__all__ = [
    "CHAOS",
    "AthinaServer",
    "Exchange",
    "Fault",
    "Request",
    "accept",
    "answer",
    "bad_json",
    "busy",
    "close_before_answer",
    "close_in_mid_answer",
    "close_in_mid_body",
    "continue_for_ever",
    "delay",
    "drip_body",
    "drip_headers",
    "endless_body",
    "endless_headers",
    "gzipped",
    "hang",
    "html",
    "http10",
    "lose_answer",
    "main",
    "raw",
    "redirect",
    "reset",
    "wrong_encoding",
]

_PATIENCE: Final = 60.0


class AthinaServer:
    """The server: a thread that accepts, and one for each connection."""

    def __init__(
        self,
        *,
        port: int = 0,
        faults: float = 0.0,
        seed: int = 0,
        chaos: tuple[Fault, ...] = CHAOS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Set the port, how often (0 to 1) a fault of `chaos` occurs, and `tls` for https.

        Port 0 means a free one, which stays reserved while the server is stopped.
        """
        self.port = port
        self._tls = tls
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        self.connections = 0
        self._faults = faults
        self._random = Random(seed)
        self._chaos = chaos
        self._script: deque[Fault] = deque()
        self._rules: list[tuple[Callable[[Request], bool], Fault]] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """The value for ATHINA_BASE_URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, after a stop on the same port as before."""
        self._stopping = threading.Event()
        self.port = self.port or free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self._spawn(self._listen, self._listener)

    def stop(self) -> None:
        """Refuse new connections and close the open ones; records stay."""
        self._stopping.set()
        with self._changed:
            listener, self._listener = self._listener, None
            sockets = [*self._open, *([listener] if listener else [])]
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()
        if listener:
            listener.close()

    def script(self, *faults: Fault) -> None:
        """Apply these faults to the next requests, one each, in order of arrival; afterwards behave normally."""
        with self._changed:
            self._script.extend(faults)

    def when(self, predicate: Callable[[Request], bool], fault: Fault) -> None:
        """Apply a fault to every request that matches; later rules take precedence."""
        with self._changed:
            self._rules.insert(0, (predicate, fault))

    def clear(self) -> None:
        """Drop the script and all rules, and behave normally. Records stay."""
        with self._changed:
            self._script.clear()
            self._rules.clear()
            self._faults = 0.0

    def wait_for(self, count: int, *, timeout: float = 60.0) -> list[Request]:
        """Wait until so many requests were accepted, and return them."""
        return self._wait(lambda: self.accepted, count, timeout)

    def wait_for_requests(self, count: int, *, timeout: float = 60.0) -> list[Request]:
        """Wait until so many requests arrived, whatever their answers, and return them."""
        return self._wait(lambda: self.requests, count, timeout)

    def _wait(self, records: Callable[[], list[Request]], count: int, timeout: float) -> list[Request]:
        with self._changed:
            if not self._changed.wait_for(lambda: len(records()) >= count, timeout):
                counts = f"{len(self.requests)} requests, {len(self.accepted)} accepted"
                message = f"waited {timeout} s for {count}, got {len(records())}: {counts}"
                raise AssertionError(message)
            return list(records())

    def _accept(self, request: Request) -> str:
        with self._changed:
            self.accepted.append(request)
            self._changed.notify_all()
        return f"run-{request.number}"

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="athina-server")
        self._threads.append(thread)
        thread.start()

    def _listen(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while not self._stopping.is_set():
                connection, _ = listener.accept()
                self._spawn(self._serve_tls if self._tls else self._serve, connection)

    def _serve_tls(self, connection: socket.socket) -> None:
        assert self._tls is not None
        connection.settimeout(_PATIENCE)
        try:
            connection = self._tls.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()  # The client does not trust us, or hung up.
        else:
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._changed:
            self.connections += 1
            number = self.connections
            self._open.add(connection)
        try:
            self._converse(connection, number)
        except (OSError, ValueError):
            pass  # The client hung up or did not send HTTP: close the connection either way.
        finally:
            with self._changed:
                self._open.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_PATIENCE)
        pending = bytearray()
        while not self._stopping.is_set() and (parts := _receive(connection, pending)):
            request, fault = self._arrive(number, *parts)
            if request.method == "GET":
                self._report(connection)
            else:
                fault(Exchange(request, connection, self._accept, self._stopping))

    def _arrive(
        self, connection: int, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[Request, Fault]:
        with self._changed:
            request = Request(len(self.requests) + 1, connection, time.monotonic(), method, path, headers, body)
            if method == "GET":
                return request, accept
            self.requests.append(request)
            self._changed.notify_all()
            return request, self._fault(request)

    def _fault(self, request: Request) -> Fault:
        for predicate, fault in self._rules:
            if predicate(request):
                return fault
        if self._script:
            return self._script.popleft()
        return self._random.choice(self._chaos) if self._random.random() < self._faults else accept

    def _report(self, connection: socket.socket) -> None:
        with self._changed:
            accepted = list(self.accepted)
        lines = (
            json.dumps({"method": each.method, "path": each.path, "body": each.body.decode("utf-8", "replace")})
            for each in accepted
        )
        connection.sendall(response(200, "\n".join(lines).encode()))


def _receive(connection: socket.socket, pending: bytearray) -> tuple[str, str, dict[str, str], bytes] | None:
    """Read one request, or return None if the client has hung up; `pending` keeps the beginning of the next."""
    while (end := pending.find(b"\r\n\r\n")) < 0:
        if not _more(connection, pending):
            return None
    first, *lines = pending[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = end + 4 + int(headers.get("content-length", "0"))
    while len(pending) < length:
        if not _more(connection, pending):
            return None
    method, path, _ = first.split(" ")
    body = bytes(pending[end + 4 : length])
    del pending[:length]
    return method, path, headers, body


def _more(connection: socket.socket, pending: bytearray) -> bool:
    data = connection.recv(262_144)
    pending += data
    return bool(data)


def main() -> None:
    """Serve until standard input ends, so that no server outlives the process that started it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="how often something goes wrong, 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with AthinaServer(port=given.port, faults=given.faults, seed=given.seed) as server:
        print(server.url, flush=True)  # noqa: T201  the caller reads it
        with suppress(EOFError, KeyboardInterrupt):
            while True:
                input()


if __name__ == "__main__":
    main()
