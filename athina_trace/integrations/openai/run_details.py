"""Fetches the messages and steps of a run that has ended, if that is switched on, with the program's own client.

These requests are instrumented like any other, and so their results are recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final

from athina_trace import _guard
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import RUN
from athina_trace.integrations.openai.normalise import children, normalise, string
from athina_trace.integrations.openai.request_record import RequestRecord

_BETA: Final = {"OpenAI-Beta": "assistants=v2"}
_MOST_PAGES: Final = 20
_RESULTS: Final = "step_details.tool_calls[*].file_search.results[*].content"

_MOST_FETCHED: Final = 4096
_lock = threading.Lock()
_fetched: Newest[bool] = Newest(_MOST_FETCHED)

_Requests = Generator[tuple[str, dict[str, Any]], object, None]


def fetch(client: Any, request: RequestRecord) -> None:
    """Fetch the details, if this request showed that a run has ended. Never raises."""
    with _guard.shield("fetching the details of a run"), suppress(StopIteration):
        requests, page = _pages(request), None
        while True:
            path, query = requests.send(page)
            page = client.get(path, cast_to=object, options={"params": query, "headers": _BETA})


async def fetch_async(client: Any, request: RequestRecord) -> None:
    """Do what `fetch` does, for an async client."""
    with _guard.shield("fetching the details of a run"), suppress(StopIteration):
        requests, page = _pages(request), None
        while True:
            path, query = requests.send(page)
            page = await client.get(path, cast_to=object, options={"params": query, "headers": _BETA})


def _pages(request: RequestRecord) -> _Requests:
    """Yield the path and query of each page to fetch; is sent the page."""
    answer = request.answer
    if answer is None or answer.key[0] != RUN or not answer.ended or answer.session is None:
        return
    # A program may poll a run again after it has ended.
    with _lock:
        if answer.key in _fetched:
            return
        _fetched.put(answer.key, value=True)
    thread, run = f"/threads/{answer.session}", answer.key[1]
    yield from _list(f"{thread}/runs/{run}/steps", {"include[]": _RESULTS})
    yield from _list(f"{thread}/messages", {"run_id": run})


def _list(path: str, query: dict[str, Any]) -> _Requests:
    query = {**query, "order": "asc", "limit": 100}
    for _ in range(_MOST_PAGES):
        page = normalise((yield path, query)) or {}
        last = next((string(each, "id") for each in reversed(children(page, "data"))), None)
        if page.get("has_more") is not True or last is None:
            return
        query = {**query, "after": last}
