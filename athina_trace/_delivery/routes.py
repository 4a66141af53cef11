"""The four endpoints of Athina's logging API: which method and path carry what."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import quote

__all__ = ["KINDS", "Kind", "route"]

Kind = Literal["log", "update", "update_by_id", "feedback"]
"""What an entry of the outbox is: a log, a change of one (by `external_reference_id`, or by Athina's own
`prompt_run_id`), or a user's feedback."""

_ROUTES: Final[dict[Kind, tuple[str, str]]] = {
    # Only the first exists in two versions. Source: Athina's documentation and its Python and TypeScript
    # clients.
    "log": ("POST", "/api/{version}/log/inference"),
    "update": ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/{target}"),
    "update_by_id": ("PATCH", "/api/v1/log/inference/{target}"),
    "feedback": ("PATCH", "/api/v1/prompt_run/user-feedback"),
}

KINDS: Final = frozenset[str](_ROUTES)
"""All kinds. A file of an outbox may hold others, of a newer version."""


def route(kind: Kind, target: str = "", *, version: str = "v1") -> tuple[str, str]:
    """Return the method and the path for an entry of this `kind` about `target`, a reference or an id."""
    method, path = _ROUTES[kind]
    # Any text is one segment of the path, even "." and "..", which would lead elsewhere.
    is_dots = target in {".", ".."}
    segment = target.replace(".", "%2E") if is_dots else quote(target, safe="", errors="replace")
    return method, path.format(version=version, target=segment)
