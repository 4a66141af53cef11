"""The context is carried to threads, callbacks and other processes."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import multiprocessing
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athina_trace as at
from athina_trace._pipeline.redaction import Redaction
from athina_trace.context import current_scope
from athina_trace.testing import CapturedLogs

number = contextvars.ContextVar("number", default=0)


@at.athina_trace
def ask(question: str) -> str:
    return "answer"


def customer() -> Any:
    return current_scope().fields.get("customer_id")


def test_wrap_carries_the_scope_to_threads(athina_logs: CapturedLogs) -> None:
    with at.athina_session("thread_1", customer_id="disney"):
        threads = [threading.Thread(target=at.wrap(ask), args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(log.session_id, log.customer_id) for log in athina_logs} == {("thread_1", "disney")}
    assert len(athina_logs) == 8


def test_wrap_carries_the_current_log(athina_logs: CapturedLogs) -> None:
    @at.athina_trace
    def outer() -> str:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(at.wrap(lambda: at.current_log().update(user_query="from a thread"))).result()
        return "a"

    outer()
    athina_logs.assert_one(user_query="from a thread", response="a")


def test_each_call_of_a_wrapped_function_runs_in_a_copy_of_the_context() -> None:
    def change() -> int:
        number.set(number.get() + 1)
        at.set_customer("other")
        return number.get()

    wrapped = at.wrap(change)
    assert [wrapped(), wrapped()] == [1, 1]
    assert (number.get(), customer()) == (0, None)


def test_wrap_preserves_the_kind_of_function() -> None:
    def plain(a: int, b: str = "") -> Any:
        """Say who."""
        return customer()

    async def later() -> Any:
        await asyncio.sleep(0)
        return customer()

    def items() -> Iterator[Any]:
        yield customer()
        yield customer()

    async def items_later() -> AsyncIterator[Any]:
        yield customer()
        await asyncio.sleep(0)
        yield customer()

    with at.athina_session(customer_id="disney"):
        kept = (at.wrap(plain), at.wrap(later), at.wrap(items), at.wrap(items_later))

    async def run() -> list[Any]:
        return [await kept[1](), *[item async for item in kept[3]()]]

    assert [kept[0](1), *kept[2](), *asyncio.run(run())] == ["disney"] * 6
    assert inspect.signature(kept[0]) == inspect.signature(plain)
    assert kept[0].__doc__ == "Say who."
    assert inspect.iscoroutinefunction(kept[1])
    assert inspect.isgeneratorfunction(kept[2])
    assert inspect.isasyncgenfunction(kept[3])
    assert customer() is None


def test_wrap_accepts_methods_and_partials() -> None:
    class Desk:
        def who(self) -> tuple[str, Any]:
            return type(self).__name__, customer()

    with at.athina_session(customer_id="disney"):
        who = at.wrap(Desk().who)
    assert who() == ("Desk", "disney")


def test_the_executor_carries_the_scope_to_submit_and_map() -> None:
    with at.ContextThreadPoolExecutor(2) as pool:
        futures = []
        for name in ("a", "b"):
            with at.athina_session(customer_id=name):
                futures += [pool.submit(customer), pool.submit(customer)]
                assert list(pool.map(lambda _: customer(), range(3))) == [name] * 3
        assert [future.result() for future in futures] == ["a", "a", "b", "b"]
        assert pool.submit(customer).result() is None


# -- other processes


def test_a_scope_is_injected_into_headers_and_extracted_again() -> None:
    with at.athina_session(
        "thread ü,;=", customer_id=7, customer_user_id="m@x.org", environment="test", sample_rate=0.5
    ):
        carrier = at.inject({"baggage": "theirs=1;p=2, athina.customer_id=stale"})
    assert list(carrier) == ["baggage"]
    assert carrier["baggage"].isascii()
    assert carrier["baggage"].startswith("theirs=1;p=2,athina.")
    with at.extract({"Baggage": carrier["baggage"]}):
        scope = current_scope()
    assert scope.fields == {
        "session_id": "thread ü,;=",
        "customer_id": "7",
        "customer_user_id": "m@x.org",
        "environment": "test",
    }
    assert scope.sample_rate == 0.5
    assert current_scope().fields == {}


def test_privacy_is_injected_too() -> None:
    with at.athina_private():
        carrier = at.inject(dict[str, str]())
    with at.extract(carrier):
        assert current_scope().redaction == Redaction.EVERYTHING
    with at.extract({"baggage": "athina.private=nonsense"}):
        assert current_scope().redaction == Redaction.EVERYTHING


def test_outside_any_scope_nothing_is_injected() -> None:
    assert at.inject({"x": "1"}) == {"x": "1"}


def test_inside_a_call_its_session_is_injected() -> None:
    @at.athina_trace
    def handle(question: str, thread_id: str) -> dict[str, str]:
        return at.inject({})

    at.configure(outbox=":memory:")
    assert handle("q", thread_id="thread_9")["baggage"] == "athina.session_id=thread_9"


def test_values_that_are_too_long_are_not_injected() -> None:
    with at.athina_session("s", customer_id="ü" * 5000, environment="test"):
        carrier = at.inject({"baggage": "theirs=" + "x" * 100})
    with at.extract(carrier):
        assert current_scope().fields == {"session_id": "s", "environment": "test"}
    with at.extract({"baggage": "athina.session_id=" + "x" * 9000}):
        assert current_scope().fields == {}


@pytest.mark.parametrize(
    "header",
    ["athina.session_id", "athina.session_id=", "athina.session_id=%00", "athina.session_id=a%0Ab", "=", ",,;", "x"],
)
def test_malformed_baggage_members_are_ignored(header: str) -> None:
    with at.extract({"baggage": header + ",athina.environment=test"}):
        assert current_scope().fields == {"environment": "test"}


@given(st.text(max_size=300))
def test_no_header_raises(header: str) -> None:
    with at.extract({"baggage": header}):
        assert at.inject({}) is not None


@given(st.text(min_size=1, max_size=50).filter(str.isprintable), st.text(min_size=1, max_size=50))
def test_any_printable_identifier_survives_inject_and_extract(session: str, customer_id: str) -> None:
    with at.athina_session(session, customer_id=customer_id):
        carrier = at.inject(dict[str, str]())
    with at.extract(carrier):
        assert current_scope().fields["session_id"] == session
        assert current_scope().fields.get("customer_id") in (customer_id, None)


def test_extract_is_a_decorator_too() -> None:
    with at.athina_session(customer_id="disney"):
        carrier = at.inject(dict[str, str]())
    assert at.extract(carrier)(customer)() == "disney"


def _work(carrier: dict[str, str], outbox: str, question: str) -> None:
    at.configure(outbox=outbox)
    with at.extract(carrier):
        ask(question)
    at.shutdown()


@pytest.mark.parametrize("method", ["spawn"])
def test_the_scope_is_carried_to_multiprocessing_workers(tmp_path: Any, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    outbox = str(tmp_path / "shared.db")
    with at.athina_session("thread_1", customer_id="disney"):
        jobs = [context.Process(target=_work, args=(at.inject({}), outbox, str(n))) for n in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(100)
    at.configure(outbox=outbox)
    logs = at.recent_logs()
    assert sorted((log["session_id"], log["customer_id"], log["user_query"]) for log in logs) == [
        ("thread_1", "disney", "0"),
        ("thread_1", "disney", "1"),
    ]


def test_set_session_and_set_customer_hold_for_the_rest_of_the_scope(athina_logs: CapturedLogs) -> None:
    with at.athina_session("outer", customer_id="c"):
        with at.athina_session(plan="gold"):
            at.set_session(7)
            at.set_customer(8, 9)
            carrier: dict[str, str] = at.inject({})
            at.log_inference(response="inner")
            at.set_session(None)
            at.log_inference(response="none")
        at.log_inference(response="outer")
    with at.extract(carrier):
        at.log_inference(response="carried")
    athina_logs.assert_logged(response="inner", session_id="7", customer_id="8", customer_user_id="9")
    athina_logs.assert_logged(response="none", session_id=None, customer_id="8")
    athina_logs.assert_logged(response="outer", session_id="outer", customer_id="c", customer_user_id=None)
    athina_logs.assert_logged(response="carried", session_id="7", customer_id="8", customer_user_id="9")
