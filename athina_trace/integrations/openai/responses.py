"""The Responses API: reads responses, their requests and streams of events as records."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from athina_trace._answers.records import FINISHED, Answer, Key, Record, ToolCall, ToolOutput
from athina_trace.integrations.openai.common import (
    citations,
    content_text,
    custom_body,
    failure,
    found_chunks,
    function_body,
    instructions,
    item_body,
    messages,
    model_options,
    offered_tools,
    outputs,
    question,
    served,
    stated_cost,
    stated_failure,
    usage_counts,
)
from athina_trace.integrations.openai.deltas import grow
from athina_trace.integrations.openai.normalise import Data, child, children, count, members, number, string

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ResponseEvents", "add_request", "conversation_of", "parse_response", "question_of", "request_outputs"]

_PROGRESS = {"queued": 0, "in_progress": 1, "cancelling": 3}
"""Any other status is final, also a missing one: small servers without statuses send complete answers."""


def parse_response(response: Data) -> list[Record]:
    """Read a response: its text, its tool calls, and the outputs of tools that the server ran."""
    own, previous = string(response, "id"), string(response, "previous_response_id")
    status = string(response, "status")
    output = children(response, "output")
    texts: list[str] = []
    notes: list[Data] = []
    others: list[Record] = []
    key: Key = ("response", own or f"#{zlib.crc32(repr(response).encode('utf-8', 'replace')):08x}")
    for place, item in enumerate(output):
        kind = string(item, "type") or ""
        if kind == "message" and item.get("role") in ("assistant", None):  # compacted output has the user's, too
            texts.append(content_text(item.get("content")))
            for part in children(item, "content"):
                if part.get("annotations"):  # usually there, and empty
                    notes += children(part, "annotations")
        elif kind.endswith(("_call", "_approval_request")):
            others.append(_call(item, kind, place, key))
        elif kind.endswith("_call_output") and (call := string(item, "call_id")) is not None:
            others.append(ToolOutput(call=call, value=item.get("output")))
    system, template = instructions(response.get("instructions"))
    details = {"response_id": own, "previous_response_id": previous}
    if stored_prompt := child(response, "prompt"):
        details |= {"prompt_id": string(stored_prompt, "id"), "prompt_version": string(stored_prompt, "version")}
    answer = Answer(key)
    answer.names = (("id", own),) if own else ()
    answer.created = number(response, "created_at")
    answer.status = status
    answer.progress = _PROGRESS.get(status or "", FINISHED)
    answer.session = conversation_of(response)
    answer.previous = previous
    answer.model = string(response, "model")
    answer.text = "\n".join(filter(None, texts)) or string(response, "output_text")  # all that small servers send
    answer.system = system
    answer.prompt = template
    answer.usage = usage_counts(response)
    answer.cost = stated_cost(response)
    answer.tools = offered_tools(response)
    answer.options = model_options(response)
    answer.error = failure(response, what="response")
    answer.details = served(response, details)
    answer.citations = citations(notes)
    return [answer, *others]


def conversation_of(data: Data) -> str | None:
    """Return the id of the conversation that a request or response names, as a string or in an object."""
    conversation = data.get("conversation")
    if conversation is None:
        return None
    return string(conversation, "id") if type(conversation) is dict else string(data, "conversation")


def _call(item: Data, kind: str, place: int, owner: Key) -> ToolCall:
    """Read an output item that calls a tool, or asks for approval to; `place` replaces a missing id."""
    call = string(item, "call_id")
    if kind == "function_call":
        body = function_body(call, item)
    elif kind == "custom_tool_call":
        body = custom_body(call, item)
    else:
        body = item_body(item)
    return ToolCall(
        key=call or string(item, "id") or f"#{place}",
        owner=owner,
        body=body,
        output=item.get("output"),
        context=found_chunks(item),
        progress=0 if item.get("status") == "in_progress" else 1,
    )


def add_request(answer: Answer, params: Data) -> None:
    """Add the parameters of the request for a response."""
    given = params.get("input")
    if type(given) is str and given:
        prompt: tuple[Any, ...] = ({"role": "user", "content": given},)
    else:
        prompt = messages(members(params, "input"))
    answer.prompt = (*answer.prompt, *prompt)
    answer.query = question(reversed(answer.prompt))
    answer.system = answer.system or instructions(params.get("instructions"))[0]
    answer.previous = answer.previous or string(params, "previous_response_id")


def question_of(items: Any) -> str | None:
    """Return the user's last text in the input of a request, or in items that are added to a conversation."""
    return items if type(items) is str else question(reversed(messages(items if type(items) is list else ())))


def request_outputs(params: Data) -> Sequence[Record]:
    """Read the outputs of the program's tools from a request."""
    return outputs(members(params, "input"))


class ResponseEvents:
    """Assembles the events of one response's stream."""

    def __init__(self) -> None:
        # The first and last events contain the whole response; those in between build up its output.
        self._snapshot: Data | None = None
        self._output: dict[int, dict[str, Any]] = {}
        # Most events are deltas of one text, which wait to be added at once: by kind, output index and content index.
        self._growing = ("", 0, 0)
        self._deltas: list[str] = []
        self._error: dict[str, str | None] | None = None
        self.ended = False

    def add(self, event: Data) -> None:
        """Take the next event."""
        kind = string(event, "type") or ""
        place = count(event, "output_index") or 0
        if type(event.get("response")) is dict:
            self._snapshot = event["response"]
            self.ended = kind in _LAST_EVENTS
        elif kind == "error" or (not kind and stated_failure(event) is not None):
            body = child(event, "error") or event
            self._error = {"code": string(body, "code"), "message": string(body, "message") or stated_failure(event)}
        elif kind in _ITEM_DELTAS or kind in _CONTENT_DELTAS:
            growing = kind, place, count(event, "content_index") or 0
            if growing != self._growing:
                self._add_deltas()
                self._growing = growing
            self._deltas.append(string(event, "delta") or "")
        elif kind.startswith("response.output_item."):
            self._add_deltas()
            if item := child(event, "item"):
                begins = kind == "response.output_item.added"
                self._output[place] = taken = dict(item) if begins else _filled(item, self._output.get(place))
                if parts := members(taken, "content"):  # events refer to them by their numbers
                    numbered = enumerate(parts)
                    taken["content"] = [{"index": n, **part} if type(part) is dict else part for n, part in numbered]
        elif kind.endswith(".done"):
            self._add_whole(kind, event)

    def _add_deltas(self) -> None:
        if self._deltas:
            kind, place, index = self._growing
            delta = "".join(self._deltas)
            self._deltas.clear()
            if kind in _ITEM_DELTAS:
                grown: Data = {_ITEM_DELTAS[kind]: delta}
            else:
                part_kind, name = _CONTENT_DELTAS[kind]
                grown = {"type": "message", "content": [{"index": index, "type": part_kind, name: delta}]}
            grow(self._output.setdefault(place, {}), grown)

    def _add_whole(self, kind: str, event: Data) -> None:
        """Add a whole text or part, which replaces what its deltas made: some servers send no deltas."""
        self._add_deltas()
        place, of_deltas = count(event, "output_index") or 0, kind.removesuffix("done") + "delta"
        if (name := _ITEM_DELTAS.get(of_deltas)) is not None:
            if text := string(event, name):
                self._output.setdefault(place, {})[name] = text
            return
        part = child(event, "part")
        if of_deltas in _CONTENT_DELTAS:
            part_kind, name = _CONTENT_DELTAS[of_deltas]
            part = {"type": part_kind, name: event.get(name)}
        elif kind != "response.content_part.done" or part.get("type") == "reasoning_text":
            return  # no text of a message, even if its item has a message's place
        if content_text([part]) and self._output.get(place, {}).get("type", "message") == "message":
            index, item = count(event, "content_index") or 0, self._output.setdefault(place, {})
            grow(item, {"type": "message", "content": [{"index": index}]})
            next(each for each in item["content"] if type(each) is dict and each.get("index") == index).update(part)

    def result(self) -> Any:
        """Return the final response, or after an interrupted stream the last snapshot with the output so far."""
        self._add_deltas()
        arrived: dict[str, Any] = {}
        if self._output:
            shown = dict(enumerate(children(self._snapshot or {}, "output")))
            if not (shown and self.ended):
                shown = {**self._output, **shown}
            arrived["output"] = [_filled(item, self._output.get(place)) for place, item in sorted(shown.items())]
        # An error ends the stream without an event that contains the response.
        if self._error is not None:
            arrived |= {"error": self._error, "status": "failed"}
        if self._snapshot is None and not arrived:
            return None
        return {**(self._snapshot if self._snapshot is not None else {"object": "response"}), **arrived}


def _filled(item: Data, built: Data | None) -> dict[str, Any]:
    """Return an item, completed from its deltas: servers that convert another API's stream may end it empty."""
    if built is None or built.get("type") != item.get("type"):
        return dict(item)
    streamed = {name: built[name] for name in _STREAMED & built.keys() if not content_text(item.get(name))}
    return {**item, **streamed}


_STREAMED = frozenset({"content", "arguments", "input", "code"})

_LAST_EVENTS = frozenset({"response.completed", "response.failed", "response.incomplete"})
"""No events follow these."""

_ITEM_DELTAS = {
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.code_interpreter_call_code.delta": "code",
}
_CONTENT_DELTAS = {
    "response.output_text.delta": ("output_text", "text"),
    "response.refusal.delta": ("refusal", "refusal"),
}
