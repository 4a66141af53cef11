"""Athina's own API, as any of its clients speaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic_core import from_json
from starlette.requests import Request

from athina_trace import _runtime
from athina_trace._delivery.routes import Kind
from athina_trace._serialization import plain
from athina_trace._serving.athina_api import AthinaApi, RefusedRequest, object_of
from athina_trace.errors import OutboxError, OutboxFullError
from athina_trace.gateway import forward
from athina_trace.gateway.bodies import Bodies
from athina_trace.gateway.sizes import CONTAINERS, NAMES, json_holds_more

REFERENCE: Final = "ref:"
"""How the `prompt_run_id` of an answer begins: Athina has given the log none yet, and a change by ours finds it."""

RETRY_SECONDS: Final = 5
"""After which a client may try again where nothing more can be kept."""

MOST_PARTS: Final = 1_000_000
"""Objects, lists and names of fields in one body: a log keeps a fifth of that. Numbers cost a tenth of their time."""

T = TypeVar("T")


class ForwardingApi(AthinaApi):
    """Takes logs and their changes into the outbox, and answers once they survive this process."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies

    async def check(self, request: Request) -> None:
        """Ask for what Athina asks for: a browser sends this header to no other site without permission."""
        if "athina-api-key" not in request.headers and "authorization" not in request.headers:
            raise RefusedRequest(401, "Unauthorized", "the header athina-api-key is missing")

    async def read(self, request: Request) -> dict[str, Any]:
        """Read a body within its bounds."""
        body = await self._bodies.read(request)
        if json_holds_more(body, CONTAINERS + NAMES, MOST_PARTS):
            message = f"a body may hold {MOST_PARTS:,} objects, lists and names of fields"
            raise RefusedRequest(413, "Payload Too Large", message)
        fields: dict[str, Any] = object_of(body, parsed)
        return fields

    async def log(self, fields: dict[str, Any], version: str) -> dict[str, Any]:  # noqa: ARG002 - ours may be another
        """Commit a log."""
        takes_long = forward.takes_long(fields)
        reference = await kept(lambda: forward.commit_log(fields), takes_long=takes_long)
        return {"prompt_run_id": f"{REFERENCE}{reference}", "external_reference_id": reference}

    async def change(self, kind: Kind, target: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Commit a change."""
        if kind == "update_by_id" and target.startswith(REFERENCE):
            kind, target = "update", target.removeprefix(REFERENCE)
        if not target:
            raise RefusedRequest(400, "Validation error", "external_reference_id is required")
        await kept(lambda: forward.commit_change(kind, target, fields), takes_long=forward.takes_long(fields))
        return {"prompt_run_id": target if kind == "update_by_id" else f"{REFERENCE}{target}"}


def parsed(body: bytes) -> Any:
    """A body as JSON data."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        # JavaScript and Python write half of a surrogate pair as an escape, which the quicker parser refuses.
        if b"\\u" not in body:
            raise
        return plain(json.loads(body), limits=forward.LIMITS)


async def kept(commit: Callable[[], T], *, takes_long: bool) -> T:
    """Commit something durably, off the event loop where it takes long. Raises `RefusedRequest` where it cannot be."""
    try:
        result = await asyncio.to_thread(commit) if takes_long else commit()
        settings = forward.runtime().settings
        # Where there is no disk, what keeps a log is Athina, or the stream in front of it.
        is_kept = not settings.flush_each_call or bool(await _runtime.aflush(settings.flush_timeout))
    except OutboxFullError as error:
        raise RefusedRequest(429, "Too Many Requests", str(error), retry_after=RETRY_SECONDS) from None
    except OutboxError as error:
        raise RefusedRequest(503, "Service Unavailable", str(error), retry_after=RETRY_SECONDS) from None
    if not is_kept:
        message = f"it was not delivered within {settings.flush_timeout:g} seconds, and may be later"
        raise RefusedRequest(503, "Service Unavailable", message, retry_after=RETRY_SECONDS)
    return result
