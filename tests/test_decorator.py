"""`@athina_trace` on every kind of function, and what it captures of each call."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import make_dataclass
from http import HTTPStatus
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from athina_trace import athina_session, athina_trace, current_log, set_customer

Logs = Callable[[], list[dict[str, Any]]]


@athina_trace
def plain(question: str, *, limit: int = 3) -> str:
    """Answer plainly."""
    return f"{question}{limit}"


@athina_trace()
async def acoroutine(question: str) -> str:
    """Answer later."""
    await asyncio.sleep(0)
    return question


@athina_trace(prompt_slug="s")
def generator(question: str) -> Iterator[str]:
    yield question


@athina_trace
async def agenerator(question: str) -> Any:
    yield question


class Desk:
    @athina_trace
    def method(self, question: str) -> str:
        return f"method {question}"

    @athina_trace
    async def amethod(self, question: str) -> str:
        return f"amethod {question}"

    @classmethod
    @athina_trace
    def inner_class(cls, question: str) -> str:
        return f"{cls.__name__} {question}"

    @athina_trace
    @classmethod
    def outer_class(cls, question: str) -> str:
        return f"{cls.__name__} {question}"

    @staticmethod
    @athina_trace
    def inner_static(question: str) -> str:
        return f"static {question}"

    @athina_trace
    @staticmethod
    def outer_static(question: str) -> str:
        return f"static {question}"

    @athina_trace
    def __call__(self, question: str) -> str:
        return f"called {question}"


@athina_trace
def asking_user(name: str = "nobody") -> str:
    return f"user {name}"


ALL = [plain, acoroutine, generator, agenerator]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Desk().method, "method q"),
        (functools.partial(Desk.method, Desk()), "method q"),
        (Desk.inner_class, "Desk q"),
        (Desk().inner_class, "Desk q"),
        (Desk.outer_class, "Desk q"),
        (Desk().outer_class, "Desk q"),
        (Desk.inner_static, "static q"),
        (Desk().inner_static, "static q"),
        (Desk.outer_static, "static q"),
        (Desk().outer_static, "static q"),
        (Desk(), "called q"),
    ],
    ids=map(str, range(22)),
)
def test_methods_of_every_kind(local: Logs, function: Callable[[str], str], expected: str) -> None:
    assert function("q") == expected
    (log,) = local()
    assert (log["user_query"], log["response"]) == ("q", expected)
    assert log["custom_attributes"]["function"].startswith("tests.test_decorator.Desk.")
    assert not [name for name in log["custom_attributes"] if name.startswith("input.")], "self or cls was captured"


def test_an_unbound_method_called_with_its_instance(local: Logs) -> None:
    assert Desk.method(Desk(), "q") == "method q"
    (log,) = local()
    assert log["user_query"] == "q"
    assert "input.self" not in log["custom_attributes"]


def test_async_methods(local: Logs) -> None:
    assert asyncio.run(Desk().amethod("q")) == "amethod q"
    assert local()[0]["response"] == "amethod q"


def test_partials_lambdas_builtins_and_callable_objects(local: Logs) -> None:
    athina_trace(functools.partial(plain.__wrapped__, limit=9))("q")  # type: ignore[attr-defined]
    athina_trace(functools.partial(acoroutine.__wrapped__, "a"))  # type: ignore[attr-defined]
    asyncio.run(athina_trace(functools.partial(acoroutine.__wrapped__, "a"))())  # type: ignore[attr-defined]
    athina_trace(lambda question: question * 2)("q")
    athina_trace(len)([1, 2, 3])
    assert [log["response"] for log in local()] == ["q9", "a", "qq", "3"]


def test_decorating_objects_that_are_not_callable() -> None:
    with pytest.raises(TypeError, match="got property: put the decorator below @property"):
        athina_trace(property(lambda self: 1))
    with pytest.raises(TypeError, match="expected a function or another callable to decorate, got int"):
        athina_trace(3)


def test_recursive_and_nested_calls_have_their_own_logs(local: Logs) -> None:
    @athina_trace
    def count(question: str, depth: int = 0) -> str:
        return question if depth == 2 else count(question, depth + 1)

    with athina_session("s"):
        count("q")
    inner, middle, outer = local()
    assert [log["custom_attributes"]["input.depth"] for log in (inner, middle, outer)] == [2, 1, 0]
    assert inner["custom_attributes"]["parent_reference"] == middle["external_reference_id"]
    assert middle["custom_attributes"]["parent_reference"] == outer["external_reference_id"]
    assert "parent_reference" not in outer["custom_attributes"]


def test_an_inner_call_belongs_to_the_session_of_the_outer_one(local: Logs) -> None:
    @athina_trace
    def model(messages: list[dict[str, str]]) -> str:
        return messages[-1]["content"]

    @athina_trace
    def handler(thread_id: str, question: str) -> str:
        return model([{"role": "user", "content": question}])

    handler("t1", "q")
    assert [log["session_id"] for log in local()] == ["t1", "t1"]


@pytest.mark.parametrize("function", ALL)
def test_a_decorated_function_looks_undecorated(function: Any) -> None:
    wrapped = function.__wrapped__
    for check in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        # Deprecated since Python 3.14, and still what many frameworks of its time ask.
        asyncio.iscoroutinefunction if sys.version_info < (3, 14) else callable,
        inspect.isfunction,
        inspect.signature,
        inspect.getdoc,
        inspect.getsource,
    ):
        assert check(function) == check(wrapped), check
    assert function.__name__ == wrapped.__name__
    assert function.__annotations__ == wrapped.__annotations__


@pytest.mark.parametrize("function", [*ALL, Desk.inner_class, Desk.inner_static, Desk.outer_static])
def test_pickle_and_copy(function: Any) -> None:
    assert pickle.loads(pickle.dumps(function))  # noqa: S301 - our own bytes
    assert copy.copy(function) == function
    assert copy.deepcopy(function) == function
    assert copy.deepcopy({"handler": function})["handler"] == function


def test_pickled_functions_and_methods_work(local: Logs) -> None:
    assert pickle.loads(pickle.dumps(plain)) is copy.copy(plain) is copy.deepcopy(plain) is plain  # noqa: S301
    method = pickle.loads(pickle.dumps(Desk().method))  # noqa: S301 - our own bytes
    assert method("q") == "method q"
    assert len(local()) == 1


def test_fastapi_sees_the_undecorated_signature(local: Logs) -> None:
    app = FastAPI()

    @app.get("/answer")
    @athina_trace(capture_inputs=["question"])
    async def answer(question: str, user: Annotated[str, Depends(asking_user)], limit: int = 2) -> dict[str, Any]:
        return {"answer": question, "user": user, "limit": limit}

    with TestClient(app) as client:
        assert client.get("/answer?question=q&name=me").json() == {"answer": "q", "user": "user me", "limit": 2}
        assert client.get("/answer?question=q&limit=many").status_code == 422
        names = {p["name"] for p in client.get("/openapi.json").json()["paths"]["/answer"]["get"]["parameters"]}
    assert names == {"question", "name", "limit"}
    assert local()[1]["response"] == '{"answer":"q","user":"user me","limit":2}'


def test_exceptions_pass_untouched_with_one_frame_of_ours(local: Logs) -> None:
    @athina_trace
    def broken(question: str) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone") as caught:
        broken("q")
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_exceptions_pass_untouched_with_one_frame_of_ours", "plain", "broken"]
    assert caught.value.__context__ is None
    (log,) = local()
    assert (log["error"], log["response"]) == ("ConnectionError: gone", "")


def test_the_status_of_a_failed_call(local: Logs) -> None:
    class ApiError(Exception):
        status_code = 429

    class Hostile(Exception):  # noqa: N818 - a name for a test
        status_code = property(lambda _: 1 / 0)

        def __str__(self) -> str:
            raise RuntimeError

    for error in (ApiError("slow down"), Hostile()):
        with pytest.raises(type(error)):
            athina_trace(_raise)(error)
    first, second = local()
    assert (first["status_code"], first["error"]) == (429, "ApiError: slow down")
    assert (second.get("status_code"), second["error"]) == (None, "Hostile")


@pytest.mark.parametrize(
    ("kept", "status"),
    [
        ({"status_code": 429}, 429),
        ({"response": SimpleNamespace(status_code=429)}, 429),
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 429}}}, 429),
        ({"code": HTTPStatus.TOO_MANY_REQUESTS, "response": None}, 429),
        ({"code": 429}, None),  # any code: of a database, a process, a socket
        ({"status_code": "429", "response": {"ResponseMetadata": None}}, None),
    ],
    ids=["requests to OpenAI", "httpx", "botocore", "Google", "other codes", "other types"],
)
def test_the_status_is_where_the_client_keeps_it(local: Logs, kept: dict[str, Any], status: int | None) -> None:
    error = RuntimeError("slow down")
    for name, value in kept.items():
        setattr(error, name, value)
    with pytest.raises(RuntimeError):
        athina_trace(_raise)(error)
    (log,) = local()
    assert log.get("status_code") == status


def _raise(error: Exception) -> None:
    raise error


def test_a_cancelled_call_is_logged_and_marked(local: Logs) -> None:
    @athina_trace
    async def slow(question: str) -> None:
        await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(slow("q"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    @athina_trace
    def interrupted(question: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted("q")
    logs = local()
    assert [log["custom_attributes"]["outcome"] for log in logs] == ["cancelled", "cancelled"]
    assert all("error" not in log for log in logs)


def test_options_are_checked_when_decorating() -> None:
    with pytest.raises(TypeError, match=r"'promt_slug'.*did you mean 'prompt_slug'\?"):
        athina_trace(promt_slug="s")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"'user_qery'.*did you mean 'user_query'\?"):
        athina_trace(inputs={"user_qery": "question"})
    with pytest.raises(
        TypeError, match=r"maps the parameter 'ask', which .*f\(\) does not have; its parameters are \['x'\]"
    ):

        @athina_trace(inputs={"user_query": "ask"})
        def f(x: str) -> None: ...

    with pytest.raises(TypeError, match="takes a function of the result"):
        athina_trace(response=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"write \['question'\]"):
        athina_trace(capture_inputs="question")


def test_constants_and_mapped_parameters(local: Logs) -> None:
    @athina_trace(
        inputs={"user_query": "ask", "completion": "spent"},
        response=lambda result: result["text"],
        language_model_id="gpt-4o",
        tool_call=["t"],
        custom_attributes={"team": "parcels"},
    )
    def answer(ask: str, spent: int, other: list[int]) -> dict[str, str]:
        return {"text": ask.upper()}

    answer("q", 5, [1, 2])
    (log,) = local()
    assert (log["user_query"], log["response"], log["language_model_id"]) == ("q", "Q", "gpt-4o")
    assert log["completion_tokens"] == log["completion"] == 5
    assert log["tool_calls"] == log["tool_call"] == ["t"]
    assert log["custom_attributes"]["team"] == "parcels"
    assert log["custom_attributes"]["input.other"] == "[1,2]"


@pytest.mark.parametrize(
    ("capture", "expected"),
    [(True, {"input.b", "input.api_key"}), (False, set()), (["b"], {"input.b"})],
)
def test_capture_inputs(local: Logs, capture: Any, expected: set[str]) -> None:
    @athina_trace(capture_inputs=capture)
    def answer(thread_id: str, question: str, b: int, api_key: str = "sk-secret") -> str:
        return "r"

    answer("t", "q", 1)
    (log,) = local()
    assert {name for name in log["custom_attributes"] if name.startswith("input.")} == expected
    assert log.get("user_query") == ("q" if capture is True else None)
    assert log["session_id"] == "t"
    assert "sk-secret" not in str(log)
    tokens = [f"sk-proj-{letter}bcdefghijklmnopqrstuvwxyz0123456789" for letter in "aa4"]
    for token in tokens:
        answer(token, "q", 1)
    first, again, other = (each["session_id"] for each in local()[-3:])
    assert first == again != other
    assert "bcdefghijklmnop" not in f"{first} {other}"


def test_where_the_question_comes_from(local: Logs) -> None:
    def messages(messages: list[Any]) -> None: ...
    def only_string(text: str, user_id: str, size: int) -> None: ...
    def two_strings(one: str, two: str) -> None: ...
    def by_order(message: str, query: str) -> None: ...
    def optional(message: str, query: str | None = None) -> None: ...
    def keywords(**given: Any) -> None: ...
    def positional(*questions: str) -> None: ...

    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    athina_trace(messages)([{"role": "user", "content": "first"}, {"role": "user", "content": parts}])
    athina_trace(only_string)("the text", "u1", 3)
    athina_trace(two_strings)("1", "2")
    athina_trace(by_order)("m", "q")
    athina_trace(optional)("m")
    athina_trace(keywords)(question="k", more=1)
    athina_trace(positional)("a", "b")
    assert [log.get("user_query") for log in local()] == ["look", "the text", None, "q", "m", "k", None]
    assert [log["prompt"][0]["content"] for log in local()] == ["first", "the text", "", "q", "m", "k", ""]
    assert local()[3]["custom_attributes"]["input.message"] == "m"
    assert local()[6]["custom_attributes"]["input.questions"] == '["a","b"]'


def test_a_message_of_a_chat_framework_is_logged_as_its_text(local: Logs) -> None:
    class Message:  # as Chainlit's
        def __init__(self, words: object) -> None:
            self.content, self.author = words, "u"

    class Slotted:  # as Telegram's
        __slots__ = ("text",)

        def __init__(self, words: object) -> None:
            self.text = words

    data: Any = make_dataclass("Message", [("text", str), ("chat", dict)])
    other = data("I am data.", {"id": 1})
    data.__module__ = "aiogram.types.message"
    for message in (Message("Where is it?"), Slotted("In slots?"), data("And here?", {}), Message(None), Slotted("")):
        athina_trace(lambda message: "")(message)
    data.__module__ = "mine"
    athina_trace(lambda message: "")(other)
    queries = [log["user_query"] for log in local()]
    assert queries[:3] == ["Where is it?", "In slots?", "And here?"]
    assert queries[3].endswith(".Message>")
    assert queries[4].endswith(".Slotted>")
    assert queries[5] == '{"text":"I am data.","chat":{"id":1}}'


def test_arguments_are_read_before_the_function_changes_them(local: Logs) -> None:
    @athina_trace
    def answer(messages: list[dict[str, str]]) -> str:
        messages[0]["content"] = "changed"
        messages.clear()
        return "r"

    answer([{"role": "user", "content": "asked"}])
    assert local()[0]["prompt"] == [{"role": "user", "content": "asked"}]


def test_wrong_arguments_fail_as_undecorated(local: Logs) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        plain()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        plain("q", wrong=1)  # type: ignore[call-arg]
    # Python refuses such a call before the function begins, of whatever kind it is: there was none.
    assert local() == []


def test_the_block_form(local: Logs) -> None:
    async def block() -> None:
        async with athina_trace(language_model_id="m") as log:
            log.update(user_query="aq", response="ar")

    with athina_trace(user_query="q", prompt_slug="s") as log:
        assert current_log() is log
        log.update(response="r", prompt_tokens=3)
        reference = log.external_reference_id
    asyncio.run(block())
    with pytest.raises(LookupError), athina_trace(user_query="q"):
        raise LookupError("no")
    first, second, third = local()
    assert (first["user_query"], first["response"], first["prompt_tokens"]) == ("q", "r", 3)
    assert first["external_reference_id"] == reference
    assert (second["user_query"], second["language_model_id"]) == ("aq", "m")
    assert third["error"] == "LookupError: no"


def test_outside_any_call_the_log_is_falsy_and_harmless() -> None:
    log = current_log()
    assert not log
    assert log.external_reference_id is None
    log.update(response="nowhere")
    log.record(object())


def test_later_updates_win_and_attributes_merge(local: Logs) -> None:
    @athina_trace(response="constant", custom_attributes={"a": 1, "b": 1})
    def answer(question: str) -> str:
        current_log().update(user_query="first", custom_attributes={"b": 2})
        current_log().update(user_query="second", custom_attributes={"c": {"deep": [1]}})
        return "returned"

    answer("q")
    (log,) = local()
    assert (log["user_query"], log["response"]) == ("second", "constant")
    attributes = log["custom_attributes"]
    assert (attributes["a"], attributes["b"], attributes["c"]) == (1, 2, '{"deep":[1]}')


def test_an_unknown_field_is_kept_with_a_warning(local: Logs, caplog: pytest.LogCaptureFixture) -> None:
    @athina_trace
    def answer(question: str) -> None:
        current_log().update(respons="lost?")  # type: ignore[call-arg]

    answer("q")
    assert local()[0]["custom_attributes"]["respons"] == "lost?"
    assert "unknown field 'respons': kept in custom_attributes; did you mean 'response'?" in caplog.text


def test_wrong_types_never_lose_a_log(local: Logs) -> None:
    @athina_trace
    def answer(question: str) -> None:
        given: dict[str, Any] = {"prompt_tokens": "many", "completion_tokens": "7", "prompt": {"a": 1}, "cost": "0.5"}
        current_log().update(context=[1], **given)

    answer("q")
    (log,) = local()
    assert log["custom_attributes"]["invalid.prompt_tokens"] == "many"
    assert log["custom_attributes"]["invalid.prompt"] == '{"a":1}'
    assert (log["completion_tokens"], log["cost"], log["context"]) == (7, 0.5, [1])


def test_results_of_every_kind(local: Logs) -> None:
    for result in ("text", None, 3, {"a": [1]}, b"bytes", object()):
        athina_trace(lambda result=result: result)()
    assert [log["response"] for log in local()] == [
        "text", "", "3", '{"a":[1]}', "bytes", "<object>",
    ]  # fmt: skip


def test_customers_and_nested_sessions(local: Logs) -> None:
    answer = athina_trace(lambda question: question)
    with athina_session("outer", customer_id="c1", customer_user_id="u1", plan="pro"):
        with athina_session(customer_id="c2", environment="test", region="eu"):
            set_customer("c3")
            answer("in")
        answer("between")
        set_customer("c4", customer_user_id=None)
        answer("after")
    answer("outside")
    inner, between, after, outside = local()
    names = ("session_id", "customer_id", "customer_user_id", "environment")
    assert [inner.get(n) for n in names] == ["outer", "c3", "u1", "test"]
    assert (inner["custom_attributes"]["plan"], inner["custom_attributes"]["region"]) == ("pro", "eu")
    assert [between.get(n) for n in names] == ["outer", "c1", "u1", None]
    assert [after.get(n) for n in names] == ["outer", "c4", None, None]
    assert [outside.get(n) for n in names] == [None] * 4


def test_a_session_decorates_every_kind_of_function(local: Logs) -> None:
    ask = athina_trace(lambda question: question)

    @athina_session("plain")
    def handler() -> None:
        ask("q")

    @athina_session("coroutine")
    async def acoroutine() -> None:
        ask("q")

    @athina_session("generator")
    def steps() -> Iterator[int]:
        set_customer("kept over steps")
        yield 1
        ask("q")

    @athina_session("async generator")
    async def asteps() -> Any:
        yield 1
        ask("q")

    async def everything() -> None:
        await acoroutine()
        async for _ in asteps():
            pass

    handler()
    for _ in steps():
        assert not current_log()
    asyncio.run(everything())
    assert [log["session_id"] for log in local()] == ["plain", "generator", "coroutine", "async generator"]
    assert local()[1]["customer_id"] == "kept over steps"


def test_a_response_function_that_fails_does_not_lose_the_log(local: Logs) -> None:
    @athina_trace(response=lambda result: result["text"])
    def answer(question: str) -> list[int]:
        if question == "fail":
            raise LookupError
        return [1]

    answer("q")
    with pytest.raises(LookupError):
        answer("fail")
    first, second = local()
    assert first["response"] == "[1]"
    assert first["custom_attributes"]["response_error"].startswith("TypeError: list indices")
    assert (second["response"], second["error"]) == ("", "LookupError")


def test_prompts_of_every_kind(local: Logs) -> None:
    @athina_trace
    def ask(prompt: Any) -> None: ...

    for prompt in ("tell me", [{"role": "user", "content": "hi"}], ["one", "two"], {"template": "t"}):
        ask(prompt)
    assert [log["prompt"] for log in local()] == [
        "tell me", [{"role": "user", "content": "hi"}], '["one","two"]', '{"template":"t"}',
    ]  # fmt: skip
    assert [log["user_query"] for log in local()][:2] == ["tell me", "hi"]


def test_a_custom_reference(local: Logs) -> None:
    with athina_trace(user_query="q") as log:
        made = log.external_reference_id
        log.update(external_reference_id="mine")
        assert log.external_reference_id == "mine" != made
    assert local()[0]["external_reference_id"] == "mine"


def test_inputs_may_map_the_reference_and_custom_attributes(local: Logs) -> None:
    @athina_trace(inputs={"external_reference_id": "order", "custom_attributes": "facts"})
    def ask(question: str, order: int, facts: object) -> str:
        return question

    ask("q", 17, {"plan": "gold", "tags": ["a"]})
    ask("q", 18, "none")
    first, second = local()
    assert (first["external_reference_id"], second["external_reference_id"]) == ("17", "18")
    assert (first["custom_attributes"]["plan"], first["custom_attributes"]["tags"]) == ("gold", '["a"]')
    assert second["custom_attributes"]["facts"] == "none"
