"""What came back from one request, read with suspicion: any bytes become an `Outcome`."""

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
"""Characters of a message that are kept."""
MOST_ANSWER_BYTES: Final = 65_536
"""Bytes of an answer's body that are read; the connection of a longer one is closed instead of being read to
its end."""
IDLE_SECONDS: Final = 30.0
"""Seconds for which an unused connection is kept. Load balancers close theirs after 60 and more."""

_MOST_UNPACKED_BYTES: Final = 65_536
"""Bytes of an unpacked body that are looked at."""

_SUCCESS: Final = 2
_REDIRECT: Final = 3
_PROXY_ASKS: Final = 407
_GATEWAY: Final = (502, 504)
"""What a proxy says that has lost Athina's answer."""

# Linear in any text: what is not closed ends at the next tag, or takes all that follows.
_IGNORED: Final = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>|[\x00-\x20\x7f]+", re.DOTALL | re.IGNORECASE
)


class NotSentError(Exception):
    """Nothing was sent yet when its cause was raised."""


class Headers(Protocol):
    """Of an answer, under names whose case does not matter."""

    def get(self, name: str, /) -> str | None: ...


class HttpResponse(NamedTuple):
    """What a server answered: its headers, and at most `MOST_ANSWER_BYTES` bytes of its body."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request."""

    status: int | None
    """The HTTP status, or None where no answer came."""
    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    message: str = ""
    """The server's own words about a failure, or the network error's type and text; at most `_MOST_MESSAGE`
    characters, never the key. Of a success: what came that no Athina answers; mostly nothing."""
    prompt_run_id: str | None = None
    """Athina's own name for the log, where it gave one."""
    possible_duplicate: bool = False
    """Whether Athina may have taken the log all the same: it was sent, and the answer lost on its way."""

    def __post_init__(self) -> None:
        """Make the texts fit for any store: JSON may hold half a surrogate pair, and an error may quote anything."""
        object.__setattr__(self, "message", storable(self.message))
        if self.prompt_run_id is not None:
            object.__setattr__(self, "prompt_run_id", storable(self.prompt_run_id))


def read(answer: HttpResponse, *, now: float, secrets: Iterable[str] = ()) -> Outcome:
    """Read an answer that came at Unix time `now`.

    A server may repeat what it was sent: `secrets` are replaced by asterisks.
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
        # Named, because the remedy is nearly always to put it into ATHINA_BASE_URL.
        words = f"redirected to {headers.get('location') or 'nowhere'}, which is never followed: check the base URL"
    else:
        unpacked = _unpacked(body)
        words = _error(_json(unpacked)) or unpacked.decode("utf-8", "replace")
    if status == _PROXY_ASKS:  # Athina was not reached, and no log or key of it can be blamed
        return Outcome(None, message=bounded(f"407, a proxy on the way wants credentials: {words}", secrets=secrets))
    return Outcome(
        status,
        retry_after(headers.get("retry-after"), now=now, date=headers.get("date")),
        bounded(words, secrets=secrets) or f"HTTP {status}",
        possible_duplicate=status in _GATEWAY,
    )


def bounded(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Make one line of `text`, without markup and `secrets`, at most `_MOST_MESSAGE` characters long."""
    for secret in filter(None, secrets):
        # Before anything is cut off: half a secret would not be recognised any more.
        text = text.replace(secret, "***")
    return " ".join(_IGNORED.sub(" ", text[: _MOST_MESSAGE * 20]).split())[:_MOST_MESSAGE]


def _error(answer: Any) -> str:
    """Read the words of Athina's errors: `{"error": ..., "details": {"message": ...}}`.

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
    """Unpack the body of a server that compresses though asked not to; give what cannot be unpacked as it is.

    It is known by its first bytes rather than its headers, which may lie; at most `_MOST_UNPACKED_BYTES` are unpacked.
    """
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _MOST_UNPACKED_BYTES)
    except zlib.error:
        return body
