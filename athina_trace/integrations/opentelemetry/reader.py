"""A span → what it says of an answer of a model, of a run of a tool, or of what was retrieved.

Read are the current conventions for generative AI, the older ones, OpenInference's, and those of the AI SDK. Only spans
of single requests of a model are answers: those of agents, chains and workflows repeat the usage of what is in them.
"""

from __future__ import annotations

import ast
import enum
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from athina_trace._answers.records import AS_SPAN, Answer, Key, Record, ToolCall, ToolOutput
from athina_trace._serialization import plain
from athina_trace.integrations.opentelemetry.messages import Call, Content, Output, read_content
from athina_trace.integrations.opentelemetry.spans import SpanRecord
from athina_trace.integrations.opentelemetry.values import (
    decoded,
    items,
    mapping,
    nested,
    number_of,
    string_of,
    strings,
)

__all__ = [
    "Kind",
    "ToolRun",
    "identity_of",
    "kind_of",
    "name_of",
    "read_documents",
    "read_model",
    "read_tool",
    "was_given_up",
]


class Kind(enum.Enum):
    """What a span is about."""

    MODEL = enum.auto()
    TOOL = enum.auto()
    RETRIEVAL = enum.auto()
    OTHER = enum.auto()


_OPERATIONS = {
    "chat": Kind.MODEL,
    "text_completion": Kind.MODEL,
    "generate_content": Kind.MODEL,
    "execute_tool": Kind.TOOL,
    "retrieval": Kind.RETRIEVAL,
}
_OPENINFERENCE = {"LLM": Kind.MODEL, "TOOL": Kind.TOOL, "RETRIEVER": Kind.RETRIEVAL}
_AI_SDK = re.compile(r"ai\.\w+\.do(Generate|Stream)\b")
_TRACELOOP = {"tool": Kind.TOOL}
_LEGACY = {"chat": Kind.MODEL, "completion": Kind.MODEL}


def kind_of(name: str, attributes: Mapping[str, Any]) -> Kind:
    """Return what a span of this name is about."""
    if name.startswith("ai."):
        if name.startswith("ai.toolCall"):
            return Kind.TOOL
        return Kind.MODEL if _AI_SDK.match(name) else Kind.OTHER
    # The more exact one first: instrumentations of two conventions may write on one span.
    for attribute, kinds in _KINDS:
        value = attributes.get(attribute)
        if value is not None:
            return kinds.get(value, Kind.OTHER) if type(value) is str else Kind.OTHER
    return Kind.OTHER


_KINDS = (
    ("openinference.span.kind", _OPENINFERENCE),
    ("gen_ai.operation.name", _OPERATIONS),
    ("traceloop.span.kind", _TRACELOOP),
    ("llm.request.type", _LEGACY),
)


def name_of(span_id: str) -> Key:
    """Return what a span is known by among spans and runs."""
    return "span", span_id


# Who is talking -----------------------------------------------------------------------------------------------------

_IDENTITY = {
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "ai.telemetry.metadata.sessionId",
    ),
    "customer_user_id": (
        "user.id",
        "gen_ai.user",
        "enduser.id",
        "traceloop.association.properties.user_id",
        "llm.user",
        "ai.telemetry.metadata.userId",
    ),
}


def identity_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return session and user, as far as these attributes name them: those of a span, or of one around it."""
    found = {field: string_of(attributes, *names) for field, names in _IDENTITY.items()}
    return {field: value for field, value in found.items() if value is not None}


# Answers of models --------------------------------------------------------------------------------------------------

_TEXTS = {
    **_IDENTITY,
    "id": ("gen_ai.response.id", "ai.response.id"),
    "model": ("gen_ai.response.model", "ai.response.model", "llm.model_name", "gen_ai.request.model", "ai.model.id"),
    "finish": ("llm.finish_reason", "ai.response.finishReason"),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"),
    "prompt": ("gen_ai.prompt.name", "traceloop.prompt.key", "prompt.id"),
    "version": ("gen_ai.prompt.version",),
}
_USAGE = {
    "prompt_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "llm.usage.prompt_tokens",
    ),
    "completion_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "llm.usage.completion_tokens",
    ),
    "total_tokens": (
        "gen_ai.usage.total_tokens",
        "llm.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
    ),
    "cached_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "ai.usage.cachedInputTokens",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "ai.usage.reasoningTokens",
    ),
}
_OPTIONS = {
    "temperature": ("gen_ai.request.temperature", "ai.settings.temperature"),
    "top_p": ("gen_ai.request.top_p", "ai.settings.topP"),
    "max_tokens": ("gen_ai.request.max_tokens", "ai.settings.maxOutputTokens", "ai.settings.maxTokens"),
    "presence_penalty": ("gen_ai.request.presence_penalty",),
    "frequency_penalty": ("gen_ai.request.frequency_penalty",),
    "seed": ("gen_ai.request.seed",),
}
_NUMBERS = {**_USAGE, **_OPTIONS, "cost": ("operation.cost", "gen_ai.usage.cost", "llm.cost.total")}
_ENVIRONMENT = ("deployment.environment.name", "deployment.environment")
_GIVEN_UP = ("GeneratorExit", "CancelledError", "KeyboardInterrupt")
_OF_CLIENT = re.compile(
    r"(?:error code: (?P<first>\d{3}) - |status_code: (?P<second>\d{3}),.*?\bbody: )(?P<body>.*)",
    re.IGNORECASE | re.DOTALL,
)
"""How the clients of OpenAI and Anthropic, and Pydantic AI, write an answer of the API into an exception."""
_LONGEST_ERROR = 2000


def read_model(span: SpanRecord) -> list[Record]:
    """Return what the span of a model's request says: the answer first, then its calls, and outputs of earlier ones.

    An empty list where the answer is another span's (Logfire's span of a streamed request ends before its stream does,
    and a second one has what came), and where the span names no model and says nothing: some instrumentations have all
    requests of a client look like a model's.
    """
    attributes = span.attributes
    content = read_content(span)
    known = _known(attributes)
    # OpenInference has these inside of JSON alone, and none of the others has that.
    parameters = mapping(attributes["llm.invocation_parameters"]) if "llm.invocation_parameters" in attributes else {}
    own_id = known.get("id")
    if own_id is None and "output.value" in attributes:
        own_id = string_of(mapping(attributes["output.value"]), "id")
    error, status_code = _error(span) if _may_have_failed(span) and not was_given_up(span) else (None, None)
    model = known.get("model")
    if model is None and "input.value" in attributes:
        model = string_of(mapping(attributes["input.value"]), "model")
    is_empty = model is None and not (content.asked or content.answers or known.keys() & _NUMBERS.keys())
    if error is None and (is_empty or (span.scope.startswith("logfire") and own_id is None and not content.answers)):
        return []
    key = name_of(span.span_id)
    # What has no text is no choice: reasoning, or calls of tools beside the text.
    texts = [answer.text for answer in content.answers if answer.text]
    reasons = attributes.get("gen_ai.response.finish_reasons")
    finish = next(iter(strings(reasons)), None) if reasons is not None else None
    prompt = _prompt(content)
    version = f"/{known['version']}" if "version" in known else ""
    further = {
        "customer_user_id": known.get("customer_user_id") or string_of(parameters, "user"),
        "prompt_slug": f"{known['prompt']}{version}" if "prompt" in known else None,
        "environment": string_of(span.resource, *_ENVIRONMENT),
    }
    answer = Answer(
        key=key,
        names=(key, ("id", own_id)) if own_id is not None else (key,),
        source=f"span {span.scope}",
        fidelity=AS_SPAN,
        request=span.span_id,
        created=span.start_ns / 1e9,
        status="failed" if error is not None else finish or known.get("finish") or _finish(content),
        session=known.get("session_id") or _conversation(parameters),
        model=model,
        text=texts[0] if texts else None,
        choices=tuple(texts[1:]),
        system=content.system,
        prompt=prompt,
        query=_question(prompt),
        usage=_usage(known),
        tools=_tools(attributes),
        options=_options(known, parameters, attributes.get("gen_ai.request.stop_sequences")),
        error=error,
        status_code=status_code,
        cost=known.get("cost"),
        further={field: value for field, value in further.items() if value is not None},
        details={"provider": known["provider"]} if "provider" in known else {},
    )
    records: list[Record] = [answer]
    for choice, message in enumerate(content.answers):
        records += [_tool_call(call, answer, f"#{choice}/{place}") for place, call in enumerate(message.calls)]
    for message in content.asked:
        records += [
            ToolOutput(call=each.call, value=_output(each)) for each in message.outputs if each.call is not None
        ]
    return records


_TARGETS = {
    name: (field, rank, fields is _NUMBERS)
    for fields in (_TEXTS, _NUMBERS)
    for field, names in fields.items()
    for rank, name in enumerate(names)
}
"""Attribute → what it says, how many others say it better, and whether that is a number."""


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what single attributes say, in one walk: most of those that are asked for are absent."""
    known: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for name in attributes:
        target = _TARGETS.get(name)
        if target is None:
            continue
        field, rank, is_number = target
        if field in known and rank > ranks[field]:
            continue
        value = attributes[name]
        if is_number and type(value) is not int:
            value = number_of(attributes, name)
        elif not is_number and type(value) is not str:
            continue
        if value or value == 0:
            known[field], ranks[field] = value, rank
    return known


def _may_have_failed(span: SpanRecord) -> bool:
    return span.failed or "error.type" in span.attributes


def was_given_up(span: SpanRecord) -> bool:
    """Whether a stream was closed early, or a task cancelled: some instrumentations call that an error."""
    if not _may_have_failed(span):
        return False
    kinds = [string_of(span.attributes, "error.type"), span.description]
    kinds += [string_of(event.attributes, "exception.type") for event in span.events if event.name == "exception"]
    return any(kind.partition(":")[0].endswith(_GIVEN_UP) for kind in kinds if kind is not None)


def _error(span: SpanRecord) -> tuple[str, int | None]:
    """Return what failed, and the status code of the API; of its clients' exceptions, the API's own message."""
    kind = string_of(span.attributes, "error.type")
    raised = next((event.attributes for event in span.events if event.name == "exception"), {})
    text = (span.description or string_of(raised, "exception.message") or kind or "failed")[:_LONGEST_ERROR]
    code = int(kind) if kind is not None and kind.isascii() and kind.isdigit() and len(kind) == len("400") else None
    written = _OF_CLIENT.search(text)
    if written is None:
        return text, code
    body = written["body"]
    try:
        answer = ast.literal_eval(body) if body.startswith("{") else {}
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # cut off, or no data after all
        answer = {}
    message = string_of(mapping(answer.get("error")), "message") or string_of(answer, "message")
    return message or body or text, code or int(written["first"] or written["second"])


def _question(prompt: Sequence[Mapping[str, str]]) -> str | None:
    for message in reversed(prompt):
        if message["role"] == "user" and message["content"]:
            return message["content"]
    return None


def _finish(content: Content) -> str | None:
    return next((answer.finish for answer in content.answers if answer.finish is not None), None)


def _prompt(content: Content) -> tuple[Mapping[str, str], ...]:
    messages: list[Mapping[str, str]] = []
    for message in content.asked:
        if message.text is not None or not message.outputs:
            messages.append({"role": message.role or "user", "content": message.text or ""})
        # Some conventions give the outputs of tools the role of the user.
        for output in message.outputs:
            value = _output(output)
            messages.append({"role": "tool", "content": value if type(value) is str else str(value)})
    return tuple(messages)


def _output(output: Output) -> Any:
    """Return what a tool gave back: a text that was made JSON again is that text."""
    value = output.value
    if type(value) is str and value[:1] == '"':
        inner = decoded(value)
        value = inner if type(inner) is str else value
    return "" if value is None else plain(value)


def _tool_call(call: Call, answer: Answer, numbered: str) -> ToolCall:
    function = {"name": call.name, "arguments": call.arguments}
    body = {
        "id": call.id,
        "type": "function",
        "function": {name: each for name, each in function.items() if each is not None},
    }
    return ToolCall(
        key=call.id or numbered,
        owner=answer.key,
        source=answer.source,
        body={name: each for name, each in body.items() if each is not None},
    )


def _usage(known: Mapping[str, Any]) -> dict[str, int]:
    usage = {name: int(known[name]) for name in _USAGE if name in known}
    if "total_tokens" not in usage and "prompt_tokens" in usage and "completion_tokens" in usage:
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return usage


def _tools(attributes: Mapping[str, Any]) -> tuple[object, ...]:
    defined = attributes.get("gen_ai.tool.definitions")
    if type(defined) is str and len(defined) < _LONGEST_CACHED:
        return _tools_of(defined)
    offered = items(defined)
    if not offered:
        offered = [mapping(mapping(each.get("tool")).get("json_schema")) for each in nested(attributes, "llm.tools")]
        offered += nested(attributes, "llm.request.functions")
        offered += [decoded(each) for each in items(attributes.get("ai.prompt.tools"))]
    return tuple(plain(tool) for tool in offered if tool)


@functools.lru_cache(maxsize=64)
def _tools_of(defined: str) -> tuple[object, ...]:
    """Read what a program offers with each of its requests."""
    return tuple(plain(tool) for tool in items(defined) if tool)


_LONGEST_CACHED = 100_000


def _options(known: Mapping[str, Any], parameters: Mapping[str, Any], stop: Any) -> dict[str, object]:
    options: dict[str, object] = {name: known[name] for name in _OPTIONS if name in known}
    for name in _OPTIONS if parameters else ():
        value = number_of(parameters, name)
        if value is not None:
            options.setdefault(name, value)
    if stop is not None:
        options["stop"] = list(strings(stop))
    return options


def _conversation(parameters: Mapping[str, Any]) -> str | None:
    """Return the conversation that OpenInference leaves among the parameters of a request for a response."""
    named = parameters.get("conversation")
    return named if type(named) is str and named else string_of(mapping(named), "id")


# Tools and retrieval ------------------------------------------------------------------------------------------------


class ToolRun(NamedTuple):
    """A tool that was run."""

    call: str | None
    """The id of the call of it."""
    tool: str | None
    arguments: Any
    output: Any
    """None where the span has none."""


def read_tool(span: SpanRecord) -> ToolRun:
    """Return what the span of a tool says."""
    attributes = span.attributes
    output = next((attributes[name] for name in _RESULTS if attributes.get(name) is not None), None)
    if output is None and _may_have_failed(span):
        # What the model is given in place of an output.
        output, _ = _error(span)
    return ToolRun(
        call=string_of(attributes, "gen_ai.tool.call.id", "ai.toolCall.id", "tool_call.id", "tool.id"),
        tool=string_of(attributes, "gen_ai.tool.name", "ai.toolCall.name", "tool.name", "traceloop.entity.name"),
        arguments=next((attributes[name] for name in _ARGUMENTS if attributes.get(name) is not None), None),
        output=None if output is None else _output(Output(None, output)),
    )


_RESULTS = ("gen_ai.tool.call.result", "ai.toolCall.result", "output.value", "traceloop.entity.output", "tool_response")
_ARGUMENTS = (
    "gen_ai.tool.call.arguments",
    "ai.toolCall.args",
    "tool.parameters",
    "input.value",
    "traceloop.entity.input",
)


def read_documents(span: SpanRecord) -> tuple[str, ...]:
    """Return the texts that the span of a retrieval found."""
    attributes = span.attributes
    texts: list[str] = []
    for document in items(attributes.get("gen_ai.retrieval.documents")):
        texts += _document_texts(document)
    for each in nested(attributes, "retrieval.documents"):
        texts += _document_texts(mapping(each.get("document")))
    return tuple(texts)


def _document_texts(document: Any) -> list[str]:
    if type(document) is str:
        return [document]
    text = string_of(mapping(document), "content", "page_content", "text")
    return [] if text is None else [text]
