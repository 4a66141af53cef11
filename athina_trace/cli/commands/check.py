"""`check`: check key, address, clock, disk and permissions."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from pydantic_core import to_json

from athina_trace._clock import clock
from athina_trace._delivery import sqlite, trust
from athina_trace._delivery.client import Client, proxy_of
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._pipeline.wire import to_wire
from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import DAMAGED, add_outbox, outbox_path
from athina_trace.cli.terminal import CommandError, Terminal
from athina_trace.settings import Settings
from athina_trace.viewer.formatting import byte_size

_TIMEOUT = 5.0
_MAX_CLOCK_SKEW = 300
_MIN_FREE_BYTES = 200_000_000


class Finding(NamedTuple):
    """One line: what was checked, whether it is all right, and what was found or what to do."""

    name: str
    is_ok: bool
    message: str


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "check",
        help="check key, address, clock, disk and permissions",
        description="Check key, address, clock, disk and permissions. Each line is OK, or says what to do.",
    )
    command.add_argument("--send", action="store_true", help="also send one test log to Athina")
    add_outbox(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print the findings; return 1 if something is wrong."""
    settings = Settings.build()
    all_ok = True
    for finding in findings(settings, Path(outbox_path(options.outbox)), send=options.send):
        line = f"{'OK' if finding.is_ok else '!!'}  {finding.name:<12} {finding.message}"
        terminal.say(line, style="" if finding.is_ok else "red")
        terminal.flush()
        all_ok = all_ok and finding.is_ok
    return 0 if all_ok else 1


def findings(settings: Settings, path: Path, *, send: bool) -> Iterator[Finding]:
    """Check everything, quick checks first."""
    yield from check_settings(settings)
    yield from check_relay() if settings.relay is not None else check_server(settings)
    yield from check_outbox(path, settings)
    if send:
        yield check_sending(settings)


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Check whether logging is on, and whether there is a key."""
    message = "logging is on" if settings.enabled else "logging is off: unset ATHINA_TRACE_ENABLED or set it to 1"
    yield Finding("enabled", settings.enabled, message)
    if settings.relay is not None:
        return  # only a relay's workers need a key
    if settings.api_key is None:
        message = "no ATHINA_API_KEY: logs stay on this machine; set it to send them"
    else:
        message = f"ATHINA_API_KEY is set, {len(settings.api_key.get_secret_value())} characters"
    yield Finding("key", settings.api_key is not None, message)


def check_relay() -> Iterator[Finding]:
    """Check whether the relay's stream is there, and whether it would lose logs."""
    try:
        require_packages("nats", "the relay")
        from athina_trace.cli.relay_connection import ask_relay  # noqa: PLC0415 - an optional extra
        from athina_trace.relay.status import read  # noqa: PLC0415 - an optional extra

        status = ask_relay(read)
    except CommandError as error:
        yield Finding("relay", is_ok=False, message=str(error))
    else:
        workers = f"{len(status.workers)} workers answer" if status.workers else "no worker answers"
        message = f"the stream {status.stream} holds {status.waiting} logs, {workers}"
        yield Finding("relay", not status.faults, "; ".join(status.faults) or message)


def check_server(settings: Settings) -> Iterator[Finding]:
    """Check whether Athina can be reached in the same way as by logs, and whether its clock agrees with ours."""
    way = ""
    try:
        parts, proxy = urlsplit(settings.base_url), proxy_of(settings.base_url)
        if proxy is None:
            # A plain connection first: its errors name the cause, which those of httpx hide.
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=_TIMEOUT).close()
        else:
            way = f" through the proxy {urlsplit(proxy).netloc.rpartition('@')[2]}"
        transport = httpx.HTTPTransport(verify=trust.context(), proxy=proxy)
        with httpx.Client(transport=transport, timeout=_TIMEOUT) as client:
            response = client.head(settings.base_url)
    except (OSError, ValueError, ImportError, httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        message = f"{settings.base_url} cannot be reached{way} ({reason}): check ATHINA_BASE_URL, proxy and network"
        yield Finding("address", is_ok=False, message=message)
        return
    yield Finding("address", is_ok=True, message=f"{settings.base_url} answers{way}")
    try:
        skew = abs(time.time() - parsedate_to_datetime(response.headers.get("date", "")).timestamp())
    except (ValueError, TypeError):
        yield Finding("clock", is_ok=True, message="the server's answer has no date to compare with")
        return
    is_ok = skew <= _MAX_CLOCK_SKEW
    message = (
        "agrees with the server's" if is_ok else f"differs from the server's by {skew:.0f} s: set this machine's clock"
    )
    yield Finding("clock", is_ok, message)


def check_outbox(path: Path, settings: Settings) -> Iterator[Finding]:
    """Check whether the outbox is writable, whether only its owner may read it, and whether there is space."""
    if sqlite.missing is not None:
        message = f"{sqlite.missing}: logs are kept in memory only; install a Python that has the module `sqlite3`"
        yield Finding("outbox", is_ok=False, message=message)
        return
    # The first log creates missing folders, so check the nearest one that exists.
    folder = next(each for each in path.parents if each.exists())
    blocked = [each for each in (folder, path) if each.exists() and not os.access(each, os.W_OK)]
    message = str(path) if path.exists() else f"{path}, created with the first log"
    damage = _damage(path)
    if blocked:
        message = f"{blocked[0]} cannot be written to: set ATHINA_OUTBOX elsewhere"
    elif damage is not None:
        message = f"{path}: {damage}; {DAMAGED}"
    yield Finding("outbox", not blocked and damage is None, message)
    is_private = not path.exists() or not path.stat().st_mode & 0o077
    # These are customers' conversations: neither the group nor others may read them.
    message = "only you may read the outbox" if is_private else f"others may read the outbox: chmod 600 {path}"
    yield Finding("permissions", is_private, message)
    free = shutil.disk_usage(folder).free
    # An outbox with a small limit needs no more than that.
    has_room = free >= min(_MIN_FREE_BYTES, settings.max_outbox_bytes)
    message = f"{byte_size(free)} free" if has_room else f"only {byte_size(free)} free at {folder}: free up space"
    yield Finding("disk", has_room, message)


def _damage(path: Path) -> str | None:
    """Return SQLite's description of damage to the outbox file; None if it is intact, or missing."""
    if not path.exists():
        return None
    try:
        with closing(sqlite.Connection(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite.sqlite3.OperationalError:
        return None  # busy or unreadable: nothing is known about it
    except sqlite.sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else found


def check_sending(settings: Settings) -> Finding:
    """Send one log, marked as a test by its environment."""
    if settings.api_key is None:
        return Finding("request", is_ok=False, message="nothing was sent, since there is no key")
    log = {
        "language_model_id": "athina-trace-check",
        "prompt": "Does logging work?",
        "response": "If you read this in Athina, it does.",
        "user_query": "Does logging work?",
        "environment": "check",
        "external_reference_id": clock.reference(),
    }
    api = Client.of(settings)
    try:
        outcome = api.deliver("log", "", to_json(to_wire(log)))
    finally:
        api.close()
    result = verdict(outcome.status)
    message = f"status {outcome.status or 'none'} {outcome.message}".strip() + _ADVICE[result]
    return Finding("request", result is Verdict.DELIVERED, message)


_ADVICE = {
    Verdict.DELIVERED: "",
    Verdict.PAUSED: ": check ATHINA_API_KEY",
    Verdict.UNCERTAIN: ": check ATHINA_API_KEY and ATHINA_BASE_URL",
    Verdict.REFUSED: ": check ATHINA_BASE_URL and ATHINA_API_VERSION",
    Verdict.TRUNCATE: ": check ATHINA_BASE_URL",
    Verdict.RETRY: ": Athina or the network has failed; try again later",
}
