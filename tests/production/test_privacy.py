"""Privacy: masks, disabled capture, private scopes."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athina_trace as at
from athina_trace._pipeline.masking import FAILED, Mask, build_mask, luhn, mask_fields, mask_value
from athina_trace._serialization import Limits, plain
from athina_trace.testing import CapturedLogs, captured_logs
from tests.support.athina_server import AthinaServer

SECRET = "m.mouse@disney.example"
RUN = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-4o",
    "instructions": "secret words",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "secret words", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    "tools": [],
}


@at.athina_trace
def ask(question: str, **more: Any) -> Any:
    return more.get("answer", "answer")


# -- masks


def test_a_mask_sees_every_string_and_its_path() -> None:
    seen: dict[str, str] = {}

    def mask(path: str, text: str) -> str:
        seen[path] = text
        return text

    with captured_logs(mask=mask), at.athina_session("s", customer_id="c", plan={"tier": "gold"}):
        ask("q", order={"who": {"email": SECRET}, "n": 1, "lines": ["a", "b"]}, answer={"to": [SECRET]})
    reference = seen.pop("external_reference_id")
    assert len(reference) == 36
    assert seen == {
        "language_model_id": "unknown",
        "prompt[0].role": "user",
        "prompt[0].content": "q",
        "user_query": "q",
        "session_id": "s",
        "customer_id": "c",
        "response.to[0]": SECRET,
        "custom_attributes.plan.tier": "gold",
        "custom_attributes.function": "tests.production.test_privacy.ask",
        "custom_attributes.input.order.who.email": SECRET,
        "custom_attributes.input.order.lines[0]": "a",
        "custom_attributes.input.order.lines[1]": "b",
        "custom_attributes.input.answer.to[0]": SECRET,
    }


def test_a_mask_that_changes_nothing_leaves_the_log_unchanged() -> None:
    with captured_logs() as plainly:
        ask("q", order={"n": 1.5, "x": None}, answer={"a": [1, True]})
    with captured_logs(mask=lambda _path, text: text) as masked:
        ask("q", order={"n": 1.5, "x": None}, answer={"a": [1, True]})
    without_ids = [{**log, "external_reference_id": "", "response_time": 0} for log in plainly.wire + masked.wire]
    assert without_ids[0] == without_ids[1]


def test_masked_text_reaches_neither_disk_nor_wire(tmp_path: Path, athina: AthinaServer) -> None:
    at.configure(maskers=["email"], api_key="key", base_url=athina.url, keep_delivered=1)
    with at.athina_session("s", customer_user_id=SECRET, note=SECRET):
        ask(f"I am {SECRET}", payload={"mail": [SECRET]}, answer=f"hello {SECRET}")
        at.log_feedback(at.log_inference(response=SECRET), 1, SECRET)
        at.update_log(external_reference_id="r", context={"mail": SECRET})
        with pytest.raises(LookupError):
            fail(SECRET)
    assert at.flush(60)
    sent = b"".join(request.body + request.path.encode() for request in athina.requests)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"[email]" in sent
    assert b"[email]" in kept
    assert SECRET.encode() not in sent + kept


@at.athina_trace
def fail(question: str) -> str:
    raise LookupError(f"no such user: {question}")


def test_patterns_apply_with_and_without_paths() -> None:
    patterns = [r"PX-\d+", ("custom_attributes.input.order.*", re.compile("^.*$"))]
    with captured_logs(mask_patterns=patterns) as logs:
        ask("where is PX-48213?", order={"street": "Main", "n": 1}, answer="PX-48213 is here")
    log = logs.assert_one(user_query="where is [masked]?", response="[masked] is here")
    assert (log.custom_attributes or {})["input.order"] == '{"street":"[masked]","n":1}'


def test_keys_of_data_are_masked_by_built_in_maskers_and_patterns_without_a_path() -> None:
    keyed = {SECRET: {"PX-1": 1}, f"x{SECRET}": 2, "plain": 3}
    with captured_logs(maskers=["email"], mask_patterns=["PX-\\d+", ("response", "plain")]) as logs:
        ask("q", order=keyed, answer=keyed)
    (log,) = logs
    shown = {"[email]": {"[masked]": 1}, "[email]'": 2, "plain": 3}
    assert json.loads(str(log.response)) == shown
    assert json.loads((log.custom_attributes or {})["input.order"]) == shown


def test_patterns_and_maskers_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHINA_MASK_PATTERNS", r'["PX-\\d+", ["response", "x"]]')
    monkeypatch.setenv("ATHINA_MASKERS", "email, card")
    settings = at.Settings.build()
    patterns = [(path, pattern.pattern) for path, pattern in settings.mask_patterns]
    assert patterns == [
        ("*", r"PX-\d+"),
        ("response", "x"),
    ]
    assert settings.maskers == {"email", "card"}
    for variable, value in {"ATHINA_MASK_PATTERNS": '["("]', "ATHINA_MASKERS": "emails"}.items():
        monkeypatch.setenv(variable, value)
        with pytest.raises(at.SettingsError, match=variable):
            at.Settings.build()
        monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    "broken", [lambda _path, text: 1 / 0, lambda _path, text: None, lambda _text: ""], ids=["raises", "None", "one"]
)
def test_a_failing_mask_loses_the_values_but_not_the_log(broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    with captured_logs(mask=broken) as logs:
        assert ask(SECRET, order={"mail": SECRET}) == "answer"
        ask("again")
    first, second = logs
    assert first.user_query == first.response == FAILED
    assert first.external_reference_id != second.external_reference_id
    assert SECRET not in str(logs.wire) + caplog.text
    assert "the mask raised" in caplog.text


def test_a_truncated_secret_is_masked() -> None:
    with captured_logs(maskers=["card"]) as logs:
        ask("x" * 199_992 + " 4111 1111 1111 1111")
    (log,) = logs
    assert "4111" not in str(log.user_query)
    assert str(log.user_query).endswith("… [200000 of 200012 characters]")


def built(mask: Mask) -> Mask:
    found = build_mask(mask, (), ())
    assert found is not None
    return found


def test_a_mask_sees_every_string_of_data_with_its_path() -> None:
    seen: dict[str, str] = {}

    def mask(path: str, words: str) -> str:
        seen[path] = words
        return words.upper()

    value = {"messages": [{"content": "hi", "n": 1}], "k": ["a", ["b"]]}
    assert mask_fields(value, built(mask)) == {"messages": [{"content": "HI", "n": 1}], "k": ["A", ["B"]]}
    assert seen == {"messages[0].content": "hi", "k[0]": "a", "k[1][0]": "b"}


def test_a_failing_mask_hides_the_value() -> None:
    def mask(path: str, words: str) -> Any:
        return 1 / 0 if path == "a" else None if path == "b" else words

    assert mask_fields({"a": "x", "b": "y", "c": "z"}, built(mask)) == {
        "a": "[mask failed]",
        "b": "[mask failed]",
        "c": "z",
    }


@pytest.mark.parametrize("before", range(40, 52))
def test_no_partial_secret_is_left_at_the_truncation(before: int) -> None:
    words = "." * before + "4111-1111" + "." * 500
    mask = built(lambda _path, seen: seen.replace("4111-1111", "****"))
    masked = mask_value(plain(words, limits=Limits(string=50)), mask, "response")
    assert "4" not in str(masked).split("…")[0]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_that_end_the_program_pass_through_a_mask(interrupt: type[BaseException]) -> None:
    def mask(path: str, words: str) -> str:
        raise interrupt

    with pytest.raises(interrupt):
        mask_value(["x"], built(mask), "tags")


def test_large_logs_are_masked_outside_the_event_loop() -> None:
    threads: list[str] = []
    masking, turned, in_time = threading.Event(), threading.Event(), []

    def mask(_path: str, text: str) -> str:
        threads.append(threading.current_thread().name)
        if len(text) > 1000:
            masking.set()
            in_time.append(turned.wait(60))
        return text

    @at.athina_trace
    async def later(question: str) -> str:
        return question

    async def ask() -> None:
        task = asyncio.create_task(later("word " * 20_000))
        while not task.done():
            await asyncio.sleep(0.001)
            if masking.is_set():
                turned.set()
        await task

    with captured_logs(mask=mask) as logs:
        asyncio.run(ask())
        assert set(in_time) == {True}
        logs.assert_one(response="word " * 20_000)  # and it was written before the call returned
    assert threading.main_thread().name not in threads


def test_the_built_in_maskers_take_linear_time() -> None:
    mask = build_mask(None, (), ["card", "email", "key", "phone"])
    assert mask is not None
    hardest = [
        "a" * 50_000,
        "1" * 50_000,
        "1 " * 25_000,
        "+1-" * 17_000,
        "@" * 50_000,
        "a@a." * 12_000,
        "eyJaaaaa." * 5_000,
        "-eyJaaaaa" * 20_000,
        "a." * 100_000 + "eyJ",
        "-eyJaaaaa" * 20_000 + ".eyJaaaaa",
    ]
    for text in hardest:
        began = time.thread_time()
        mask("response", text)
        assert time.thread_time() - began < 1, text[:10]


PIECES = st.sampled_from(
    [
        "eyJ",
        "aaaaaa",
        ".",
        "-",
        "_",
        "sk-",
        "SG.",
        "@",
        "+1",
        "00",
        "4",
        "4111",
        " ",
        "bearer ",
        "://",
        ":",
        "-----BEGIN ",
    ]
)


@given(st.lists(PIECES, min_size=1, max_size=5), st.lists(PIECES, max_size=3))
def test_the_built_in_maskers_never_take_quadratic_time_on_repeated_text(unit: list[str], end: list[str]) -> None:
    mask = build_mask(None, (), ["card", "email", "key", "phone"])
    assert mask is not None
    repeated = "".join(unit)
    began = time.thread_time()
    mask("response", repeated * (30_000 // len(repeated)) + "".join(end))
    assert time.thread_time() - began < 1


# -- the built-in maskers


def seen(text: str, *maskers: Any, path: str = "response") -> str:
    chosen: Any = maskers or ["card", "email", "key", "phone"]
    mask = build_mask(None, (), chosen)
    assert mask is not None
    return mask(path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to m.mouse+x@disney.co.uk, please", "write to [email], please"),
        ("<jörg@müller.example>", "<[email]>"),
        ("call +49 (0)30 1234-567 now", "call [phone] now"),
        ("call 0049 30 1234567", "call [phone]"),
        ("call (415) 555-2671", "call [phone]"),
        ("call 1-415-555-2671.", "call [phone]."),
        ("call 030/1234567", "call [phone]"),
        ("card 4111 1111 1111 1111 exp 12/27", "card [card] exp 12/27"),
        ("card 4111-1111-1111-1111 123", "card [card] 123"),
        ("cards 5555555555554444, 378282246310005", "cards [card], [card]"),
        ("23 4111 1111 1111 1111", "23 [card]"),
        ("key sk-proj-abcdefghijklmnop1234", "key [key]"),
        ("Authorization: Bearer abcdefghijklmnop.qrst", "Authorization: Bearer [key]"),
        ("AKIAIOSFODNN7EXAMPLE and ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[key] and [key]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc.eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.d", "[key].[key]"),
        ("a.b-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc.d", "a.b-[key].d"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_1", "token [key]"),
        ("postgres://user:pass@db/x", "postgres://[key]@db/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nx", "[key]\nx"),
        ("-----BEGIN PRIVATE KEY-----\nabc", "[key]"),
    ],
)
def test_the_built_in_maskers_mask_these(text: str, expected: str) -> None:
    assert seen(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23 13:07:28",
        "192.168.100.200",
        "0.123456789",
        "order 1234567890123",
        "4111 1111 1111 1112",
        "1732367248123",
        "10 20 30 40 50 60 70",
        "id 019341f2-7c1b-7a3e-9d2f-0123456789ab",
        "user@localhost",
        "sk-short",
        "the basic idea of a bearer",
        "v1.2.3-rc.4",
        "https://example.com/a:b@c",
    ],
)
def test_the_built_in_maskers_leave_these(text: str) -> None:
    assert seen(text) == text


def test_masked_identifiers_stay_distinct_and_references_are_not_masked() -> None:
    one, two = (seen(f"{name}@disney.example", path="customer_user_id") for name in "ab")
    assert one != two
    assert re.fullmatch(r"\[email [0-9a-f]{12}\]", one)
    assert seen("4111111111111111", path="external_reference_id") == "4111111111111111"


@given(st.integers(10**11, 10**17))
def test_luhn_detects_any_wrong_digit(number: int) -> None:
    digits = next(f"{number}{check}" for check in range(10) if luhn(f"{number}{check}"))
    wrong = str((int(digits[3]) + 1) % 10)
    assert not luhn(digits[:3] + wrong + digits[4:])


@given(st.text())
def test_maskers_accept_any_text(text: str) -> None:
    assert isinstance(seen(text), str)


# -- disabled capture


@at.athina_trace
def handle(question: str, prompt: str, context: str, order: dict[str, str], thread_id: str) -> str:
    at.current_log().record(RUN)
    return "secret words"


@at.athina_trace
def stream(question: str) -> Iterator[str]:
    yield "secret "
    yield "words"


def call_all() -> None:
    handle("secret words", "secret words", "secret words", {"a": "secret words"}, thread_id="thread_1")
    list(stream("secret words"))
    with pytest.raises(LookupError):
        fail("secret words")


def check_private(logs: CapturedLogs, *, error: str | None) -> None:
    log = logs[0]
    assert (log.session_id, log.language_model_id, log.total_tokens) == ("thread_1", "gpt-4o", 7)
    assert [log.error for log in logs] == [None, None, error]
    assert (log.user_query, log.context, log.tool_calls) == (None, None, None)


def test_with_both_captures_disabled_only_metadata_is_logged() -> None:
    with captured_logs(capture_inputs=False, capture_response=False) as logs:
        call_all()
    check_private(logs, error="LookupError: no such user: secret words")
    assert "secret words" not in str(logs.wire[:2])


def test_a_private_scope_logs_no_content() -> None:
    with captured_logs() as logs, at.athina_private():
        call_all()
        handle_named("q")
        at.log_feedback(at.log_inference(user_query="secret words", response="secret words"), 1, "secret words")
        at.update_log(external_reference_id="r", response="secret words", status_code=3)
    assert logs[2].error == "LookupError"
    assert "secret words" not in str([logs.wire, logs.updates, logs.feedback])
    assert logs.updates == [{"external_reference_id": "r", "status_code": 3}]


@at.athina_trace
def handle_named(question: str) -> str:
    at.current_log().update(user_query="secret words", response="secret words", prompt="secret words")
    return ""


def test_with_captures_disabled_values_set_by_the_program_are_logged() -> None:
    with captured_logs(capture_inputs=False, capture_response=False) as logs:
        handle_named("q")
    logs.assert_one(user_query="secret words", response="secret words", prompt="secret words")


@pytest.mark.parametrize("hidden", ["inputs", "response"])
def test_one_capture_can_be_disabled_for_a_decorator_or_a_scope(hidden: str) -> None:
    @at.athina_trace(capture_inputs=hidden != "inputs", capture_response=hidden != "response")
    def decorated(question: str) -> str:
        at.current_log().record(RUN)
        return "the answer"

    @at.athina_trace
    def scoped(question: str) -> str:
        at.current_log().record(RUN)
        return "the answer"

    with captured_logs() as logs:
        decorated("the question")
        with at.athina_private(inputs=hidden == "inputs", response=hidden == "response"):
            scoped("the question")
    for log in logs:
        assert (log.user_query, log.response) == ((None, "the answer") if hidden == "inputs" else ("the question", ""))


def test_a_private_block_makes_the_outer_call_private(athina_logs: CapturedLogs) -> None:
    @at.athina_trace
    def outer(question: str) -> Any:
        with at.athina_private():
            return ask(question)

    outer("secret words")
    assert len(athina_logs) == 2
    assert "secret words" not in str(athina_logs.wire)


def test_inner_scopes_cannot_undo_privacy(athina_logs: CapturedLogs) -> None:
    with at.athina_private(), at.athina_session("s"), at.athina_private(inputs=False, response=False):
        at.set_customer("c")
        ask("secret words")
    athina_logs.assert_one(session_id="s", customer_id="c", user_query=None, response="")


def test_athina_private_decorates_every_kind_of_function(athina_logs: CapturedLogs) -> None:
    @at.athina_private()
    async def later() -> Any:
        async with at.athina_private():
            ask("secret words")
        return ask("secret words")

    asyncio.run(later())
    assert [log.user_query for log in athina_logs] == [None, None]
    ask("open")
    assert athina_logs[2].user_query == "open"
