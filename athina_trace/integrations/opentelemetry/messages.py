"""Reads prompts and answers, in the format of each convention, into uniform messages.

    gen_ai, current   `gen_ai.input.messages`, `gen_ai.output.messages`: lists of `{role, parts}`
    gen_ai, older     `gen_ai.prompt.0.content`, `gen_ai.completion.0.content`, or events
    OpenInference     `llm.input_messages.0.message.content`
    AI SDK            `ai.prompt.messages`, `ai.response.text`
    Langfuse          `langfuse.observation.input`, `langfuse.observation.output`

Sources: the semantic conventions for generative AI up to 1.36 and of today, OpenInference's, the AI SDK's
documentation, and spans of Langfuse's SDK and of the instrumentations that the tests run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from athina_trace.integrations.opentelemetry.spans import SpanRecord
from athina_trace.integrations.opentelemetry.values import (
    compact,
    decoded,
    items,
    mapping,
    nested,
    string_of,
    strings,
)

__all__ = ["Content", "Message", "Output", "ToolRequest", "read_content"]


class ToolRequest(NamedTuple):
    """A call of a tool."""

    id: str | None
    name: str | None
    arguments: Any
    """JSON, if the convention uses JSON."""


class Output(NamedTuple):
    """The output of a tool."""

    call: str | None
    value: Any


@dataclass(slots=True)
class Message:
    """A message of the prompt, or an answer."""

    role: str | None
    text: str | None = None
    calls: list[ToolRequest] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    finish: str | None = None


@dataclass(slots=True)
class Content:
    """The prompt and the answers in a span."""

    system: tuple[str, ...] = ()
    asked: list[Message] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    is_of_function: bool = False
    """Whether these are the input and output of a function, rather than messages."""


def read_content(span: SpanRecord) -> Content:
    """Return the prompt and the answers, according to the first convention that the span follows."""
    attributes = span.attributes
    content = _current(attributes)
    for event in () if content.asked else span.events:
        # The current conventions have one event with data that may also be on the span; some write one for each
        # attribute.
        if event.name == "gen_ai.client.inference.operation.details":
            more = _current(event.attributes)
            content.system, content.asked = more.system or content.system, more.asked or content.asked
            content.answers = more.answers or content.answers
    if not (content.asked or content.answers):
        other = _openinference(attributes) or _indexed(attributes) or _ai_sdk(attributes) or _langfuse(attributes)
        content = other or _events(span)
    elif content.answers and _FUNCTION_NAME in attributes and not any(answer.calls for answer in content.answers):
        # LiteLLM before 1.110 has tool calls in the older form only.
        content.answers[0].calls = [
            call for each in nested(attributes, "gen_ai.completion") for call in _indexed_message(each).calls
        ]
    _name_calls(content.asked)
    return content


_FUNCTION_NAME = "gen_ai.completion.0.function_call.name"


# The current conventions ---------------------------------------------------------------------------------------------


def _current(attributes: Mapping[str, Any]) -> Content:
    content = Content(
        asked=_messages(attributes.get("gen_ai.input.messages")),
        answers=_messages(attributes.get("gen_ai.output.messages")),
    )
    if "gen_ai.system_instructions" in attributes:
        instructions = _messages(attributes["gen_ai.system_instructions"])
        content.system = tuple([part.text for part in instructions if part.text])
    return content


def _messages(value: Any) -> list[Message]:
    return [message for each in items(value) if (message := _message(each)) is not None]


def _message(data: Any) -> Message | None:
    """Read a message, or a single part, such as one of the instructions.

    LiteLLM writes messages in the form of chat completions, entirely or with their contents as parts.
    """
    if type(data) is not dict and not isinstance(data, Mapping):
        return Message(None, data) if type(data) is str else None
    if "parts" not in data and type(data.get("content")) is list:
        return _chat_message(data)
    role = data.get("role")
    message = Message(role if type(role) is str and role else None)
    if "finish_reason" in data:
        message.finish = string_of(data, "finish_reason")
    _add_parts(message, data.get("parts", (data,)))
    if ("tool_calls" in data or "tool_call_id" in data) and not message.calls:
        _add_calls(message, data)
    return message


def _add_parts(message: Message, parts: Any) -> None:
    texts: list[str] = []
    for part in parts if type(parts) is list else items(parts):
        if type(part) is str:
            texts.append(part)
        elif type(part) is dict or isinstance(part, Mapping):
            kind = part.get("type", "text")
            if kind in _TEXTS:
                if text := string_of(part, "content", "text", "refusal"):
                    texts.append(text)
            elif kind in ("tool_call", "server_tool_call"):
                arguments = part.get("arguments", part.get("server_tool_call"))
                message.calls.append(ToolRequest(string_of(part, "id"), string_of(part, "name"), compact(arguments)))
            elif kind in ("tool_call_response", "server_tool_call_response"):
                value = next((part[name] for name in _RESPONSES if part.get(name) is not None), None)
                message.outputs.append(Output(string_of(part, "id"), _without_blocks(value)))
    message.text = "\n".join(texts) if texts else None


_TEXTS = ("text", "refusal", "output_text", "input_text", "message")
_RESPONSES = ("response", "result", "server_tool_call_response")
"""The second is Pydantic AI's name for the output of a tool."""


# The older ones ------------------------------------------------------------------------------------------------------


def _indexed(attributes: Mapping[str, Any]) -> Content | None:
    asked = [_indexed_message(each) for each in nested(attributes, "gen_ai.prompt")]
    answers = [_indexed_message(each) for each in nested(attributes, "gen_ai.completion")]
    return Content(asked=asked, answers=answers) if asked or answers else None


def _indexed_message(data: Mapping[str, Any]) -> Message:
    """Read `{role, content, tool_calls: {"0": {id, name, arguments}}, tool_call_id}`."""
    message = Message(string_of(data, "role"), _content_text(data.get("content")))
    message.finish = string_of(data, "finish_reason")
    message.calls = [
        ToolRequest(string_of(call, "id"), string_of(call, "name"), compact(call.get("arguments")))
        for call in map(mapping, (*mapping(data.get("tool_calls")).values(), data.get("function_call")))
        if call
    ]
    _move_output(message, string_of(data, "tool_call_id"))
    return message


def _events(span: SpanRecord) -> Content:
    """Read events of the span, or the attribute of this name that Logfire's agent spans have instead."""
    named: list[tuple[Any, Mapping[str, Any]]] = [(event.name, event.attributes) for event in span.events]
    named += [(each.get("event.name"), each) for each in map(mapping, items(span.attributes.get("events")))]
    content = Content()
    for name, attributes in named:
        # Azure's clients write a whole event into one attribute.
        data = mapping(attributes.get("gen_ai.event.content")) or attributes
        if name == "gen_ai.content.prompt":
            content.asked += _chat_messages(data.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            content.answers += _chat_messages(data.get("gen_ai.completion"))
        elif name == "gen_ai.choice":
            written = data.get("message")
            # Strands Agents write the content instead of the message.
            message = mapping(written) or ({"content": written} if items(written) else data)
            answer = _chat_message({"role": "assistant", **message})
            answer.finish = string_of(data, "finish_reason")
            content.answers.append(answer)
        elif type(name) is str and name.startswith("gen_ai.") and name.endswith(".message"):
            role = name.removeprefix("gen_ai.").removesuffix(".message")
            content.asked.append(_chat_message({"role": role, **data}))
    return content


def _chat_messages(value: Any) -> list[Message]:
    return [_chat_message(each) for each in items(value) if isinstance(each, Mapping)]


def _chat_message(data: Mapping[str, Any]) -> Message:
    """Read a message in the form of chat completions; its content may be blocks, as for Bedrock and Anthropic."""
    message = Message(string_of(data, "role"), _content_text(data.get("content")))
    _add_blocks(message, data.get("content"))
    _add_calls(message, data)
    return message


def _add_calls(message: Message, data: Mapping[str, Any]) -> None:
    """Add the tool calls of a message of chat completions, or the call that it answers."""
    for call in map(mapping, items(data.get("tool_calls"))):
        function = mapping(call.get("function")) or call
        arguments = compact(function.get("arguments"))
        message.calls.append(ToolRequest(string_of(call, "id"), string_of(function, "name"), arguments))
    called = string_of(data, "tool_call_id") or (string_of(data, "id") if message.role == "tool" else None)
    _move_output(message, called)


def _content_text(content: Any) -> str | None:
    """Return the text of a content; for a list of parts, which may be JSON, that of its texts."""
    if type(content) is str and content[:1] not in ("[", "{"):
        return content
    parts = items(content)
    texts = [part if type(part) is str else string_of(mapping(part), "text", "content") for part in parts]
    text = "\n".join(text for text in texts if text)
    # A user's text may look like JSON.
    return text or (content if type(content) is str else None)


def _add_blocks(message: Message, content: Any) -> None:
    """Add the calls and outputs in a content's blocks; the text is that of the other blocks."""
    blocks = [mapping(block) for block in ([] if type(content) is str and content[:1] != "[" else items(content))]
    others: list[Mapping[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if called := mapping(block.get("toolUse")) or (block if kind == "tool_use" else {}):
            own = string_of(called, "toolUseId", "id")
            message.calls.append(ToolRequest(own, string_of(called, "name"), compact(called.get("input"))))
        elif given := mapping(block.get("toolResult")) or (block if kind == "tool_result" else {}):
            own = string_of(given, "toolUseId", "tool_use_id")
            message.outputs.append(Output(own, _without_blocks(given.get("content"))))
        else:
            others.append(block)
    if len(others) < len(blocks):
        message.text = _content_text(others)


def _without_blocks(output: Any) -> Any:
    """Return the output of a tool; if all blocks are text, that text."""
    if type(output) is list and output and all(isinstance(each, dict) and each.keys() <= _OF_TEXT for each in output):
        return "\n".join(text for each in output if (text := string_of(each, "text")))
    return output


_OF_TEXT = {"type", "text"}


def _move_output(message: Message, call: str | None) -> None:
    """Move the text of a message that answers a tool call to the output of the tool."""
    if (call is not None or message.role == "tool") and not message.outputs:
        message.outputs.append(Output(call, message.text))
        message.text = None


# OpenInference -------------------------------------------------------------------------------------------------------


def _openinference(attributes: Mapping[str, Any]) -> Content | None:
    asked = [_openinference_message(each) for each in nested(attributes, "llm.input_messages")]
    answers = [_openinference_message(each) for each in nested(attributes, "llm.output_messages")]
    prompts = strings(attributes["llm.prompts"]) if "llm.prompts" in attributes else ()
    asked += [Message("user", text) for text in (*_texts(attributes, "llm.prompts", "prompt"), *prompts)]
    answers += [Message("assistant", text) for text in _texts(attributes, "llm.choices", "completion")]
    is_of_function = not (asked or answers) and "openinference.span.kind" in attributes
    if is_of_function:  # a function that is decorated as a model
        asked = [Message("user", text) for text in _whole(attributes, "input")]
    # LlamaIndex's spans have a completion nowhere else.
    if is_of_function or (asked and not answers):
        answers = [Message("assistant", text) for text in _whole(attributes, "output")]
    return Content(asked=asked, answers=answers, is_of_function=is_of_function) if asked or answers else None


def _whole(attributes: Mapping[str, Any], side: str) -> list[str]:
    text, kind = string_of(attributes, f"{side}.value"), attributes.get(f"{side}.mime_type")
    # A stream that an instrumentation does not follow is there as Python shows an object.
    if text is None or text == "__REDACTED__" or _OBJECT.fullmatch(text):
        return []
    return [text] if kind == "text/plain" or (kind is None and text[0] not in "{[") else []


_OBJECT = re.compile(r"<[\w.]+ object(?: [\w.<>]+)? at 0x[0-9A-Fa-f]+>")


def _texts(attributes: Mapping[str, Any], prefix: str, kind: str) -> Iterable[str]:
    """Read the texts of legacy completions."""
    for each in nested(attributes, prefix):
        text = string_of(mapping(each.get(kind)), "text")
        if text is not None:
            yield text


def _openinference_message(indexed: Mapping[str, Any]) -> Message:
    data = mapping(indexed.get("message"))
    parts = [mapping(mapping(part).get("message_content")) for part in mapping(data.get("contents")).values()]
    texts = [string_of(part, "text") for part in parts if part.get("type") != "reasoning"]
    text = string_of(data, "content") or "\n".join(text for text in texts if text) or None
    message = Message(string_of(data, "role"), text)
    for each in mapping(data.get("tool_calls")).values():
        call = mapping(mapping(each).get("tool_call"))
        function = mapping(call.get("function"))
        arguments = compact(function.get("arguments"))
        message.calls.append(ToolRequest(string_of(call, "id"), string_of(function, "name"), arguments))
    _move_output(message, string_of(data, "tool_call_id"))
    return message


# The AI SDK ----------------------------------------------------------------------------------------------------------


def _ai_sdk(attributes: Mapping[str, Any]) -> Content | None:
    prompt = mapping(attributes.get("ai.prompt"))
    asked = [_ai_sdk_message(each) for each in items(attributes.get("ai.prompt.messages") or prompt.get("messages"))]
    if not asked and (text := string_of(prompt, "prompt")):
        asked = [Message("user", text)]
    answer = Message("assistant", string_of(attributes, "ai.response.text", "ai.response.object"))
    answer.calls = [_ai_sdk_call(mapping(each)) for each in items(attributes.get("ai.response.toolCalls"))]
    system = string_of(prompt, "system")
    answers = [answer] if answer.text or answer.calls else []
    return Content((system,) if system else (), asked, answers) if asked or answers else None


def _ai_sdk_message(value: Any) -> Message:
    data = mapping(value)
    content = data.get("content")
    message = Message(string_of(data, "role"))
    texts: list[str] = []
    for part in [{"type": "text", "text": content}] if type(content) is str else items(content):
        each = mapping(part)
        kind = each.get("type")
        if kind == "tool-call":
            message.calls.append(_ai_sdk_call(each))
        elif kind == "tool-result":
            output = mapping(each.get("output"))  # since AI SDK 5 with its type
            value = output["value"] if "value" in output else each.get("output", each.get("result"))
            message.outputs.append(Output(string_of(each, "toolCallId"), value))
        elif text := string_of(each, "text"):
            texts.append(text)
    message.text = "\n".join(texts) or None
    return message


def _ai_sdk_call(call: Mapping[str, Any]) -> ToolRequest:
    return ToolRequest(
        string_of(call, "toolCallId"), string_of(call, "toolName"), compact(call.get("input", call.get("args")))
    )


# Langfuse ------------------------------------------------------------------------------------------------------------


def _langfuse(attributes: Mapping[str, Any]) -> Content | None:
    given = attributes.get("langfuse.observation.input")
    answers = _langfuse_messages(attributes.get("langfuse.observation.output"), "assistant")
    arguments = mapping(given)
    if is_of_function := arguments.keys() == {"args", "kwargs"}:
        texts = strings([*items(arguments["args"]), *mapping(arguments["kwargs"]).values()])
        given = texts[0] if len(texts) == 1 else given
    asked = _langfuse_messages(given, "user")
    return Content(asked=asked, answers=answers, is_of_function=is_of_function) if asked or answers else None


def _langfuse_messages(value: Any, role: str) -> list[Message]:
    """Read the input or output of an observation: messages, one message, or any other data, which is a text."""
    data = decoded(value)
    if type(data) is dict and "messages" in data:  # with the client's other arguments, such as tools
        data = data["messages"]
    if type(data) is dict and not data.keys().isdisjoint(("role", "content", "tool_calls")):
        data = [data]
    if type(data) is list and data and all(type(each) is dict for each in data):
        return [_chat_message({"role": role, **each}) for each in data]
    return [Message(role, text)] if (text := compact(value)) else []


# Calls and outputs ---------------------------------------------------------------------------------------------------


def _name_calls(messages: list[Message]) -> None:
    """Pair outputs with the calls before them if their ids differ, since one convention mixes two kinds of ids."""
    called = {call.id for message in messages if message.calls for call in message.calls}
    if not called:
        return
    given = {output.call for message in messages for output in message.outputs}
    if given <= called:
        return
    made: list[str | None] = []
    is_answered = False
    for message in messages:
        if message.calls:
            # Parallel calls may have one message each.
            made = [*(() if is_answered else made), *(call.id for call in message.calls if call.id not in given)]
            is_answered = False
        for number, output in enumerate(message.outputs):
            is_answered = True
            if made and output.call not in called:
                message.outputs[number] = Output(made.pop(0), output.value)
