"""What assistants, responses and chat completions have in common: contents, usage, options, tools, failures.

Every function takes plain data from `normalise`, and returns an empty value or None if there is nothing to read.

Sources: the references of the Assistants, Responses and Chat Completions APIs, the types of the `openai` package 1.x to
3.x, and recorded traffic of OpenAI, Azure and compatible servers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from athina_trace._answers.libraries import COUNTS, as_count
from athina_trace._answers.records import ToolOutput
from athina_trace._serialization.secrets import MASKED
from athina_trace.integrations.openai.normalise import Data, child, children, members, number, string

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "call_body",
    "citations",
    "content_text",
    "custom_body",
    "failure",
    "found_chunks",
    "function_body",
    "incomplete_reason",
    "instructions",
    "item_body",
    "messages",
    "model_options",
    "offered_tools",
    "outputs",
    "question",
    "served",
    "stated_cost",
    "stated_failure",
    "usage_counts",
    "without_none",
]


# Contents ---------------------------------------------------------------------------------------------------------


def content_text(content: Any) -> str:
    """Read a message's content: a string, or the texts of its parts joined with newlines.

    Reads the parts of all three APIs: text (plain or as `{"value": …}`), refusals, and transcripts of audio parts.
    Images and files, which have no text, are left out.
    """
    if type(content) is str:
        return content
    if type(content) is dict and content:
        # Some servers return an answer in JSON mode as an object.
        return _part_text(content) or json.dumps(content, ensure_ascii=False)
    if type(content) is int or type(content) is float:  # likewise, or a proxy decodes each piece of a text
        return str(content)
    return "\n".join(filter(None, map(_part_text, content))) if type(content) is list else ""


def _part_text(part: Any) -> str | None:
    if type(part) is str:
        return part
    if type(part) is not dict:
        return None
    value = string(part, "text") or string(child(part, "text"), "value")
    return value or string(part, "refusal") or string(part, "transcript")


def messages(items: Iterable[Any]) -> tuple[Mapping[str, str], ...]:
    """Read the messages of a request; tool outputs become messages of the role `tool`."""
    read: list[Mapping[str, str]] = []
    for item in items:
        if type(item) is not dict:
            continue
        role = string(item, "role")
        if role is not None:
            read.append({"role": role, "content": content_text(item.get("content"))})
        elif (output := _output(item)) is not None:
            value = output.value
            text = content_text(value) if type(value) is not dict else ""
            if not text and value not in ("", [], {}):
                text = json.dumps(value, ensure_ascii=False)  # an output without text, such as a screenshot
            read.append({"role": "tool", "content": text})
    return tuple(read)


def question(prompt: Iterable[Mapping[str, str]]) -> str | None:
    """Return the user's last text, from messages in reverse order; an image alone is not a question."""
    for each in prompt:
        if each["role"] == "user" and each["content"]:
            return each["content"]
    return None


def outputs(items: Iterable[Any]) -> list[ToolOutput]:
    """Read tool outputs from messages, items or `tool_outputs`."""
    return [output for item in items if type(item) is dict and (output := _output(item)) is not None]


def _output(item: Data) -> ToolOutput | None:
    call = string(item, "tool_call_id") or string(item, "call_id")
    value = item.get("output") if item.get("output") is not None else item.get("content")
    return None if call is None or value is None else ToolOutput(call=call, value=value)


def instructions(value: Any) -> tuple[tuple[str, ...], tuple[Mapping[str, str], ...]]:
    """Read instructions: the system's texts, and the user's and assistant's messages of a prompt template."""
    if type(value) is str:
        return ((value,) if value else ()), ()
    if type(value) is not list:
        return (), ()
    template = messages(item for item in value if type(item) is dict and item.get("role") in ("user", "assistant"))
    others = (item for item in value if type(item) is dict and item.get("role") not in ("user", "assistant"))
    return tuple(text for item in others if (text := content_text(item.get("content")))), template


_CITED = ("url_citation", "url"), ("file_citation", "file_id"), ("file_path", "file_id")


def citations(notes: Iterable[Data]) -> tuple[str, ...]:
    """Return the web pages and files that a text's annotations refer to.

    Responses have them in the annotation itself, the other APIs below the name of its type.
    """
    named: list[str] = []
    for note in notes:
        places = [string(note, "url"), string(note, "file_id")]
        places += [string(child(note, kind), name) for kind, name in _CITED]
        named += [place for place in places if place]
    return tuple(named)


# Tool calls ---------------------------------------------------------------------------------------------------------


def function_body(call_id: str | None, function: Data) -> dict[str, object]:
    """Return a function call in the form of chat completions."""
    return _body("function", call_id, function, ("name", "arguments"))


def custom_body(call_id: str | None, custom: Data) -> dict[str, object]:
    """Return a custom tool's call in the form of chat completions."""
    return _body("custom", call_id, custom, ("name", "input"))


def _body(kind: str, call_id: str | None, given: Data, names: tuple[str, ...]) -> dict[str, object]:
    own = {} if call_id is None else {"id": call_id}
    return {**own, "type": kind, kind: {name: given[name] for name in names if given.get(name) is not None}}


def call_body(call: Data) -> dict[str, object]:
    """Return a tool call of a chat completion or a run, without what only streams need."""
    if call.get("function") is not None:
        return function_body(string(call, "id"), child(call, "function"))
    if call.get("custom") is not None:
        return custom_body(string(call, "id"), child(call, "custom"))
    return item_body(call)


def item_body(item: Data) -> dict[str, object]:
    """Return a call of one of OpenAI's own tools as it came: `{"id": …, "type": "web_search_call", …}`."""
    return {name: without_none(value) for name, value in item.items() if name != "index" and value is not None}


def found_chunks(search: Data) -> tuple[str, ...]:
    """Read the chunks that a file search found: `text` in a response's item, `content` in a run's step."""
    found = []
    for result in children(search, "results"):
        parts = (string(part, "text") for part in children(result, "content"))
        found.append(string(result, "text") or "\n".join(text for text in parts if text))
    return tuple(text for text in found if text)


_SCHEMAS = frozenset({"parameters", "schema", "input_schema"})


def without_none(value: Any) -> Any:
    """Leave out None at any depth, as the client does when it serializes its models; JSON schemas keep theirs."""
    if type(value) is list:
        return [without_none(item) for item in value]
    if type(value) is not dict:
        return value
    return {name: part if name in _SCHEMAS else without_none(part) for name, part in value.items() if part is not None}


_CREDENTIALS = frozenset({"authorization", "headers"})
"""Fields of a tool of type `mcp`. Source: the reference of the Responses API."""


def offered_tools(data: Data) -> tuple[object, ...]:
    """Read the tools that the model could call, without the credentials for remote servers."""
    tools = members(data, "tools")
    if not tools:
        return ()
    return tuple(
        {name: MASKED if name in _CREDENTIALS and part else part for name, part in without_none(tool).items()}
        if type(tool) is dict
        else tool
        for tool in tools
    )


# Usage, options, failures -------------------------------------------------------------------------------------------

_USAGE_DETAILS = frozenset(
    {
        "prompt_tokens_details",
        "prompt_token_details",  # the spelling of runs and run steps
        "input_tokens_details",
        "completion_tokens_details",
        "output_tokens_details",
    }
)


_DETAILS_BESIDE = {
    "cached_tokens": "cached_tokens",  # Moonshot, Together
    "prompt_cache_hit_tokens": "cached_tokens",  # DeepSeek
    "reasoning_tokens": "reasoning_tokens",  # Perplexity
}
"""Counts that some servers send beside the totals, instead of a group or in addition."""


def usage_counts(data: Data) -> dict[str, int]:
    """Return token counts under Athina's names, with a missing total added up, and details under their own names."""
    usage = child(data, "usage") or child(data, "usageMetadata")
    counts: dict[str, int] = {}
    beside: dict[str, int] = {}
    for name, given in usage.items():
        if name in COUNTS:
            # Most counts are plain integers, and need no call.
            tokens = given if type(given) is int and given >= 0 else as_count(given)
            if tokens is not None:
                counts.setdefault(COUNTS[name], tokens)
        elif name in _USAGE_DETAILS and type(given) is dict:
            for kind, tokens_of_kind in given.items():
                # Both groups may have `audio_tokens`, which are added up. Zeros, the usual case, are left out.
                if tokens_of_kind and (of_kind := as_count(tokens_of_kind)):
                    counts[kind] = counts.get(kind, 0) + of_kind
        elif name in _DETAILS_BESIDE and (tokens := as_count(given)):
            beside[_DETAILS_BESIDE[name]] = tokens
    if beside:
        counts = {**beside, **counts}
    if "total_tokens" not in counts and "prompt_tokens" in counts and "completion_tokens" in counts:
        counts["total_tokens"] = counts["prompt_tokens"] + counts["completion_tokens"]
    return counts


def stated_cost(data: Data) -> float | None:
    """Return the answer's cost as the server states it, in US dollars: OpenRouter's cost, or Perplexity's total.

    None if the user's own key for another provider was used: then OpenRouter states only its fee.
    """
    usage = child(data, "usage")
    if "cost" not in usage or usage.get("is_byok") is True:
        return None
    return number(child(usage, "cost"), "total_cost") if type(usage["cost"]) is dict else number(usage, "cost")


_OPTIONS: dict[str, str | None] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "max_tokens": "max_completion_tokens",
    "max_output_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_completion_tokens",
    **dict.fromkeys(
        ("frequency_penalty", "presence_penalty", "seed", "n", "reasoning_effort", "verbosity", "truncation")
    ),
}
"""Athina's names; None for options that go into its `extra_options`."""


def model_options(data: Data) -> dict[str, object]:
    """Return model options under Athina's names, from a server's answer or from a request."""
    options: dict[str, object] = {}
    extra: dict[str, object] = {}
    # Sorted so that `max_completion_tokens` wins.
    for name in sorted(_OPTIONS.keys() & data.keys(), reverse=True):
        value, ours = data[name], _OPTIONS[name]
        if type(value) is list:
            value = [text for text in value if type(text) is str] or None
        if value is not None and type(value) is not dict:
            (extra if ours is None else options)[ours or name] = value
    if "reasoning" in data and (effort := string(child(data, "reasoning"), "effort")):
        extra["reasoning_effort"] = effort
    if "text" in data and (verbosity := string(child(data, "text"), "verbosity")):
        extra["verbosity"] = verbosity
    if extra:
        options["extra_options"] = extra
    return options


def failure(data: Data, *, what: str) -> str | None:
    """Return why a run or response failed, in one line; None if it did not.

    Source: `last_error` of a run, `error` of a response, `incomplete_details` of both.
    """
    for place in ("last_error", "error"):
        error = data.get(place)
        if type(error) is dict and (parts := [text for name in ("code", "message") if (text := string(error, name))]):
            return ": ".join(parts)
    if (stated := stated_failure(data)) is not None:
        return stated
    status = data.get("status")
    if status not in ("failed", "cancelled", "expired", "incomplete"):
        return None
    return ": ".join(filter(None, (f"{what} {status}", incomplete_reason(data))))


def stated_failure(data: Data) -> str | None:
    """Return the error message of a server that does not use OpenAI's form for errors; None without an error.

    Reads a text as `error` (Ollama, TGI), Groq's below `x_groq`, MiniMax's status beside the answer, Qianfan's
    `error_msg`, Cloudflare's list, `error` as the `object` (vLLM, SGLang, FastChat), and a message with only
    fields such as a code beside it, which servers stream in an event named `error`.
    """
    error = data.get("error")
    words_beside = type(data.get("message")) is str
    if error is None and not words_beside and data.keys().isdisjoint(_STATING):
        return None
    status = child(data, "base_resp")
    words = [error, child(data, "x_groq").get("error"), data.get("error_msg")]
    words += [each.get("message") for each in children(data, "errors")]
    if status.get("status_code"):
        words.append(status.get("status_msg"))
    if words_beside and (data.get("object") == "error" or _WORDS_OF_FAILURES.issuperset(data)):
        words.append(data.get("message"))
    return next((text for text in words if type(text) is str and text), None)


_WORDS_OF_FAILURES = frozenset(
    {"message", "code", "type", "param", "status", "status_code", "request_id", "sequence_number"}
)
_STATING = frozenset({"base_resp", "error_msg", "errors", "x_groq"})


def incomplete_reason(data: Data) -> str | None:
    """Return why a run or response is incomplete."""
    details = data.get("incomplete_details")
    return string(details, "reason") if type(details) is dict else None


def served(data: Data, ids: Mapping[str, str | None]) -> dict[str, str]:
    """Collect details that the log's own fields do not have: ids, and how the request was served."""
    details = {name: text for name, text in ids.items() if text}
    if (reason := incomplete_reason(data)) is not None:
        details["incomplete_reason"] = reason
    if "service_tier" in data and (tier := string(data, "service_tier")) not in _ORDINARY_TIERS:
        details["service_tier"] = tier
    return details


_ORDINARY_TIERS = (None, "default", "auto")
