"""From the records of one log to its fields.

- Tokens are summed over distinct answers, tool calls and tools gathered over all of them.
- `user_query` and `prompt` are those of the first answer that has them: what the whole was asked for.
- `response`, the model and its options are those of the last answer with a text, else of the last one.
- `error` and `status_code` are those of the very last answer: a failure that was recovered from is none.
- A run's text is that of the assistant's messages of that run, and of no other; its question is the user's last one
  before them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from athina_trace._answers.records import RUN, Answer, ThreadMessage, ToolCall
from athina_trace._serialization import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LogRecords", "merge"]

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(slots=True, kw_only=True)
class LogRecords:
    """Everything that is known for one log; answers, messages and calls in their order."""

    answers: list[Answer]
    messages: list[ThreadMessage]
    calls: list[ToolCall]
    outputs: Mapping[str, list[object]]
    """Of each id of a call, one for each call that has it."""
    sessions: Iterable[str]
    documents: Iterable[str] = ()
    """Texts that were retrieved."""


def merge(records: LogRecords) -> dict[str, Any]:
    """Return the fields of one log under Athina's names; what is unknown is absent."""
    answers = records.answers or _implied_run(records)
    if records.messages:
        answers = [_with_messages(answer, records) for answer in answers]
    own = [message for answer in answers for message in _messages_of(answer, records)] if records.messages else []
    fields: dict[str, Any] = {}
    usage: dict[str, int] = {}
    functions: list[object] = []
    tools: list[object] = []
    costs: list[float] = []
    for answer in answers:
        for name, count in answer.usage.items():
            usage[name] = usage.get(name, 0) + count
        functions += answer.functions
        tools += answer.tools
        if answer.cost is not None:
            costs.append(answer.cost)
        if answer.further:
            fields = {**answer.further, **fields}
    if answers:
        fields |= _question_fields(answers)
        fields |= _answer_fields(answers)
    for name in _TOKENS:
        fields[name] = usage.pop(name, None)
    fields["session_id"] = _session(answers, records)
    fields["functions"] = _distinct(functions)
    fields["tools"] = _distinct(tools)
    if costs:
        fields["cost"] = sum(costs)
    found = [*records.documents]
    if records.calls:
        calls = [call for answer in answers for call in records.calls if call.owner == answer.key]
        fields["tool_calls"] = _calls_with_outputs(calls, records.outputs)
        found += [text for call in calls for text in call.context]
    fields["context"] = _distinct(found + [quote for message in own for quote in message.quotes])
    fields["custom_attributes"] = {**_attributes(answers, own), **usage}
    # A count of zero says something, in contrast to an empty text or list. What a model or a tool gave may be base64.
    return {name: shown(value) for name, value in fields.items() if value or value == 0}


def _implied_run(records: LogRecords) -> list[Answer]:
    """Make up the run that was never recorded itself: the newest one that messages or steps belong to."""
    seen = [(m.created or 0, m.run, m.thread) for m in records.messages if m.run and m.role == "assistant"]
    seen += [(c.created or 0, c.owner[1], c.session) for c in records.calls]
    newest = max(seen, key=lambda one: one[0], default=None)
    if newest is None:
        return []
    _, run, thread = newest
    return [Answer(key=(RUN, run), session=thread, details={"run_id": run})]


def _messages_of(answer: Answer, records: LogRecords) -> list[ThreadMessage]:
    if answer.key[0] != RUN:
        return []
    return [each for each in records.messages if each.run == answer.key[1] and each.role == "assistant"]


def _with_messages(answer: Answer, records: LogRecords) -> Answer:
    """Give a run the text, the question and the prompt that the messages of its thread have."""
    if answer.key[0] != RUN:
        return answer
    own = _messages_of(answer, records)
    asked = _questions_before(answer, own, records)
    posted = tuple({"role": "user", "content": message.text or ""} for message in asked)
    added = tuple(each for each in answer.prompt if each not in posted)
    return replace(
        answer,
        text="\n".join(message.text for message in own if message.text),
        query=answer.query or next((message.text for message in reversed(asked) if message.text), None),
        # What its request brought along is in the thread, too, and may have been listed or not.
        prompt=answer.prompt if all(each in answer.prompt for each in posted) else (*posted, *added),
    )


def _questions_before(answer: Answer, own: list[ThreadMessage], records: LogRecords) -> list[ThreadMessage]:
    """Return the user's messages that this run answers: the last ones in its thread before its own.

    While a run is under way its thread takes no messages, so what came before its first words came before it.
    """
    thread = [m for m in records.messages if m.thread == answer.session and m not in own]
    until = own[0].created if own else answer.created
    before = [m for m in thread if until is None or m.created is None or m.created <= until]
    last_other = max((place for place, message in enumerate(before) if message.role != "user"), default=-1)
    # Where the clocks of client and server disagree, the question may seem to come after its answer.
    return before[last_other + 1 :] or [m for m in thread if m.role == "user"][:1]


def _question_fields(answers: list[Answer]) -> dict[str, object]:
    first = None
    for answer in answers:
        if answer.query:
            first = answer
            break
        if first is None and (answer.prompt or answer.system):
            first = answer
    if first is None:
        return {}
    system = [{"role": "system", "content": "\n".join(first.system)}] if first.system else []
    fields: dict[str, object] = {"user_query": first.query, "prompt": [*system, *map(dict, first.prompt)]}
    for answer in answers:
        for message in answer.prompt:
            # What the program's functions gave back in the legacy way, which names no call: the last one is the newest.
            if message["role"] == "function":
                fields["function_call_response"] = message["content"]
    return fields


def _answer_fields(answers: list[Answer]) -> dict[str, object]:
    # Where the last answer has no text, it called tools or failed: the text before it is what the user was shown.
    speaker = last = answers[-1]
    for answer in reversed(answers):
        if answer.text:
            speaker = answer
            break
    named = speaker
    for answer in reversed(answers) if speaker.model is None else ():
        if answer.model:
            named = answer
            break
    return {
        "response": speaker.text,
        "language_model_id": named.model,
        "model_options": dict(named.options),
        "error": last.error,
        "status_code": last.status_code,
    }


def _session(answers: list[Answer], records: LogRecords) -> str | None:
    """Return what names the session: a thread, a conversation, the root of a chain, or a session that was made."""
    for answer in answers:
        if answer.session:
            return answer.session
        session = answer.previous
        if session:
            # A chain is followed as far back as is known; a conversation on the way names the session.
            chain = {each.details.get("response_id", ""): each for each in answers}
            seen: set[str] = set()
            while session in chain and session not in seen:
                seen.add(session)
                session = chain[session].session or chain[session].previous or session
            return session
    made = next(iter(records.sessions), None)
    return made or next((message.thread for message in records.messages if message.thread), None)


def _calls_with_outputs(calls: list[ToolCall], outputs: Mapping[str, list[object]]) -> list[dict[str, object]]:
    """Put calls and their outputs together: of several calls of one id, each has its own."""
    made = Counter(call.key for call in calls)
    # Where there are more outputs than calls, the first ones answered calls before this log.
    waiting = {key: iter(values[max(0, len(values) - made[key]) :]) for key, values in outputs.items()}
    joined: list[dict[str, object]] = []
    for call in calls:
        given = next(waiting.get(call.key, iter(())), None)
        output = given if call.output is None else call.output
        joined.append(dict(call.body) if output is None else {**call.body, "output": output})
    return joined


def _distinct(values: Iterable[object]) -> list[object]:
    kept: list[object] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _attributes(answers: list[Answer], own: list[ThreadMessage]) -> dict[str, object]:
    """Gather ids and details; several values of one name are joined with commas."""
    texts: list[tuple[str, str]] = []
    choices: list[str] = []
    for answer in answers:
        texts += answer.details.items()
        texts += [("citations", name) for name in answer.citations]
        choices += answer.choices
    for message in own:
        texts += [("files", name) for name in message.files]
        texts += [("citations", name) for name in message.citations]
    if len(answers) > 1:
        models = dict.fromkeys(answer.model for answer in answers if answer.model)
        texts += [("models", model) for model in models if len(models) > 1]
    known: dict[str, object] = {}
    for name, text in dict.fromkeys(texts):
        known[name] = f"{known[name]}, {text}" if name in known else text
    if choices:
        # As JSON text: Athina's dashboard shows attributes with scalar values only.
        known["choices"] = json.dumps(choices, ensure_ascii=False)
    if answers and answers[-1].status is not None:
        known["status"] = answers[-1].status
    return known
