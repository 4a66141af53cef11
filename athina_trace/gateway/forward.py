"""Turns a client's log into an entry of the outbox, through the steps in this process's settings.

    cleaned                       bounded, credentials masked
      → defaults, redaction       as for a captured log
      → sample → before_emit → masks → the JSON object, as the client shaped it → the outbox

Fields that Athina does not document are kept, as they would be in a request to Athina. Hooks and redaction cannot
inspect them, so they are dropped if one of these is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic_core import to_json

from athina_trace import _runtime
from athina_trace._clock import clock
from athina_trace._delivery.routes import Kind
from athina_trace._pipeline.masking import build_mask, mask_fields
from athina_trace._pipeline.redaction import Redaction, redacted, type_only
from athina_trace._pipeline.sampling import keeps
from athina_trace._pipeline.wire import forwarded, json_text
from athina_trace._pipeline.writer import Writer
from athina_trace._serialization import MASKED, Limits, looks_secret, plain
from athina_trace.errors import OutboxError
from athina_trace.schema import ALIASES, FIELDS

LIMITS: Final = Limits(nodes=200_000, depth=32, string=4_000_000, strings=10_000_000)
"""Wider than for captured logs: the client chose what to send, and the size of its body is limited."""
_LEAST_SECRET: Final = 16
"""Minimum length of a secret that is also masked elsewhere in its log: a shorter text may be a word."""
_MOST_SECRETS: Final = 32
_HTTP_ERROR: Final = 400
_MARKS: Final = (
    *(MASKED.encode(), b"private key", b"sk-", b"sk_", b"rk-", b"rk_", b"gho_", b"ghp_", b"ghq_", b"ghr_", b"ghs_"),
    *(b"ghu_", b"github_pat_", b"glpat-", b"xox", b"akia", b"asia", b"aiza", b"ya29.", b"hf_", b"npm_", b"pypi-"),
    *(b"sg.", b"@", b"eyj", b"bearer", b"basic"),
)
"""Everything that is masked contains one of these, in lower case."""


def runtime() -> Writer:
    """Return this process's runtime. Raises `OutboxError` if tracing is off or cannot start."""
    active = _runtime.active()
    if active is None:
        raise OutboxError(f"this gateway accepts no logs: {_runtime.status().paused}")
    return active


def takes_long(fields: Mapping[str, Any]) -> bool:
    """Return whether to commit `fields` off the event loop."""
    active = _runtime.active()
    return active is not None and active.pipeline.takes_long(dict(fields))


def commit_log(given: Mapping[str, Any]) -> str:
    """Commit a log, and return its reference: the client's own, or a new one.

    Raises:
        OutboxError: it cannot be kept durably.
    """
    writer = runtime()
    known, others = _split(cleaned(given))
    defaults = writer.defaults
    fields = {**defaults, **known}
    attributes = known.get("custom_attributes") or {}
    if not isinstance(attributes, dict):
        attributes = {"invalid.custom_attributes": attributes}
    fields["custom_attributes"] = {**defaults["custom_attributes"], **attributes}
    reference = str(fields.get("external_reference_id") or clock.reference())
    fields["external_reference_id"] = reference
    pipeline = writer.pipeline
    if pipeline.redaction:
        # Fields that Athina requires are empty rather than absent.
        fields = {"prompt": "", "response": "", **redacted(pipeline.redaction, fields)}
        if "error" in fields and pipeline.redaction & Redaction.RESPONSE:
            fields["error"] = type_only(str(fields["error"]))
    status = fields.get("status_code")
    failed = fields.get("error") is not None or (isinstance(status, int) and status >= _HTTP_ERROR)

    def wire(kept: dict[str, Any]) -> dict[str, Any]:
        out = forwarded(kept)
        if "custom_attributes" not in known and not out.get("custom_attributes"):
            out.pop("custom_attributes", None)
        # Version 2 of the API takes responses as text only.
        if writer.settings.api_version == "v2" and not isinstance(out["response"], str):
            out["response"] = json_text(out["response"])
        if others and not (pipeline.redaction or pipeline.has_hook):
            out = {**pipeline.rewrite_change(others), **out}
        return out

    writer.write_or_raise(
        fields, is_in_sample=lambda rate, session: keeps(session or reference, rate), failed=failed, wire=wire
    )
    return reference


def commit_change(kind: Kind, target: str, given: Mapping[str, Any]) -> None:
    """Commit a change to the log `target`, or feedback on it. Raises as `commit_log` does."""
    if kind == "log":
        raise ValueError("a log is not a change of a log")
    writer = runtime()
    known, others = _split(cleaned(given))
    redaction = writer.pipeline.redaction
    if redaction:
        known, others = redacted(redaction, known), {}
    # `before_emit` sees whole logs only, so unknown fields of a change pass like known ones.
    rest = writer.pipeline.rewrite_change(others)
    entry = writer.change_entry(kind, target, known, wire=lambda kept: {**rest, **forwarded(kept)})
    if entry is not None:
        writer.put_or_raise(entry)


def cleaned(given: Mapping[str, Any]) -> dict[str, Any]:
    """Bound JSON data from any sender, and mask the credentials in it.

    Masks values under names that look like those of secrets, at any depth and wherever else the log repeats them, and
    everything that looks like a provider's key or a bearer token: LiteLLM's callback, for example, sends all arguments.
    """
    out = plain(dict(given), limits=LIMITS)
    # Most logs contain no credentials, which one search of the whole text shows faster than one of each string.
    text = to_json(out).lower()
    if any(mark in text for mark in _MARKS):
        secrets = list(_secrets(given))

        def repeated(_path: str, text: str) -> str:
            for secret in secrets:
                text = text.replace(secret, MASKED)
            return text

        mask = build_mask(repeated, (), ("key",))
        return mask_fields(out, mask) if mask is not None and isinstance(out, dict) else {}
    return out if isinstance(out, dict) else {}


def _secrets(value: object) -> Iterator[str]:
    """Return the first secrets in JSON data: texts under names that look like those of secrets."""
    found: dict[str, None] = {}
    waiting: list[object] = [value]
    while waiting and len(found) < _MOST_SECRETS:
        each = waiting.pop()
        if isinstance(each, dict):
            for name, part in each.items():
                if isinstance(part, (dict, list)):
                    waiting.append(part)
                elif isinstance(part, str) and looks_secret(name):
                    *_, secret = part.split() or [""]  # of "Bearer abc", the part that counts
                    if len(secret) >= _LEAST_SECRET:
                        found[secret] = None
        elif isinstance(each, list):
            waiting.extend(part for part in each if isinstance(part, (dict, list)))
    return iter(found)


def _split(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split fields into those that Athina's documentation names, under the spelling used inside, and all others."""
    known: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in data.items():
        field = ALIASES.get(name, name)
        if field not in FIELDS:
            others[name] = value
        elif value is not None:
            known[field] = value
    return known, others
