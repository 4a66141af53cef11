"""The four endpoints of Athina's logging API, with their methods and paths."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import quote

__all__ = ["KINDS", "Kind", "route"]

Kind = Literal["log", "update", "update_by_id", "feedback"]
"""The kinds of entries: a log, an update of one (by `external_reference_id`, or by Athina's `prompt_run_id`), or user
feedback."""

_ROUTES: Final[dict[Kind, tuple[str, str]]] = {
    # Only the first exists in two versions. Source: Athina's documentation and its Python and TypeScript
    # clients.
    "log": ("POST", "/api/{version}/log/inference"),
    "update": ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/{target}"),
    "update_by_id": ("PATCH", "/api/v1/log/inference/{target}"),
    "feedback": ("PATCH", "/api/v1/prompt_run/user-feedback"),
}

KINDS: Final = frozenset[str](_ROUTES)
"""All kinds. An outbox may hold other kinds, of a newer version."""


def route(kind: Kind, target: str = "", *, version: str = "v1") -> tuple[str, str]:
    """Return the method and path for an entry of this `kind`; `target` is the reference or id it is about."""
    method, path = _ROUTES[kind]
    if "{target}" not in path:
        return method, path.format(version=version)
    # Any text becomes one path segment, even "." and "..", which would otherwise change the path.
    is_dots = target in {".", ".."}
    segment = target.replace(".", "%2E") if is_dots else quote(target, safe="", errors="replace")
    return method, path.format(version=version, target=segment)
