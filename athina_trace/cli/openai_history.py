"""Reads completions, responses, conversations and threads that OpenAI or a compatible server has stored, as logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace.cli.terminal import CommandError, UsageError
from athina_trace.integrations.openai.exchange import read_exchange
from athina_trace.integrations.openai.objects import parse

Json = dict[str, Any]

_PAGE = 100
"""Objects per request, the maximum that OpenAI allows."""
_COMPLETIONS = "completions"
"""In place of an id: all stored chat completions."""


class History:
    """Reads what a server has stored, with a client of the package `openai` configured by the environment."""

    def __init__(self) -> None:
        """Raises `UsageError` if the package, or what it needs from the environment, is missing."""
        try:
            openai: Any = import_module("openai")
        except ImportError:
            raise UsageError("import --openai needs the package openai: pip install openai") from None
        client = openai.AzureOpenAI if os.environ.get("AZURE_OPENAI_ENDPOINT") else openai.OpenAI
        try:
            self._client = client()
        except openai.OpenAIError as error:
            raise UsageError(str(error)) from None
        self._error: type[Exception] = openai.OpenAIError

    def logs(self, names: Sequence[str]) -> Iterator[Json]:
        """Yield the logs of the named objects, as lines for an import; without names, of all stored chat completions.

        Raises:
            UsageError: a name is not the id of an object that can be read.
            CommandError: the server did not answer, or does not know it.
        """
        readers: dict[str, Callable[[str], Iterator[Json]]] = {
            "chatcmpl": self._completion,
            "resp": self._response,
            "conv": self._conversation,
            "thread": self._thread,
        }
        for name in names or [_COMPLETIONS]:
            reader = (
                self._completions if name == _COMPLETIONS else readers.get(name.partition("_")[0].partition("-")[0])
            )
            if reader is None:
                raise UsageError(
                    f"{name!r} cannot be read: give ids that begin with chatcmpl-, resp_, conv_ or "
                    f"thread_, or the word {_COMPLETIONS}"
                )
            try:
                yield from reader(name)
            except self._error as error:
                raise CommandError(f"reading {name} failed: {error}") from None

    def _get(self, path: str, **query: object) -> Json:
        # By path, since no version of the client supports all of these; Assistants need the header.
        options = {"params": query, "headers": {"OpenAI-Beta": "assistants=v2"}}
        answer = self._client.get(path, cast_to=object, options=options)
        return answer if isinstance(answer, dict) else {}

    def _list(self, path: str) -> Iterator[Json]:
        """Yield all objects of a list, oldest first."""
        after: Json = {}
        while True:
            page = self._get(path, limit=_PAGE, order="asc", **after)
            listed = [each for each in page.get("data") or () if isinstance(each, dict)]
            yield from listed
            last = page.get("last_id") or (listed[-1].get("id") if listed else None)
            if not page.get("has_more") or not listed or {"after": last} == after:
                return
            after = {"after": last}

    def _completions(self, _: str) -> Iterator[Json]:
        for completion in self._list("/chat/completions"):
            yield from self._with_messages(completion)

    def _completion(self, own: str) -> Iterator[Json]:
        yield from self._with_messages(self._get(f"/chat/completions/{own}"))

    def _with_messages(self, completion: Json) -> Iterator[Json]:
        messages = list(self._list(f"/chat/completions/{completion['id']}/messages"))
        yield _log("chat", completion, {"messages": messages})

    def _response(self, own: str) -> Iterator[Json]:
        response = self._get(f"/responses/{own}")
        yield _log("response", response, {"input": list(self._list(f"/responses/{own}/input_items"))})

    def _conversation(self, own: str) -> Iterator[Json]:
        """Yield a log for each answer of a conversation, whose items do not name a model."""
        created = self._get(f"/conversations/{own}").get("created_at")
        asked: list[Json] = []
        given: list[Json] = []
        for item in [*self._list(f"/conversations/{own}/items"), {"role": "user"}]:
            if item.get("role") not in ("user", "system", "developer"):
                given.append(item)
                continue
            if given:
                answer = {"object": "response", "id": given[-1].get("id"), "created_at": created, "output": given}
                yield _log("response", {**answer, "conversation": own}, {"input": asked})
                asked, given = [], []
            asked.append(item)

    def _thread(self, own: str) -> Iterator[Json]:
        """Yield a log for each run of a thread."""
        messages = list(self._list(f"/threads/{own}/messages"))
        for run in self._list(f"/threads/{own}/runs"):
            accumulator = AnswerAccumulator()
            for each in (run, *messages, *self._list(f"/threads/{own}/runs/{run['id']}/steps")):
                accumulator.take(parse(each) or ())
            yield _line(accumulator, run)


def _log(kind: str, answer: Json, params: Json) -> Json:
    accumulator = AnswerAccumulator()
    accumulator.take(read_exchange(kind, params, answer, order=0) or ())
    return _line(accumulator, answer)


def _line(accumulator: AnswerAccumulator, answer: Json) -> Json:
    # A reference made from the answer's id, so that importing it twice is detected.
    required = {"language_model_id": "unknown", "prompt": "", "response": ""}
    line = {**required, **accumulator.fields(), "external_reference_id": f"openai-{answer.get('id')}"}
    made = answer.get("created_at") or answer.get("created")
    return {**line, "made_at": made} if made else line
