"""Athina's logging API, as its documentation and its clients describe it, and the viewer beside it.

POST  /api/v1/log/inference, /api/v2/log/inference
PATCH /api/v1/log/inference/update-by-external-reference-id/{external_reference_id}
PATCH /api/v1/log/inference/{prompt_run_id}
PATCH /api/v1/prompt_run/user-feedback
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from athina_trace.inference_log import InferenceLog
from athina_trace.local_athina.faults import Faults
from athina_trace.local_athina.received import Received
from athina_trace.schema import ALIASES, FIELDS
from athina_trace.viewer.app import create_app
from athina_trace.viewer.source import Source

LONGEST_BODY = 10_000_000
"""Bytes of one request."""
_REQUIRED = ("language_model_id", "prompt", "response")
_FEEDBACK = (1, 0, -1)
Endpoint = Callable[[Request], Awaitable[Response]]


def create_local_athina(
    received: Received,
    *,
    faults: Faults | None = None,
    key: str | None = None,
    token: str | None = None,
    names: Sequence[str] = (),
) -> Starlette:
    """Keep what arrives in `received`. `key`: the only API key that is taken; None: any.

    `token` and `names` are for the viewer; see `guard.Guard`.
    """
    api = Api(received, faults or Faults(), key)
    return create_app(
        Source(received.path),
        title="local Athina",
        token=token,
        names=names,
        has_engine=False,
        more=api.routes(),
        open_to=("/api/",),
    )


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """A status other than success, with Athina's kind of words."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message

    def answer(self, retry_after: float | None = None) -> Response:
        """The answer that says so."""
        headers = None if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        body = {"error": self.error, "details": {"message": self.message}}
        return JSONResponse(body, self.status, headers)


class Api:
    """The endpoints over one file."""

    def __init__(self, received: Received, faults: Faults, key: str | None) -> None:
        self.received = received
        self.faults = faults
        self._key = key

    def routes(self) -> list[BaseRoute]:
        """Where each endpoint stands."""
        places: list[tuple[str, str, Endpoint]] = [
            ("POST", "/api/{version}/log/inference", self._log),
            ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/{reference:path}", self._update),
            ("PATCH", "/api/v1/log/inference/{run:path}", self._update_by_id),
            ("PATCH", "/api/v1/prompt_run/user-feedback", self._feedback),
        ]
        return [Route(path, self._guarded(endpoint), methods=[method]) for method, path, endpoint in places]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Key and faults first; a refusal becomes its answer."""

        async def answer(request: Request) -> Response:
            await asyncio.sleep(self.faults.delay)
            try:
                self._check_luck()
                self._check_key(request)
                return await endpoint(request)
            except Refusal as refusal:
                return refusal.answer(self.faults.retry_after)

        return answer

    def _check_luck(self) -> None:
        status = self.faults.draw()
        if status is not None:
            raise Refusal(status, f"status {status}", "as this local Athina was asked to answer")

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("athina-api-key", "")
        if not given:
            raise Refusal(401, "Unauthorized", "the header athina-api-key is missing")
        if self._key is not None and not secrets.compare_digest(given.encode(), self._key.encode()):
            raise Refusal(401, "Unauthorized", "this athina-api-key is not the one that the server was started with")

    async def _log(self, request: Request) -> Response:
        version = request.path_params["version"]
        if version not in ("v1", "v2"):
            raise Refusal(404, "Not Found", f"there is no version {version}; v1 and v2 take logs")
        fields = await _object(request)
        _require(fields, version)
        run = self.received.add(_checked(fields))
        if run is None:
            reference = fields["external_reference_id"]
            raise Refusal(409, "Conflict", f"external_reference_id {reference!r} is that of an earlier log")
        return _success(run)

    async def _update(self, request: Request) -> Response:
        return await self._change(request, "update", "reference", request.path_params["reference"])

    async def _update_by_id(self, request: Request) -> Response:
        return await self._change(request, "update_by_id", "prompt_run_id", request.path_params["run"])

    async def _feedback(self, request: Request) -> Response:
        fields = await _object(request)
        if fields.get("user_feedback") not in _FEEDBACK or isinstance(fields.get("user_feedback"), bool):
            raise Refusal(
                400, "Validation error", f"user_feedback must be 1, 0 or -1, not {fields.get('user_feedback')!r}"
            )
        reference = str(fields.get("external_reference_id") or "")
        return self._changed("feedback", "reference", reference, fields)

    async def _change(self, request: Request, kind: Any, by: str, name: str) -> Response:
        return self._changed(kind, by, name, _checked(await _object(request)))

    def _changed(self, kind: Any, by: str, name: str, fields: dict[str, Any]) -> Response:
        run = self.received.change(kind, by, name, fields)
        if run is None:
            wire = "external_reference_id" if by == "reference" else by
            raise Refusal(404, "Not Found", f"there is no log with the {wire} {name!r}")
        return _success(run)


def _success(run: str) -> Response:
    return JSONResponse({"status": "success", "data": {"prompt_run_id": run}})


async def _object(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise Refusal(413, "Payload Too Large", f"a request may have {LONGEST_BODY} bytes")
    try:
        fields = from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, "Bad Request", f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refusal(400, "Bad Request", f"the body must be a JSON object, not {type(fields).__name__}")
    return fields


def _require(fields: dict[str, Any], version: str) -> None:
    missing = [name for name in _REQUIRED if fields.get(name) is None]
    if missing:
        raise Refusal(400, "Validation error", "; ".join(f"{name} is required" for name in missing))
    if version == "v2" and not isinstance(fields["response"], str):
        raise Refusal(400, "Validation error", "response must be a string")


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they came, once every known one has its type. Unknown ones are kept and left alone."""
    known = {name: value for name, value in fields.items() if ALIASES.get(name, name) in FIELDS}
    try:
        InferenceLog.of({**dict.fromkeys(_REQUIRED, ""), **known})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        words = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems[:20])
        raise Refusal(400, "Validation error", words) from None
    return fields
