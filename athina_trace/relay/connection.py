"""Connections to NATS servers, requests to JetStream's API, and the meaning of their errors for a log."""

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
"""How often an idle connection is pinged; two unanswered pings end it."""
_FULL = frozenset({10077, 10047, 10023})
"""JetStream's codes for a stream, a server or an account at its limit."""
_TOO_LARGE = 10054


class ApiError(Exception):
    """JetStream refused a request. `code` is like an HTTP status; `err_code` gives the exact reason."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code or code})")
        self.code = code
        self.err_code = err_code


class NoAnswerError(Exception):
    """No server answered: none can be reached, none accepted us, or JetStream is not available."""


@dataclass(frozen=True)
class Address:
    """The addresses of the servers, and our credentials.

    Attributes:
        servers: URLs without credentials.
        user, password, token: from the URL.
        credentials: path of a `.creds` file, with a JWT and a seed.
        certificate: path of a PEM file with a client's certificate and key.
        prefix: the prefix of all subjects.
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
        """Parse `nats://user:password@host:4222,nats://other:4222`; one server's credentials are used for all."""
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
        """Return the address in the settings. Raises `SettingsError` if there is none."""
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
        """The names of streams and subjects there."""
        return Names(self.prefix)

    def __str__(self) -> str:
        return ",".join(self.servers)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Secrets, which must not appear in messages."""
        return tuple(filter(None, (self.password, self.token)))

    def tls(self) -> ssl.SSLContext | None:
        """Return the context for TLS; None to use the client's own."""
        if self.certificate is not None:
            context = ssl.create_default_context()
            context.load_cert_chain(self.certificate)
            return context
        return trust.context() if any(server.startswith("tls://") for server in self.servers) else None


class Loop(asyncio.SelectorEventLoop):
    """An event loop that resolves names in its own thread, and leaves no connection open when it is closed.

    asyncio's thread pool takes no work once the interpreter shuts down, when the last logs are sent, and it would keep
    the process from ending for as long as a look-up takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a name; other connections of this loop wait meanwhile."""
        return socket.getaddrinfo(host, port, **options)

    async def create_connection(self, *given: Any, **options: Any) -> Any:
        """Connect, and remember it: the NATS client loses connections if opening or closing them is cancelled."""
        made = await super().create_connection(*given, **options)
        self._connections.add(made[0])
        return made

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main`, cancel its remaining tasks, and close, like `asyncio.Runner` in Python 3.11; for one use."""
        try:
            return self.run_until_complete(main)
        finally:
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            if left:
                # With a timeout, since some tasks of the client ignore cancellation.
                self.run_until_complete(asyncio.wait(left, timeout=_CLOSE_SECONDS))
            for connection in [*self._connections]:
                connection.abort()
            # A closed connection releases its socket in the next iteration of the loop.
            self.run_until_complete(asyncio.sleep(0))
            self.close()


async def connect(
    address: Address,
    *,
    name: str,
    on_error: Callable[[Exception], None] = lambda _: None,
    on_closed: Callable[[], None] = lambda: None,
) -> NatsClient:
    """Connect to any of the servers. A lost connection is not reopened: see `on_closed`.

    Raises `NoAnswerError`, with a cause, or `PermissionError` if a server rejects our credentials.
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
    # Not `wait_for`, which would wait for a task that ignores its cancellation.
    await asyncio.wait({connecting}, timeout=CONNECT_SECONDS * 2)
    if not connecting.done():
        connecting.cancel()
        await close(client)
        raise NoAnswerError(f"no server accepted the connection within {CONNECT_SECONDS * 2:g} seconds")
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
    """Close a connection, within a second: after a failed handshake, the client's own method would wait for ever."""
    await asyncio.wait({asyncio.ensure_future(client.close())}, timeout=_CLOSE_SECONDS)
    # Close what the client leaves open if it fails, or the interpreter would warn about it.
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        # Of Python 3.11.2, which Debian 12 has: a secure one that has ended cannot be aborted.
        with suppress(AttributeError):
            writer.transport.abort()


async def api(client: NatsClient, endpoint: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to JetStream's API, such as `STREAM.INFO.athina`. Raises `ApiError` or `NoAnswerError`."""
    payload = json.dumps(request).encode() if request is not None else b""
    answer: dict[str, Any] = json.loads(await ask(client, f"$JS.API.{endpoint}", payload))
    raise_error(answer)
    return answer


async def ask(client: NatsClient, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Send a request and return the data of the answer. Raises `NoAnswerError`."""
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
    """Raise `ApiError` if JetStream's answer contains an error."""
    if "error" in answer:
        error = answer["error"]
        raise ApiError(error.get("code", 500), error.get("err_code", 0), error.get("description", "no reason given"))


def outcome_of(error: Exception, names: Names) -> Outcome:
    """Return the meaning, for a log, of the error that kept it out of the stream, and the remedy."""
    if isinstance(error, PermissionError):
        return Outcome(401, message=str(error))
    if isinstance(error, ApiError):
        if error.err_code in _FULL:
            help_ = "start workers (`athina-trace relay --status` shows how far they are), or raise its max_bytes"
            return Outcome(507, message=f"the stream {names.stream} is full, {error}: {help_}")
        status = 413 if error.err_code == _TOO_LARGE else error.code
        # Only an excessive size is the fault of a log: all other errors concern the stream.
        return Outcome(status if status >= 500 or status == 413 else 503, message=str(error))  # noqa: PLR2004 - HTTP's
    return Outcome(None, message=f"{type(error).__name__}: {error}")
