"""Reads models' answers, whole or in chunks, by the shape of their plain data."""

from __future__ import annotations

from typing import Any, Final

from athina_trace._answers.libraries.counts import BESIDE, COUNTS, MODELS, USAGES, Data, counts_beside, counts_of
from athina_trace._answers.libraries.events import EVENT_SIGNS, read_event
from athina_trace._answers.libraries.parts import (
    LANGCHAIN_ROLES,
    content_text,
    dicts,
    is_langchain,
    is_pydantic_ai,
    part_calls,
    parts_of,
)
from athina_trace._answers.libraries.pieces import Piece, fields_of, id_of, piece_of
from athina_trace._serialization import text

_WORDS: Final = (
    *("content", "text", "output_text", "outputText", "final_output", "output", "response", "answer", "result"),
    *("message", "raw", "generated_text", "generation", "completion", "results", "outputs", "parts"),
)
"""Where an answer with token counts may have its text, the most certain place first."""
_DEEPEST: Final = 4

# A chain returns its input (`_ASKED`) beside its output.
_ASKED: Final = frozenset({"input", "query", "question", "chat_history"})
_ANSWERED: Final = ("output", "answer", "result", "output_text", "text")
_DOCUMENTS: Final = ("source_documents", "context", "documents")

_STEPS: Final = ("intermediate_steps", "generated_question", "history", "agent_scratchpad", "metadata")
_TECHNICAL: Final = frozenset(
    {*USAGES, *BESIDE, *MODELS, *_WORDS, "tool_calls", "toolCalls", "id", "object", "type", "role", "provider"}
    | {"finish_reason", "finishReason", "stop_reason", "stopReason", "completionReason", "status", "state"}
    | {"created_at", "steps", "timing", "tasks_output", "pydantic", "json_dict", "reasoning", "warnings"}
)
"""Fields beside an answer's text that add nothing to it."""

_COUNT_SIGNS: Final = frozenset((*USAGES, *BESIDE, *COUNTS))
_MESSAGE_SIGNS: Final = frozenset(
    {"role", "candidates", "message", "output", "response", "text", "chat_message", "source", "content", "delta"}
    | {"replies", "answers", "_role", "function_call"}
)
_SIGNS: Final = (
    _ASKED
    | _COUNT_SIGNS
    | _MESSAGE_SIGNS
    | EVENT_SIGNS
    | {"messages", "kind", "event_kind", "generations", "final_output", "_state", "_lm_usage"}
    | {"interrupts", "triggers", "next"}
)
"""Every form that is read here has at least one of these names."""


def answer_of(data: Any) -> Data | None:
    """Return the fields of a log that an answer gives; None for any other shape."""
    pieces = read(data)
    return None if pieces is None else fields_of(pieces)


def read(data: Any) -> list[Piece] | None:  # noqa: PLR0911 - one case for each form
    """Return the pieces of an answer, or of a chunk of one; None for any other shape."""
    if isinstance(data, list):
        match data:  # LangGraph's streams: messages with their metadata, several modes, and subgraphs
            case [message, {"langgraph_node": _}]:
                return read(message) or []
            case [str(mode), given] if mode in _MODES:
                return _of_mode(mode, given)
            case [[*within], given] if all(isinstance(each, str) for each in within):
                return read(given)
            case [[*within], str(mode), given] if mode in _MODES and all(isinstance(each, str) for each in within):
                return _of_mode(mode, given)
        return None
    if not isinstance(data, dict):
        return None
    # Most results of functions are none of these, and are not looked at further.
    if _SIGNS.isdisjoint(data):
        return _nodes(data)
    for form in (
        _langchain,
        _langgraph,
        _pydantic_ai,
        _run,
        _conversation,
        read_event,
        _message,
        _chain,
        _counted,
        _nodes,
    ):
        pieces = form(data)
        if pieces is not None:
            return pieces
    return None


def _langchain(data: Data) -> list[Piece] | None:  # noqa: PLR0911 - one case for each form
    """Read LangChain's message of a model, whole or a chunk, or an event that contains one."""
    if is_langchain(data):
        kind = data["type"]
        if LANGCHAIN_ROLES.get(kind) != "assistant":
            return None
        is_chunk = kind == "AIMessageChunk"
        piece = Piece(content_text(data["content"]), counts_of(data.get("usage_metadata")), begins=not is_chunk)
        piece.ends, piece.id = not is_chunk, id_of(data)
        if isinstance(beside := data.get("response_metadata"), dict) and beside:
            counts, piece.model = counts_beside(beside)
            piece.counts = piece.counts or counts
        if is_chunk and isinstance(data.get("tool_call_chunks"), list):
            piece.call_parts = [{**part, "arguments": part.get("args")} for part in dicts(data["tool_call_chunks"])]
        else:
            piece.calls = part_calls(data.get("tool_calls"))
        return [piece]
    match data:
        case {"generations": [[{"message": dict(message)}, *_], *_] | [{"message": dict(message)}, *_]}:
            return _langchain(message)
        case {"generations": [[{"text": str(words)}, *_], *_], "llm_output": beside}:  # from a model without messages
            return [piece_of(words, beside if isinstance(beside, dict) else {})]
        case {"event": "on_chat_model_stream", "data": {"chunk": dict(chunk)}}:
            return _langchain(chunk) or []
        case {"event": str(), "run_id": _, "data": dict()}:
            return []
    return None


_MODES: Final = frozenset({"messages", "updates", "values", "custom", "debug", "tasks", "checkpoints"})
"""Modes of LangGraph's streams."""


def _of_mode(mode: str, given: Any) -> list[Piece] | None:
    """Read an item of a stream with several modes; None for a state in the program's own form, which is kept whole."""
    pieces = read(given)
    return [] if pieces is None and mode != "values" else pieces


def _langgraph(data: Data) -> list[Piece] | None:
    """Read an event of a graph: the start or end of a task, a checkpoint, a wrapper of these, or one with its mode."""
    match data:
        case {"type": "checkpoint" | "task" | "task_result", "step": _, "timestamp": _, "payload": dict(inner)}:
            return _langgraph(inner)
        case {"type": str(mode), "ns": list(), "data": given} if mode in _MODES:
            return _of_mode(mode, given)
        case {"id": _, "name": _, "input": _, "triggers": _}:
            return []
        case {"id": _, "name": _, "result": result, "error": _, "interrupts": _}:
            if isinstance(result, list):  # older versions list changes as pairs
                pairs = (each for each in result if isinstance(each, list) and len(each) == 2)  # noqa: PLR2004
                result = {name: value for name, value in pairs if isinstance(name, str)}
            return read(result) or []
        case {"config": _, "metadata": _, "values": values, "next": _, "tasks": _}:
            return read(values) or []
    return None


def _pydantic_ai(data: Data) -> list[Piece] | None:  # noqa: PLR0911 - one case for each form
    if is_pydantic_ai(data) and data["kind"] == "response":
        words = "".join(text(part.get("content")) for part in data["parts"] if part.get("part_kind") == "text")
        uses = [part for part in data["parts"] if part.get("part_kind") == "tool-call"]
        return [piece_of(words, data, part_calls(uses))]
    place = data.get("index")
    match data:
        case {"event_kind": "part_start", "part": {"part_kind": "text", "content": str(words)}}:
            return [Piece(words, begins=False, ends=False)]
        case {"event_kind": "part_start", "part": {"part_kind": "tool-call", "tool_name": name, **part}}:
            call = {"index": place, "id": part.get("tool_call_id"), "name": name, "arguments": part.get("args")}
            return [Piece(call_parts=[call], begins=False, ends=False)]
        case {"event_kind": "part_delta", "delta": dict(delta)}:
            grown = text(delta.get("content_delta")) if delta.get("part_delta_kind") == "text" else ""
            call = {"index": place, "arguments": delta.get("args_delta")}
            is_call = delta.get("part_delta_kind") == "tool_call"
            return [Piece(grown, call_parts=[call] if is_call else [], begins=False, ends=False)]
        case {"event_kind": "agent_run_result", "result": dict(result)}:
            return _run(result)
        case {"event_kind": str()}:
            return []
    return None


def _run(data: Data) -> list[Piece] | None:
    """Read the result of an agent's run: its final output, and the tokens and tool calls of all its requests."""
    if "final_output" in data and isinstance(data.get("raw_responses"), list):  # the Agents SDK
        calls = [call for each in dicts(data["raw_responses"]) for call in part_calls(each.get("output"))]
        requests = [Piece(counts=counts_beside(each)[0]) for each in dicts(data["raw_responses"])]
        for place, request in enumerate(requests):
            request.id = f"request {place}"
        agent = data.get("last_agent") or data.get("_last_agent")
        model = counts_beside(agent)[1] if isinstance(agent, dict) else None
        if model is not None and model.startswith("<"):  # an object, shown only by its type
            model = None
        return [*requests, Piece(text(data["final_output"]), {}, model, calls)]
    state = data.get("_state")
    if "output" in data and isinstance(state, dict) and isinstance(state.get("message_history"), list):  # pydantic-ai
        answers = [piece for each in state["message_history"] for piece in read(each) or ()]
        model = next((piece.model for piece in reversed(answers) if piece.model), None)
        calls = [call for piece in answers for call in piece.calls]
        return [Piece(text(data["output"]), counts_of(state.get("usage")), model, calls)]
    if "_lm_usage" in data and isinstance(data.get("_store"), dict):  # DSPy's prediction
        given = {name: value for name, value in data["_store"].items() if name not in ("reasoning", "trajectory")}
        answer = next(iter(given.values())) if len(given) == 1 else given or data["_store"]
        return [piece_of(text(answer), data)]
    return None


def _conversation(data: Data) -> list[Piece] | None:
    """Read a list of messages that ends with an answer: the state of a LangGraph, the result of AutoGen's team.

    Answers before the last question belong to an earlier log.
    """
    messages = data.get("messages")
    if not (isinstance(messages, list) and messages and isinstance(messages[-1], dict)):
        return None
    answers: list[list[Piece]] = []
    for message in reversed(messages):
        if not isinstance(message, dict) or _is_question(message):
            break
        answers.append(_langchain(message) or _pydantic_ai(message) or _message(message) or [])
    pieces = [piece for answer in reversed(answers) for piece in answer]
    # A graph's state may contain no answer yet.
    return pieces if pieces or is_langchain(messages[-1]) else None


def _is_question(message: Data) -> bool:
    if is_pydantic_ai(message):
        return any(part["part_kind"] == "user-prompt" for part in message["parts"])
    kind = message.get("type") if is_langchain(message) else None
    return "user" in (LANGCHAIN_ROLES.get(kind or ""), message.get("source"), message.get("role"), message.get("_role"))


def _nodes(data: Data) -> list[Piece] | None:
    """Read the outputs of a graph's or pipeline's parts by their names: LangGraph's updates, Haystack's outputs."""
    if len(data) > _MOST_NODES:
        return None
    inner = [value for value in data.values() if type(value) is dict and not _NODE_SIGNS.isdisjoint(value)]
    given = [
        [] if node.get("messages") == [] else pieces if (pieces := _conversation(node)) is not None else _message(node)
        for node in inner
    ]
    found = [pieces for pieces in given if pieces is not None]
    return [piece for pieces in found for piece in pieces] if found else None


_MOST_NODES: Final = 16
_NODE_SIGNS: Final = frozenset({"messages", "replies", "answers"})


def _message(data: Data) -> list[Piece] | None:
    """Read the message inside an answer, or inside a chunk of one, and the model and counts beside it."""
    if _MESSAGE_SIGNS.isdisjoint(data):
        return None
    pieces = _message_of_provider(data)
    return _message_of_framework(data) if pieces is None else pieces


def _message_of_provider(data: Data) -> list[Piece] | None:  # noqa: C901 - one case for each form
    """Read an answer of a model's API."""
    beside: Any = data
    begins = ends = True
    match data:
        case {
            "role": "assistant" | None,
            "content": response,
            "function_call": _,
            "tool_calls": parts,
            "refusal": _,
        } if (
            "audio" not in data  # OpenAI's delta, taken from its chunk
        ):
            calls = [{**part, **part["function"]} for part in dicts(parts) if isinstance(part.get("function"), dict)]
            return [Piece(text(response), call_parts=calls, begins=False, ends=False)]
        case {
            "role": "assistant",
            "content": str() | list() | None,
        }:  # Anthropic's, or a single message of OpenAI's
            message = data
        case {"candidates": [{"content": {"parts": list()} as message, **candidate}, *_]}:  # Google
            # In a stream, each chunk has the counts so far: those of the last one, with a finish reason, are final.
            begins, ends = False, bool(candidate.get("finish_reason") or candidate.get("finishReason"))
            if not ends:
                beside = {name: data[name] for name in MODELS if name in data}
        case {"output": {"message": {"role": "assistant"} as message}, "usage": dict()}:  # Bedrock
            pass
        case {"message": {"role": "assistant"} as message, "model": str(), "done": bool(ends)}:  # Ollama
            begins = False
        case {"response": str(response), "model": str(), "done": bool(ends)}:  # Ollama's generate
            message, begins = {"content": response}, False
        case {"message": {"role": "assistant"} as message, "finish_reason": _}:  # Cohere
            pass
        case {"event_type": "stream-end", "response": dict(response)}:  # the end of a stream of Cohere's first API
            return _message(response) or []
        case {"text": str(response), "generation_id": _, **rest}:  # an answer of that API
            message = {"content": response, "tool_calls": rest.get("tool_calls")}
        case _:
            return None
    return [_piece_with(message, beside, begins=begins, ends=ends)]


def _message_of_framework(data: Data) -> list[Piece] | None:  # noqa: C901, PLR0912 - one case for each form
    """Read an answer in the form of LlamaIndex, AutoGen or Haystack."""
    beside: Any = data
    begins = ends = True
    match data:
        case {"message": {"role": "assistant", "blocks": list()} as message, "delta": delta, "raw": _}:  # LlamaIndex
            message = message if delta is None else {"content": delta}
            begins = ends = delta is None
        case {"text": str(response), "delta": delta, "raw": _, "additional_kwargs": dict()}:  # its completion
            message = {"content": response if delta is None else delta}
            begins = ends = delta is None
        case {"response": str(response), "source_nodes": list()}:  # its engines
            message = {"content": response}
        case {"response": {"role": "assistant", "blocks": list()} as message, "current_agent_name": _}:  # its agents
            pass
        case {"delta": str(delta), "response": str(), "current_agent_name": _}:
            message, begins, ends = {"content": delta}, False, False
        case {"content": str() | list(), "finish_reason": str(), "usage": dict(), "cached": bool()}:  # AutoGen
            message = data
        case {"chat_message": dict(answer), "inner_messages": list(inner)}:  # its agents
            return [piece for each in (*inner, answer) for piece in read(each) or ()]
        case {"source": str(source), "models_usage": usage, "content": response, "type": str(kind)}:
            if source == "user" or not (usage or isinstance(response, str)):
                return []
            message = data
            begins = ends = not kind.endswith("ChunkEvent")
        case {"replies": [{"_role": "assistant", "_content": list()} as message, *_]}:  # Haystack
            beside = message
        case {"replies": [str(response), *_], "meta": [dict(beside), *_]}:  # its generators
            message = {"content": response}
        case {"answers": [{"data": str(response), "documents": list(documents), "meta": dict(beside)}, *_]}:
            piece = piece_of(response, beside)
            piece.context = [each["content"] for each in dicts(documents) if isinstance(each.get("content"), str)]
            return [piece]
        case {"_role": "assistant", "_content": list(), "_meta": dict()}:
            message = data
        case {"content": str(), "component_info": _, "meta": dict()}:  # its chunks
            message, begins, ends = data, False, False
        case _:
            return None
    return [_piece_with(message, beside, begins=begins, ends=ends)]


def _piece_with(message: Data, beside: Data, *, begins: bool, ends: bool) -> Piece:
    """Return a piece with a message's text and tool calls, and the counts, model and id `beside` it."""
    parts = parts_of(message)
    parts = message.get("content") if parts is None else parts
    calls = part_calls(parts) + part_calls(message.get("tool_calls"))
    return piece_of(content_text(parts), beside, calls, begins=begins, ends=ends)


_CHAIN: Final = _ASKED.union(_ANSWERED, _DOCUMENTS, _STEPS)


def _says_more(data: Data, known: frozenset[str]) -> bool:
    """Return whether there are other fields with data: then it is the program's own object, to be kept whole."""
    beside = (name for name, value in data.items() if value and isinstance(value, str | list | dict))
    return any(name not in known and not name.endswith(("_id", "Id")) for name in beside)


def _chain(data: Data) -> list[Piece] | None:
    """Read the result of a chain: its answer, beside its input, and the documents that it found."""
    if _ASKED.isdisjoint(data) or _says_more(data, _CHAIN):
        return None
    given = next((data[name] for name in _ANSWERED if isinstance(data.get(name), str | dict)), None)
    inside = read(given) if isinstance(given, dict) else None
    if inside is None and not isinstance(given, str):
        return None
    documents: list[Any] = next((data[name] for name in _DOCUMENTS if isinstance(data.get(name), list)), [])
    found = [each.get("page_content") if isinstance(each, dict) else each for each in documents]
    pieces = [piece_of(given, data)] if isinstance(given, str) else inside or []
    for piece in pieces[-1:]:
        piece.context = [each for each in found if isinstance(each, str)]
    return pieces


def _counted(data: Data) -> list[Piece] | None:
    """Read anything with a text and token counts: that is an answer, whatever library it is from."""
    if _COUNT_SIGNS.isdisjoint(data) or not counts_beside(data)[0]:
        return None
    words = _words(data, _DEEPEST)
    outputs = dicts(data.get("outputs"))  # Mistral's conversations have the model here
    calls = part_calls(data.get("tool_calls")) + part_calls(outputs)
    if words is None and not calls:
        return None
    if words and _says_more(data, _TECHNICAL):
        words = text(data)
    piece = piece_of(words or "", data, calls)
    piece.model = piece.model or next((model for each in outputs if (model := counts_beside(each)[1])), None)
    return [piece]


def _words(data: Any, depth: int) -> str | None:
    """Return the text inside an answer, from the most certain place."""
    if isinstance(data, str):
        return data
    if isinstance(data, list):
        found = [words for each in data if depth and (words := _words(each, depth - 1))]
        return "".join(found) if found else None
    if not isinstance(data, dict) or not depth or data.get("thought"):
        return None
    return next((words for name in _WORDS if (words := _words(data.get(name), depth - 1)) is not None), None)
