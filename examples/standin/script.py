"""What the assistant of a parcel company says: the same question always gets the same answer.

Three things decide: the last message of the user, what tools have answered since, and which tools are on offer.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from standin.wire import Json

PARCEL = re.compile(r"\b[A-Z]{2}-?\d{4,}\b")
RETURNS_FILE = "returns-policy.md"
RETURNS_FILE_ID = "file-Returns7Policy2Parcels4"


@dataclass(frozen=True)
class Message:
    """One message of the conversation so far; `role` is user, assistant or tool."""

    role: str
    text: str


@dataclass(frozen=True)
class Call:
    """A function that the model wants to be called, with its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Step:
    """What the model does next: call a function, or say something, perhaps after a search in its files."""

    text: str = ""
    call: Call | None = None
    search: str | None = None


@dataclass(frozen=True)
class Offer:
    """The tools that a request lets the model use."""

    functions: frozenset[str] = frozenset()
    file_search: bool = False


def offer(tools: Iterable[Json] | None, choice: object = "auto") -> Offer:
    """Read the `tools` and `tool_choice` of a request, in the form of any of the three APIs."""
    known = [] if choice == "none" else list(tools or [])
    names = [tool.get("function", tool).get("name", "") for tool in known if tool.get("type") == "function"]
    return Offer(frozenset(names), any(tool.get("type") == "file_search" for tool in known))


def next_step(history: Sequence[Message], tools: Offer, *, schema: Json | None = None) -> Step:
    """Decide what the model does next; with a JSON schema, whatever it says has that shape."""
    step = _choose(history, tools)
    if schema is None or step.call:
        return step
    return Step(json.dumps(shaped(schema, step.text), ensure_ascii=False), search=step.search)


def shaped(schema: Json, text: str, *, root: Json | None = None) -> Any:
    """The smallest value that fits a JSON schema, with the answer where the schema wants a string."""
    root = root or schema
    if "$ref" in schema:
        return shaped(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], text, root=root)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return shaped(schema["anyOf"][0], text, root=root)
    if schema.get("type") == "object":
        return {name: shaped(part, text, root=root) for name, part in schema.get("properties", {}).items()}
    return {"string": text, "integer": 1, "number": 0.9, "boolean": True, "array": []}.get(schema.get("type", ""))


def _choose(history: Sequence[Message], tools: Offer) -> Step:
    question, outputs = _last_question(history)
    if outputs:
        return Step(_tracked(outputs[-1]))
    if transfer := _colleague(question, tools):
        return Step(call=Call(transfer, "{}"))
    parcel = PARCEL.search(question)
    if parcel and "track_parcel" in tools.functions:
        return Step(call=Call("track_parcel", json.dumps({"parcel_id": parcel[0]})))
    if _is_on_returns(question):
        return Step(_on_returns(history), search=question if tools.file_search else None)
    return Step(_small_talk(question))


def _colleague(question: str, tools: Offer) -> str | None:
    """The function that hands the conversation over to the agent for it, as the Agents SDK names such."""
    subject = "returns" if _is_on_returns(question) else "tracking" if PARCEL.search(question) else None
    return next((name for name in tools.functions if name == f"transfer_to_{subject}"), None)


def _is_on_returns(question: str) -> bool:
    return _mentions(question, "return", "refund", "send it back", "don't want")


def _last_question(history: Sequence[Message]) -> tuple[str, list[str]]:
    """The last message of the user, and what tools have answered since; that a colleague took over is no answer."""
    history = [each for each in history if not (each.role == "tool" and each.text.startswith('{"assistant"'))]
    for number in range(len(history) - 1, -1, -1):
        if history[number].role == "user":
            return history[number].text, [each.text for each in history[number + 1 :] if each.role == "tool"]
    return "", [each.text for each in history if each.role == "tool"]


def _tracked(output: str) -> str:
    try:
        found = json.loads(output)
        return "Parcel {parcel_id} is {status}, last seen at {place}. It should reach you {expected}.".format(**found)
    except (ValueError, TypeError, LookupError):
        return f"Here is what our tracking says: {output}"


def _on_returns(history: Sequence[Message]) -> str:
    parcels = [found[0] for each in history if (found := PARCEL.search(each.text))]
    which = f"parcel {parcels[-1]}" if parcels else "your parcel"
    return (
        f"Yes, you can send {which} back free of charge within 30 days of delivery. "
        "Print the label in the app, or ask for one at any counter; the refund takes up to five working days."
    )


def _small_talk(question: str) -> str:
    if _mentions(question, "neighbour", "neighbor"):
        return "Of course: choose “Leave with a neighbour” in the app before noon, and we ring next door."
    if _mentions(question, "thank"):
        return "You are welcome. Have a good day!"
    return f"I am happy to help with that. You wrote: “{question}” Could you give me the number of your parcel?"


def _mentions(question: str, *words: str) -> bool:
    return any(word in question.lower() for word in words)
