"""How a call ended, in the words of a log: its answer, its failure, its details. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from athina_trace._draft import LogDraft
from athina_trace._values import text
from athina_trace.openai.ledger import Ledger

Reader: TypeAlias = Callable[[Any], Any] | None
"""Reads the answer out of a result; None where the result itself is looked at."""

_NOT_OBJECTS = (str, type(None), int, float, bool, bytes)


def answer(draft: LogDraft, reader: Reader, result: object) -> str | None:
    """What the call answered, as text; None where the result says nothing and others may."""
    if draft.chunks is not None:
        return _streamed(draft, reader)
    if reader is not None:
        return draft.read(reader(result))
    if result is None:
        return None
    if not isinstance(result, _NOT_OBJECTS) and _recorded(draft, result):
        return None
    return draft.read(result)


def _streamed(draft: LogDraft, reader: Reader) -> str | None:
    chunks = draft.chunks or []
    if reader is not None:
        return draft.read(reader(chunks))
    understood = [not isinstance(chunk, _NOT_OBJECTS) and _recorded(draft, chunk) for chunk in chunks]
    if all(understood) and chunks:
        return None
    return "".join(_chunk_text(chunk) for chunk, known in zip(chunks, understood, strict=True) if not known)


def _chunk_text(chunk: object) -> str:
    return chunk.decode("utf-8", "replace") if isinstance(chunk, bytes) else text(chunk)


def _recorded(draft: LogDraft, value: object) -> bool:
    """Read `value` into the draft's ledger, if it is one of OpenAI's objects."""
    ledger = draft.ledger or Ledger()
    if not ledger.add(value):
        return False
    draft.ledger = ledger
    return True


def failure(error: BaseException | None) -> dict[str, Any]:
    """`error` and `status_code` of a failed call; a cancelled or abandoned one has not failed."""
    if not isinstance(error, Exception):
        return {}
    response = _attribute(error, "response")
    status = _attribute(error, "status_code") or _attribute(response, "status_code")
    return {"error": _message(error), **({"status_code": status} if isinstance(status, int) else {})}


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a user's exception class may do anything in a property
        return None


def _message(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        return text(f"{kind}: {error}" if str(error) else kind)
    except Exception:  # noqa: BLE001 - a user's exception class may do anything in a property
        return kind


def details(draft: LogDraft, error: BaseException | None) -> dict[str, Any]:
    noted: dict[str, Any] = {}
    if error is not None and not isinstance(error, Exception):
        noted["outcome"] = "incomplete" if isinstance(error, GeneratorExit) else "cancelled"
    if draft.chunks is not None:
        noted["chunks"] = draft.chunk_count
        noted["time_to_first_chunk_ms"] = (draft.first_chunk_ns - draft.started_ns) // 1_000_000
    if draft.parent is not None:
        noted["parent_reference"] = draft.parent.external_reference_id
    return noted
