"""Merges the records of one log into its fields.

- Tokens are summed over all distinct answers; tool calls and tools are collected from all of them.
- `user_query` and `prompt` come from the first answer that has them: they are what the whole call was asked.
- `response`, the model and its options come from the last answer with a text, else from the last one.
- `error` and `status_code` come from the very last answer: a failure that was recovered from does not count.
- A run's text is that of its own assistant messages; its question is the user's last one before them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from athina_trace._answers.records import RUN, Answer, ThreadMessage, ToolCall
from athina_trace._serialization import without_blobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["merge"]

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


_NONE: Mapping[str, list[object]] = {}


def merge(
    answers: Sequence[Answer],
    *,
    messages: Sequence[ThreadMessage] = (),
    calls: Sequence[ToolCall] = (),
    outputs: Mapping[str, list[object]] = _NONE,
    sessions: Iterable[str] = (),
    documents: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the fields of one log under Athina's names, without unknown ones.

    Args:
        answers: the log's answers; like messages and calls, in order.
        messages: the messages of the threads in which answers were given.
        calls: the tool calls.
        outputs: the tools' outputs by call id, one for each call that has this id.
        sessions: threads and conversations that were seen.
        documents: retrieved texts.
    """
    answers = answers or _implied_run(messages, calls)
    own: list[ThreadMessage] = []
    if messages:
        answers = [_with_messages(answer, messages) for answer in answers]
        own = [message for answer in answers for message in _messages_of(answer, messages)]
    fields, usage = _gathered(answers), _usage(answers)
    for name in _TOKENS:
        if name in usage:
            fields[name] = usage.pop(name)
    if answers:
        _add_question(fields, answers)
        _add_answer(fields, answers)
    if session := _session(answers, messages, sessions):
        fields["session_id"] = session
    if calls or documents or own:
        made = [call for answer in answers for call in calls if call.owner == answer.key]
        _add_found(fields, made, outputs, [*documents], own)
    if attributes := {**_attributes(answers, own), **usage}:
        fields["custom_attributes"] = attributes
    return fields


def _usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Sum the tokens of all answers by kind."""
    usage: dict[str, int] = {}
    for answer in answers:
        if usage:
            for name, count in answer.usage.items():
                usage[name] = usage.get(name, 0) + count
        else:
            usage = {**answer.usage}
    return usage


def _gathered(answers: Sequence[Answer]) -> dict[str, Any]:
    """Collect the fields to which every answer may add."""
    fields: dict[str, Any] = {}
    functions: list[object] = []
    tools: list[object] = []
    for answer in answers:
        functions += answer.functions
        tools += answer.tools
        if answer.cost is not None:
            fields["cost"] = fields.get("cost", 0) + answer.cost
        for name, value in answer.further.items():
            if value and name not in fields:
                fields[name] = without_blobs(value)
    if functions:
        fields["functions"] = without_blobs(_distinct(functions))
    if tools:
        fields["tools"] = without_blobs(_distinct(tools))
    return fields


def _add_found(
    fields: dict[str, Any],
    calls: list[ToolCall],
    outputs: Mapping[str, list[object]],
    context: list[str],
    own: list[ThreadMessage],
) -> None:
    """Add the tool calls with their outputs, and retrieved texts."""
    if calls:
        fields["tool_calls"] = without_blobs(_calls_with_outputs(calls, outputs))
    for call in calls:
        context += call.context
    for message in own:
        context += message.quotes
    if context:
        fields["context"] = without_blobs(_distinct(context))


def _implied_run(messages: Iterable[ThreadMessage], calls: Iterable[ToolCall]) -> list[Answer]:
    """Derive a run that was never recorded itself: the newest one to which messages or steps belong."""
    seen = [(m.created or 0, m.run, m.thread) for m in messages if m.run and m.role == "assistant"]
    seen += [(c.created or 0, c.owner[1], c.session) for c in calls]
    newest = max(seen, key=lambda one: one[0], default=None)
    if newest is None:
        return []
    _, run, thread = newest
    return [Answer(key=(RUN, run), session=thread, details={"run_id": run})]


def _messages_of(answer: Answer, messages: Iterable[ThreadMessage]) -> list[ThreadMessage]:
    if answer.key[0] != RUN:
        return []
    return [each for each in messages if each.run == answer.key[1] and each.role == "assistant"]


def _with_messages(answer: Answer, messages: Sequence[ThreadMessage]) -> Answer:
    """Give a run its text, question and prompt from the messages of its thread."""
    if answer.key[0] != RUN:
        return answer
    own = _messages_of(answer, messages)
    asked = _questions_before(answer, own, messages)
    posted = tuple({"role": "user", "content": message.text or ""} for message in asked)
    added = tuple(each for each in answer.prompt if each not in posted)
    return replace(
        answer,
        text="\n".join(message.text for message in own if message.text),
        query=answer.query or next((message.text for message in reversed(asked) if message.text), None),
        # Messages of its request are also in the thread, and may have been listed or not.
        prompt=answer.prompt if all(each in answer.prompt for each in posted) else (*posted, *added),
    )


def _questions_before(
    answer: Answer, own: list[ThreadMessage], messages: Iterable[ThreadMessage]
) -> list[ThreadMessage]:
    """Return the user's messages that this run answers: the last ones in its thread before the run's own messages.

    While a run is active its thread accepts no messages, so those before the run's first message came before the run.
    """
    thread = [m for m in messages if m.thread == answer.session and m not in own]
    until = own[0].created if own else answer.created
    before = [m for m in thread if until is None or m.created is None or m.created <= until]
    last_other = max((place for place, message in enumerate(before) if message.role != "user"), default=-1)
    # If the clocks of client and server disagree, a question may seem to come after its answer.
    return before[last_other + 1 :] or [m for m in thread if m.role == "user"][:1]


def _add_question(fields: dict[str, Any], answers: Sequence[Answer]) -> None:
    """Add the question and the prompt. Texts of users, models and tools may contain base64."""
    asked = [each for each in answers if each.query] or [each for each in answers if each.prompt or each.system]
    if not asked:
        return
    first = asked[0]
    if first.query:
        fields["user_query"] = without_blobs(first.query)
    prompt = [{**message, "content": without_blobs(message["content"])} for message in first.prompt]
    if first.system:
        prompt.insert(0, {"role": "system", "content": without_blobs("\n".join(first.system))})
    if prompt:
        fields["prompt"] = prompt
    for answer in answers:
        for message in answer.prompt:
            # Function outputs in the legacy form, which names no call: the last one is the newest.
            if message["role"] == "function":
                fields["function_call_response"] = without_blobs(message["content"])


def _add_answer(fields: dict[str, Any], answers: Sequence[Answer]) -> None:
    """Add the response, its model and options, and the last error."""
    # If the last answer has no text, it called tools or failed: the user saw the text before it.
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
    if speaker.text:
        fields["response"] = without_blobs(speaker.text)
    if named.model:
        fields["language_model_id"] = named.model
    if named.options:
        fields["model_options"] = {**named.options}
    if last.error:
        fields["error"] = without_blobs(last.error)
    if last.status_code is not None:
        fields["status_code"] = last.status_code


def _session(answers: Sequence[Answer], messages: Sequence[ThreadMessage], sessions: Iterable[str]) -> str | None:
    """Return the session: a thread, a conversation, the root of a chain of responses, or one that was merely seen."""
    for answer in answers:
        if answer.session:
            return answer.session
        session = answer.previous
        if session:
            # The chain is followed back as far as it is known; a conversation on the way is the session.
            chain = {each.details.get("response_id", ""): each for each in answers}
            seen: set[str] = set()
            while session in chain and session not in seen:
                seen.add(session)
                session = chain[session].session or chain[session].previous or session
            return session
    made = next(iter(sessions), None)
    if made or not messages:
        return made
    return next((message.thread for message in messages if message.thread), None)


def _calls_with_outputs(calls: list[ToolCall], outputs: Mapping[str, list[object]]) -> list[dict[str, object]]:
    """Join calls and their outputs; if several calls have the same id, each gets its own output."""
    made = Counter(call.key for call in calls)
    # If there are more outputs than calls, the first ones belong to calls before this log.
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


def _attributes(answers: Sequence[Answer], own: list[ThreadMessage]) -> dict[str, object]:
    """Collect ids and details; several values of one name are joined with commas."""
    texts: list[tuple[str, str]] = []
    choices: list[str] = []
    for answer in answers:
        texts += answer.details.items()
        if answer.citations:
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
        known["choices"] = json.dumps(without_blobs(choices), ensure_ascii=False)
    if answers and answers[-1].status is not None:
        known["status"] = answers[-1].status
    return known
