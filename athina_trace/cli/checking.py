"""The command that looks for what is wrong: check."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from pydantic_core import to_json

from athina_trace._clock import clock
from athina_trace._delivery.client import Client
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._pipeline.wire import to_wire
from athina_trace.cli.outboxes import add_outbox, path_of
from athina_trace.cli.terminal import Terminal
from athina_trace.settings import Settings
from athina_trace.viewer import forms

_PATIENCE = 5.0
_SKEW_SECONDS = 300
_SPARE_BYTES = 200_000_000


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, and what was seen or what to do."""

    name: str
    is_well: bool
    words: str


def add(commands: Any) -> None:
    """Name the command and its options."""
    command = commands.add_parser(
        "check",
        help="look for what is wrong: key, address, clock, disk, permissions",
        description="Look for what is wrong. Each line is OK, or says what to do.",
    )
    command.add_argument("--send", action="store_true", help="send one test log to Athina, too")
    add_outbox(command)
    command.set_defaults(run=check)


def check(given: argparse.Namespace, terminal: Terminal) -> int:
    """Print the findings; 1 where something is wrong."""
    settings = Settings.build()
    all_well = True
    for finding in _findings(settings, Path(path_of(given)), send=given.send):
        mark, style = ("OK", "green") if finding.is_well else ("!!", "red")
        terminal.say(f"{mark}  {finding.name:<12} {finding.words}", style=style if not finding.is_well else "")
        terminal.flush()
        all_well = all_well and finding.is_well
    return 0 if all_well else 1


def _findings(settings: Settings, path: Path, *, send: bool) -> Iterator[Finding]:
    yield _enabled(settings)
    yield _key(settings)
    yield from _address(settings)
    yield _folder(path)
    yield _permissions(path)
    yield _disk(path, settings)
    if send:
        yield _request(settings)


def _enabled(settings: Settings) -> Finding:
    words = "logging is on" if settings.enabled else "logging is off: unset ATHINA_TRACE_ENABLED or set it to 1"
    return Finding("enabled", settings.enabled, words)


def _key(settings: Settings) -> Finding:
    if settings.api_key is None:
        return Finding("key", is_well=False, words="no ATHINA_API_KEY: logs stay on this machine; set it to send them")
    return Finding(
        "key", is_well=True, words=f"ATHINA_API_KEY is set, {len(settings.api_key.get_secret_value())} characters"
    )


def _address(settings: Settings) -> Iterator[Finding]:
    """Whether Athina's host can be reached, and whether its clock agrees with ours."""
    parts = urlsplit(settings.base_url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE).close()
        answer = httpx.head(settings.base_url, timeout=_PATIENCE)
    except (OSError, ValueError, httpx.HTTPError) as error:
        why = str(error) or type(error).__name__
        words = f"{settings.base_url} cannot be reached ({why}): check ATHINA_BASE_URL, proxy and network"
        yield Finding("address", is_well=False, words=words)
        return
    yield Finding("address", is_well=True, words=f"{settings.base_url} answers")
    yield _clock(answer.headers.get("date"))


def _clock(date: str | None) -> Finding:
    try:
        skew = abs(time.time() - parsedate_to_datetime(date or "").timestamp())
    except (ValueError, TypeError):
        return Finding("clock", is_well=True, words="the server tells no time to compare with")
    if skew > _SKEW_SECONDS:
        return Finding("clock", is_well=False, words=f"{skew:.0f} s apart from the server's: set this machine's clock")
    return Finding("clock", is_well=True, words="agrees with the server's")


def _folder(path: Path) -> Finding:
    folder = next(each for each in path.parents if each.exists())
    for each in (folder, path):
        if each.exists() and not os.access(each, os.W_OK):
            return Finding("outbox", is_well=False, words=f"{each} cannot be written to: set ATHINA_OUTBOX elsewhere")
    return Finding("outbox", is_well=True, words=str(path) if path.exists() else f"{path}, made with the first log")


def _permissions(path: Path) -> Finding:
    if path.exists() and path.stat().st_mode & 0o077:
        return Finding("permissions", is_well=False, words=f"others may read the outbox: chmod 600 {path}")
    return Finding("permissions", is_well=True, words="only you may read the outbox")


def _disk(path: Path, settings: Settings) -> Finding:
    folder = next(each for each in path.parents if each.exists())
    free = shutil.disk_usage(folder).free
    if free < min(_SPARE_BYTES, settings.max_outbox_bytes):
        return Finding("disk", is_well=False, words=f"only {forms.bytes_of(free)} free at {folder}: make room")
    return Finding("disk", is_well=True, words=f"{forms.bytes_of(free)} free")


def _request(settings: Settings) -> Finding:
    """Send one log, marked as a test."""
    if settings.api_key is None:
        return Finding("request", is_well=False, words="nothing was sent, for want of a key")
    api = Client(
        base_url=settings.base_url,
        key=settings.api_key.get_secret_value(),
        api_version=settings.api_version,
        total=settings.request_timeout,
    )
    try:
        outcome = api.deliver("log", "", to_json(_test_log()))
    finally:
        api.close()
    told = _ADVICE[verdict(outcome.status)]
    words = f"status {outcome.status or 'none'} {outcome.message}".strip() + told
    return Finding("request", verdict(outcome.status) is Verdict.DELIVERED, words)


_ADVICE = {
    Verdict.DELIVERED: "",
    Verdict.PAUSED: ": check ATHINA_API_KEY",
    Verdict.REFUSED: ": check ATHINA_BASE_URL and ATHINA_API_VERSION",
    Verdict.SHRINK: ": check ATHINA_BASE_URL",
    Verdict.RETRY: ": Athina or the network fails; try again later",
}


def _test_log() -> dict[str, Any]:
    return to_wire(
        {
            "language_model_id": "athina-trace-check",
            "prompt": "Does logging work?",
            "response": "If you read this in Athina, it does.",
            "user_query": "Does logging work?",
            "environment": "check",
            "external_reference_id": clock.reference(),
        }
    )
