"""Athina's logging API, which stores logs and fails on demand, with the viewer beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request

from athina_trace._delivery.routes import Kind
from athina_trace._serving.access import same
from athina_trace._serving.athina_api import REQUIRED, AthinaApi, RefusedRequest, object_of
from athina_trace.inference_log import InferenceLog
from athina_trace.local_athina.faults import Faults
from athina_trace.local_athina.received_logs import ReceivedLogs
from athina_trace.schema import ALIASES, FIELDS
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox

MAX_BODY = 10_000_000
"""Maximum bytes of a request."""


def create_local_athina(
    received: ReceivedLogs,
    *,
    faults: Faults,
    key: str | None,
    token: str | None = None,
    names: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Starlette:
    """Create an application that stores logs in `received`.

    Args:
        received: stores logs and their changes.
        faults: how requests are answered.
        key: the only API key to accept; None: any.
        token: for the viewer, see `AccessMiddleware`.
        names: for the viewer, see `AccessMiddleware`.
        report: called with a line for each request that fails on demand.
    """
    return create_app(
        IndexedOutbox(received.path),
        title="local Athina",
        token=token,
        names=names,
        has_engine=False,
        example_key="any" if key is None else "THE-KEY-OF-THIS-SERVER",
        more_routes=LoggingApi(received, faults, key, report).routes(),
        open_to=("/api/",),
    )


class LoggingApi(AthinaApi):
    """The endpoints."""

    def __init__(
        self, received: ReceivedLogs, faults: Faults, key: str | None, report: Callable[[str], None] | None
    ) -> None:
        """`key`: the only API key to accept; None: any. `report`: see `create_local_athina`."""
        self.received = received
        self.faults = faults
        self._key = key
        self._report = report

    async def check(self, request: Request) -> None:
        """Fail on demand, and refuse a wrong key."""
        await asyncio.sleep(self.faults.delay)  # refused requests are delayed like others
        status = self.faults.draw()
        if status is not None:
            if self._report is not None:
                self._report(f"{request.method} {request.url.path}: answered {status}, a simulated fault")
            message = "a fault that this local Athina was told to simulate"
            raise RefusedRequest(status, f"status {status}", message, retry_after=self.faults.retry_after)
        key = request.headers.get("athina-api-key", "")
        if not key:
            raise RefusedRequest(401, "Unauthorized", "the header athina-api-key is missing")
        if self._key is not None and not same(key, self._key):
            raise RefusedRequest(401, "Unauthorized", "this server does not accept this athina-api-key")

    async def read(self, request: Request) -> dict[str, Any]:
        """Read a request's body."""
        body = bytearray()
        # Not request.body(), which would read any amount into memory before it could be refused.
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise RefusedRequest(413, "Payload Too Large", f"a request may have at most {MAX_BODY} bytes")
        fields: dict[str, Any] = object_of(bytes(body))
        return fields

    async def log(self, fields: dict[str, Any], version: str) -> dict[str, Any]:
        """Store a log."""
        if version == "v2" and not isinstance(fields["response"], str):
            raise RefusedRequest(400, "Validation error", "response must be a string")
        _check_types(fields)
        prompt_run_id = self.received.add(fields)
        if prompt_run_id is None:
            reference = fields["external_reference_id"]
            raise RefusedRequest(409, "Conflict", f"there is a log with the external_reference_id {reference!r}")
        return {"prompt_run_id": prompt_run_id}

    async def change(self, kind: Kind, target: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Store a change to an existing log."""
        if kind != "feedback":
            _check_types(fields)
        prompt_run_id = self.received.change(
            kind, "prompt_run_id" if kind == "update_by_id" else "reference", target, fields
        )
        if prompt_run_id is None:
            name = "prompt_run_id" if kind == "update_by_id" else "external_reference_id"
            raise RefusedRequest(404, "Not Found", f"there is no log with the {name} {target!r}")
        return {"prompt_run_id": prompt_run_id}


def _check_types(fields: dict[str, Any]) -> None:
    """Check the types of known fields; unknown ones are stored unchecked, as by Athina."""
    # Two spellings count as one field, and an update need not repeat the required fields.
    known = {name: value for name, value in fields.items() if ALIASES.get(name, name) in FIELDS}
    try:
        InferenceLog.of({**dict.fromkeys(REQUIRED, ""), **known})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        message = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems[:20])
        raise RefusedRequest(400, "Validation error", message) from None
