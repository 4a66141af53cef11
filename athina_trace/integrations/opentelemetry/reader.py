"""Reads a model's answer, a tool's run or retrieved documents from a span.

It reads the current and older GenAI conventions, and those of OpenInference, the AI SDK and Langfuse's SDK. Only spans
of single model requests are answers: spans of agents, chains and workflows repeat the usage of the requests inside
them.
"""

from __future__ import annotations

import ast
import enum
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from athina_trace._answers.libraries import as_count
from athina_trace._answers.records import AS_FUNCTION, AS_SPAN, Answer, Key, Record, ToolCall, ToolOutput
from athina_trace._serialization import plain
from athina_trace.integrations.opentelemetry.messages import Content, Message, Output, ToolRequest, read_content
from athina_trace.integrations.opentelemetry.spans import SpanRecord
from athina_trace.integrations.opentelemetry.values import (
    as_number,
    count_of,
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
    """The kind of operation that a span describes."""

    MODEL = enum.auto()
    TOOL = enum.auto()
    RETRIEVAL = enum.auto()
    OTHER = enum.auto()


_OPERATIONS = {
    "chat": Kind.MODEL,
    "text_completion": Kind.MODEL,
    "generate_content": Kind.MODEL,
    # Semantic Kernel's, in Python and .NET.
    "text_completions": Kind.MODEL,
    "chat.completions": Kind.MODEL,
    "text.completions": Kind.MODEL,
    "execute_tool": Kind.TOOL,
    "retrieval": Kind.RETRIEVAL,
}
_OPENINFERENCE = {"LLM": Kind.MODEL, "TOOL": Kind.TOOL, "RETRIEVER": Kind.RETRIEVAL}
_AI_SDK = re.compile(r"ai\.\w+\.do(Generate|Stream)\b")
_TRACELOOP = {"tool": Kind.TOOL}
_LEGACY = {"chat": Kind.MODEL, "completion": Kind.MODEL}
_LANGFUSE = {"generation": Kind.MODEL, "tool": Kind.TOOL}


def kind_of(name: str, attributes: Mapping[str, Any]) -> Kind:
    """Return the kind of a span."""
    if name.startswith("ai."):
        if name.startswith("ai.toolCall"):
            return Kind.TOOL
        return Kind.MODEL if _AI_SDK.match(name) else Kind.OTHER
    # The more specific ones first, since instrumentations of two conventions may write to the same span.
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
    ("langfuse.observation.type", _LANGFUSE),
)


def name_of(span_id: str) -> Key:
    """Return the span's identifier among spans and runs."""
    return "span", span_id


# Session and user ----------------------------------------------------------------------------------------------------

_IDENTITY = {
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "ai.telemetry.metadata.sessionId",
        "ai.settings.context.sessionId",
    ),
    "customer_user_id": (
        "user.id",
        "gen_ai.user",
        "enduser.id",
        "traceloop.association.properties.user_id",
        "llm.user",
        "ai.telemetry.metadata.userId",
        "ai.settings.context.userId",
    ),
}


def identity_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the session and user in these attributes, of a span or an enclosing span."""
    found = {field: string_of(attributes, *names) for field, names in _IDENTITY.items()}
    return {field: value for field, value in found.items() if value is not None}


# Answers of models --------------------------------------------------------------------------------------------------

_TEXTS = {
    **_IDENTITY,
    "id": ("gen_ai.response.id", "ai.response.id"),
    "previous": ("gen_ai.request.previous_response.id",),
    "model": (
        *("gen_ai.response.model", "ai.response.model", "llm.model_name", "gen_ai.request.model", "ai.model.id"),
        *("langfuse.observation.model.name", "traceloop.association.properties.ls_model_name"),
    ),
    "finish": ("llm.finish_reason", "ai.response.finishReason"),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"),
    "prompt": ("gen_ai.prompt.name", "traceloop.prompt.key", "prompt.id", "langfuse.observation.prompt.name"),
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
_OTHERS = {
    # The last two are LiteLLM's.
    "cost": ("operation.cost", "gen_ai.usage.cost", "llm.cost.total", "litellm.cost.total", "gen_ai.cost.total_cost"),
    "reasons": ("gen_ai.response.finish_reasons",),
    "tools": ("gen_ai.tool.definitions",),
    "stop": ("gen_ai.request.stop_sequences",),
    # OpenInference's JSON of the request and the answer, with data that is in no other attribute.
    "parameters": ("llm.invocation_parameters", "langfuse.observation.model.parameters"),
    "request": ("input.value",),
    "response": ("output.value",),
    "counts": ("langfuse.observation.usage_details",),
    "costs": ("langfuse.observation.cost_details",),
    # Logfire's copy of the API's usage, the only place of reasoning tokens.
    "raw": ("gen_ai.usage.raw",),
}
_JSON = ("parameters", "request", "response", "counts", "costs", "raw")
_LANGFUSE_USAGE = {
    "prompt_tokens": ("prompt_tokens", "input_tokens", "input"),
    "completion_tokens": ("completion_tokens", "output_tokens", "output"),
    "total_tokens": ("total_tokens", "total"),
}
_ENVIRONMENT = ("deployment.environment.name", "deployment.environment")
_GIVEN_UP = ("GeneratorExit", "CancelledError", "KeyboardInterrupt")
_OF_CLIENT = re.compile(
    r"(?:error code: (\d{3}) - |status_code: (\d{3}),.*?\bbody: |\b(\d{3}) \w+\. (?=\{'error')"
    r"|\bstatus (\d{3})(?: content-type .*?)?(?:\. body: |\n(?=\{)))(?P<body>.*)",
    re.IGNORECASE | re.DOTALL,
)
"""How clients write an API's answer into an exception: OpenAI's, Anthropic's, Google's, Mistral's and Pydantic AI's."""
_OF_OLLAMA = re.compile(r"(?:ResponseError: )?(.+) \(status code: (\d{3})\)", re.DOTALL)
_QUOTED_TO = re.compile(r"""['"][)}]+$""")
"""The end of a `repr` that contains an exception's text."""
_LONGEST_ERROR = 2000


def read_model(span: SpanRecord) -> list[Record]:
    """Return the records in the span of a model request: the answer first, then its calls, and outputs of earlier ones.

    Returns an empty list if the answer is in another span (Logfire's span of a streamed request ends before its stream,
    and a second one has the answer); if LangSmith wrote the span (later, in a thread without a session and in its own
    format; the source from which it repeats the answer logs it); and if the span has no model and no content: some
    instrumentations make all requests of a client look like a model's, and some of OpenInference's do so for the
    preparation of a request.
    """
    texts, usage, options, others = _known(span.attributes)
    content = read_content(span)
    if usage.get("total_tokens") == 0:
        # Some report a missing count, as in most streams, as zero.
        usage, others = {}, {**others, "cost": None}
    error, status_code = _error(span) if _may_have_failed(span) and not was_given_up(span) else (None, None)
    own_id, model = texts.get("id"), texts.get("model")
    is_empty = not (content.asked or content.answers or usage or error or "cost" in others)
    if is_empty and (model is None or ("openinference.span.kind" in span.attributes and not was_given_up(span))):
        return []
    if not content.answers and (
        span.scope == "langsmith" or (own_id is None and error is None and span.scope.startswith("logfire"))
    ):
        return []
    if model == "unknown":  # which stands in two attributes where OpenLLMetry's handler of LangChain finds none
        named = (string_of(span.attributes, name) for name in _TEXTS["model"])
        model = next((each for each in named if each not in (None, "unknown")), None)
    has_messages = content.asked or content.answers or "openinference.span.kind" not in span.attributes
    is_of_function = content.is_of_function or not has_messages
    key = name_of(span.span_id)
    # An output without text is not a choice: reasoning, or tool calls beside the text.
    answered = [answer.text for answer in content.answers if answer.text]
    prompt = _prompt(content.asked)
    answer = Answer(key)
    answer.names = (key, ("id", own_id)) if own_id is not None else (key,)
    # A function that a framework marks as a model contains the span of a request, which has more data.
    answer.source = f"function {span.scope}" if is_of_function else f"span {span.scope}"
    answer.fidelity = AS_FUNCTION if is_of_function else AS_SPAN
    answer.request = span.span_id
    answer.created = span.start_ns / 1e9
    answer.status = "failed" if error is not None else _finish(others, texts, content)
    answer.session = texts.get("session_id")
    answer.previous = texts.get("previous")
    answer.model = model
    answer.text = answered[0] if answered else None
    answer.choices = tuple(answered[1:])
    answer.system = content.system
    answer.prompt = prompt
    answer.query = _question(prompt)
    answer.usage = usage
    answer.tools = _tools(others, span.attributes)
    answer.options = options
    answer.error = error
    answer.status_code = status_code
    answer.cost = number_of(others, "cost") if "cost" in others and error is None else None
    answer.further = _further(texts, span.resource)
    answer.details = {"provider": texts["provider"]} if "provider" in texts else {}
    records: list[Record] = [answer]
    for choice, message in enumerate(content.answers):
        for place, call in enumerate(message.calls):
            if any(call):  # some servers send every field of a call, though there is none
                records.append(_tool_call(call, answer, f"#{choice}/{place}"))
    for message in content.asked:
        if given := message.outputs:
            records += [ToolOutput(call=each.call, value=_output(each)) for each in given if each.call is not None]
    return records


_Known = tuple[dict[str, str], dict[str, int], dict[str, object], dict[str, Any]]
"""The values of single attributes: texts, token counts, options, and unconverted values."""
_TEXT, _COUNT, _OPTION, _OTHER = range(4)
_TABLES = ((_TEXT, _TEXTS, str), (_COUNT, _USAGE, int), (_OPTION, _OPTIONS, int), (_OTHER, _OTHERS, str))
_TARGETS = {
    name: (table, entry, rank, kind)
    for table, entries, kind in _TABLES
    for entry, names in entries.items()
    for rank, name in enumerate(names)
}
"""Attribute → the index of its table in `_Known`, its meaning, the number of better attributes, its usual type."""


def _known(attributes: Mapping[str, Any]) -> _Known:
    """Return the values of single attributes, in one pass over the span, since most of the known ones are absent."""
    known: _Known = ({}, {}, {}, {})
    tables = cast("tuple[dict[str, Any], ...]", known)
    ranks: dict[str, int] = {}
    target_of = _TARGETS.get
    for name, value in attributes.items():
        target = target_of(name)
        if target is None:
            if name[:4] == "llm.":
                tables[_OTHER]["llm"] = True
            continue
        table, entry, rank, kind = target
        if type(value) is not kind or value == "" or (table == _COUNT and type(value) is int and value < 0):
            value = _converted(value, table)  # noqa: PLW2901 - as the table wants it
            if value is None:
                continue
        if entry not in ranks or rank <= ranks[entry]:
            tables[table][entry], ranks[entry] = value, rank
    _, usage, options, others = known
    if "stop" in others:
        options["stop"] = list(strings(others["stop"]))
    if not others.keys().isdisjoint(_JSON):
        _add_json(known)
    if "total_tokens" not in usage and "prompt_tokens" in usage and "completion_tokens" in usage:
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return known


def _converted(value: Any, table: int) -> Any:
    """Convert a value of an unusual type for its table; None if it has no meaning."""
    if table == _TEXT:
        return None
    if table == _OTHER:
        return value
    return as_count(value) if table == _COUNT else as_number(value)


def _add_json(known: _Known) -> None:
    """Add values that OpenInference and Langfuse have only inside the JSON of other attributes."""
    texts, usage, options, others = known
    parameters = mapping(others.get("parameters"))
    conversation = parameters.get("conversation")
    answered = {} if "id" in texts else mapping(others.get("response"))
    named = {
        "session_id": conversation if type(conversation) is str else string_of(mapping(conversation), "id"),
        "customer_user_id": string_of(parameters, "user"),
        "id": string_of(answered, "id"),
        "previous": string_of(parameters, "previous_response_id"),
        "finish": string_of(answered, "status") if answered.get("object") == "response" else None,
        "model": None if "model" in texts else string_of(mapping(others.get("request")), "model"),
    }
    for entry, text in named.items():
        if text:
            texts.setdefault(entry, text)
    for entry in _OPTIONS:
        value = number_of(parameters, entry)
        if value is not None:
            options.setdefault(entry, value)
    counts = mapping(others["counts"]) if "counts" in others else {}
    for entry, names in _LANGFUSE_USAGE.items() if counts else ():
        if (value := count_of(counts, *names)) is not None:
            usage.setdefault(entry, value)
    raw = mapping(others["raw"]) if "raw" in others else {}
    for group in ("completion_tokens_details", "output_tokens_details") if raw else ():
        if (value := count_of(mapping(raw.get(group)), "reasoning_tokens")) is not None:
            usage.setdefault("reasoning_tokens", value)
    if "costs" in others and (cost := number_of(mapping(others["costs"]), "total")) is not None:
        others.setdefault("cost", cost)


def _finish(others: Mapping[str, Any], texts: Mapping[str, str], content: Content) -> str | None:
    for reason in items(others["reasons"]) if "reasons" in others else ():
        if type(reason) is str:
            return reason
    return texts.get("finish") or next((answer.finish for answer in content.answers if answer.finish), None)


def _further(texts: Mapping[str, str], resource: Mapping[str, Any]) -> dict[str, object]:
    """Return fields of the log that are in no other record."""
    further: dict[str, object] = {}
    if "customer_user_id" in texts:
        further["customer_user_id"] = texts["customer_user_id"]
    if "prompt" in texts:
        further["prompt_slug"] = f"{texts['prompt']}/{texts['version']}" if "version" in texts else texts["prompt"]
    if (environment := string_of(resource, *_ENVIRONMENT)) is not None:
        further["environment"] = environment
    return further


def _may_have_failed(span: SpanRecord) -> bool:
    return span.failed or "error.type" in span.attributes


def was_given_up(span: SpanRecord) -> bool:
    """Return whether a stream was closed early or a task was cancelled, which some instrumentations call an error."""
    if not _may_have_failed(span):
        # The official instrumentations mark an incomplete answer like this, without an error.
        return span.attributes.get("gen_ai.response.finish_reasons") in (("error",), ["error"])
    kinds = [string_of(span.attributes, "error.type"), span.description]
    kinds += [string_of(event.attributes, "exception.type") for event in span.events if event.name == "exception"]
    return any(kind.partition(":")[0].endswith(_GIVEN_UP) for kind in kinds if kind is not None)


def _error(span: SpanRecord) -> tuple[str, int | None]:
    """Return the error and the API's status code; from exceptions of its clients, the API's own message."""
    kind = string_of(span.attributes, "error.type")
    raised = next((event.attributes for event in span.events if event.name == "exception"), {})
    text = span.description or string_of(raised, "exception.message") or kind or "failed"
    text = (text.partition("Traceback (most recent call last)")[0] or text)[:_LONGEST_ERROR]
    code = int(kind) if kind is not None and kind.isascii() and kind.isdigit() and len(kind) == len("400") else None
    if code is None and (status := number_of(span.attributes, "http.response.status_code")) is not None:
        code = int(status)
    written = _OF_CLIENT.search(text)
    if written is not None:
        code = code or int(next(filter(None, written.groups())))
    elif (of_ollama := _OF_OLLAMA.fullmatch(text)) is not None:
        return of_ollama[1], code or int(of_ollama[2])
    elif not text.startswith("{"):
        return text, code
    # OpenLLMetry writes the error in an answer without a failed request as it is.
    body, answer = text if written is None else written["body"], None
    # Frameworks embed the client's exception in their own, so more text may follow.
    for text_of_data in (body, body[: body.find("}}") + 2]) if body.startswith("{") else ():
        # It was cut off, so it cannot be parsed.
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            answer = answer or decoded(text_of_data) or ast.literal_eval(text_of_data)
    data = mapping(answer)
    message = string_of(mapping(data.get("error")), "message") or string_of(data, "message", "detail")
    if message is None and not body.startswith("{"):
        body = _QUOTED_TO.sub("", body)
    return message or body or text, code


def _question(prompt: Sequence[Mapping[str, str]]) -> str | None:
    for message in reversed(prompt):
        if message["role"] == "user" and message["content"]:
            return message["content"]
    return None


def _prompt(asked: Iterable[Message]) -> tuple[Mapping[str, str], ...]:
    messages: list[Mapping[str, str]] = []
    for message in asked:
        if message.text is not None or not message.outputs:
            messages.append({"role": message.role or "user", "content": message.text or ""})
        # Some conventions give tool outputs the role of the user.
        for output in message.outputs:
            value = _output(output)
            messages.append({"role": "tool", "content": value if type(value) is str else str(value)})
    return tuple(messages)


def _output(output: Output) -> Any:
    """Return the output of a tool; a text that was encoded as JSON is decoded."""
    value = output.value
    if type(value) is str and value[:1] == '"':
        inner = decoded(value)
        value = inner if type(inner) is str else value
    return "" if value is None else plain(value)


def _tool_call(call: ToolRequest, answer: Answer, numbered: str) -> ToolCall:
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


def _tools(others: Mapping[str, Any], attributes: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the offered tools, according to the current conventions or the others."""
    defined = others.get("tools")
    if type(defined) is str and len(defined) < _LONGEST_CACHED:
        return _tools_of(defined)
    offered = items(defined)
    # Most spans have none, and each of the other conventions requires a search of all attributes.
    if not offered and ("llm" in others or "ai.prompt.tools" in attributes):
        offered = [mapping(mapping(each.get("tool")).get("json_schema")) for each in nested(attributes, "llm.tools")]
        offered += nested(attributes, "llm.request.functions")
        offered += [decoded(each) for each in items(attributes.get("ai.prompt.tools"))]
    return tuple([plain(tool) for tool in offered if tool])


@functools.lru_cache(maxsize=64)
def _tools_of(defined: str) -> tuple[object, ...]:
    """Read the tools that a program offers with each request."""
    return tuple(plain(tool) for tool in items(defined) if tool)


_LONGEST_CACHED = 100_000


# Tools and retrieval ------------------------------------------------------------------------------------------------


class ToolRun(NamedTuple):
    """A tool that was run."""

    call: str | None
    """The id of the tool call."""
    tool: str | None
    arguments: Any
    output: Any
    """None if the span has none."""


def read_tool(span: SpanRecord) -> ToolRun:
    """Return the tool's run in a span."""
    attributes = span.attributes
    output = next((attributes[name] for name in _RESULTS if attributes.get(name) is not None), None)
    if output is None and _may_have_failed(span):
        # The text that the model gets instead of an output.
        output, _ = _error(span)
    return ToolRun(
        call=string_of(attributes, "gen_ai.tool.call.id", "ai.toolCall.id", "tool_call.id", "tool.id"),
        tool=string_of(attributes, "gen_ai.tool.name", "ai.toolCall.name", "tool.name", "traceloop.entity.name"),
        arguments=next((attributes[name] for name in _ARGUMENTS if attributes.get(name) is not None), None),
        output=None if output is None else _output(Output(None, output)),
    )


_RESULTS = (
    *("gen_ai.tool.call.result", "ai.toolCall.result", "output.value", "traceloop.entity.output", "tool_response"),
    "langfuse.observation.output",
)
_ARGUMENTS = (
    "gen_ai.tool.call.arguments",
    "ai.toolCall.args",
    "tool.parameters",
    "input.value",
    "traceloop.entity.input",
    "langfuse.observation.input",
)


def read_documents(span: SpanRecord) -> tuple[str, ...]:
    """Return the texts in the span of a retrieval."""
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
