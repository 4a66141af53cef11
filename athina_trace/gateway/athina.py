"""Athina's own API, for any of its clients."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request

from athina_trace._delivery.routes import Kind
from athina_trace._serialization import plain
from athina_trace._serving.athina_api import AthinaApi, RefusedRequest, object_of
from athina_trace.gateway import forward
from athina_trace.gateway.bodies import Bodies
from athina_trace.gateway.commits import Commits
from athina_trace.gateway.sizes import CONTAINERS, NAMES, json_holds_more

REFERENCE: Final = "ref:"
"""Prefix of the `prompt_run_id` in our answers, since Athina has not assigned one yet; changes may use it."""

MOST_PARTS: Final = 1_000_000
"""Objects, lists and field names in one body; a log keeps a fifth of them. Numbers take a tenth of their time."""


class ForwardingApi(AthinaApi):
    """Puts logs and their changes into the outbox, and answers once they are durable."""

    def __init__(self, bodies: Bodies, commits: Commits) -> None:
        self._bodies = bodies
        self._commits = commits

    async def check(self, request: Request) -> None:
        """Require the header that Athina requires: a browser does not send it to other sites without permission."""
        if "athina-api-key" not in request.headers and "authorization" not in request.headers:
            raise RefusedRequest(401, "Unauthorized", "the header athina-api-key is missing")

    async def read(self, request: Request) -> dict[str, Any]:
        """Read a body within its limits."""
        body = await self._bodies.read(request)
        if json_holds_more(body, CONTAINERS + NAMES, MOST_PARTS):
            message = f"a body may hold at most {MOST_PARTS:,} objects, lists and names of fields"
            raise RefusedRequest(413, "Payload Too Large", message)
        fields: dict[str, Any] = object_of(body, parsed)
        return fields

    async def log(self, fields: dict[str, Any], version: str) -> dict[str, Any]:  # noqa: ARG002 - ours may be another
        """Commit a log."""
        takes_long = forward.takes_long(fields)
        reference = await self._commits.commit(lambda: forward.commit_log(fields), takes_long=takes_long)
        return {"prompt_run_id": f"{REFERENCE}{reference}", "external_reference_id": reference}

    async def change(self, kind: Kind, target: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Commit a change."""
        if kind == "update_by_id" and target.startswith(REFERENCE):
            kind, target = "update", target.removeprefix(REFERENCE)
        if not target:
            raise RefusedRequest(400, "Validation error", "external_reference_id is required")
        takes_long = forward.takes_long(fields)
        await self._commits.commit(lambda: forward.commit_change(kind, target, fields), takes_long=takes_long)
        return {"prompt_run_id": target if kind == "update_by_id" else f"{REFERENCE}{target}"}


def parsed(body: bytes) -> Any:
    """Return a body as JSON data."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        # JavaScript and Python escape lone surrogates, which the faster parser rejects.
        if b"\\u" not in body:
            raise
        return plain(json.loads(body), limits=forward.LIMITS)
