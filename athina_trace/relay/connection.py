"""Connections to NATS servers, requests to JetStream's API, and what their errors mean for a log."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client as NatsClient

from athina_trace._delivery import trust
from athina_trace._delivery.destination import Destination
from athina_trace._delivery.response import Outcome, bounded
from athina_trace.errors import SettingsError
from athina_trace.relay.names import Names
from athina_trace.settings import Settings

T = TypeVar("T")

RELAY: Final = Destination("The relay", "our credentials", "ATHINA_RELAY and ATHINA_RELAY_CREDENTIALS", "ATHINA_RELAY")
CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_PING_SECONDS = 10
"""How often a quiet connection is asked for a sign of life; two that stay unanswered end it."""
_FULL = frozenset({10077, 10047, 10023})
"""JetStream's codes for a stream at its limit, and for a server or an account at theirs."""
_TOO_LARGE = 10054


class ApiError(Exception):
    """JetStream refused a request. `code` is like an HTTP status; `err_code` says precisely why."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code or code})")
        self.code = code
        self.err_code = err_code


class NoAnswerError(Exception):
    """No server answered: none is there, none let us in, or JetStream is not available."""


@dataclass(frozen=True)
class Address:
    """Where the servers are, and how to be let in.

    Attributes:
        servers: URLs without credentials.
        user, password, token: what the URL held.
        credentials: path of a `.creds` file, with a JWT and a seed.
        certificate: path of a PEM file with a client's certificate and key.
        prefix: of all subjects.
    """

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials: str | None = None
    certificate: str | None = None
    prefix: str = "athina"

    @classmethod
    def parse(
        cls, url: str, *, credentials: str | None = None, certificate: str | None = None, prefix: str = "athina"
    ) -> Address:
        """Read `nats://user:password@host:4222,nats://other:4222`; one server's credentials are for all."""
        servers, user, password = [], None, None
        for each in filter(None, (part.strip() for part in url.split(","))):
            parts = urlsplit(each if "://" in each else f"nats://{each}")
            servers.append(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
            user = user or (unquote(parts.username) if parts.username else None)
            password = password or (unquote(parts.password) if parts.password else None)
        token = user if password is None else None
        return cls(tuple(servers), None if token else user, password, token, credentials, certificate, prefix)

    @classmethod
    def of(cls, settings: Settings) -> Address:
        """Return the address that the settings name. Raises `SettingsError` where they name none."""
        if settings.relay is None:
            raise SettingsError("there is no relay: set ATHINA_RELAY to its servers, such as nats://host:4222")
        return cls.parse(
            settings.relay.get_secret_value(),
            credentials=settings.relay_credentials,
            certificate=settings.relay_certificate,
            prefix=settings.relay_prefix,
        )

    @property
    def names(self) -> Names:
        """What is called how there."""
        return Names(self.prefix)

    def __str__(self) -> str:
        return ",".join(self.servers)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no message."""
        return tuple(filter(None, (self.password, self.token)))

    def tls(self) -> ssl.SSLContext | None:
        """Return the context for secure connections; None where the client's own will do."""
        if self.certificate is not None:
            context = ssl.create_default_context()
            context.load_cert_chain(self.certificate)
            return context
        return trust.context() if any(server.startswith("tls://") for server in self.servers) else None


class Loop(asyncio.SelectorEventLoop):
    """An event loop that looks names up in its own thread, and leaves no connection open when it is closed.

    A thread pool, which asyncio uses, takes no more work once the interpreter ends, when the last logs are sent; and
    it would keep the process from ending for as long as a look-up takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look a name up; other connections of this loop wait meanwhile."""
        return socket.getaddrinfo(host, port, **options)

    async def create_connection(self, *given: Any, **options: Any) -> Any:
        """Connect. The client of NATS forgets connections that it is making, or closing, when that is cancelled."""
        made = await super().create_connection(*given, **options)
        self._connections.add(made[0])
        return made

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, cancel what it left, and close: once, as `asyncio.Runner` from Python 3.11 on."""
        try:
            return self.run_until_complete(main)
        finally:
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            if left:
                # Not for ever: there are tasks of the client's that do not heed it.
                self.run_until_complete(asyncio.wait(left, timeout=_CLOSE_SECONDS))
            for connection in [*self._connections]:
                connection.abort()
            # A connection that was closed lets go of its socket in the next round of the loop.
            self.run_until_complete(asyncio.sleep(0))
            self.close()


async def connect(
    address: Address,
    *,
    name: str,
    on_error: Callable[[Exception], None] = lambda _: None,
    on_closed: Callable[[], None] = lambda: None,
) -> NatsClient:
    """Connect to any of the servers. The connection does not come back once it is lost: see `on_closed`.

    Raises `NoAnswerError`, with a cause, or `PermissionError` where a server does not let us in.
    """
    failures: list[Exception] = []

    async def note(error: Exception) -> None:
        failures.append(error)
        on_error(error)

    async def closed() -> None:
        on_closed()

    client = NatsClient()
    connecting = asyncio.ensure_future(
        client.connect(
            list(address.servers),
            name=name,
            error_cb=note,
            closed_cb=closed,
            allow_reconnect=False,
            connect_timeout=int(CONNECT_SECONDS),
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            ping_interval=_PING_SECONDS,
            tls=address.tls(),
            user=address.user,
            password=address.password,
            token=address.token,
            user_credentials=address.credentials,
            skip_subject_validation=True,  # they are all ours
        )
    )
    # Rather than `wait_for`, which would wait for a task that does not heed its cancellation.
    await asyncio.wait({connecting}, timeout=CONNECT_SECONDS * 2)
    if not connecting.done():
        connecting.cancel()
        await close(client)
        raise NoAnswerError(f"no server let us in within {CONNECT_SECONDS * 2:g} seconds")
    error = connecting.exception()
    if error is not None:
        await close(client)
        shown = failures[0] if isinstance(error, nats.errors.NoServersError) and failures else error
        words = bounded(f"{type(shown).__name__}: {shown}", secrets=address.secrets)
        if "authorization" in words.lower() or "authentication" in words.lower():
            raise PermissionError(words) from error
        raise NoAnswerError(words) from error
    return client


async def close(client: NatsClient) -> None:
    """Close a connection, within a second: after a failed handshake the client's own would wait for ever."""
    await asyncio.wait({asyncio.ensure_future(client.close())}, timeout=_CLOSE_SECONDS)
    # What the client leaves open when it fails to close, the interpreter would complain about.
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        # Of Python 3.11.2, which Debian 12 has: a secure one that has ended cannot be aborted.
        with suppress(AttributeError):
            writer.transport.abort()


async def api(client: NatsClient, endpoint: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream, such as `STREAM.INFO.athina`. Raises `ApiError` or `NoAnswerError`."""
    payload = json.dumps(request).encode() if request is not None else b""
    answer: dict[str, Any] = json.loads(await ask(client, f"$JS.API.{endpoint}", payload))
    raise_error(answer)
    return answer


async def ask(client: NatsClient, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Send a request and give the answer's data. Raises `NoAnswerError`."""
    try:
        return (await client.request(subject, payload, timeout=REQUEST_SECONDS, headers=headers)).data
    except nats.errors.NoRespondersError:
        raise NoAnswerError(f"no server answers {subject}") from None
    except nats.errors.TimeoutError:
        raise NoAnswerError(f"no server answered {subject} within {REQUEST_SECONDS:g} seconds") from None
    except nats.errors.Error as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}".rstrip(": ")) from error


async def store(client: NatsClient, subject: str, body: bytes, headers: dict[str, str]) -> None:
    """Put a message into the stream that has `subject`, once. Raises `ApiError` and `NoAnswerError`."""
    raise_error(json.loads(await ask(client, subject, body, headers)))


def raise_error(answer: dict[str, Any]) -> None:
    """Raise `ApiError` where JetStream's answer speaks of one."""
    if "error" in answer:
        error = answer["error"]
        raise ApiError(error.get("code", 500), error.get("err_code", 0), error.get("description", "no reason given"))


def outcome_of(error: Exception, names: Names) -> Outcome:
    """Return what an error that kept a log out of the stream means for it, and what helps."""
    if isinstance(error, PermissionError):
        return Outcome(401, message=str(error))
    if isinstance(error, ApiError):
        if error.err_code in _FULL:
            help_ = "start workers (`athina-trace relay --status` shows how far they are), or raise its max_bytes"
            return Outcome(507, message=f"the stream {names.stream} is full, {error}: {help_}")
        status = 413 if error.err_code == _TOO_LARGE else error.code
        # Nothing but its size is a log's own fault here: whatever else is wrong is the stream's.
        return Outcome(status if status >= 500 or status == 413 else 503, message=str(error))  # noqa: PLR2004 - HTTP's
    return Outcome(None, message=f"{type(error).__name__}: {error}")
