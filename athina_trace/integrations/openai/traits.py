"""What runs, responses and chat completions have alike: usage, options, tools, failure, instructions.

Every function takes the object itself and returns nothing rather than raise where it says nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from athina_trace._serialization.secrets import MASKED
from athina_trace.integrations.openai.shape import data, get, items, known_in, string, tame, text_of, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "CREDENTIALS",
    "USAGE_DETAILS",
    "failure",
    "options",
    "system_texts",
    "template_prompt",
    "tools",
    "traits",
    "usage",
]


def failure(subject: object, *, what: str) -> str | None:
    """Return why a run or response failed, as one sentence; None where it did not.

    Source: `last_error` of a run, `error` of a response, `incomplete_details` of both.
    """
    for place in ("last_error", "error"):
        said = [text for name in ("code", "message") if (text := string(subject, place, name))]
        if said:
            return ": ".join(said)
    status = get(subject, "status")
    if status not in ("failed", "cancelled", "expired", "incomplete"):
        return None
    return ": ".join(filter(None, (f"{what} {status}", _reason(subject))))


def _reason(subject: object) -> str | None:
    return string(subject, "incomplete_details", "reason")


def system_texts(instructions: object) -> tuple[str, ...]:
    """Read instructions: a string, or those items of a prompt template that the model is to obey."""
    if isinstance(instructions, str):
        return (instructions,) if instructions else ()
    texts = (text_of(get(item, "content")) for item in items(instructions) if string(item, "role") not in _SPEAKERS)
    return tuple(text for text in texts if text)


def template_prompt(instructions: object) -> tuple[dict[str, str], ...]:
    """Read the items of a prompt template in which user and assistant speak."""
    said = ((string(item, "role"), text_of(get(item, "content"))) for item in items(instructions))
    return tuple({"role": role, "content": text} for role, text in said if role in _SPEAKERS)


_SPEAKERS = ("user", "assistant")


_USAGE = {
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "completion_tokens": ("completion_tokens", "output_tokens"),
    "total_tokens": ("total_tokens",),
}
USAGE_DETAILS = (
    "prompt_tokens_details",
    "prompt_token_details",  # so spelt in runs and run steps
    "input_tokens_details",
    "completion_tokens_details",
    "output_tokens_details",
)


def usage(subject: object) -> dict[str, int]:
    """Read token counts under Athina's names, a missing total summed; details under their own names."""
    sent = get(subject, "usage")
    counts = {ours: next(_counts(sent, names), None) for ours, names in _USAGE.items()}
    known = {name: count for name, count in counts.items() if count is not None}
    if "total_tokens" not in known and len(known) == len(_USAGE) - 1:
        known["total_tokens"] = sum(known.values())
    details: dict[str, int] = {}
    for name, count in _usage_details(sent):
        details[name] = details.get(name, 0) + count  # audio counts once in the prompt and once in the completion
    return {**details, **known}


def _counts(sent: object, names: tuple[str, ...]) -> Iterator[int]:
    return (count for name in names if (count := whole(sent, name)) is not None)


def _usage_details(sent: object) -> Iterator[tuple[str, int]]:
    groups = (data(get(sent, name)) for name in USAGE_DETAILS)
    named = ((name, group) for group in groups if isinstance(group, dict) for name in group)
    return ((name, count) for name, group in named if (count := whole(group, name)) is not None)


def tools(subject: object) -> tuple[object, ...]:
    """Read the tools that the model could call, as plain data, without what a remote server is opened with."""
    return tuple(_without_credentials(known_in(tool)) for tool in items(subject, "tools"))


CREDENTIALS = ("authorization", "headers")
"""Fields of a tool of type `mcp`. Source: OpenAI's reference of the Responses API."""


def _without_credentials(tool: object) -> object:
    if not isinstance(tool, dict) or not any(map(tool.get, CREDENTIALS)):
        return tool
    return {name: MASKED if name in CREDENTIALS else value for name, value in tool.items()}


_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "max_tokens": "max_completion_tokens",
    "max_output_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_completion_tokens",
}
_EXTRA_OPTIONS = (
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "n",
    "reasoning_effort",
    "verbosity",
    "truncation",
)


def options(subject: object) -> dict[str, object]:
    """Read model options under Athina's names, from what a server says it used or a request asked for."""
    known = {_OPTIONS[name]: value for name, value in _found(subject, _OPTIONS)}
    extra: dict[str, object] = dict(_found(subject, _EXTRA_OPTIONS))
    effort = string(subject, "reasoning", "effort")
    if effort is not None:
        extra["reasoning_effort"] = effort
    verbosity = string(subject, "text", "verbosity")
    if verbosity is not None:
        extra["verbosity"] = verbosity
    return {**known, "extra_options": extra} if extra else known


_SCALARS = (str, int, float, bool)


def _found(subject: object, names: Iterable[str]) -> Iterator[tuple[str, object]]:
    look: Callable[[str], object] = subject.get if type(subject) is dict else partial(get, subject)
    return ((name, value) for name in names if (value := _option(look(name))) is not None)


def _option(value: object) -> object:
    if value is None or type(value) in _SCALARS or isinstance(tame(value), str | int | float):
        return value
    return [str(text) for text in items(value) if type(text) is str] or None


def traits(subject: object, **ids: str | None) -> dict[str, str]:
    """Collect what is worth keeping beside the log's own fields: ids, and how the request was served."""
    named = {name: string(subject, name) for name in ("service_tier", "system_fingerprint")}
    known = {**ids, "incomplete_reason": _reason(subject), **named}
    return {name: text for name, text in known.items() if text}
