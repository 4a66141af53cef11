"""The server side of Athina's logging API, as its documentation and clients describe it.

POST  /api/v1/log/inference, /api/v2/log/inference
PATCH /api/v1/log/inference/update-by-external-reference-id/{external_reference_id}
PATCH /api/v1/log/inference/{prompt_run_id}
PATCH /api/v1/prompt_run/user-feedback
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from athina_trace._delivery.routes import Kind

REQUIRED = ("language_model_id", "prompt", "response")
"""The fields that every log must have."""

Endpoint = Callable[[Request], Awaitable[dict[str, Any]]]


class RefusedRequest(Exception):  # noqa: N818 - an answer, not an error
    """Ends a request with an error status, in the form of Athina's errors."""

    def __init__(self, status: int, error: str, message: str, *, retry_after: float | None = None) -> None:
        """`retry_after`: seconds that the client is asked to wait."""
        super().__init__(message)
        self.status, self.error, self.message, self.retry_after = status, error, message, retry_after

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers of the answer."""
        return None if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}

    def answer(self) -> Response:
        """Return the answer, with its headers."""
        return JSONResponse({"error": self.error, "details": {"message": self.message}}, self.status, self.headers)


class AthinaApi(ABC):
    """The endpoints; subclasses handle logs and their changes.

    Every method may raise `RefusedRequest`.
    """

    def routes(self) -> list[BaseRoute]:
        """Return a route for each endpoint."""
        endpoints: list[tuple[str, str, Endpoint]] = [
            ("POST", "/api/{version}/log/inference", self._log),
            # Before the next route, which would match this path as well; references may contain slashes.
            ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/{target:path}", self._update),
            ("PATCH", "/api/v1/log/inference/{target:path}", self._update_by_id),
            ("PATCH", "/api/v1/prompt_run/user-feedback", self._feedback),
        ]
        return [Route(path, self._answered(endpoint), methods=[method]) for method, path, endpoint in endpoints]

    def _answered(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Turn an endpoint into a handler that also answers refused requests."""

        async def answer(request: Request) -> Response:
            try:
                await self.check(request)
                data = await endpoint(request)
            except RefusedRequest as refused:
                return refused.answer()
            return JSONResponse({"status": "success", "data": data})

        return answer

    @abstractmethod
    async def check(self, request: Request) -> None:
        """Refuse a request before its body is read."""

    @abstractmethod
    async def read(self, request: Request) -> dict[str, Any]:
        """Read the body, a JSON object."""

    @abstractmethod
    async def log(self, fields: dict[str, Any], version: str) -> dict[str, Any]:
        """Take a log that has all required fields; return the `data` of the answer. `version`: v1 or v2."""

    @abstractmethod
    async def change(self, kind: Kind, target: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Take a change to the log `target`, or feedback on it; return the `data` of the answer."""

    async def _log(self, request: Request) -> dict[str, Any]:
        version: str = request.path_params["version"]
        if version not in ("v1", "v2"):
            raise RefusedRequest(404, "Not Found", f"there is no version {version}; v1 and v2 take logs")
        fields = await self.read(request)
        missing = [name for name in REQUIRED if fields.get(name) is None]
        if missing:
            raise RefusedRequest(400, "Validation error", "; ".join(f"{name} is required" for name in missing))
        return await self.log(fields, version)

    async def _update(self, request: Request) -> dict[str, Any]:
        return await self.change("update", request.path_params["target"], await self.read(request))

    async def _update_by_id(self, request: Request) -> dict[str, Any]:
        return await self.change("update_by_id", request.path_params["target"], await self.read(request))

    async def _feedback(self, request: Request) -> dict[str, Any]:
        fields = await self.read(request)
        value = fields.get("user_feedback")
        # True equals 1 in Python, but not for Athina.
        if value not in (1, 0, -1) or isinstance(value, bool):
            raise RefusedRequest(400, "Validation error", f"user_feedback must be 1, 0 or -1, not {value!r}")
        return await self.change("feedback", str(fields.get("external_reference_id") or ""), fields)


def object_of(body: bytes, parse: Callable[[bytes], Any] = lambda body: from_json(body, allow_inf_nan=False)) -> Any:
    """Parse a body as a JSON object. Raises `RefusedRequest` for anything else."""
    try:
        fields = parse(body)
    except (ValueError, RecursionError) as error:
        raise RefusedRequest(400, "Bad Request", f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedRequest(400, "Bad Request", f"the body must be a JSON object, not {type(fields).__name__}")
    return fields
