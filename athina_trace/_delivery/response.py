"""Interprets the response to a request defensively: any bytes become an `Outcome`."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from athina_trace._delivery.retry import retry_after
from athina_trace._serialization import storable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["IDLE_SECONDS", "MOST_ANSWER_BYTES", "HttpResponse", "NotSentError", "Outcome", "bounded", "read"]

_MOST_MESSAGE: Final = 500
"""The maximum length of a message, in characters."""
MOST_ANSWER_BYTES: Final = 65_536
"""How many bytes of a response's body are read; if it is longer, the connection is closed rather than read to its
end."""
IDLE_SECONDS: Final = 30.0
"""How long an unused connection is kept. Load balancers close theirs after 60 seconds or more."""

_MOST_UNPACKED_BYTES: Final = 65_536
"""How many bytes of a body are decompressed."""

_SUCCESS: Final = 2
_REDIRECT: Final = 3
_PROXY_ASKS: Final = 407
_GATEWAY: Final = (502, 504)
"""Statuses of a proxy that has lost Athina's answer."""

# Linear for any text: an unclosed tag ends at the next one; an unclosed script or style extends to the end.
_IGNORED: Final = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>|[\x00-\x20\x7f]+", re.DOTALL | re.IGNORECASE
)


class NotSentError(Exception):
    """Raised from an error that occurred before anything was sent."""


class Headers(Protocol):
    """The headers of a response, by names whose case does not matter."""

    def get(self, name: str, /) -> str | None: ...


class HttpResponse(NamedTuple):
    """A response: its status, its headers, and at most `MOST_ANSWER_BYTES` bytes of its body."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request."""

    status: int | None
    """The HTTP status, or None if no answer came."""
    retry_after: float | None = None
    """How long the server asks to wait, in seconds."""
    message: str = ""
    """The server's message about a failure, or the type and text of a network error; at most `_MOST_MESSAGE`
    characters, never the key. For a success: what is odd about the answer, if anything."""
    prompt_run_id: str | None = None
    """Athina's id for the log, if it returned one."""
    possible_duplicate: bool = False
    """Whether Athina may have accepted the log: it was sent, but the answer was lost."""

    def __post_init__(self) -> None:
        """Make the texts storable: JSON may hold half a surrogate pair, and an error may quote anything."""
        if self.message:
            object.__setattr__(self, "message", storable(self.message))
        if self.prompt_run_id is not None:
            object.__setattr__(self, "prompt_run_id", storable(self.prompt_run_id))


def read(answer: HttpResponse, *, now: float, secrets: Iterable[str] = ()) -> Outcome:
    """Interpret a response that came at Unix time `now`.

    A server may echo what it was sent: `secrets` are replaced with asterisks.
    """
    status, headers, body = answer
    if status // 100 == _SUCCESS:
        unpacked = _unpacked(body)
        found = _json(unpacked)
        run = _field(_field(found, "data"), "prompt_run_id") or _field(found, "prompt_run_id")
        return Outcome(
            status,
            message="a web page" if unpacked.lstrip()[:1] == b"<" else "",
            prompt_run_id=bounded(run, secrets=secrets) if isinstance(run, str) else None,
        )
    if status // 100 == _REDIRECT:
        # The location is named because it usually belongs into ATHINA_BASE_URL.
        words = f"redirected to {headers.get('location') or 'nowhere'}, which is never followed: check the base URL"
    else:
        unpacked = _unpacked(body)
        words = _error(_json(unpacked)) or unpacked.decode("utf-8", "replace")
    if status == _PROXY_ASKS:  # Athina was not reached: neither the log nor its key is to blame
        return Outcome(None, message=bounded(f"407, a proxy on the way requires credentials: {words}", secrets=secrets))
    return Outcome(
        status,
        retry_after(headers.get("retry-after"), now=now, date=headers.get("date")),
        bounded(words, secrets=secrets) or f"HTTP {status}",
        possible_duplicate=status in _GATEWAY,
    )


def bounded(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Reduce `text` to one line without markup and `secrets`, of at most `_MOST_MESSAGE` characters."""
    for secret in filter(None, secrets):
        # Before truncation, since half a secret would not be recognised.
        text = text.replace(secret, "***")
    return " ".join(_IGNORED.sub(" ", text[: _MOST_MESSAGE * 20]).split())[:_MOST_MESSAGE]


def _error(answer: Any) -> str:
    """Read the message of Athina's errors: `{"error": ..., "details": {"message": ...}}`.

    Either may be missing or of another type.
    """
    if not isinstance(answer, dict):
        return ""
    found = (answer.get("error"), _field(answer.get("details"), "message"), answer.get("message"))
    texts = [word if isinstance(word, str) else json.dumps(word) for word in found if word]
    return ": ".join(dict.fromkeys(texts))


def _field(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _unpacked(body: bytes) -> bytes:
    """Decompress the body of a server that compresses although asked not to; return other bodies as they are.

    Compression is recognised by the first bytes rather than by headers, which may be wrong.
    """
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _MOST_UNPACKED_BYTES)
    except zlib.error:
        return body
