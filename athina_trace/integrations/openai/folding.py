"""From the records of one log to its fields, purely.

- Tokens are summed over distinct answers, tool calls and tools gathered over all of them.
- `user_query` and `prompt` are those of the first answer that has them: what the whole was asked for.
- `response`, the model and its options are those of the last answer with a text, else of the last one.
- `error` and `status_code` are those of the very last answer: a failure that was recovered from is none.
- A run's text is what the assistant's messages of that run say, and those of no other; its question is what
  the user said last before them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from athina_trace.integrations.openai.readings import Answer, Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Records", "fields_of"]

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(frozen=True, kw_only=True)
class Records:
    """Everything that is known for one log; answers, messages and calls in their order."""

    answers: tuple[Answer, ...]
    messages: tuple[Message, ...]
    calls: tuple[ToolCall, ...]
    outputs: Mapping[str, tuple[object, ...]]
    """Of each id of a call, one for each call that has it."""
    sessions: tuple[str, ...]


def fields_of(records: Records) -> dict[str, Any]:
    """Return the fields under Athina's names; what is unknown is absent."""
    answers = tuple(_with_messages(answer, records) for answer in records.answers or _implied(records))
    calls = tuple(call for answer in answers for call in records.calls if call.owner == answer.key)
    own = tuple(message for answer in answers for message in _own(answer, records))
    fields = {
        **_asked(answers),
        **_said(answers),
        **_tokens(answers),
        "session_id": next(_sessions(answers, records), None),
        "tool_calls": list(_joined(calls, records.outputs)),
        "functions": _distinct(function for answer in answers for function in answer.functions),
        "function_call_response": _last_told_by_a_function(answers),
        "tools": _distinct(tool for answer in answers for tool in answer.tools),
        "context": _distinct((*(text for call in calls for text in call.context), *(q for m in own for q in m.quotes))),
        "custom_attributes": _attributes(answers, own),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def _implied(records: Records) -> tuple[Answer, ...]:
    """Make up the run that was never recorded itself: the newest one that messages or steps belong to."""
    seen = [(m.created or 0, m.run, m.thread) for m in records.messages if m.run and m.role == "assistant"]
    seen += [(c.created or 0, c.owner[1], c.session) for c in records.calls]
    newest = max(seen, key=lambda one: one[0], default=None)
    if newest is None:
        return ()
    _, run, thread = newest
    return (Answer(key=("run", run), session=thread, details={"run_id": run}),)


def _with_messages(answer: Answer, records: Records) -> Answer:
    """Give a run the text, the question and the prompt that its thread's messages tell."""
    if answer.key[0] != "run":
        return answer
    own = _own(answer, records)
    asked = _question(answer, own, records)
    told = tuple({"role": "user", "content": message.text or ""} for message in asked)
    added = tuple(said for said in answer.prompt if said not in told)
    return replace(
        answer,
        text="\n".join(message.text for message in own if message.text),
        query=answer.query or next((message.text for message in reversed(asked) if message.text), None),
        # What its request brought along stands in the thread, too, and may have been listed or not.
        prompt=answer.prompt if all(said in answer.prompt for said in told) else (*told, *added),
    )


def _own(answer: Answer, records: Records) -> list[Message]:
    return [m for m in records.messages if ("run", m.run) == answer.key and m.role == "assistant"]


def _question(answer: Answer, own: list[Message], records: Records) -> list[Message]:
    """Return the user's messages that this run answers: the last ones in its thread before it spoke.

    While a run is under way its thread takes no messages, so what came before its first words came before it.
    """
    thread = [m for m in records.messages if m.thread == answer.session and m not in own]
    until = own[0].created if own else answer.created
    before = [m for m in thread if until is None or m.created is None or m.created <= until]
    asked = list(_last_said_by_user(before))
    return asked or [m for m in thread if m.role == "user"][:1]


def _last_said_by_user(messages: list[Message]) -> Iterable[Message]:
    last = max((place for place, message in enumerate(messages) if message.role != "user"), default=-1)
    return messages[last + 1 :]


def _asked(answers: tuple[Answer, ...]) -> dict[str, object]:
    first = next((answer for answer in answers if answer.query), None)
    first = first or next((answer for answer in answers if answer.prompt or answer.system), None)
    if first is None:
        return {}
    system = [{"role": "system", "content": "\n".join(first.system)}] if first.system else []
    return {"user_query": first.query, "prompt": [*system, *map(dict, first.prompt)]}


def _said(answers: tuple[Answer, ...]) -> dict[str, object]:
    if not answers:
        return {}
    last = answers[-1]
    speaker = _last(answers, lambda answer: answer.text) or last
    named = speaker if speaker.model else _last(answers, lambda answer: answer.model) or last
    return {
        "response": speaker.text,
        "language_model_id": named.model,
        "model_options": dict(named.options),
        "error": last.error,
        "status_code": last.status_code,
    }


def _last(answers: tuple[Answer, ...], says: Callable[[Answer], object]) -> Answer | None:
    return next((answer for answer in reversed(answers) if says(answer)), None)


def _tokens(answers: tuple[Answer, ...]) -> dict[str, int]:
    return _summed(answers, lambda name: name in _TOKENS)


def _summed(answers: tuple[Answer, ...], wanted: Callable[[str], bool]) -> dict[str, int]:
    names = dict.fromkeys(name for answer in answers for name in answer.usage if wanted(name))
    return {name: sum(answer.usage.get(name, 0) for answer in answers) for name in names}


def _sessions(answers: tuple[Answer, ...], records: Records) -> Iterator[str]:
    """Yield what could name the session: threads, conversations, roots of chains, scopes that were made."""
    chain = {answer.details.get("response_id", ""): answer for answer in answers}
    for answer in answers:
        session = answer.session or _root(answer, chain)
        if session:
            yield session
    yield from records.sessions
    yield from (message.thread for message in records.messages if message.thread)


def _root(answer: Answer, chain: Mapping[str, Answer]) -> str | None:
    """Follow `previous_response_id` as far back as is known; a conversation on the way names the session."""
    root, seen = answer.previous, set[str]()
    while root is not None and root in chain and root not in seen:
        seen.add(root)
        earlier = chain[root]
        root = earlier.session or earlier.previous or root
    return root


def _joined(calls: tuple[ToolCall, ...], outputs: Mapping[str, tuple[object, ...]]) -> Iterator[dict[str, object]]:
    """Put calls and their outputs together: of several calls of one id, each has its own.

    Where there are more outputs than calls, the first ones answered calls before this log.
    """
    made = Counter(call.key for call in calls)
    waiting = {key: iter(values[max(0, len(values) - made[key]) :]) for key, values in outputs.items()}
    for call in calls:
        given = next(waiting.get(call.key, iter(())), None)
        output = given if call.output is None else call.output
        yield dict(call.body) if output is None else {**call.body, "output": output}


def _last_told_by_a_function(answers: tuple[Answer, ...]) -> str | None:
    """Return what the program's function gave back, in the legacy way, which names no call."""
    told = (
        said["content"]
        for answer in reversed(answers)
        for said in reversed(answer.prompt)
        if said["role"] == "function"
    )
    return next(told, None)


def _distinct(values: Iterable[object]) -> list[object]:
    kept: list[object] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _attributes(answers: tuple[Answer, ...], own: tuple[Message, ...]) -> dict[str, object]:
    """Gather ids and details; several values of one name are joined with commas, counts are summed."""
    models = dict.fromkeys(answer.model for answer in answers if answer.model)
    texts = [pair for answer in answers for pair in answer.details.items()]
    texts += [("files", name) for message in own for name in message.files]
    texts += [("citations", name) for answer in answers for name in answer.citations]
    texts += [("citations", name) for message in own for name in message.citations]
    texts += [("models", model) for model in models if len(models) > 1]
    joined = {name: ", ".join(dict.fromkeys(t for n, t in texts if n == name)) for name, _ in texts}
    status = answers[-1].status if answers else None
    known = {**joined, **_summed(answers, lambda name: name not in _TOKENS)}
    return known if status is None else {**known, "status": status}
