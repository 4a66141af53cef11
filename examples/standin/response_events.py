"""A finished response as the stream of events that leads up to it."""

from collections.abc import Iterator
from itertools import chain

from standin.wire import Event, Json, event, pieces

EMPTY: dict[str, Json] = {"message": {"content": []}, "function_call": {"arguments": ""}}


def stream_events(response: Json) -> list[Event]:
    """All events of a response, numbered, from `response.created` to `response.completed`."""
    begun: Json = response | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    frame = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    items = [_item(number, item) for number, item in enumerate(response["output"])]
    whole = chain(frame, *items, [{"type": "response.completed", "response": response}])
    return [event(data["type"], {"sequence_number": number, **data}) for number, data in enumerate(whole)]


def _item(index: int, item: Json) -> Iterator[Json]:
    inside = {"message": _message, "function_call": _function_call, "file_search_call": _file_search}[item["type"]]
    empty = EMPTY.get(item["type"], {})
    begun: Json = item | {"status": "in_progress"} | empty
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for data in inside(item):
        yield {"item_id": item["id"], "output_index": index, **data}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message(item: Json) -> Iterator[Json]:
    for index, part in enumerate(item["content"]):
        for data in _part(part):
            yield {"content_index": index, **data}


def _part(part: Json) -> Iterator[Json]:
    yield {"type": "response.content_part.added", "part": part | {"text": "", "annotations": []}}
    for piece in pieces(part["text"]):
        yield {"type": "response.output_text.delta", "delta": piece, "logprobs": []}
    for index, annotation in enumerate(part["annotations"]):
        yield {
            "type": "response.output_text.annotation.added",
            "annotation_index": index,
            "annotation": annotation,
        }
    yield {"type": "response.output_text.done", "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", "part": part}


def _function_call(item: Json) -> Iterator[Json]:
    for piece in pieces(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", "delta": piece}
    yield {
        "type": "response.function_call_arguments.done",
        "name": item["name"],
        "arguments": item["arguments"],
    }


def _file_search(_item: Json) -> Iterator[Json]:
    for state in ("in_progress", "searching", "completed"):
        yield {"type": f"response.file_search_call.{state}"}
