"""Asks for the messages and steps of a run that has ended, where that is wanted: requests of the user's own client.

They go the way of every request, so that what they give is recorded like anything else that the program asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any, Final

from athina_trace import _guard
from athina_trace.integrations.openai.memory import Bounded
from athina_trace.integrations.openai.shape import get, items, string
from athina_trace.integrations.openai.watched import Watched

_BETA: Final = {"OpenAI-Beta": "assistants=v2"}
_MOST_PAGES: Final = 20
_RESULTS: Final = "step_details.tool_calls[*].file_search.results[*].content"

_MOST_FETCHED: Final = 4096
_lock = threading.Lock()
_fetched: Bounded[bool] = Bounded(_MOST_FETCHED)

Asking = Generator[tuple[str, dict[str, Any]], object, None]


def fetch(client: Any, watched: Watched) -> None:
    """Fetch the details, if this request told of the end of a run. Never raises."""
    try:
        asking, page = _pages(watched), None
        while True:
            path, query = asking.send(page)
            page = client.get(path, cast_to=object, options={"params": query, "headers": _BETA})
    except StopIteration:
        return
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("fetching the details of a run")


async def fetch_async(client: Any, watched: Watched) -> None:
    """What `fetch` does, on an async client."""
    try:
        asking, page = _pages(watched), None
        while True:
            path, query = asking.send(page)
            page = await client.get(path, cast_to=object, options={"params": query, "headers": _BETA})
    except StopIteration:
        return
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("fetching the details of a run")


def _pages(watched: Watched) -> Asking:
    """Yield the path and query of each page that is wanted; take the page."""
    answer = watched.answer
    if answer is None or answer.key[0] != "run" or not answer.ended or answer.session is None:
        return
    with _lock:
        if answer.key in _fetched:
            return
        _fetched.put(answer.key, True)  # noqa: FBT003 - a set, in order
    thread, run = f"/threads/{answer.session}", answer.key[1]
    yield from _list(f"{thread}/runs/{run}/steps", {"include[]": _RESULTS})
    yield from _list(f"{thread}/messages", {"run_id": run})


def _list(path: str, query: dict[str, Any]) -> Asking:
    query = {**query, "order": "asc", "limit": 100}
    for _ in range(_MOST_PAGES):
        page = yield path, query
        last = string(next(reversed(items(page, "data")), None), "id")
        if get(page, "has_more") is not True or last is None:
            return
        query = {**query, "after": last}
