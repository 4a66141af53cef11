"""Answers that are written down as they came over the wire, and read when the engine takes them up.

To read an answer by its shape takes several times as long as to write it down, and the user's call would wait for it.
So the log of a plain answer is put into the outbox unread: the bytes of its request and its answer, with what only
that moment knows. Whoever moves it on from the journal, this process or another one, makes the log of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic_core import to_json

from athina_trace import _guard
from athina_trace._capture.arguments import Options
from athina_trace._capture.assemble import assemble
from athina_trace._capture.draft import LogDraft
from athina_trace._clock import clock
from athina_trace._delivery.entry import Entry, log_entry
from athina_trace._pipeline.wire import to_wire
from athina_trace.context import Scope
from athina_trace.integrations.openai.ledger import Ledger, Told
from athina_trace.integrations.openai.memory import NOTHING, Chain
from athina_trace.integrations.openai.plain_answers import plain_chat, plain_response
from athina_trace.integrations.openai.readings import Answer, Kind
from athina_trace.integrations.openai.requests import Exchange, read_exchange
from athina_trace.integrations.openai.shape import parsed
from athina_trace.integrations.openai.traits import CREDENTIALS

__all__ = ["Known", "entry_of", "read"]

_MOST_BYTES = 65_536
"""Of request and answer together. What is longer is read at once: most of it (an image, a file) is not logged."""
_AUTHORIZATION, _HEADERS = (b'"%b"' % name.encode() for name in CREDENTIALS)
"""Of a request that may name these secrets nothing is written down but what is logged."""
_NO_OPTIONS = Options()


class Known(NamedTuple):
    """What stands in neither request nor answer, in the order in which it is written down.

    Attributes:
        kind: what kind of answer it is.
        session: the session that earlier requests told,
        query: and what the user had asked there.
        response_time: milliseconds.
        fields: those of the `Scope` that the request was made in,
        attributes: and its custom attributes.
        defaults: the settings' own fields.
    """

    kind: Kind
    session: str | None
    query: str | None
    response_time: int
    fields: Mapping[str, Any]
    attributes: Mapping[str, Any]
    defaults: Mapping[str, Any]


def _began(kind: Kind, chain: Chain) -> bytes:
    """How `Known` begins."""
    return to_json((kind, *chain))[1:-1]


_UNCHAINED: Mapping[Kind, bytes] = {kind: _began(kind, NOTHING) for kind in ("response", "chat")}
"""How it begins where earlier requests told nothing."""
_last: tuple[Scope, Mapping[str, Any], bytes] = Scope(), {}, b"{},{},{}"
"""The scope and the defaults that were written down last, and how: they are seldom others the next time. Neither is
ever changed."""


def entry_of(
    response: Any, kind: Kind, chain: Chain, took: int, scope: Scope, defaults: Mapping[str, Any]
) -> Entry | None:
    """The unread entry of an answer; None for one that has to be read at once.

    `response`: httpx's own, read to its end by the client. `took`: milliseconds.
    """
    asked, answered = response.request.content, response.content
    if len(asked) + len(answered) > _MOST_BYTES or not (asked.startswith(b"{") and answered.startswith(b"{")):
        return None  # the client reads other encodings, too, and gives what is no JSON as text
    if _AUTHORIZATION in asked or _HEADERS in asked:
        return None
    # JSON has no line breaks within its strings: those that are there only make it pretty.
    asked, answered = asked.replace(b"\n", b" "), answered.replace(b"\n", b" ")
    began = _UNCHAINED[kind] if chain is NOTHING else _began(kind, chain)
    body = b"[[%b,%d,%b],%b,%b]" % (began, took, _said(scope, defaults), asked, answered)
    return Entry("", "unread", "", clock.time(), body)


def _said(scope: Scope, defaults: Mapping[str, Any]) -> bytes:
    """How `Known` ends."""
    global _last  # noqa: PLW0603 - one tuple, so that no thread finds another one's half
    last = _last
    if last[0] is not scope or last[1] is not defaults:
        _last = last = scope, defaults, to_json((scope.fields, scope.attributes, defaults))[1:-1]
    return last[2]


def read(entry: Entry) -> Entry | None:
    """The log that an unread entry stands for; None where no model answered in it. Never raises."""
    try:
        return _read(entry)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("reading an answer of OpenAI's client")
        return None


def _read(entry: Entry) -> Entry | None:
    told, params, answer = parsed(entry.body)
    known = Known(*told)
    ledger = _ledger(known, params, answer)
    if ledger is None:
        return None
    draft = LogDraft({}, {}, {})
    draft.scope, draft.parent, draft.ledger = Scope(known.fields, known.attributes), None, ledger
    draft.named = {"response_time": known.response_time, "external_reference_id": clock.reference(entry.made)}
    return log_entry(to_wire(assemble(draft, _NO_OPTIONS, known.defaults)), entry.made)


def _ledger(known: Known, params: Any, answer: Any) -> Ledger | None:
    """What request and answer say; None where no model answered."""
    if known.kind == "response":
        fields = plain_response(answer, params, Chain(known.session, known.query))
    else:
        fields = plain_chat(answer, params)
    if fields is not None:
        return Told(fields)
    exchange = Exchange(
        kind=known.kind, order=0, params=params, answer=answer, session=known.session, query=known.query
    )
    readings = read_exchange(exchange) or ()
    ledger = Ledger()
    ledger.take(readings)
    return ledger if any(isinstance(reading, Answer) for reading in readings) else None
