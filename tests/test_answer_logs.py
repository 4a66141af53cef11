"""One answer is one log, whichever sources see it, in any order: a client's request, spans around it, callbacks."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athina_trace
from athina_trace import athina_private, athina_session, current_log
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import AS_OBJECT, AS_SPAN, AS_TYPED, Answer, Key, ToolCall, ToolOutput
from athina_trace._capture import answer_logs, nesting
from athina_trace._capture.answer_logs import Origin, log_answer, log_documents, log_tool_output
from athina_trace._capture.nesting import begin, end, follow_nesting
from athina_trace._clock import clock
from athina_trace.testing import captured_logs
from tests.support.changed import as_changed
from tests.support.interrupted import run_interrupted

follow_nesting()

OUTER: Key = ("span", "outer")
INNER: Key = ("span", "inner")


@dataclass(frozen=True)
class Source:
    """A source that sees an answer."""

    name: str
    fidelity: int
    place: int
    """0 for the outermost source; those with higher numbers are nested in it."""


SOURCES = [
    Source("framework", AS_TYPED, 0),
    Source("spans", AS_SPAN, 1),
    Source("", AS_OBJECT, 2),
]


def names_of(source: Source, answer: int, *, has_id: bool, server_id: str) -> tuple[Key, ...]:
    own: tuple[Key, ...] = () if source.name == "" else (("span", f"{source.name}-{answer}"),)
    return (*own, *((("id", server_id),) if has_id else ()))


def seen(source: Source, answer: int, *, has_id: bool = True, server_id: str | None = None, **known: Any) -> Answer:
    return Answer(
        key=("chat" if source.name == "" else "span", f"{source.name}-{answer}"),
        names=names_of(source, answer, has_id=has_id, server_id=server_id or f"chatcmpl-{answer}"),
        source=source.name,
        fidelity=source.fidelity,
        request=f"{source.name}-{answer}",
        **{"text": f"Answer {answer}", **known},
    )


def origin(source: Source | None = None, answer: int = 0) -> Origin:
    around: Sequence[Source] = SOURCES[: source.place] if source is not None else ()
    here = Origin.here()
    return replace(here, within=tuple(("span", f"{each.name}-{answer}") for each in reversed(around)))


SEVERAL = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(SOURCES)), unique=True, min_size=1)
UNION = {"session_id": "thread", "language_model_id": "gpt-4o", "total_tokens": 9, "cost": 0.5, "user_query": "Where?"}


def what_it_knows(source: Source) -> dict[str, Any]:
    """Each source knows something that the others do not know."""
    known: dict[str, dict[str, Any]] = {
        "framework": {"session": "thread", "cost": 0.5, "text": "Answer, cut"},
        "spans": {"query": "Where?", "model": "an alias", "usage": {"total_tokens": 7}},
        "": {"model": "gpt-4o", "usage": {"total_tokens": 9}},
    }
    return known[source.name]


@given(st.permutations(SOURCES), st.sets(st.sampled_from(SOURCES)), st.booleans())
def test_any_order_of_sources_is_one_log_with_the_union(
    order: list[Source], identified: set[Source], decorated: bool
) -> None:
    answer_logs.reset()
    with captured_logs() as logs:
        call = athina_trace.athina_trace() if decorated else athina_session()
        with call:
            for source in order:
                known = what_it_knows(source)
                log_answer([seen(source, 0, has_id=source in identified, **known)], origin(source))
    (log,) = as_changed(logs)
    assert {name: log.get(name) for name in UNION} == UNION
    assert log["response"] == ("Answer 0" if len(order) > 1 else "Answer, cut")


@pytest.mark.parametrize("decorated", [False, True])
@pytest.mark.parametrize("error", [None, GeneratorExit()])
def test_answers_seen_only_by_clients_are_logged_as_usual_and_not_remembered(
    decorated: bool, error: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SOURCES[2]
    known: dict[str, Any] = {"model": "gpt-4o", "query": "Where?", "usage": {"total_tokens": 9}}
    found = []
    for others in (True, False):
        monkeypatch.setattr(nesting, "is_followed", others)
        answer_logs.reset()
        with captured_logs() as logs, athina_session("thread", customer_id="disney"), ExitStack() as stack:
            if decorated:
                stack.enter_context(athina_trace.athina_trace())
            log_answer([seen(client, 0, **known)], Origin.here(), error=error)
        assert answer_logs.is_logged(seen(client, 0, **known), Origin.here()) is others
        (log,) = logs
        found.append({**dict(log), "external_reference_id": None, "response_time": None})
    assert found[0] == found[1]
    assert found[0]["response"] == "Answer 0"


def test_an_answer_seen_only_by_a_client_is_known_to_a_source_that_is_enabled_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    framework, _, client = SOURCES
    monkeypatch.setattr(nesting, "is_followed", False)
    with captured_logs() as logs, athina_session("thread"):
        for number in range(20):
            log_answer([seen(client, number)], Origin.here())
        follow_nesting()
        for number in range(19, 3, -1):
            log_answer([seen(framework, number)], Origin.here())
        log_answer([seen(client, 20, server_id="chatcmpl-19")], Origin.here())  # some servers repeat their ids
    assert [log["response"] for log in as_changed(logs)] == [f"Answer {number}" for number in range(21)]


@given(SEVERAL, st.booleans(), st.sets(st.integers(0, 4)))
def test_many_answers_at_once_are_each_one_log_and_none_under_anothers_session(
    order: list[tuple[int, Source]], same_id: bool, identified: set[int]
) -> None:
    answer_logs.reset()
    with captured_logs() as logs:
        for answer, source in order:
            with athina_session(f"session {answer}"):
                server_id = "chatcmpl-0" if same_id else None
                new = seen(source, answer, has_id=answer in identified, server_id=server_id)
                log_answer([new], origin(source, answer))
    found = sorted((log["session_id"], log["response"]) for log in as_changed(logs))
    assert found == sorted({(f"session {answer}", f"Answer {answer}") for answer, _ in order})


@given(st.permutations(SOURCES), st.booleans(), st.sampled_from([None, "ours"]), st.sampled_from([None, "decorated"]))
def test_the_session_is_what_the_framework_was_given_whichever_source_comes_first(
    order: list[Source], identified: bool, scope: str | None, call: str | None
) -> None:
    answer_logs.reset()
    with captured_logs() as logs, athina_session(scope), ExitStack() as stack:
        if call is not None:
            stack.enter_context(athina_trace.athina_trace())
        for source in order:
            where = origin(source)
            if source.name == "framework":
                where = replace(where, conversation="thread")
            log_answer([seen(source, 0, has_id=identified)], where)
    (log,) = as_changed(logs)
    # A decorated call is the program's own, and its scope has named it.
    assert log["session_id"] == ("thread" if call is None or scope is None else scope)


def test_a_run_passes_its_conversation_down_except_to_scopes_entered_inside() -> None:
    def here() -> str | None:
        return Origin.here().named_conversation()

    with athina_session("ours"):
        outer = Origin.of_run(("run", "1"), conversation="thread")
        inner = Origin.of_run(("run", "2"), ("run", "1"), conversation="thread")
        assert (outer.conversation, inner.conversation, here()) == ("thread", "thread", "thread")
        with athina_session("inside"):
            assert here() is None
            # A framework hands the same name down to a run that is inside of the scope.
            assert Origin.of_run(("run", "3"), ("run", "2"), conversation="thread").conversation is None
            assert Origin.of_run(("run", "4"), ("run", "2"), conversation="another").conversation == "another"
            end(("run", "3"))
            end(("run", "4"))
        assert Origin.of_run(("another framework's", "1")).conversation == "thread"
        end(("another framework's", "1"))
        # As where a stream of run 1 was left open: this is another run of that framework, or a request inside of one.
        assert Origin.of_run(("run", "5")).conversation is None
        assert here() is None
        for run in "521":
            end(("run", run))
        assert here() is None


def test_two_requests_of_one_source_are_two_answers_whatever_their_id() -> None:
    with captured_logs() as logs:
        for answer in (1, 2):
            for source in reversed(SOURCES):
                log_answer([seen(source, answer, server_id="chatcmpl-0")], origin(source, answer))
    assert [log["response"] for log in as_changed(logs)] == ["Answer 1", "Answer 2"]


def test_what_a_client_looks_up_of_an_answer_that_it_asked_for_is_its_newest_snapshot() -> None:
    made = seen(SOURCES[-1], 0, text="Answer", status="in_progress", progress=1)
    with captured_logs() as logs, athina_trace.athina_trace():
        log_answer([made], origin())
        log_answer([replace(made, request=None, text="Answer, longer", status="cancelling")], origin())
    (log,) = as_changed(logs)
    assert (log["response"], log["custom_attributes"]["status"]) == ("Answer, longer", "cancelling")


@pytest.mark.parametrize(
    ("later", "changed", "count"),
    [
        (9, {}, 1),
        (11, {}, 2),
        (0, {"text": "Another answer"}, 2),
        (0, {"query": "Another question"}, 2),
        (0, {"text": None, "error": "refused"}, 2),
        (0, {"has_id": True}, 2),
    ],
)
def test_a_span_made_after_the_end_is_matched_by_its_content(
    later: int, changed: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, spans, client = SOURCES
    known: dict[str, Any] = {"has_id": False, "query": "Where?", "text": "There."}
    with captured_logs() as logs, athina_session("thread"):
        for request in (1, 2):  # the same is asked twice, and answered the same
            log_answer([seen(client, request, **known)], Origin.here())
        was = clock.monotonic()
        monkeypatch.setattr(clock, "monotonic", lambda: was + later)
        for request in (1, 2):
            log_answer([seen(spans, request, **{**known, **changed}, cost=0.5)], Origin.here())
    found = as_changed(logs)
    assert len(found) == 2 * count
    assert [log.get("cost") for log in found[-2:]] == [0.5, 0.5]
    with captured_logs() as logs, athina_session("another thread"):
        log_answer([seen(spans, 3, **known)], Origin.here())
    assert len(logs) == 1


@pytest.mark.parametrize(
    ("calls", "count"),
    [
        (("call_1", "call_1"), 1),
        (("call_1", "call_2"), 2),
        (("#0/0", "#0/0"), 2),  # which the sources have numbered themselves
    ],
)
def test_an_answer_without_text_is_matched_by_its_tool_calls(calls: tuple[str, str], count: int) -> None:
    _, spans, client = SOURCES
    with captured_logs() as logs, athina_session("thread"):
        for source, call in zip((client, spans), calls, strict=True):
            made = seen(source, 1, has_id=source is client, query="Where?", text=None)
            made.names = (*made.names, ("request" if source is client else "span", "1"))
            log_answer([made, call_of(made, id=call)], Origin.here())
    assert len(as_changed(logs)) == count


@pytest.mark.parametrize(("own", "count"), [(None, 1), ("chatcmpl-1", 1), ("chatcmpl-2", 2)])
@pytest.mark.parametrize("later", SOURCES[1:])
def test_a_source_without_ids_may_see_an_answer_that_has_one(later: Source, own: str | None, count: int) -> None:
    framework = SOURCES[0]
    with captured_logs() as logs, athina_session("thread"):
        for source, server_id in ((framework, "chatcmpl-1"), (later, own)):
            given_id = {} if server_id is None else {"server_id": server_id}
            made = seen(source, 1, has_id=server_id is not None, **given_id, query="Where?", text="There.")
            if source.name == "":  # as clients name theirs
                made.names = (*made.names, ("request", "1"))
            log_answer([made], Origin.here())
    assert len(as_changed(logs)) == count


@given(st.permutations([0, 1, 2, 3] * len(SOURCES)), st.sets(st.integers(0, 3)), st.booleans())
def test_equal_failures_without_ids_are_one_log_per_request(
    requests: list[int], nested: set[int], nothing_inside: bool
) -> None:
    answer_logs.reset()
    waiting = {
        request: [source for source in reversed(SOURCES) if source.name or not nothing_inside] for request in requests
    }
    with captured_logs() as logs, athina_session("thread"):
        for request in requests:
            if not waiting[request]:
                continue
            source = waiting[request].pop(0)  # what is inside is the first to hear of it
            failed = seen(source, request, has_id=False, text=None, query="Where?", error="overloaded")
            log_answer([failed], origin(source if request in nested else None, request))
    assert [log["error"] for log in as_changed(logs)] == ["overloaded"] * 4


@pytest.mark.parametrize("ends_first", ["what is within", "what is around"])
def test_a_request_made_while_a_stream_is_read_is_another_answer_if_ids_differ(ends_first: str) -> None:
    framework, _, client = SOURCES
    stream = seen(framework, 0, server_id="msg_1", text="Streamed"), origin(framework)
    beside = seen(client, 0, server_id="chatcmpl-1", text="Asked meanwhile"), origin(client)
    with captured_logs() as logs:
        for answer, where in (beside, stream) if ends_first == "what is within" else (stream, beside):
            log_answer([answer], where)
    assert sorted(log["response"] for log in as_changed(logs)) == ["Asked meanwhile", "Streamed"]


def test_of_several_attempts_within_a_span_the_one_with_the_same_end_is_its_answer() -> None:
    framework, _, client = SOURCES
    with captured_logs() as logs:
        log_answer([seen(client, 1, has_id=False, text=None, error="refused")], origin(client))
        log_answer([seen(client, 2, has_id=False)], origin(client))
        log_answer([seen(framework, 0, has_id=False, session="thread", text=None)], origin(framework))
    failed, succeeded = as_changed(logs)
    assert (failed["error"], failed.get("session_id"), succeeded["session_id"]) == ("refused", None, "thread")


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def call_of(answer: Answer, **changed: Any) -> ToolCall:
    body = {**CALL, **changed}
    return ToolCall(key=body["id"], owner=answer.key, source=answer.source, body=body)


@given(st.permutations(SOURCES), st.integers(0, 3))
def test_tool_calls_of_one_answer_are_merged_under_any_id_with_their_output(order: list[Source], when: int) -> None:
    answer_logs.reset()
    ids = {"framework": "#0", "spans": "fc_1", "": "call_1"}
    with captured_logs() as logs:
        for source in order:
            made = seen(source, 0)
            log_answer([made, call_of(made, id=ids[source.name])], origin(source))
            if when == order.index(source):
                log_tool_output("3 degrees", origin(source), call=None, tool="weather")
        for known in ("call_1", "fc_1") if when == len(order) else ():
            log_tool_output("3 degrees", origin(), call=known)
    (log,) = as_changed(logs)
    assert log["tool_calls"] == [{**CALL, "output": "3 degrees"}]


def test_tool_outputs_without_an_id_go_to_the_call_with_their_arguments() -> None:
    client = SOURCES[-1]
    with captured_logs() as logs:
        begin(OUTER)
        for city in ("Oslo", "Rome"):
            made = seen(client, ord(city[0]), server_id=city)
            function = {"name": "weather", "arguments": f'{{"city": "{city}"}}'}
            log_answer([made, call_of(made, id=f"#{city}", function=function)], Origin.here())
        for city in ("Rome", "Oslo"):
            begin(INNER)
            log_tool_output(f"in {city}", Origin.here(), call=None, tool="weather", arguments={"city": city})
            end(INNER)
        end(OUTER)
    assert [log["tool_calls"][0]["output"] for log in as_changed(logs)] == ["in Oslo", "in Rome"]


def test_tool_outputs_in_the_next_request_update_the_log_with_the_calls() -> None:
    client = SOURCES[-1]
    with captured_logs() as logs:
        first, second, third = (seen(client, answer) for answer in (1, 2, 3))
        log_answer([first, call_of(first)], origin())
        for later in (second, third):
            log_answer([later, ToolOutput(call="call_1", value="3 degrees")], origin())
    assert [log.get("tool_calls") for log in as_changed(logs)] == [[{**CALL, "output": "3 degrees"}], None, None]
    assert len(logs.updates) == 1


def test_documents_go_to_the_next_answer_beside_them_only() -> None:
    client = SOURCES[-1]
    with captured_logs() as logs:
        begin(OUTER)
        begin(INNER)
        log_documents(["Oslo is cold."], Origin.here())
        end(INNER)
        log_answer([seen(client, 1)], Origin.here())
        log_answer([seen(client, 2)], Origin.here())
        end(OUTER)
        log_answer([seen(client, 3)], Origin.here())
    assert [log.get("context") for log in as_changed(logs)] == [["Oslo is cold."], None, None]


def test_documents_retrieved_by_a_tool_are_context_of_the_log_that_called_it() -> None:
    client = SOURCES[-1]
    with captured_logs() as logs:
        begin(OUTER)
        made = seen(client, 1)
        log_answer([made, call_of(made)], Origin.here())
        begin(INNER)
        log_documents(["Oslo is cold."], Origin.here())
        log_tool_output("cold", Origin.here(), call="call_1", name=INNER)
        end(INNER)
        end(OUTER)
    (log,) = as_changed(logs)
    assert (log["context"], log["tool_calls"][0]["output"]) == (["Oslo is cold."], "cold")


def test_an_answer_of_an_ended_call_changes_its_log_but_not_what_that_call_returned() -> None:
    framework, _, client = SOURCES
    with captured_logs() as logs:

        @athina_trace.athina_trace
        def answer() -> str:
            log_answer([seen(client, 0)], Origin.here())
            return "What I say"

        answer()
        log_answer([seen(framework, 0, text="Longer than before", session="thread")], origin(framework))
    (log,) = as_changed(logs)
    assert (log["response"], log["session_id"]) == ("What I say", "thread")


@pytest.mark.parametrize("first", SOURCES)
@pytest.mark.parametrize("private", [0, 1])
def test_content_that_is_private_for_one_source_is_never_shown_by_another(first: Source, private: int) -> None:
    order = [first, *(each for each in SOURCES if each is not first)]
    with captured_logs() as logs:
        for number, source in enumerate(order):
            secret: Any = {"text": "secret " * number, "query": "secret", "error": "secret: secret"}
            with athina_private() if number in (0, private) else athina_session():
                made = seen(source, 0, usage={"total_tokens": number + 1}, **secret)
                log_answer([made, call_of(made, function={"name": "secret"})], origin(source))
    assert "secret" not in str([log.get("response") for log in as_changed(logs)])
    assert "secret" not in str(logs.updates).replace("error", "")
    assert as_changed(logs)[0]["total_tokens"] in (1, 2, 3)


def test_a_hook_sees_whole_logs_only_so_that_later_content_stays_out() -> None:
    framework, _, client = SOURCES
    with captured_logs(before_emit=lambda log: log, hook_timeout=60) as logs:
        log_answer([seen(client, 0)], origin(client))
        log_answer([seen(framework, 0, session="thread", cost=0.5)], origin(framework))
    (log,) = as_changed(logs)
    assert (log.get("session_id"), log["cost"]) == (None, 0.5)


def test_masks_apply_to_later_content() -> None:
    framework, _, client = SOURCES
    with captured_logs(maskers=["email"]) as logs:
        log_answer([seen(client, 0)], origin(client))
        log_answer([seen(framework, 0, query="Is it m.mouse@disney.example?")], origin(framework))
    (log,) = as_changed(logs)
    assert log["user_query"] == "Is it [email]?"


def test_memory_is_bounded() -> None:
    with captured_logs(sample_rate=0.0):
        for number in range(6000):
            made = seen(SOURCES[-1], number, text="x" * 2000)
            begin(("span", str(number)))
            log_answer([made, call_of(made, id=f"call_{number}")], origin())
    state = answer_logs._state
    assert len(state.ledger) == len(state.callers) == len(nesting._state.running) == 4096
    assert len(state.ledger._named) <= 3 * 4096
    assert len(state.changeable) <= 1024
    assert state.characters <= 8_000_000
    assert len(nesting.within()) == 8


def test_an_answer_beyond_the_memory_limit_is_still_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_logs, "_MOST_CHARACTERS", 5)
    with captured_logs() as logs:
        log_answer([seen(SOURCES[0], 0)], origin())
        log_answer([seen(SOURCES[0], 0, cost=0.5)], origin())
    (log,) = as_changed(logs)
    assert (log["response"], log.get("cost")) == ("Answer 0", None)


def test_threads_that_see_one_answer_make_one_log() -> None:
    with captured_logs() as logs:
        start = threading.Barrier(len(SOURCES))

        def see(source: Source) -> None:
            start.wait()
            for answer in range(200):
                log_answer([seen(source, answer, **what_it_knows(source))], origin(source, answer))

        threads = [threading.Thread(target=see, args=(source,)) for source in SOURCES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log = as_changed(logs)
    assert len(log) == 200
    assert all({name: each.get(name) for name in UNION} == UNION for each in log)


@pytest.mark.parametrize("is_decorated", [False, True])
def test_a_finalizer_may_report_an_answer_at_any_moment(is_decorated: bool) -> None:
    """The garbage collector closes an abandoned stream of a framework in the middle of our own work."""
    framework, spans, client = SOURCES
    left: Key = ("span", "left")

    def see() -> None:
        begin(OUTER)
        begin(INNER, OUTER)
        log_documents(["Rain."], origin(spans))
        made = seen(client, 0, **what_it_knows(client))
        log_answer([made, call_of(made, id="call_0")], origin(client))
        log_answer([seen(spans, 0, **what_it_knows(spans))], origin(spans))
        log_tool_output("5", origin(framework), call="call_0")
        end(INNER)

    def work() -> None:
        with athina_trace.athina_trace() if is_decorated else nullcontext():
            see()

    def report() -> None:
        begin(left)
        log_documents(["Snow."], replace(Origin.here(), within=(left,)))
        log_answer([Answer(key=left, request=1, usage={"total_tokens": 5})], replace(Origin.here(), within=(left,)))
        end(left)

    nth, was_interrupted = 0, True
    while was_interrupted:
        nth += 1
        answer_logs.reset()
        with captured_logs() as logs:
            was_interrupted = run_interrupted(nth, work, report)
        counted = sum(log["total_tokens"] for log in as_changed(logs))
        assert counted == (14 if was_interrupted else 9), nth
    assert nth > 100


def test_objects_that_the_program_records_itself_are_the_answer_that_a_span_saw() -> None:
    completion = {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Rain."}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    span = SOURCES[1]
    for order in ("span first", "object first"):
        with captured_logs() as logs, athina_trace.athina_trace():
            if order == "object first":
                current_log().record(completion)
            log_answer([seen(span, 0, text="Rain.", usage={"total_tokens": 7})], Origin.here())
            current_log().record(completion)
        assert [log["total_tokens"] for log in logs.wire] == [7], order
        answer_logs.reset()


# Python warns of threads, which an earlier test may have left running: the child only logs and ends.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_two_processes_that_see_one_answer_have_two_answers() -> None:
    with captured_logs() as logs:
        log_answer([seen(SOURCES[-1], 0)], origin())
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            log_answer([seen(SOURCES[0], 0)], origin())
            os.write(write, str(len(logs)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert (os.read(read, 10), len(logs)) == (b"2", 1)
        os.close(read)
        os.close(write)


def test_documents_of_a_run_that_ends_meanwhile_are_in_one_log(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        """A lock for which another thread, which ends the run, came first."""

        def __enter__(self) -> None:
            monkeypatch.undo()
            end(INNER)

        def __exit__(self, *_: object) -> None: ...

    answer_logs.reset()
    with captured_logs() as logs:
        contextvars.Context().run(begin, OUTER)
        contextvars.Context().run(begin, INNER, OUTER)
        log_documents(["Rain."], replace(Origin.here(), within=(INNER,)))
        monkeypatch.setattr(nesting._state, "lock", Late())
        log_answer([Answer(key=("chat", "1"), text="a")], replace(Origin.here(), within=(INNER,)))
        log_answer([Answer(key=("chat", "2"), text="b")], replace(Origin.here(), within=(OUTER,)))
    assert [log.get("context") for log in logs.wire] == [None, ["Rain."]]
    assert nesting._state.characters == 0


def test_what_is_put_again_can_be_found_at_every_moment() -> None:
    found: list[str | None] = []

    class Watched(str):
        """A key at whose every use another thread looks for the value."""

        __slots__ = ()
        __eq__ = str.__eq__

        def __hash__(self) -> int:
            found.append(newest.get("key"))
            return hash(str(self))

    newest: Newest[str] = Newest(2)
    for key in ("key", "other", "key"):
        newest.put(key, "old")
    newest.put(Watched("key"), "new")
    newest.put("third", "new")
    assert None not in found
    assert (newest.get("key"), newest.get("other"), len(newest)) == ("new", None, 2)


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "retrieve", "answer"]), st.integers(0, 5))))
def test_documents_that_wait_are_counted_and_bounded(steps: list[tuple[str, int]]) -> None:
    answer_logs.reset()
    with captured_logs():
        for step, number in steps:
            name: Key = ("span", str(number))
            if step == "begin":
                contextvars.Context().run(begin, name, ("span", str(number - 1)))
            elif step == "end":
                end(name)
            elif step == "retrieve":
                log_documents(["x" * 3_000_000], replace(Origin.here(), within=(name,)))
            else:
                log_answer([Answer(key=("chat", f"{number}"), text="a")], replace(Origin.here(), within=(name,)))
            waiting = sum(len(text) for each in nesting._state.running.values() for text in each.documents)
            assert waiting == nesting._state.characters <= 8_000_000
