"""OTLP over HTTP: reads requests of exporters in any language as spans, and answers them.

Source: https://opentelemetry.io/docs/specs/otlp/ (1.9). Answers use the encoding of the request; 429 and 503 ask an
exporter to send the same again, any other failure to drop it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from athina_trace._serving.athina_api import RefusedRequest
from athina_trace.gateway.bodies import Bodies
from athina_trace.gateway.sizes import CONTAINERS, holds_more, json_holds_more, table_of
from athina_trace.integrations.opentelemetry.spans import Event, SpanRecord

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_TRACE_BYTES, _SPAN_BYTES = 16, 8
MOST_MESSAGES: Final = 300_000
"""Maximum spans, events, attributes and nested values of a request: as objects, they take some hundred bytes each."""
_TABLE: Final = table_of(ExportTraceServiceRequest.DESCRIPTOR)
_LONGEST_SCOPE: Final = 256
"""Maximum length of an instrumentation's name, which is remembered with each log."""
_IDS: Final = ("traceId", "spanId", "parentSpanId")


Take = Callable[[Sequence[SpanRecord]], Awaitable[None]]


class Traces:
    """The endpoint `/v1/traces`. `take` is given the spans of a request, and raises `RefusedRequest`."""

    def __init__(self, bodies: Bodies, take: Take) -> None:
        self._bodies = bodies
        self._take = take

    async def export(self, request: Request) -> Response:
        """Take the spans of one request."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (PROTOBUF, JSON):
            message = f"content-type {kind!r} is not {PROTOBUF} or {JSON}"
            return _failure(RefusedRequest(415, "Unsupported Media Type", message), kind)
        try:
            body = await self._bodies.read(request)
            # Off the event loop, since a large body takes a second or more.
            spans, rejected = await asyncio.to_thread(lambda: _spans(_decoded(body, kind)))
            await self._take(spans)
        except RefusedRequest as refused:
            return _failure(refused, kind)
        return _success(rejected, kind)


def _decoded(body: bytes, kind: str) -> ExportTraceServiceRequest:
    export = ExportTraceServiceRequest()
    try:
        if kind == PROTOBUF:
            if holds_more(body, _TABLE, MOST_MESSAGES):
                raise _too_many()
            export.ParseFromString(body)
        else:
            if json_holds_more(body, CONTAINERS, MOST_MESSAGES):
                raise _too_many()
            data = from_json(body)
            scopes = (
                scope for resource in data.get("resourceSpans") or () for scope in resource.get("scopeSpans") or ()
            )
            for span in (span for scope in scopes for span in scope.get("spans") or ()):
                span.pop("links", None)
                # Protobuf's JSON encodes bytes as base64, but OTLP's encodes ids as hexadecimal.
                for name in _IDS:
                    if span.get(name):
                        span[name] = base64.b64encode(binascii.unhexlify(span[name])).decode()
            json_format.ParseDict(data, export, ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        message = f"the body is not an export of traces: {str(error)[:500]}"
        raise RefusedRequest(400, "Bad Request", message) from None
    return export


def _too_many() -> RefusedRequest:
    message = (
        f"a request may hold at most {MOST_MESSAGES:,} spans, events, attributes and values: send fewer spans at once"
    )
    return RefusedRequest(413, "Payload Too Large", message)


def _spans(export: ExportTraceServiceRequest) -> tuple[list[SpanRecord], int]:
    """Return the spans of a request, and how many of them have no valid id."""
    found: list[SpanRecord] = []
    rejected = 0
    for resource in export.resource_spans:
        about = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) == _TRACE_BYTES and len(span.span_id) == _SPAN_BYTES:
                    found.append(_span(span, about, scope.scope.name[:_LONGEST_SCOPE]))
                else:
                    rejected += 1
    return found, rejected


def _span(span: trace_pb2.Span, resource: dict[str, Any], scope: str) -> SpanRecord:
    # Ids of spans are unique only within their trace, and spans of many programs are remembered here.
    trace = span.trace_id.hex()
    return SpanRecord(
        name=span.name,
        scope=scope,
        span_id=f"{trace}-{span.span_id.hex()}",
        parent_id=f"{trace}-{span.parent_span_id.hex()}" if span.parent_span_id else None,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[Event(name=event.name, attributes=_attributes(event.attributes)) for event in span.events],
        resource=resource,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        description=span.status.message or None,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    # Protobuf's parser limits the depth of a message, and so the depth of this recursion.
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def _success(rejected: int, kind: str) -> Response:
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = "spans need a trace_id of 16 bytes and a span_id of 8"
    if kind == JSON:
        return JSONResponse(json_format.MessageToDict(answer))
    return Response(answer.SerializeToString(), media_type=PROTOBUF)


def _failure(refused: RefusedRequest, kind: str) -> Response:
    if kind == JSON:
        return JSONResponse({"message": refused.message}, refused.status, refused.headers)
    # OTLP requires a google.rpc.Status, but uses only its message, which has the same field number here.
    status = ExportTracePartialSuccess(error_message=refused.message.encode("utf-8", "replace").decode())
    return Response(status.SerializeToString(), refused.status, refused.headers, PROTOBUF)
