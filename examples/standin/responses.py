"""Responses and conversations: the API that OpenAI offers in place of Assistants."""

from collections.abc import Sequence
from dataclasses import dataclass

from parcels import RETURNS
from standin.response_events import stream_events
from standin.script import RETURNS_FILE, RETURNS_FILE_ID, Message, Step, next_step, offer
from standin.wire import (
    Answer,
    Event,
    Json,
    Request,
    Routes,
    dated,
    find,
    hex_id,
    new_id,
    now,
    page,
    plain_text,
    tokens,
)

DEFAULTS: Json = {
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


@dataclass(frozen=True)
class Given:
    """One finished response: its object, what it was asked, all items up to its end, and its stream."""

    wire: Json
    asked: Sequence[Json]
    items: Sequence[Json]
    events: Sequence[Event]


class Responses:
    """All responses and conversations, by id."""

    def __init__(self) -> None:
        self._given: dict[str, Given] = {}
        self._conversations: dict[str, Json] = {}
        self._items: dict[str, list[Json]] = {}

    def routes(self) -> Routes:
        """The endpoints of this part."""
        return {
            "POST /responses": self._create,
            "GET /responses/{response}": self._retrieve,
            "GET /responses/{response}/input_items": self._input_items,
            "POST /conversations": self._open,
            "GET /conversations/{conversation}": lambda request: Answer(self._conversation(request)),
            "DELETE /conversations/{conversation}": self._close,
            "GET /conversations/{conversation}/items": self._list_items,
            "POST /conversations/{conversation}/items": self._add_items,
        }

    def _create(self, request: Request) -> Answer:
        asked = _items(request.body.get("input") or [])
        earlier = self._earlier(request.body)
        step = _decide([*earlier, *asked], request.body)
        output = _output(step, request.body)
        wire = _response(request.body, output, [*earlier, *asked])
        given = Given(wire, asked, [*earlier, *asked, *output], stream_events(wire))
        self._remember(given)
        return Answer(wire, given.events if request.body.get("stream") else None, thought=True)

    def _earlier(self, body: Json) -> list[Json]:
        if previous := body.get("previous_response_id"):
            return list(self._response(previous).items)
        if conversation := _conversation_id(body):
            return list(self._items[find(self._conversations, conversation, kind="conversation")["id"]])
        return []

    def _remember(self, given: Given) -> None:
        self._given[given.wire["id"]] = given
        if conversation := given.wire["conversation"]:
            self._items[conversation["id"]] += [*given.asked, *given.wire["output"]]

    def _retrieve(self, request: Request) -> Answer:
        given = self._response(request.ids["response"])
        after = int(request.asked("starting_after") or -1)
        wanted = request.asked("stream") == "true"
        return Answer(given.wire, given.events[after + 1 :] if wanted else None)

    def _input_items(self, request: Request) -> Answer:
        return Answer(page(self._response(request.ids["response"]).asked, request))

    def _response(self, key: str) -> Given:
        find({name: given.wire for name, given in self._given.items()}, key, kind="response")
        return self._given[key]

    def _open(self, request: Request) -> Answer:
        metadata = request.body.get("metadata") or {}
        conversation: Json = {
            "id": hex_id("conv_"),
            "object": "conversation",
            "created_at": now(),
            "metadata": metadata,
        }
        self._conversations[conversation["id"]] = conversation
        self._items[conversation["id"]] = _items(request.body.get("items") or [])
        return Answer(conversation)

    def _close(self, request: Request) -> Answer:
        key = self._conversation(request)["id"]
        del self._conversations[key], self._items[key]
        return Answer({"id": key, "object": "conversation.deleted", "deleted": True})

    def _list_items(self, request: Request) -> Answer:
        return Answer(page(self._items[self._conversation(request)["id"]], request))

    def _add_items(self, request: Request) -> Answer:
        added = _items(request.body.get("items") or [])
        self._items[self._conversation(request)["id"]] += added
        return Answer(page(added, request, order="asc"))

    def _conversation(self, request: Request) -> Json:
        return find(self._conversations, request.ids["conversation"], kind="conversation")


def _decide(items: Sequence[Json], body: Json) -> Step:
    form = (body.get("text") or {}).get("format") or {}
    tools = offer(body.get("tools"), body.get("tool_choice"))
    return next_step([_as_message(item) for item in items], tools, schema=form.get("schema"))


def _as_message(item: Json) -> Message:
    if item["type"] == "function_call_output":
        return Message("tool", plain_text(item["output"]))
    return Message(item.get("role", "assistant"), plain_text(item.get("content")))


def _items(given: str | Sequence[Json]) -> list[Json]:
    """What the request brings, as items of a conversation."""
    return [_item(part) for part in ([{"role": "user", "content": given}] if isinstance(given, str) else given)]


def _item(part: Json) -> Json:
    if part.get("type", "message") != "message":
        return {"id": new_id("fco_", size=48), "status": "completed", **part}
    content = part["content"]
    kind = "output_text" if part["role"] == "assistant" else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    return {
        "id": hex_id("msg_"),
        "type": "message",
        "status": "completed",
        "role": part["role"],
        "content": parts,
    }


def _output(step: Step, body: Json) -> list[Json]:
    if step.call:
        made = {"name": step.call.name, "arguments": step.call.arguments, "call_id": new_id("call_")}
        return [{"id": hex_id("fc_"), "type": "function_call", "status": "completed", **made}]
    quoted = [_citation(len(step.text))] if step.search else []
    part = {"type": "output_text", "annotations": quoted, "logprobs": [], "text": step.text}
    message = {
        "id": hex_id("msg_"),
        "type": "message",
        "status": "completed",
        "content": [part],
        "role": "assistant",
    }
    return [_search(step.search, body), message] if step.search else [message]


def _search(query: str, body: Json) -> Json:
    file = {"file_id": RETURNS_FILE_ID, "filename": RETURNS_FILE, "attributes": {}}
    results = (
        [{**file, "score": 0.87, "text": RETURNS}]
        if "file_search_call.results" in (body.get("include") or [])
        else None
    )
    searched = {"queries": [query], "results": results}
    return {"id": hex_id("fs_"), "type": "file_search_call", "status": "completed", **searched}


def _citation(index: int) -> Json:
    return {"type": "file_citation", "file_id": RETURNS_FILE_ID, "filename": RETURNS_FILE, "index": index}


def _response(body: Json, output: list[Json], read: Sequence[Json]) -> Json:
    given = {name: body[name] for name in DEFAULTS if body.get(name) is not None}
    conversation = _conversation_id(body)
    return (
        {
            "id": hex_id("resp_"),
            "object": "response",
            "created_at": now(),
            "completed_at": now(),
            "status": "completed",
            "model": dated(body.get("model") or "gpt-4.1-mini"),
            "output": output,
            "conversation": {"id": conversation} if conversation else None,
            "usage": _usage(tokens(body.get("instructions"), body.get("tools"), *map(_words, read)), output),
        }
        | DEFAULTS
        | given
    )


def _conversation_id(body: Json) -> str | None:
    given = body.get("conversation")
    return given["id"] if isinstance(given, dict) else given


def _words(item: Json) -> str:
    return plain_text(item.get("content") or item.get("output") or item.get("arguments"))


def _usage(read: int, output: Sequence[Json]) -> Json:
    written = tokens(*map(_words, output))
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
