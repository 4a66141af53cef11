"""What came back from one request, read with suspicion: any bytes become an `Outcome`."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from athina_trace._delivery.policy import retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MESSAGE", "Outcome", "bounded", "read"]

MESSAGE: Final = 500
"""Characters of a message that are kept."""

_READ: Final = 65_536
"""Bytes of an unpacked body that are looked at."""

_SUCCESS: Final = 2
_REDIRECT: Final = 3

_IGNORED: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>|[\x00-\x20\x7f]+", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request came to."""

    status: int | None
    """The HTTP status, or None where no answer came."""
    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    message: str = ""
    """The server's own words about a failure, or the network error's type and text; at most `MESSAGE`
    characters, never the key."""
    prompt_run_id: str | None = None
    """Athina's own name for the log, where it gave one."""


def read(status: int, headers: Mapping[str, str], body: bytes, *, now: float, secrets: Iterable[str] = ()) -> Outcome:
    """Read an answer: its status, its headers and as much of its body as was received, at Unix time `now`.

    Headers are looked up in lower case.
    A server may repeat what it was sent: `secrets` are replaced by asterisks.
    """
    if status // 100 == _SUCCESS:
        return Outcome(status, prompt_run_id=_prompt_run_id(_json(_unpacked(body)), secrets))
    words = bounded(_words(status, headers, _unpacked(body)), secrets=secrets) or f"HTTP {status}"
    return Outcome(status, retry_after(headers.get("retry-after"), now=now), words)


def bounded(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Make one line of `text`, without markup and `secrets`, at most `MESSAGE` characters long."""
    for secret in filter(None, secrets):
        # Before anything is cut off: half a secret would not be recognised any more.
        text = text.replace(secret, "***")
    return " ".join(_IGNORED.sub(" ", text[: MESSAGE * 20]).split())[:MESSAGE]


def _words(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if status // 100 == _REDIRECT:
        # Named, because the remedy is nearly always to put it into ATHINA_BASE_URL.
        return f"redirected to {headers.get('location', 'nowhere')}, which is never followed: check the base URL"
    return _error(_json(body)) or body.decode("utf-8", "replace")


def _error(answer: Any) -> str:
    """Read the words of Athina's errors: `{"error": ..., "details": {"message": ...}}`.

    Either may be missing or of another type.
    """
    if not isinstance(answer, dict):
        return ""
    found = (answer.get("error"), _field(answer.get("details"), "message"), answer.get("message"))
    texts = [word if isinstance(word, str) else json.dumps(word) for word in found if word]
    return ": ".join(dict.fromkeys(texts))


def _prompt_run_id(answer: Any, secrets: Iterable[str]) -> str | None:
    found = _field(_field(answer, "data"), "prompt_run_id") or _field(answer, "prompt_run_id")
    return bounded(found, secrets=secrets) if isinstance(found, str) else None


def _field(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _unpacked(body: bytes) -> bytes:
    """Unpack the body of a server that compresses though it was asked not to.

    What cannot be unpacked is given as it is.
    Known by its first bytes instead of by its headers, which may lie, and never
    unpacked further than `_READ`
    bytes.
    """
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _READ)
    except zlib.error:
        return body
