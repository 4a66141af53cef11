"""Chat completions: reads their answers, requests and streams of chunks as records.

Also reads legacy completions, which have a prompt instead of messages and a text instead of a message.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from athina_trace._answers.records import Answer, Key, Record, ToolCall
from athina_trace.integrations.openai.common import (
    call_body,
    citations,
    content_text,
    failure,
    messages,
    outputs,
    question,
    served,
    stated_cost,
    stated_failure,
    usage_counts,
)
from athina_trace.integrations.openai.deltas import grow
from athina_trace.integrations.openai.normalise import (
    NOTHING,
    Data,
    child,
    children,
    count,
    decode,
    members,
    number,
    string,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ChatChunks", "add_request", "parse_chat", "request_outputs"]


def parse_chat(chat: Data) -> list[Record]:
    """Read a completion and its tool calls. It has ended, even if it has no finish reason."""
    own, created = string(chat, "id"), number(chat, "created")
    # Small servers repeat ids within seconds, and some send neither id nor time: then only the content differs.
    known_by = f"{own or ''}@{created}"
    if own is None and created is None:
        known_by = f"#{zlib.crc32(repr(chat).encode('utf-8', 'replace')):08x}"
    key: Key = ("chat", known_by)
    choices = sorted(children(chat, "choices"), key=lambda choice: count(choice, "index") or 0)
    contents = [_message(choice) for choice in choices] or [{}]
    first = choices[0] if choices else {}
    texts = [_text(message) for message in contents]
    answer = Answer(key)
    answer.names = (("id", own),) if own else ()
    answer.created = created
    answer.status = string(first, "finish_reason")
    answer.model = string(chat, "model")
    answer.text = texts[0]
    answer.choices = tuple(text or "" for text in texts[1:])
    answer.usage = usage_counts(chat) or usage_counts(child(chat, "x_groq"))
    answer.cost = stated_cost(chat)
    answer.error = failure(chat, what="completion") or failure(first, what="completion")
    answer.details = served(chat, {"completion_id": own})
    answer.citations = _citations(chat, contents)
    return [answer, *(call for place, message in enumerate(contents) for call in _calls(message, key, place))]


def _message(choice: Data) -> Data:
    """Return the message of a choice; legacy completions have a text instead."""
    return child(choice, "message") or ({"content": choice["text"]} if string(choice, "text") else {})


def _citations(chat: Data, contents: list[Data]) -> tuple[str, ...]:
    """Return an answer's sources, from a message's annotations or documents or from a list beside the answer."""
    notes = [note for message in contents for note in children(message, "annotations")]
    for message in contents:
        notes += children(child(message, "context"), "citations")  # Azure's, from the program's own data
        for tool in children(message, "executed_tools"):  # Groq's
            notes += children(child(tool, "search_results"), "results")
    addresses = tuple(place for place in members(chat, "citations") if type(place) is str and place)
    # Perplexity and xAI have `citations`, Perplexity also `search_results`, DashScope `search_info`.
    beside = addresses or citations(children(chat, "search_results"))
    return citations(notes) or beside or citations(children(child(chat, "search_info"), "search_results"))


def _text(message: Data) -> str | None:
    """Read the answer: text, a refusal, or the transcript of audio."""
    spoken = string(child(message, "audio"), "transcript")
    return content_text(message.get("content")) or string(message, "refusal") or spoken


def _calls(message: Data, owner: Key, choice: int) -> list[ToolCall]:
    """Read the tool calls of a message, and a legacy function call.

    Some servers send every field, if need be with its zero value: a function call without a name is not a call.
    """
    calls = _listed_calls(message)
    if legacy := child(message, "function_call"):
        calls = [*calls, {"function": legacy}]
    return [
        ToolCall(
            key=string(call, "id") or f"#{choice}/{place}",
            owner=owner,
            body=call_body(call),
            output=child(call, "function").get("output"),
        )
        for place, call in enumerate(calls)
        if "function" not in call or string(child(call, "function"), "name")
    ]


def _listed_calls(message: Data) -> list[Data]:
    """Return the tool calls of a message or a delta. TGI sends a single one without a list."""
    calls = message.get("tool_calls")
    return [calls] if type(calls) is dict and calls else children(message, "tool_calls")


def add_request(answer: Answer, params: Data) -> None:
    """Add the parameters of the request for a completion."""
    answer.prompt = messages(members(params, "messages"))
    legacy = params.get("prompt")
    texts = legacy if type(legacy) is list else [legacy]  # a list of several questions; token ids are not text
    answer.prompt += tuple({"role": "user", "content": text} for text in texts if type(text) is str and text)
    answer.query = question(reversed(answer.prompt))
    answer.functions = tuple(members(params, "functions"))


def request_outputs(params: Data) -> Sequence[Record]:
    """Read the outputs of the program's tools from a request."""
    return outputs(members(params, "messages"))


class ChatChunks:
    """Assembles the chunks of one completion."""

    def __init__(self) -> None:
        self._whole: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        # Most chunks differ from the one before only in their text. These texts wait, to be added at once.
        self._before: tuple[Data, Data] | None = None
        self._message: dict[str, Any] = {}
        self._texts: list[str] = []

    @property
    def ended(self) -> bool:
        """Whether every choice has its finish reason; the usage may still follow."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def add(self, chunk: Data) -> None:
        """Take the next chunk, or an event of the client's stream helper that contains one."""
        if chunk.get("type") == "chunk":
            chunk = child(chunk, "chunk")
        text, rest = _text_and_rest(chunk)
        if text is not None and rest == self._before:
            self._texts.append(text)
        else:
            self._add_texts()
            self._before = rest
            self._read(chunk)

    def _read(self, chunk: Data) -> None:
        usage = chunk.get("usage") or child(chunk, "x_groq").get("usage")
        if not usage and "timings" in chunk:  # llama.cpp's counts, if no usage was requested
            timings = child(chunk, "timings")
            asked = [count(timings, name) for name in ("prompt_n", "cache_n")]
            usage = {"prompt_tokens": sum(filter(None, asked)), "completion_tokens": timings.get("predicted_n")}
        error = chunk.get("error") or stated_failure(chunk)
        # Some servers send the usage, or a failure, in a chunk without choices.
        if type(chunk.get("choices")) is not list and usage is None and error is None:
            return
        for name in ("id", "created"):  # the first ones count: Groq ends an answer that used its own tools as "stub"
            self._whole[name] = self._whole.get(name) or chunk.get(name)
        for name in ("model", "service_tier", "citations", "search_results", "search_info"):
            value = chunk.get(name)
            if value or name not in self._whole:
                self._whole[name] = value
        self._whole["error"] = error or self._whole.get("error")
        for choice in children(chunk, "choices"):
            usage = usage or choice.get("usage")  # Moonshot's place for it
            built = self._choices.setdefault(count(choice, "index") or 0, {"message": {}})
            self._message = built["message"]
            _add_piece(self._message, choice)
            reason = string(choice, "finish_reason")
            if reason is not None:
                built["finish_reason"] = reason
            built["error"] = choice.get("error") or built.get("error")  # OpenRouter's, from the provider that it asked
        # Some servers send usage in every chunk, with all counts and details zero except in one.
        if type(usage) is dict and (any(map(_counts, usage.values())) or not self._whole.get("usage")):
            self._whole["usage"] = usage

    def result(self) -> dict[str, Any] | None:
        """Return the completion so far."""
        self._add_texts()
        if not self._whole:
            return None
        choices = [{"index": place, **choice} for place, choice in sorted(self._choices.items())]
        return {"object": "chat.completion", **self._whole, "choices": choices}

    def _add_texts(self) -> None:
        if self._texts:
            _add_delta(self._message, {"content": "".join(self._texts)})
            self._texts.clear()


def _text_and_rest(chunk: Data) -> tuple[str | None, tuple[Data, Data] | None]:
    """Return the text of a chunk's one choice, if its delta is nothing else, and the rest of the choice and chunk."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        return None, None
    delta = choices[0].get("delta")
    if type(delta) is not dict or len(delta) != 1 or type(delta.get("content")) is not str:
        return None, None
    # Random text, with which OpenAI pads chunks, is in each.
    return delta["content"], ({**choices[0], "delta": None}, {**chunk, "choices": None, "obfuscation": None})


def _counts(value: Any) -> bool:
    return any(value.values()) if type(value) is dict else bool(value)


def _add_piece(message: dict[str, Any], choice: Data) -> None:
    """Add a chunk's choice to the message built so far."""
    delta = child(choice, "delta")
    whole = NOTHING if delta else child(choice, "message")
    if whole and (_text(whole) or _calls(whole, ("chat", ""), 0)):  # a message of zero values does not count
        message.clear()  # MiniMax ends a stream with the whole answer
    _add_delta(message, delta or _message(choice))


def _add_delta(message: dict[str, Any], delta: Data) -> None:
    """Add a delta to the message built so far."""
    rest = {name: part for name, part in delta.items() if name not in ("content", "tool_calls", "function_call")}
    grow(message, rest)
    content = delta.get("content")
    if type(content) is list:
        # Some servers stream content parts, each a piece of one text, with thoughts and references between them.
        content = "".join(content_text([part]) for part in content)
    elif content is not None and type(content) is not str:
        content = content_text([content] if type(content) is dict else content)
    if type(content) is str:
        message["content"] = (message.get("content") or "") + content
    # The legacy form: a single call, without id or index.
    if legacy := child(delta, "function_call"):
        _add_function(message.setdefault("function_call", {}), legacy)
    calls: list[dict[str, Any]] = message.setdefault("tool_calls", [])
    for part in _listed_calls(delta):
        call = next((each for each in reversed(calls) if _is_same_place(each, part)), None)
        if call is None or _begins_call(call, part):
            call = {"function": {}} if "function" in part else {}
            calls.append(call)
        grow(call, {name: value for name, value in part.items() if name != "function"})
        _add_function(call.setdefault("function", {}) if "function" in part else {}, child(part, "function"))


def _is_same_place(built: Data, part: Data) -> bool:
    """Return whether a part of a call may belong to an earlier one: by its index, or without one by its id."""
    index, own = part.get("index"), string(part, "id")
    if index is not None:
        return bool(built.get("index") == index)
    return own is None or string(built, "id") == own


def _begins_call(built: Data, part: Data) -> bool:
    """Return whether a part begins a new call. Some servers give all calls the index 0, with or without ids."""
    own, name = string(part, "id"), string(child(part, "function"), "name")
    if name is None or (own is not None and own == string(built, "id")):
        return False
    if own is not None and string(built, "id") is not None:
        return True
    # Without ids: after arguments, another name begins a new call, and after complete ones, so does the same name.
    function = child(built, "function")
    arguments = function.get("arguments")
    if type(arguments) is dict:  # some servers send arguments whole, as an object
        return True
    if type(arguments) is not str or not arguments:
        return False
    return name != string(function, "name") or type(decode(arguments)) is dict


def _add_function(built: dict[str, Any], part: Data) -> None:
    """Add a part of a function call. Some servers repeat the whole name in each part."""
    known, name = string(built, "name"), string(part, "name")
    if known is not None and name is not None and name.startswith(known):
        part = {**part, "name": name[len(known) :]}
    grow(built, part)
