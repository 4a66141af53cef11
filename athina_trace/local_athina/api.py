"""Athina's logging API, as its documentation and its clients describe it, with the viewer beside it.

POST  /api/v1/log/inference, /api/v2/log/inference
PATCH /api/v1/log/inference/update-by-external-reference-id/{external_reference_id}
PATCH /api/v1/log/inference/{prompt_run_id}
PATCH /api/v1/prompt_run/user-feedback
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from athina_trace._delivery.routes import Kind
from athina_trace.inference_log import InferenceLog
from athina_trace.local_athina.faults import Faults
from athina_trace.local_athina.received_logs import ReceivedLogs
from athina_trace.schema import ALIASES, FIELDS
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox

MAX_BODY = 10_000_000
"""Bytes of one request."""
_REQUIRED = ("language_model_id", "prompt", "response")

Endpoint = Callable[[Request], Awaitable[Response]]


def create_local_athina(
    received: ReceivedLogs,
    *,
    faults: Faults | None = None,
    key: str | None = None,
    token: str | None = None,
    names: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Starlette:
    """Create an application that keeps what arrives in `received`.

    Args:
        received: where to keep logs and their changes.
        faults: how requests are answered.
        key: the only API key to accept; None: any.
        token: for the viewer, see `AccessMiddleware`.
        names: for the viewer, see `AccessMiddleware`.
        report: is called with a line for each request that fails on demand.
    """
    return create_app(
        IndexedOutbox(received.path),
        title="local Athina",
        token=token,
        names=names,
        has_engine=False,
        example_key="any" if key is None else "THE-KEY-OF-THIS-SERVER",
        more_routes=LoggingApi(received, faults or Faults(), key, report).routes(),
        open_to=("/api/",),
    )


class RefusedRequest(Exception):  # noqa: N818 - an answer, not an error
    """A request that is answered with another status than success, in the shape of Athina's errors."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


class LoggingApi:
    """The endpoints."""

    def __init__(
        self, received: ReceivedLogs, faults: Faults, key: str | None, report: Callable[[str], None] | None = None
    ) -> None:
        """`key`: the only API key to accept; None: any. `report`: see `create_local_athina`."""
        self.received = received
        self.faults = faults
        self._key = key
        self._report = report

    def routes(self) -> list[BaseRoute]:
        """Return a route for each endpoint."""
        endpoints: list[tuple[str, str, Endpoint]] = [
            ("POST", "/api/{version}/log/inference", self.log),
            # Before the next one, which would match its path, too; references may contain slashes.
            ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/{reference:path}", self.update),
            ("PATCH", "/api/v1/log/inference/{prompt_run_id:path}", self.update_by_id),
            ("PATCH", "/api/v1/prompt_run/user-feedback", self.feedback),
        ]
        return [Route(path, self._checked(endpoint), methods=[method]) for method, path, endpoint in endpoints]

    def _checked(self, endpoint: Endpoint) -> Endpoint:
        """Check faults and key before an endpoint, and answer the requests that it refuses."""

        async def answer(request: Request) -> Response:
            await asyncio.sleep(self.faults.delay)  # refused requests are as slow as others
            try:
                self._check_faults_and_key(request)
                return await endpoint(request)
            except RefusedRequest as refused:
                retry_after = self.faults.retry_after
                headers = None if retry_after is None else {"Retry-After": f"{retry_after:g}"}
                body = {"error": refused.error, "details": {"message": refused.message}}
                return JSONResponse(body, refused.status, headers)

        return answer

    def _check_faults_and_key(self, request: Request) -> None:
        status = self.faults.draw()
        if status is not None:
            if self._report is not None:
                self._report(f"{request.method} {request.url.path}: answered {status}, as asked")
            raise RefusedRequest(status, f"status {status}", "as this local Athina was asked to answer")
        key = request.headers.get("athina-api-key", "")
        if not key:
            raise RefusedRequest(401, "Unauthorized", "the header athina-api-key is missing")
        if self._key is not None and not secrets.compare_digest(key.encode(), self._key.encode()):
            raise RefusedRequest(401, "Unauthorized", "this athina-api-key is not the one of this server")

    async def log(self, request: Request) -> Response:
        """Take a log."""
        version = request.path_params["version"]
        if version not in ("v1", "v2"):
            raise RefusedRequest(404, "Not Found", f"there is no version {version}; v1 and v2 take logs")
        fields = await _read_object(request)
        missing = [name for name in _REQUIRED if fields.get(name) is None]
        if missing:
            raise RefusedRequest(400, "Validation error", "; ".join(f"{name} is required" for name in missing))
        if version == "v2" and not isinstance(fields["response"], str):
            raise RefusedRequest(400, "Validation error", "response must be a string")
        _check_types(fields)
        prompt_run_id = self.received.add(fields)
        if prompt_run_id is None:
            reference = fields["external_reference_id"]
            raise RefusedRequest(409, "Conflict", f"there is a log with the external_reference_id {reference!r}")
        return _success(prompt_run_id)

    async def update(self, request: Request) -> Response:
        """Change fields of a log found by its reference."""
        fields = await _read_object(request)
        _check_types(fields)
        return self._change("update", "reference", request.path_params["reference"], fields)

    async def update_by_id(self, request: Request) -> Response:
        """Change fields of a log found by Athina's name for it."""
        fields = await _read_object(request)
        _check_types(fields)
        return self._change("update_by_id", "prompt_run_id", request.path_params["prompt_run_id"], fields)

    async def feedback(self, request: Request) -> Response:
        """Add a user's feedback to a log found by its reference."""
        fields = await _read_object(request)
        value = fields.get("user_feedback")
        # True is 1 to Python, and not to Athina.
        if value not in (1, 0, -1) or isinstance(value, bool):
            raise RefusedRequest(400, "Validation error", f"user_feedback must be 1, 0 or -1, not {value!r}")
        return self._change("feedback", "reference", str(fields.get("external_reference_id") or ""), fields)

    def _change(
        self, kind: Kind, by: Literal["reference", "prompt_run_id"], key: str, fields: dict[str, Any]
    ) -> Response:
        prompt_run_id = self.received.change(kind, by, key, fields)
        if prompt_run_id is None:
            name = "external_reference_id" if by == "reference" else by
            raise RefusedRequest(404, "Not Found", f"there is no log with the {name} {key!r}")
        return _success(prompt_run_id)


def _success(prompt_run_id: str) -> Response:
    return JSONResponse({"status": "success", "data": {"prompt_run_id": prompt_run_id}})


async def _read_object(request: Request) -> dict[str, Any]:
    """Read a request's body as a JSON object."""
    body = bytearray()
    # Not request.body(): that would read any length into memory before it could be refused.
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise RefusedRequest(413, "Payload Too Large", f"a request may have {MAX_BODY} bytes")
    try:
        fields = from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise RefusedRequest(400, "Bad Request", f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedRequest(400, "Bad Request", f"the body must be a JSON object, not {type(fields).__name__}")
    return fields


def _check_types(fields: dict[str, Any]) -> None:
    """Check that each known field has its type; unknown ones are kept unchecked, as Athina does."""
    # Athina's two spellings count as one field, and an update need not repeat the required ones.
    known = {name: value for name, value in fields.items() if ALIASES.get(name, name) in FIELDS}
    try:
        InferenceLog.of({**dict.fromkeys(_REQUIRED, ""), **known})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        message = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems[:20])
        raise RefusedRequest(400, "Validation error", message) from None
