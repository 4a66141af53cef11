"""Sample conversations, to look at the viewer with: an outbox of a parcel company's assistants, three days of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from athina_trace._delivery import maintenance
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._pipeline.wire import to_wire

SESSIONS = 64
_SPAN = 3 * 86_400
_TALKS = Path(__file__).parent / "sample.json"
_CUSTOMERS = ("disney-usa-2314832", "nordwind-gmbh", "hanoi-ceramics", "casa-verde", "acme-books", "atlas-cycles")
_USERS = ("michaelmouse@gmail.com", "lena@nordwind.example", "minh@ceramics.example", "ana@verde.example")
_MODELS = ("gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "claude-sonnet-4")
_REFUSAL = "user_query: Expected string, received null"


class _Talk(NamedTuple):
    slug: str
    system: str
    turns: list[dict[str, Any]]


def fill(path: str, *, now: float | None = None, seed: int = 7) -> int:
    """Put the sample into the outbox at `path`, in place of whatever it held; how many logs that are."""
    moment = time.time() if now is None else now
    outbox = SqliteOutbox(path)
    try:
        outbox.collect()
        for state in ("waiting", "refused", "delivered"):
            maintenance.purge(path, state, before=float("inf"))
        outbox.store.count("delivered", -outbox.counts().delivered)
        entries = sorted(_entries(random.Random(seed), moment), key=lambda entry: entry.made)  # noqa: S311 - a sample
        for entry in entries:
            outbox.put(entry)
        while outbox.collect():
            pass
        _settle(outbox, moment)
    finally:
        outbox.close()
    return sum(entry.kind == "log" for entry in entries)


def _entries(chance: random.Random, now: float) -> Iterator[Entry]:
    talks = [_Talk(**talk) for talk in json.loads(_TALKS.read_text(encoding="utf-8"))]
    for number in range(SESSIONS):
        began = now - 60 - _SPAN * (SESSIONS - 1 - number) / SESSIONS - chance.uniform(0, 1800)
        talk = talks[(SESSIONS - 1 - number) % len(talks)]
        yield from _conversation(chance, talk, number, began)


def _conversation(chance: random.Random, talk: _Talk, number: int, began: float) -> Iterator[Entry]:
    parcel = "PX-48213" if number == SESSIONS - 1 else f"PX-{chance.randrange(10_000, 99_999)}"
    name, who = (
        f"thread_{chance.getrandbits(80):020x}",
        chance.randrange(len(_CUSTOMERS)) if number < SESSIONS - 1 else 0,
    )
    common = {
        "session_id": name,
        "customer_id": _CUSTOMERS[who],
        "customer_user_id": _USERS[who % len(_USERS)],
        "environment": "staging" if number % 9 == 0 else "production",
        "prompt_slug": talk.slug,
        "language_model_id": _MODELS[min(chance.randrange(6), 3) if number % 3 else 0],
    }
    for place, turn in enumerate(talk.turns):
        began += chance.uniform(6, 50)
        fields = {
            **common,
            **_fields(chance, talk, _with(turn, parcel)),
            "external_reference_id": f"sample-{number:03d}-{place}",
        }
        feedback = fields.pop("feedback", None)
        yield _entry("log", fields, name, began)
        if feedback:
            told = {**feedback, "external_reference_id": fields["external_reference_id"]}
            yield _entry("feedback", told, name, began + 5)


def _with(turn: dict[str, Any], parcel: str) -> dict[str, Any]:
    """The same turn about another parcel."""
    made: dict[str, Any] = json.loads(json.dumps(turn).replace("PX-00000", parcel))
    return made


def _fields(chance: random.Random, talk: _Talk, turn: dict[str, Any]) -> dict[str, Any]:
    asked = round(len(json.dumps(turn)) / 4 + len(talk.system) / 4 + chance.uniform(40, 400))
    answered = round(len(turn.get("response", "")) / 4 + 8)
    slow = chance.lognormvariate(0, 0.5)
    return {
        "response": "",
        **turn,
        "prompt": [{"role": "system", "content": talk.system}, {"role": "user", "content": turn["user_query"]}],
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "cost": round((asked * 0.4 + answered * 1.6) / 1e6, 6),
        "response_time": round((500 + 9 * answered) * slow),
        "custom_attributes": {"function": "support.answer", "time_to_first_chunk_ms": round(180 * slow)},
    }


def _entry(kind: Any, fields: dict[str, Any], ordering_key: str, made: float) -> Entry:
    body = json.dumps(to_wire(fields) if kind == "log" else fields, ensure_ascii=False).encode()
    return Entry(ordering_key, kind, fields["external_reference_id"], made, body)


def _settle(outbox: SqliteOutbox, now: float) -> None:
    """Most were delivered, a few refused, the newest wait."""
    with outbox.transaction():
        for lease in outbox.lease(now, keys=SESSIONS - 3, batch=100):
            for entry in lease.entries:
                if entry.reference in ("sample-031-0", "sample-046-0", "sample-057-0"):
                    outbox.refused(entry, now, status=400, reason=_REFUSAL)
                else:
                    outbox.delivered(entry, now, keep=True, prompt_run_id=f"run-{entry.id}")
            outbox.release(lease.ordering_key)
