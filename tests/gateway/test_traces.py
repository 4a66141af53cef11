"""OTLP over HTTP: spans in any order and encoding become the right logs, and bad requests are refused."""

import asyncio
import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import athina_trace
from athina_trace._capture import answer_logs
from athina_trace._serialization import looks_secret
from athina_trace._serving.athina_api import RefusedRequest
from athina_trace.gateway import traces
from athina_trace.gateway.commits import Commits
from athina_trace.gateway.otlp import JSON, PROTOBUF, _spans
from athina_trace.gateway.sizes import CONTAINERS, NAMES, holds_more, json_holds_more, table_of
from athina_trace.integrations.opentelemetry import reader
from athina_trace.local_athina import LocalAthina
from tests.gateway.conftest import CLIENT, Serve

TRACE = bytes(range(16))
SECOND = 10**9
MODEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]}]),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "On its way."}], "finish_reason": "stop"}]
    ),
    "gen_ai.usage.input_tokens": 3,
    "gen_ai.usage.output_tokens": 4,
}


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    answer_logs.reset()
    yield
    answer_logs.reset()


def value(data: Any) -> AnyValue:
    if isinstance(data, bool):
        return AnyValue(bool_value=data)
    if isinstance(data, int):
        return AnyValue(int_value=data)
    if isinstance(data, float):
        return AnyValue(double_value=data)
    if isinstance(data, list):
        return AnyValue(array_value=ArrayValue(values=map(value, data)))
    if isinstance(data, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(data)))
    return AnyValue(bytes_value=data) if isinstance(data, bytes) else AnyValue(string_value=data)


def pairs(data: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=value(each)) for name, each in data.items()]


def span(
    number: int, attributes: dict[str, Any], *, parent: int | None = None, at: tuple[float, float] = (1, 2), **more: Any
) -> Span:
    return Span(
        trace_id=TRACE,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.to_bytes(8, "big"),
        name=more.pop("name", "chat gpt-4o"),
        start_time_unix_nano=int(at[0] * SECOND),
        end_time_unix_nano=int(at[1] * SECOND),
        attributes=pairs(attributes),
        **more,
    )


def export(spans: Sequence[Span], **resource: Any) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.extend(pairs(resource))
    scope = of_resource.scope_spans.add()
    scope.scope.name = "the.instrumentation"
    scope.spans.extend(spans)
    return request


def as_json(request: ExportTraceServiceRequest) -> bytes:
    """Return the JSON that an exporter writes, with ids in hexadecimal."""
    data = json_format.MessageToDict(request)
    for each, scope in itertools.product(data["resourceSpans"], [0]):
        for written, given_span in zip(
            each["scopeSpans"][scope]["spans"], request.resource_spans[0].scope_spans[0].spans, strict=True
        ):
            written["traceId"], written["spanId"] = given_span.trace_id.hex(), given_span.span_id.hex()
            written["parentSpanId"] = given_span.parent_span_id.hex()
            written["kind"] = 3
            written["newInALaterVersion"] = {"a": 1}
    return json.dumps(data).encode()


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve(), headers=CLIENT, trust_env=False) as client:
        yield client


@pytest.fixture
def logs(local_athina: LocalAthina) -> Callable[[], list[dict[str, Any]]]:
    """Return the logs at Athina, with updates applied."""
    athina_trace.configure(api_key="k", base_url=local_athina.url)

    def all_logs() -> list[dict[str, Any]]:
        assert athina_trace.flush(60)
        found = {log["external_reference_id"]: log for log in local_athina.logs()}
        with local_athina._received._lock:
            rows = local_athina._received._db.execute("SELECT reference, body FROM entry WHERE kind = 'update'")
            for reference, body in rows.fetchall():
                found[reference].update(json.loads(body))
        return list(found.values())

    return all_logs


def send(client: httpx.Client, *spans: Span, **resource: Any) -> httpx.Response:
    body = export(spans, **resource).SerializeToString()
    answer = client.post("/v1/traces", content=body, headers={"content-type": PROTOBUF})
    assert answer.status_code == 200, answer.content
    return answer


Logs = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_span_becomes_a_log_in_every_encoding(logs: Logs, client: httpx.Client, kind: str, zipped: bool) -> None:
    request = export([span(1, {**MODEL, "session.id": "s"})], **{"deployment.environment.name": "production"})
    body = request.SerializeToString() if kind == PROTOBUF else as_json(request)
    headers = {"content-type": f"{kind}; charset=utf-8"} | ({"content-encoding": "gzip"} if zipped else {})
    answer = client.post("/v1/traces", content=gzip.compress(body) if zipped else body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content == (b"{}" if kind == JSON else b"")
    (log,) = logs()
    assert log["external_reference_id"] == f"{TRACE.hex()}-0000000000000001"
    assert (log["session_id"], log["environment"], log["language_model_id"]) == ("s", "production", "gpt-4o")
    assert (log["user_query"], log["response"]) == ("Where is it?", "On its way.")
    assert (log["total_tokens"], log["response_time"]) == (7, 1000)


ROOT = {"session.id": "thread-7", "user.id": "ann"}
TURN = [
    span(1, ROOT, at=(1, 9), name="turn"),
    span(2, {"gen_ai.operation.name": "invoke_agent"}, parent=1, at=(2, 8), name="agent"),
    span(
        3,
        {
            **MODEL,
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "find", "arguments": {}}]}]
            ),
        },
        parent=2,
        at=(3, 4),
    ),
    span(
        4,
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.call.id": "c1",
            "gen_ai.tool.name": "find",
            "gen_ai.tool.call.result": "in Leipzig",
        },
        parent=2,
        at=(5, 6),
        name="execute_tool find",
    ),
]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(TURN), sizes=st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_spans_may_arrive_in_any_order_and_any_batches(serve: Serve, order: list[Span], sizes: list[int]) -> None:
    answer_logs.reset()
    athina_trace.configure(outbox=":memory:")
    batches = iter(order)
    with httpx.Client(base_url=serve(), headers=CLIENT, trust_env=False) as client:
        for size in sizes:
            if batch := list(itertools.islice(batches, size)):
                send(client, *batch)
    changed = _entries()
    (log,) = changed.values()
    assert (log["session_id"], log["customer_user_id"]) == ("thread-7", "ann")
    # If an output arrives before its call, nothing is known of its log yet.
    if order.index(TURN[3]) > order.index(TURN[2]) or sizes[0] == 4:
        assert log["tool_calls"][0]["output"] == "in Leipzig"


def _entries() -> dict[str, dict[str, Any]]:
    """Return the logs of the outbox in memory, with updates applied."""
    runtime: Any = athina_trace._runtime._runtime
    runtime.outbox.collect_all()
    found: dict[str, dict[str, Any]] = {}
    for entry in runtime.outbox.store.waiting():
        found.setdefault(entry.reference, {}).update(json.loads(entry.body))
    return found


def test_a_repeated_batch_is_logged_once(logs: Logs, client: httpx.Client) -> None:
    for _ in range(2):
        send(client, *TURN)
    assert len(logs()) == 1
    # After a restart of the gateway, Athina recognises the repetition by the reference.
    answer_logs.reset()
    with httpx.Client(base_url=str(client.base_url), headers=CLIENT, trust_env=False) as again:
        send(again, *TURN)
    assert len(logs()) == 1


def test_data_that_waits_for_a_span_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_MOST_PARENTS", 10)
    monkeypatch.setattr(traces, "_MOST_SPANS", 20)
    athina_trace.configure(outbox=":memory:")
    now = [0.0]
    logs_of_spans = traces.SpanLogs(Commits(), lambda: now[0])
    for number in range(100):
        spans, _ = _spans(export([span(number + 2, MODEL, parent=10_000 + number // 70)]))
        logs_of_spans._log(spans)
    assert len(logs_of_spans._known) == 20
    assert [len(each) for each in logs_of_spans._lacking.values()] == [64, 30]
    now[0] += 601
    logs_of_spans._log(_spans(export([span(10_001, ROOT, name="turn")]))[0])
    assert len(logs_of_spans._lacking) == 1
    assert {log.get("session_id") for log in _entries().values()} == {None}


def test_an_export_that_waits_too_long_behind_others_is_refused() -> None:
    now = [0.0]
    logs = traces.SpanLogs(Commits(), lambda: now[0])

    async def take_behind_another() -> None:
        async with logs._lock:
            waiting = asyncio.create_task(logs.take([]))
            await asyncio.sleep(0)
            now[0] += traces.TURN_SECONDS + 1
        await waiting

    with pytest.raises(RefusedRequest) as refused:
        asyncio.run(take_behind_another())
    assert (refused.value.status, refused.value.retry_after) == (429, 1)


def test_cyclic_parents_of_spans_terminate(client: httpx.Client) -> None:
    athina_trace.configure(outbox=":memory:")
    circle = [span(1, MODEL, parent=2), span(2, {"a": "b"}, parent=3), span(3, {"a": "b"}, parent=1)]
    send(client, *circle, span(4, MODEL, parent=4))
    chain = [span(number, {}, parent=number + 1) for number in range(10, 3000)]
    send(client, *chain)
    assert len(_entries()) == 2


def test_spans_without_ids_are_rejected_and_the_others_accepted(logs: Logs, client: httpx.Client) -> None:
    bad = [Span(trace_id=b"short", span_id=bytes(8)), Span(trace_id=TRACE, span_id=b"")]
    answer = send(client, span(1, MODEL), *bad)
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 2
    assert "span_id of 8" in partial.error_message
    assert len(logs()) == 1


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
        (PROTOBUF, b"\xff", 400),
        (PROTOBUF, b"\x0a" + b"\xff" * 9 + b"\x01", 400),
        (PROTOBUF, as_json(export([span(1, MODEL)])), 400),
        (JSON, export([span(1, MODEL)]).SerializeToString(), 400),
        (JSON, b"[]", 400),
        (JSON, b'{"resourceSpans": 7}', 400),
        (JSON, b'{"resourceSpans": [[]]}', 400),
        (JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}', 400),
        (JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "x"}]}]}]}', 400),
        (JSON, b"[" * 100_000, 400),
    ],
    ids=map(str, range(12)),
)
def test_invalid_exports_are_refused(client: httpx.Client, kind: str, body: bytes, status: int) -> None:
    athina_trace.configure(outbox=":memory:")
    answer = client.post("/v1/traces", content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status
    if kind == JSON:
        assert "the body is not an export" in answer.json()["message"]
    else:
        assert answer.headers["content-type"] == PROTOBUF
        assert answer.content[:1] == b"\x12"
    assert client.get("/healthz").status_code == 200


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=300)
    | st.dictionaries(
        st.sampled_from([*MODEL, "session.id", "llm.input_messages.0.message"]),
        st.recursive(
            st.text(max_size=9) | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary(max_size=4),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        ),
    )
)
def test_any_body_and_any_attributes_get_a_response(client: httpx.Client, hostile: Any) -> None:
    athina_trace.configure(outbox=":memory:")
    body = hostile if isinstance(hostile, bytes) else export([span(1, {**MODEL, **hostile})]).SerializeToString()
    answer = client.post("/v1/traces", content=body, headers={"content-type": PROTOBUF})
    assert answer.status_code == 200 if isinstance(hostile, dict) else answer.status_code in (200, 400)


def test_an_export_that_could_not_be_stored_is_stored_on_retry(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "no-folder"
    folder.write_text("")
    athina_trace.configure(outbox=str(folder / "outbox.db"))
    body = export(TURN).SerializeToString()
    with httpx.Client(base_url=serve(), headers=CLIENT | {"content-type": PROTOBUF}, trust_env=False) as client:
        refused = [client.post("/v1/traces", content=body) for _ in range(2)]
        assert [answer.status_code for answer in refused] == [503, 503]
        assert refused[0].headers["retry-after"] == "5"
        folder.unlink()
        assert client.post("/v1/traces", content=body).status_code == 200
    (log,) = athina_trace.recent_logs()
    assert log["session_id"] == "thread-7"


def test_a_failed_answer_keeps_its_error(logs: Logs, client: httpx.Client) -> None:
    status = Status(code=Status.STATUS_CODE_ERROR, message="rate limited")
    failed = {name: each for name, each in MODEL.items() if name != "gen_ai.output.messages"}
    send(client, span(1, {**failed, "error.type": "429"}, status=status))
    (log,) = logs()
    assert (log["error"], log["status_code"]) == ("rate limited", 429)


def test_a_providers_key_is_never_sent(logs: Logs, client: httpx.Client) -> None:
    key, secret = "sk-proj-abcdefghij0123456789", "9f8e7d6c5b4a39281706"
    asked = json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"use {key} and {secret}"}]}])
    status = Status(code=Status.STATUS_CODE_ERROR, message=f"bad key {key}")
    send(client, span(1, {**MODEL, "gen_ai.input.messages": asked, "request.api_key": secret}, status=status))
    text = json.dumps(logs())
    assert key not in text
    assert secret not in text


def test_no_attribute_that_the_reader_uses_looks_like_a_secret() -> None:
    folder = Path(str(reader.__file__)).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    names = set(re.findall(r'"((?:gen_ai|llm|ai|traceloop|openinference|session|user|enduser)[\w.]+)"', text))
    assert len(names) > 50
    assert [name for name in names if looks_secret(name)] == []


def test_long_values_of_a_span_are_not_remembered(client: httpx.Client) -> None:
    athina_trace.configure(outbox=":memory:")
    send(client, span(1, {"session.id": "s" * 300}, name="turn"), span(2, MODEL, parent=1))
    assert {log.get("session_id") for log in _entries().values()} == {None}


def in_field(number: int, body: bytes) -> bytes:
    """Encode a protobuf field that holds a message."""
    length, size = b"", len(body)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


EMPTY = {kind: in_field(number, b"") * 2_000_000 for number, kind in ((1, "values"), (2, "spans"), (9, "attributes"))}
VALID = in_field(1, TRACE) + in_field(2, bytes(8))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (EMPTY["values"], PROTOBUF),  # as resources
        (in_field(1, EMPTY["spans"]), PROTOBUF),  # as scopes
        (in_field(1, in_field(2, EMPTY["spans"])), PROTOBUF),
        (in_field(1, in_field(2, in_field(2, VALID + EMPTY["attributes"]))), PROTOBUF),
        (
            in_field(1, in_field(2, in_field(2, VALID + in_field(9, in_field(2, in_field(5, EMPTY["values"])))))),
            PROTOBUF,
        ),
        (b'{"resourceSpans": [%s{}]}' % (b"{}," * 2_000_000), JSON),
        (b'{"resourceSpans": [%s[]]}' % (b"[]," * 2_000_000), JSON),
    ],
    ids=["resources", "scopes", "spans", "attributes", "values", "json-objects", "json-lists"],
)
def test_a_small_body_that_would_become_many_objects_is_refused(client: httpx.Client, body: bytes, kind: str) -> None:
    headers = {"content-type": kind, "content-encoding": "gzip"}
    answer = client.post("/v1/traces", content=gzip.compress(body, 1), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert b"send fewer spans at once" in answer.content
    assert client.get("/healthz").status_code == 200


marked = st.text('{[:"\\a', max_size=5)
json_value = st.recursive(
    st.none() | st.integers() | st.text('{[:"\\\\a', max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text('{[:"\\\\a', max_size=5), inside, max_size=3),
    max_leaves=8,
)


def parts_of(value: Any) -> int:
    """Return the number of objects, lists and field names in JSON data."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(parts_of, value.values()))
    return 1 + sum(map(parts_of, value)) if isinstance(value, list) else 0


@given(json_value, st.booleans())
def test_the_count_of_json_parts_equals_that_of_the_parser(found: Any, ascii_only: bool) -> None:
    body, count = json.dumps(found, ensure_ascii=ascii_only).encode(), parts_of(found)
    assert json_holds_more(body, CONTAINERS + NAMES, count - 1)
    assert not json_holds_more(body, CONTAINERS + NAMES, count)


def messages_in(message: Any) -> int:
    """Count the messages inside a message."""
    count = 0
    for field, found in message.ListFields():
        if field.message_type is not None:
            count += sum(1 + messages_in(each) for each in (found if field.is_repeated else [found]))
    return count


any_value = st.recursive(
    st.text(max_size=3) | st.integers(-5, 5) | st.binary(max_size=3) | st.booleans(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=2), inside, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), any_value, max_size=4), max_size=4), st.binary(max_size=20))
def test_the_count_of_protobuf_messages_equals_that_of_the_parser(found: list[dict[str, Any]], junk: bytes) -> None:
    request = export(
        [span(number, attributes, events=[Span.Event(name="e")]) for number, attributes in enumerate(found)]
    )
    count, table = messages_in(request), table_of(ExportTraceServiceRequest.DESCRIPTOR)
    body = request.SerializeToString()
    assert holds_more(body, table, count - 1)
    assert not holds_more(body, table, count)
    for broken in (junk, body[: len(junk)] + junk + body, junk + body):
        holds_more(broken, table, 1)  # any result will do, but it must end and not raise
