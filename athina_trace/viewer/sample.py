"""Sample conversations for the demo: three days of a parcel company's assistants."""

from __future__ import annotations

import base64
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
_SEED = 7
"""The same conversations each time."""
_SPAN = 3 * 86_400
_SCRIPTS = Path(__file__).parent / "sample.json"
_PICTURE = Path(__file__).parent / "sample.jpg"
_CUSTOMERS = ("disney-usa-2314832", "nordwind-gmbh", "hanoi-ceramics", "casa-verde", "acme-books", "atlas-cycles")
_USERS = ("michaelmouse@gmail.com", "lena@nordwind.example", "minh@ceramics.example", "ana@verde.example")
_MODELS = ("gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "claude-sonnet-4")
_REFUSED = ("sample-031-0", "sample-046-0", "sample-057-0")
_REASON = "user_query: Expected string, received null"


class _Script(NamedTuple):
    """A kind of conversation in `sample.json`."""

    slug: str
    system: str
    turns: list[dict[str, Any]]


def fill(path: str) -> int:
    """Replace the content of the outbox at `path` with the sample; return the number of its logs."""
    now = time.time()
    outbox = SqliteOutbox(path)
    try:
        # Collect first, since entries in the journal cannot be purged.
        outbox.collect_all()
        for state in ("waiting", "refused", "delivered"):
            maintenance.purge(path, state, before=float("inf"))
        outbox.store.count("delivered", -outbox.counts().delivered)
        entries = sorted(_entries(random.Random(_SEED), now), key=lambda entry: entry.made)  # noqa: S311 - a sample
        for entry in entries:
            outbox.put(entry)
        outbox.collect_all()
        # Most are delivered, a few refused, and the newest conversations wait.
        with outbox.transaction():
            for lease in outbox.lease(now, keys=SESSIONS - 3, batch=100):
                for stored in lease.entries:
                    if stored.reference in _REFUSED:
                        outbox.refused(stored, now, status=400, reason=_REASON)
                    else:
                        outbox.delivered(stored, now, keep=True, prompt_run_id=f"run-{stored.id}")
                outbox.release(lease.ordering_key)
    finally:
        outbox.close()
    return sum(entry.kind == "log" for entry in entries)


def _entries(chance: random.Random, now: float) -> Iterator[Entry]:
    # The last script is a long conversation with everything in it, and is used once.
    *scripts, long = [_Script(**script) for script in json.loads(_SCRIPTS.read_text(encoding="utf-8"))]
    for number in range(SESSIONS):
        began = now - 60 - _SPAN * (SESSIONS - 1 - number) / SESSIONS - chance.uniform(0, 1800)
        script = long if number == SESSIONS - 2 else scripts[(SESSIONS - 1 - number) % len(scripts)]
        yield from _conversation(chance, script, number, began)


def _conversation(chance: random.Random, script: _Script, number: int, began: float) -> Iterator[Entry]:
    # The newest conversation is always the same, for pictures and tests.
    is_newest = number == SESSIONS - 1
    parcel = "PX-48213" if is_newest else f"PX-{chance.randrange(10_000, 99_999)}"
    customer = 0 if is_newest else chance.randrange(len(_CUSTOMERS))
    shared = {
        "session_id": f"thread_{chance.getrandbits(80):020x}",
        "customer_id": _CUSTOMERS[customer],
        "customer_user_id": _USERS[customer % len(_USERS)],
        "environment": "staging" if number % 9 == 0 else "production",
        "prompt_slug": script.slug,
    }
    model = _MODELS[min(chance.randrange(6), 3) if number % 3 else 0]
    for place, template in enumerate(script.turns):
        began += chance.uniform(6, 50)
        turn = json.loads(json.dumps(template).replace("PX-00000", parcel))
        feedback, steps = turn.pop("feedback", None), turn.pop("steps", [])
        reference = f"sample-{number:03d}-{place}"
        fields = {"language_model_id": model, **_answered(chance, turn, script.system, steps)}
        for each, parent, body in [*_steps(steps, reference), (reference, None, fields)]:
            attributes = {**body["custom_attributes"], **({"parent_reference": parent} if parent else {})}
            whole = {**shared, **body, "custom_attributes": attributes, "external_reference_id": each}
            yield Entry(shared["session_id"], "log", each, began, _json(to_wire(whole)))
        if feedback:
            body = {**feedback, "external_reference_id": reference}
            yield Entry(shared["session_id"], "feedback", reference, began + 5, _json(body))


def _answered(chance: random.Random, turn: dict[str, Any], system: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a turn: question, answer, and realistic tokens and costs."""
    content: Any = turn["user_query"]
    if turn.pop("picture", False):
        url = f"data:image/jpeg;base64,{base64.b64encode(_PICTURE.read_bytes()).decode()}"
        content = [{"type": "text", "text": content}, {"type": "image_url", "image_url": {"url": url}}]
    prompt_tokens = round(len(json.dumps(turn)) / 4 + len(system) / 4 + chance.uniform(40, 400))
    completion_tokens = round(len(turn.get("response", "")) / 4 + 8)
    slowness = chance.lognormvariate(0, 0.5)
    spent = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "cost": round((prompt_tokens * 0.4 + completion_tokens * 1.6) / 1e6, 6),
    }
    own_time = round((500 + 9 * completion_tokens) * slowness)
    return {
        "response": "",
        **turn,
        "prompt": [{"role": "system", "content": system}, {"role": "user", "content": content}],
        # If steps call the models, the tokens are theirs.
        **({} if steps else spent),
        "response_time": own_time + sum(step["response_time"] for step in steps),
        "custom_attributes": {"function": "support.answer", "time_to_first_chunk_ms": round(180 * slowness)},
    }


def _steps(steps: list[dict[str, Any]], parent: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the reference, the parent and the fields of each step, inner ones first, as calls end."""
    for place, step in enumerate(steps):
        reference = f"{parent}.{place}"
        yield from _steps(step.pop("steps", []), reference)
        function = step.pop("function")
        yield (
            reference,
            parent,
            {
                "language_model_id": "unknown",
                "prompt": step["user_query"],
                **step,
                "custom_attributes": {"function": function},
            },
        )


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()
