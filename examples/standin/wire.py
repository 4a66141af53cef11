"""What every part of the stand-in says in the same way: ids, tokens, pages, errors, events."""

import json
import re
import secrets
import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

_LETTERS = string.ascii_letters + string.digits
_DATED = {
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
}


class ApiError(Exception):
    """An answer in OpenAI's form for errors, with its HTTP status."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        detail = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.body: Json = {"error": detail}


@dataclass(frozen=True)
class Request:
    """One request, as the endpoints see it; `ids` are the parts of the path in braces."""

    body: Json = field(default_factory=dict)
    query: Mapping[str, list[str]] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    def asked(self, name: str) -> str | None:
        """The first value of a parameter of the query, or None."""
        return next(iter(self.query.get(name, ())), None)


@dataclass(frozen=True)
class Event:
    """One server-sent event; chat completions send theirs without a name."""

    data: Json | str
    name: str | None = None


@dataclass(frozen=True)
class Answer:
    """What an endpoint sends back: an object, or a stream of events; `thought` where a model had to think."""

    body: Json = field(default_factory=dict)
    events: Sequence[Event] | None = None
    thought: bool = False


Endpoint: TypeAlias = Callable[[Request], Answer]
Routes: TypeAlias = Mapping[str, Endpoint]


def event(name: str, data: Json) -> Event:
    """An event that keeps the state of this moment, whatever becomes of the object afterwards."""
    return Event(deepcopy(data), name)


def new_id(prefix: str, *, size: int = 24) -> str:
    """An id as OpenAI makes them: `thread_`, then random letters and digits."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(size))


def hex_id(prefix: str) -> str:
    """An id as the Responses API makes them: `resp_`, then 48 hexadecimal digits."""
    return prefix + secrets.token_hex(24)


def now() -> int:
    """Unix time in whole seconds, as OpenAI writes it."""
    return int(time.time())


def dated(model: str) -> str:
    """The name under which the server answers for a model: the alias with its date."""
    return _DATED.get(model, model)


def plain_text(content: str | Sequence[Json] | None) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.get("text") or "" for part in content)


def pieces(text: str) -> list[str]:
    """The text cut as a stream sends it: joined together again, it is the text."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def tokens(*things: object) -> int:
    """A believable count: one token for each word and mark of punctuation."""
    texts = [thing if isinstance(thing, str) else json.dumps(thing) for thing in things if thing]
    return sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)


def page(items: Iterable[Json], request: Request, *, order: str = "desc") -> Json:
    """One page of a list, oldest item first in `items`, cut by `order`, `after`, `before` and `limit`."""
    rows = list(items) if (request.asked("order") or order) == "asc" else list(items)[::-1]
    rows = _before(_after(rows, request.asked("after")), request.asked("before"))
    limit = int(request.asked("limit") or 20)
    shown = deepcopy(rows[:limit])
    ends = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {
        "object": "list",
        "data": shown,
        "first_id": ends[0],
        "last_id": ends[1],
        "has_more": len(rows) > limit,
    }


def missing(*, name: str) -> ApiError:
    """The error for a parameter that the body lacks."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def find(shelf: Mapping[str, Json], key: str, *, kind: str) -> Json:
    """The object with this id; 404 as OpenAI words it where there is none."""
    try:
        return shelf[key]
    except KeyError:
        raise ApiError(404, f"No {kind} found with id '{key}'.") from None


def _after(rows: list[Json], mark: str | None) -> list[Json]:
    return rows[_index(rows, mark) + 1 :] if mark else rows


def _before(rows: list[Json], mark: str | None) -> list[Json]:
    return rows[: _index(rows, mark)] if mark else rows


def _index(rows: list[Json], mark: str) -> int:
    for number, row in enumerate(rows):
        if row["id"] == mark:
            return number
    raise ApiError(404, f"No item found with id '{mark}'.")
