"""Reads single events of streams of Anthropic, Cohere, Mistral, Bedrock and the Agents SDK."""

from __future__ import annotations

from typing import Final

from athina_trace._answers.libraries.counts import Data, counts_beside, counts_of
from athina_trace._answers.libraries.parts import content_text
from athina_trace._answers.libraries.pieces import Piece, piece_of
from athina_trace._serialization import text

EVENT_SIGNS: Final = frozenset(
    {"type", "event", "event_type", "metadata", "messageStart", "messageStop"}
    | {"contentBlockStart", "contentBlockDelta", "contentBlockStop"}
)
"""Every event has at least one of these names."""


def read_event(data: Data) -> list[Piece] | None:
    """Read one event of a stream; None for anything else."""
    if EVENT_SIGNS.isdisjoint(data):
        return None
    for maker in (_anthropic, _bedrock, _cohere, _mistral, _agents_sdk):
        piece = maker(data)
        if piece is not None:
            return [piece]
    return None


def _no_words() -> Piece:
    """Return the piece of an event that neither begins nor ends an answer; its reader adds the rest."""
    return Piece(begins=False, ends=False)


def _anthropic(data: Data) -> Piece | None:
    piece = _no_words()
    place = data.get("index")
    match data:
        case {"type": "content_block_delta", "delta": dict(delta)}:
            piece.text = text(delta.get("text"))
            if isinstance(delta.get("partial_json"), str):
                piece.call_parts = [{"index": place, "arguments": delta["partial_json"]}]
        case {"type": "content_block_start", "content_block": {"type": "tool_use", "name": str(name), **block}}:
            piece.call_parts = [{"index": place, "id": block.get("id"), "name": name}]
        case {"type": "message_start", "message": {"role": "assistant", "usage": dict(usage), **message}}:
            piece = piece_of("", {"model": message.get("model")}, ends=False)
            piece.counts = counts_of({"input_tokens": usage.get("input_tokens")})
        case {"type": "message_delta", "usage": dict(usage)}:
            piece.counts = counts_of({"output_tokens": usage.get("output_tokens")})
        case {"type": "message_stop"}:
            piece.ends = True
        # The client's own events repeat the others.
        case {"type": "content_block_start", "content_block": _} | {"type": "text", "text": str(), "snapshot": str()}:
            pass
        case {"type": "content_block_stop" | "input_json" | "ping"}:
            pass
        case _:
            return None
    return piece


def _bedrock(data: Data) -> Piece | None:
    piece = _no_words()
    match data:
        case {"contentBlockDelta": {"delta": dict(delta), **block}}:
            piece.text = text(delta.get("text"))
            if isinstance(delta.get("toolUse"), dict):
                place = block.get("contentBlockIndex")
                piece.call_parts = [{"index": place, "arguments": delta["toolUse"].get("input")}]
        case {"contentBlockStart": {"start": {"toolUse": {"name": name, **call}}, **block}}:
            piece.call_parts = [{"index": block.get("contentBlockIndex"), "id": call.get("toolUseId"), "name": name}]
        case {"messageStart": {"role": _}} if len(data) == 1:
            piece.begins = True
        case {"messageStop": {"stopReason": _}} if len(data) == 1:
            pass  # the token counts follow
        case {"metadata": {"usage": dict(usage)}}:
            piece.counts, piece.ends = counts_of(usage), True
        case {"contentBlockStart": _} | {"contentBlockStop": _} if len(data) == 1:
            pass
        case _:
            return None
    return piece


_SILENT_COHERE: Final = frozenset(
    {"search-queries-generation", "search-results", "citation-generation", "tool-calls-chunk", "tool-calls-generation"}
)
"""Events of Cohere's first API without text, or whose content other events repeat."""


def _cohere(data: Data) -> Piece | None:
    piece = _no_words()
    match data:
        case {"type": "content-delta", "delta": {"message": {"content": {"text": str(words)}}}}:
            piece.text = words
        case {"type": "tool-call-start" | "tool-call-delta", "delta": {"message": {"tool_calls": dict(call)}}}:
            function = call.get("function")
            named = function if isinstance(function, dict) else {}
            piece.call_parts = [{"index": data.get("index"), "id": call.get("id"), **named}]
        case {"type": "message-start"}:
            piece.begins = True
        case {"type": "message-end", "delta": {"usage": dict()} as delta}:
            piece.counts, piece.ends = counts_beside(delta)[0], True
        case {"type": "content-start" | "content-end" | "tool-plan-delta" | "tool-call-end"}:
            pass
        case {"type": "citation-start" | "citation-end"}:
            pass
        case {"event_type": "text-generation", "text": str(words)}:
            piece.text = words
        case {"event_type": "stream-start"}:
            piece.begins = True
        case {"event_type": str(kind)} if kind in _SILENT_COHERE:
            pass
        case _:
            return None
    return piece


_MISTRAL_EVENTS: Final = (
    "conversation.response.",
    "message.output.",
    "tool.execution.",
    "agent.handoff.",
    "function.call.",
)


def _mistral(data: Data) -> Piece | None:
    """Read an event of a conversation."""
    piece = _no_words()
    match data:
        case {"event": "message.output.delta", "data": {"content": content}}:
            piece.text = content_text(content if isinstance(content, list) else [content])
            piece.model = counts_beside(data["data"])[1]
        case {"event": "function.call.delta", "data": {"name": str(name), "arguments": arguments, **call}}:
            own = call.get("tool_call_id")
            piece.call_parts = [{"index": own, "id": own, "name": name, "arguments": arguments}]
        case {"event": "conversation.response.done", "data": {"usage": dict(usage)}}:
            piece.counts, piece.ends = counts_of(usage), True
        case {"event": str(), "data": {"type": str(kind)}} if kind.startswith(_MISTRAL_EVENTS):
            pass
        case _:
            return None
    return piece


def _agents_sdk(data: Data) -> Piece | None:
    """Read an event that repeats OpenAI's own events, which come beside it."""
    match data:
        case {"type": "run_item_stream_event" | "agent_updated_stream_event"}:
            return _no_words()
    return None
