"""A decorated generator behaves exactly like the undecorated one, whatever is done to it, and is logged at its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import gc
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace import athina_session, athina_trace, current_log, set_customer
from athina_trace._capture import streams
from athina_trace._wrapping import generators
from athina_trace._wrapping.calls import Call
from athina_trace._wrapping.state import current
from athina_trace.context import current_scope

Logs = Callable[[], list[dict[str, Any]]]
Script = list[tuple[str, Any]]


class Poke(Exception):  # noqa: N818 - thrown in, not raised as an error
    """The exception that scripts throw."""


VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("VARIABLE", default="nothing")
STEPS = st.one_of(
    st.just(("next", None)),
    st.tuples(st.just("send"), st.integers(0, 9)),
    st.tuples(st.just("throw"), st.sampled_from([Poke, GeneratorExit, StopIteration, KeyboardInterrupt])),
    st.just(("close", None)),
    st.just(("elsewhere", None)),  # a step in another context, for an async generator in another task
    st.tuples(st.just("set"), st.integers(0, 9)),  # a context variable and the precision of decimals
    st.just(("reset", None)),
    st.tuples(st.just("session"), st.booleans()),  # entered or left around what follows
)
# Closed at the end, as often as it takes: a generator may ignore it.
SCRIPTS = st.lists(STEPS, max_size=10).map(lambda steps: [*steps, *[("close", None)] * 6])
# An async generator that ignores GeneratorExit cannot be ended by anybody: it fails when it is collected.
ASYNC_CATCHES = (None, Poke, KeyboardInterrupt)
BEHAVIOURS = st.fixed_dictionaries(
    {
        "yields": st.integers(0, 4),
        "catches": st.sampled_from([None, Poke, KeyboardInterrupt, GeneratorExit, BaseException]),
        "stubborn": st.booleans(),  # yields again after what it caught
        "raises": st.booleans(),
        "returns": st.sampled_from([None, "", "value"]),
        "variables": st.lists(st.sampled_from(["set", "reset", "precision", "nested", "read"]), max_size=5),
    }
)


class Variables:
    """Changes of context variables by a generator or its consumer, and what each sees of them."""

    def __init__(self, name: str) -> None:
        self.name, self.tokens, self.entered = name, list[contextvars.Token[Any]](), list[Any]()

    def seen(self) -> Any:
        return VARIABLE.get(), decimal.getcontext().prec

    def do(self, what: str, argument: Any = None) -> Any:
        try:
            if what == "set":
                self.tokens.append(VARIABLE.set((self.name, argument)))
            elif what == "reset" and self.tokens:
                VARIABLE.reset(self.tokens.pop())
            elif what == "precision":
                decimal.setcontext(decimal.Context(prec=5))
            elif what == "nested":
                list(_nested(self))
        except (RuntimeError, ValueError) as error:  # a token of another context
            return type(error).__name__
        return self.seen()


@athina_session("nested")
def _nested(variables: Variables) -> Iterator[Any]:
    yield variables.do("set", "nested")


def make(behaviour: dict[str, Any]) -> Callable[[], Generator[Any, Any, Any]]:  # noqa: C901 - two that are alike
    catches: Any = behaviour["catches"] or ()

    def silent() -> Generator[Any, Any, Any]:
        got: list[Any] = []
        variables = Variables("generator")
        for number in range(behaviour["yields"]):
            got += [variables.do(what, number) for what in behaviour["variables"][number::2]]
            try:
                got.append((yield number, tuple(got), variables.seen()))
            except catches as error:
                got.append(type(error).__name__)
                if behaviour["stubborn"]:
                    yield "stubborn"
        if behaviour["raises"]:
            raise LookupError(str(got))

    def generator() -> Generator[Any, Any, Any]:
        got: list[Any] = []
        variables = Variables("generator")
        for number in range(behaviour["yields"]):
            got += [variables.do(what, number) for what in behaviour["variables"][number::2]]
            try:
                got.append((yield number, tuple(got), variables.seen()))
            except catches as error:
                got.append(type(error).__name__)
                if behaviour["stubborn"]:
                    yield "stubborn"
        if behaviour["raises"]:
            raise LookupError(str(got))
        return behaviour["returns"]

    return silent if behaviour["returns"] is None else generator  # the former is driven otherwise


def make_async(behaviour: dict[str, Any]) -> Callable[[], AsyncGenerator[Any, Any]]:
    catches: Any = behaviour["catches"] or ()

    async def generator() -> AsyncGenerator[Any, Any]:
        got: list[Any] = []
        variables = Variables("generator")
        for number in range(behaviour["yields"]):
            await asyncio.sleep(0)
            got += [variables.do(what, number) for what in behaviour["variables"][number::2]]
            try:
                got.append((yield number, tuple(got), variables.seen()))
            except catches as error:
                got.append(type(error).__name__)
                if behaviour["stubborn"]:
                    yield "stubborn"
        if behaviour["raises"]:
            raise LookupError(str(got))

    return generator


def described(error: BaseException | None) -> Any:
    """Return an exception and its chain of causes as data."""
    if error is None:
        return None
    return type(error).__name__, str(error), described(error.__cause__), described(error.__context__)


def play(make_one: Callable[[], Generator[Any, Any, Any]], script: Script) -> list[Any]:
    return contextvars.copy_context().run(_play, make_one(), script)


def _play(generator: Generator[Any, Any, Any], script: Script) -> list[Any]:
    seen: list[Any] = []
    variables = Variables("consumer")
    decimal.setcontext(decimal.Context(prec=28))
    for step, argument in script:
        try:
            if step in ("set", "reset"):
                seen.append(variables.do(step, argument))
            elif step == "session":
                _enter_or_leave(variables, enter=argument)
            elif step == "throw":
                seen.append(("got", generator.throw(argument("thrown"))))
            elif step == "elsewhere":
                seen.append(("got", contextvars.copy_context().run(next, generator)))
            else:
                operation: Any = {"next": generator.__next__, "send": generator.send, "close": generator.close}[step]
                seen.append(("got", operation(argument) if step == "send" else operation()))
        except BaseException as error:  # noqa: BLE001 - they are the result
            seen.append(described(error))
        seen.append((variables.seen(), bool(current_log()), current_scope().fields.get("session_id")))
    return seen


def _enter_or_leave(variables: Variables, *, enter: bool) -> None:
    if enter:
        variables.entered.append(athina_session(f"consumer {len(variables.entered)}"))
        variables.entered[-1].__enter__()
    elif variables.entered:
        variables.entered.pop().__exit__(None, None, None)


async def play_async(make_one: Callable[[], AsyncGenerator[Any, Any]], script: Script) -> list[Any]:
    return await asyncio.create_task(_play_async(make_one(), script))


async def _play_async(generator: AsyncGenerator[Any, Any], script: Script) -> list[Any]:
    seen: list[Any] = []
    variables = Variables("consumer")
    decimal.setcontext(decimal.Context(prec=28))
    for step, argument in script:
        try:
            if step in ("set", "reset"):
                seen.append(variables.do(step, argument))
            elif step == "session":
                _enter_or_leave(variables, enter=argument)
            elif step == "throw":
                seen.append(("got", await generator.athrow(argument("thrown"))))
            elif step == "send":
                seen.append(("got", await generator.asend(argument)))
            elif step == "elsewhere":

                async def elsewhere() -> Any:
                    try:
                        return "got", await generator.__anext__()
                    except BaseException as error:  # noqa: BLE001 - they are the result
                        return described(error)

                seen.append(await asyncio.create_task(elsewhere()))
            else:
                operation: Any = generator.__anext__ if step == "next" else generator.aclose
                seen.append(("got", await operation()))
        except BaseException as error:  # noqa: BLE001 - they are the result
            seen.append(described(error))
        seen.append((variables.seen(), bool(current_log()), current_scope().fields.get("session_id")))
    return seen


@given(BEHAVIOURS, SCRIPTS)
def test_generators_behave_as_undecorated(behaviour: dict[str, Any], script: Script) -> None:
    plain = make(behaviour)
    assert play(athina_trace(plain), script) == play(plain, script)
    assert play(athina_session("s")(plain), script) == play(plain, script)


@given(BEHAVIOURS.filter(lambda behaviour: behaviour["catches"] in ASYNC_CATCHES), SCRIPTS)
def test_async_generators_behave_as_undecorated(behaviour: dict[str, Any], script: Script) -> None:
    script = [step for step in script if step != ("throw", StopIteration)]
    plain = make_async(behaviour)

    async def both() -> None:
        assert await play_async(athina_trace(plain), script) == await play_async(plain, script)
        assert await play_async(athina_session("s")(plain), script) == await play_async(plain, script)

    asyncio.run(both())


@athina_trace
def tell(question: str, parts: int = 3) -> Generator[str, None, str]:
    for part in range(parts):
        yield f"{question}{part} "
    return "returned"


@athina_trace
async def atell(question: str, parts: int = 3) -> AsyncGenerator[str, None]:
    for part in range(parts):
        await asyncio.sleep(0)
        yield f"{question}{part} "


def test_a_stream_is_logged_when_it_ends(local: Logs) -> None:
    stream = tell("q")
    assert next(stream) == "q0 "
    assert local() == []
    assert list(stream) == ["q1 ", "q2 "]
    (log,) = local()
    assert (log["response"], log["user_query"]) == ("q0 q1 q2 ", "q")
    assert log["custom_attributes"]["chunks"] == 3
    assert log["custom_attributes"]["time_to_first_chunk_ms"] >= 0
    assert "outcome" not in log["custom_attributes"]


@pytest.mark.parametrize("give_up", ["close", "forget"])
def test_an_abandoned_stream_is_logged_once_as_incomplete(local: Logs, give_up: str) -> None:
    stream = tell("q")
    next(stream)
    if give_up == "close":
        stream.close()
    del stream
    gc.collect()
    (log,) = local()
    assert log["response"] == "q0 "
    assert log["custom_attributes"]["outcome"] == "incomplete"
    assert "error" not in log


def test_a_stream_that_was_never_started_is_no_call(local: Logs) -> None:
    del [tell("q")][0]
    gc.collect()
    assert local() == []


def test_a_failed_stream(local: Logs) -> None:
    @athina_trace
    def broken(question: str) -> Iterator[str]:
        yield question
        raise Poke("broken off")

    with pytest.raises(Poke, match="broken off"):
        list(broken("q"))
    (log,) = local()
    assert (log["response"], log["error"]) == ("q", "Poke: broken off")


def test_the_return_value_of_a_generator_is_kept(local: Logs) -> None:
    def outer() -> Generator[str, None, str]:
        return (yield from tell("q", 1))

    generator = outer()
    assert next(generator) == "q0 "
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "returned"


def _by_branch(parts: int) -> Generator[int, Any, Any]:
    if parts:
        yield parts
        return None if parts > 1 else "one"
    return None


def _by_finally(parts: int) -> Generator[int, Any, Any]:
    try:
        yield parts
        return parts
    finally:
        yield -parts


def _by_match(parts: int) -> Generator[int, Any, Any]:
    match parts:
        case 0:
            return
        case 1:
            yield 1
            return "one"
    yield parts


@pytest.mark.parametrize("parts", range(3))
@pytest.mark.parametrize(
    "function",
    [_by_branch, _by_finally, _by_match, lambda parts: (yield parts), lambda parts: (yield from [parts])],
    ids=["branch", "finally", "match", "sent", "delegated"],
)
def test_whatever_a_generator_returns_arrives(
    function: Callable[[int], Generator[int, Any, Any]], parts: int, local: Logs
) -> None:
    def all_of(generator: Generator[int, Any, Any]) -> list[Any]:
        seen: list[Any] = []
        try:
            while True:
                seen.append(next(generator))
        except StopIteration as stop:
            return [*seen, stop.value]

    assert all_of(athina_trace(function)(parts)) == all_of(function(parts))


def test_an_async_stream_abandoned_in_a_task(local: Logs) -> None:
    async def reader() -> None:
        async for _ in atell("q"):
            break
        gc.collect()
        await asyncio.sleep(0.01)  # the loop closes what was abandoned in it

    asyncio.run(reader())
    (log,) = local()
    assert log["custom_attributes"]["outcome"] == "incomplete"


def test_a_cancelled_stream_is_logged_as_cancelled(local: Logs) -> None:
    @athina_trace
    async def slow(question: str) -> AsyncGenerator[str, None]:
        yield question
        await asyncio.sleep(60)

    async def reader() -> None:
        async for _ in slow("q"):
            pass

    async def cancel() -> None:
        task = asyncio.create_task(reader())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    (log,) = local()
    assert (log["response"], log["custom_attributes"]["outcome"]) == ("q", "cancelled")


def test_a_function_that_returns_a_stream_is_a_stream(local: Logs) -> None:
    @athina_trace
    def answer(question: str) -> Iterator[str]:
        return (f"{question}{n}" for n in range(2))

    @athina_trace
    async def aanswer(question: str) -> Any:
        return atell.__wrapped__(question, 2)  # type: ignore[attr-defined]

    async def read() -> list[str]:
        return [part async for part in await aanswer("a")]

    assert list(answer("q")) == ["q0", "q1"]
    assert asyncio.run(read()) == ["a0 ", "a1 "]
    assert [log["response"] for log in local()] == ["q0q1", "a0 a1 "]


def test_the_consumer_sees_the_programs_variables_and_none_of_ours(local: Logs) -> None:
    variable = contextvars.ContextVar("variable", default="outer")
    seen: list[str] = []

    @athina_trace
    def generator(question: str) -> Iterator[str]:
        variable.set("inner")
        assert current_log()
        yield question
        seen.append(variable.get())

    for _ in generator("q"):
        assert not current_log()
        assert variable.get() == "inner"  # as undecorated
        variable.set("of the consumer")
    assert seen == ["of the consumer"]


def test_a_stream_keeps_the_session_in_which_it_was_made(local: Logs) -> None:
    with athina_session("made here"):
        stream = tell("q")
    with athina_session("read here"):
        list(stream)
    (log,) = local()
    assert log["session_id"] == "made here"


def test_each_step_may_run_in_another_context_and_thread(local: Logs) -> None:
    stream = tell("q")
    assert [contextvars.copy_context().run(next, stream) for _ in range(3)] == ["q0 ", "q1 ", "q2 "]
    assert next(stream, None) is None
    assert len(local()) == 1


def test_streams_of_other_objects_than_text(local: Logs) -> None:
    @athina_trace
    def numbers() -> Iterator[Any]:
        yield {"a": 1}
        yield b"bytes"

    @athina_trace(response=lambda chunks: f"{len(chunks)} chunks")
    def counted() -> Iterator[int]:
        yield from range(3)

    list(numbers())
    list(counted())
    assert [log["response"] for log in local()] == ['{"a":1}bytes', "3 chunks"]


LONG = 2000  # chunks: several batches


def _looped(chunks: list[str]) -> Iterator[str]:
    yield from chunks


def _called(chunks: list[str]) -> Generator[str, None, str]:
    yield from chunks
    return "returned"


async def _awaited(chunks: list[str]) -> AsyncGenerator[str, None]:
    for chunk in chunks:
        yield chunk


def _iterated(chunks: list[str]) -> Iterator[str]:
    return iter(chunks)


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("function", [_looped, _called, _awaited, _iterated])
def test_a_bounded_part_of_a_long_stream_is_kept(
    function: Callable[[list[str]], Any], grows: bool, local: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_MOST_CHARACTERS", 1000)
    kept: list[Any] = []
    stream = athina_trace(response=kept.extend)(function)(["x" * (at if grows else 5) for at in range(LONG)])

    async def read() -> int:
        return len([chunk async for chunk in stream])

    assert (asyncio.run(read()) if function is _awaited else len([*stream])) == LONG
    (log,) = local()
    assert log["custom_attributes"]["chunks"] == LONG
    assert len(kept) < LONG / 2
    if grows:
        assert kept[-1] == "x" * (LONG - 1)


@pytest.mark.parametrize("value", ["sent", Poke()])
def test_a_long_stream_continues_after_send(value: Any, local: Logs) -> None:
    @athina_trace
    def words(question: str) -> Generator[str, Any, None]:
        for at in range(LONG):
            try:
                got = yield f"{at} "
            except Poke:
                got = "thrown"
            if got is not None:
                yield f"{got} "

    stream = words("q")
    seen = [next(stream) for _ in range(300)]
    seen.append(stream.throw(value) if isinstance(value, Poke) else stream.send(value))
    seen += stream
    (log,) = local()
    assert log["response"] == "".join(seen)
    assert log["custom_attributes"]["chunks"] == len(seen) == LONG + 1


def test_a_step_may_end_in_another_context_than_it_began_in(local: Logs) -> None:
    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def words(question: str) -> AsyncGenerator[str, None]:
        await Pause()
        yield question

    def first_of(stream: AsyncGenerator[str, None]) -> Any:
        step: Any = stream.asend(None)
        contextvars.copy_context().run(step.send, None)
        with pytest.raises(StopIteration) as given:
            contextvars.copy_context().run(step.send, None)
        with pytest.raises(StopAsyncIteration):
            stream.asend(None).send(None)
        return given.value.value

    assert first_of(athina_trace(words)("q")) == first_of(words("q")) == "q"


class _Interrupted(Call):
    """A call that the program's time limit interrupts once, while it reads a chunk of a stream."""

    __slots__ = ("is_interrupted",)

    def __init__(self) -> None:
        self.is_interrupted = False

    def chunks(self, values: list[Any]) -> None:
        if not self.is_interrupted:
            self.is_interrupted = True
            raise KeyboardInterrupt


def test_an_interrupt_while_a_chunk_is_read_reaches_the_program() -> None:
    found = current.get()
    with pytest.raises(KeyboardInterrupt):
        next(generators.drive_generator((number for number in range(2)), _Interrupted(), lambda _result, _call: None))
    numbers = make_async({"yields": 1, "catches": None, "stubborn": False, "raises": False, "variables": []})
    stream = generators.drive_async_generator(numbers(), _Interrupted())
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(stream.asend(None))
    assert current.get() == found


def test_a_thrown_exception_is_not_kept_alive(local: Logs) -> None:
    class Payload(Exception):  # noqa: N818 - carried, not raised as an error
        pass

    def poke() -> weakref.ref[Payload]:
        payload = Payload()
        stream = tell("q")
        next(stream)
        with contextlib.suppress(Payload):
            stream.throw(payload)
        alive = weakref.ref(payload)
        del payload  # this frame is in its traceback
        return alive

    gc.disable()
    try:
        assert poke()() is None
    finally:
        gc.enable()


async def raises(stream: AsyncGenerator[Any, Any]) -> None:
    async for _ in stream:
        pass


async def is_thrown(stream: AsyncGenerator[Any, Any]) -> None:
    await anext(stream)
    await stream.athrow(Poke("p"))


async def is_thrown_and_closed(stream: AsyncGenerator[Any, Any]) -> None:
    with contextlib.suppress(Poke):
        await is_thrown(stream)
    await stream.aclose()


async def is_closed(stream: AsyncGenerator[Any, Any]) -> None:
    await anext(stream)
    await stream.aclose()


async def is_cancelled(stream: AsyncGenerator[Any, Any]) -> None:
    await anext(stream)
    await asyncio.wait_for(anext(stream), 0)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("end", [raises, is_thrown, is_thrown_and_closed, is_closed, is_cancelled])
def test_an_async_generator_that_ended_keeps_nothing_alive(end: Any, goes_on: bool, local: Logs) -> None:
    async def talk(_held: Poke) -> AsyncGenerator[Any]:
        try:
            yield _held
            await asyncio.sleep(0)
        except Poke:
            if goes_on:
                yield "again"
        except GeneratorExit:
            if not goes_on:
                raise
        raise Poke

    async def run(function: Callable[[Poke], AsyncGenerator[Any]]) -> weakref.ref[Poke]:
        held = Poke()
        stream = function(held)
        alive = weakref.ref(held)
        del held
        with contextlib.suppress(Poke, asyncio.TimeoutError):
            await end(stream)
        return alive

    gc.disable()
    try:
        # Python 3.13 itself keeps one alive that goes on after it was thrown something.
        is_kept = asyncio.run(run(talk))() is not None
        assert asyncio.run(run(athina_trace(talk)))() is None or is_kept
    finally:
        gc.enable()
    assert len(local()) == 1


def here() -> tuple[Any, Any, bool]:
    fields = current_scope().fields
    return fields.get("session_id"), fields.get("customer_id"), bool(current_log())


def sessions(question: str) -> Iterator[Any]:
    yield here()
    set_customer("disney")
    yield here()
    with athina_session("inner", customer_id="acme"):
        yield here()
        set_customer("hooli")
        yield here()
    yield here()
    with athina_trace(user_query="block") as log:
        log.update(response="answered")
        yield here()
    yield here()


async def asessions(question: str) -> AsyncGenerator[Any, None]:
    for seen in sessions("q"):
        await asyncio.sleep(0)
        yield seen


SEEN = [
    ("made", None), ("made", "disney"), ("inner", "acme"), ("inner", "hooli"), ("made", "disney"), ("made", "disney"),
    ("made", "disney"),
]  # fmt: skip


@pytest.mark.parametrize("decorate", [athina_trace, athina_session(environment="test")])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_scopes_and_logs_inside_a_stream_stay_inside_from_step_to_step(
    local: Logs, decorate: Any, elsewhere: bool
) -> None:
    with athina_session("made"):
        stream = decorate(sessions)("q")
    seen = []
    with athina_session("read"):
        while True:
            step = contextvars.copy_context().run(next, stream, None) if elsewhere else next(stream, None)
            if step is None:
                break
            seen.append(step)
            assert here() == ("read", None, False)
    traced = decorate is athina_trace
    assert seen == [(*names, traced or number == 5) for number, names in enumerate(SEEN)]
    block, *rest = local()
    assert (block["user_query"], block["session_id"], block["customer_id"]) == ("block", "made", "disney")
    assert len(rest) == traced


@pytest.mark.parametrize("elsewhere", [False, True])
def test_scopes_inside_an_async_stream_stay_inside_from_step_to_step(local: Logs, elsewhere: bool) -> None:
    async def step(stream: AsyncGenerator[Any, None]) -> Any:
        return await anext(stream, None)

    async def main() -> list[Any]:
        with athina_session("made"):
            stream = athina_trace(asessions)("q")
        seen = []
        with athina_session("read"):
            while (found := await (asyncio.create_task(step(stream)) if elsewhere else step(stream))) is not None:
                seen.append(found)
                assert here() == ("read", None, False)
        return seen

    assert asyncio.run(main()) == [(*names, True) for names in SEEN]
    assert len(local()) == 2


def test_a_step_that_still_waits_when_it_is_collected(local: Logs, recwarn: pytest.WarningsRecorder) -> None:
    """A loop that stops leaves its tasks suspended; they end when the garbage collector finds them."""

    @athina_trace
    async def wait(question: str) -> AsyncGenerator[str, None]:
        yield "On"
        yield " its"
        await asyncio.get_running_loop().create_future()

    async def read() -> None:
        async for _ in wait("q"):
            pass

    async def main() -> None:
        asyncio.create_task(read())  # noqa: RUF006 - nobody awaits it
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    with athina_session("around"):
        loop.run_until_complete(main())
        loop.close()
        gc.collect()
        assert here() == ("around", None, False)
    (log,) = local()
    assert (log["response"], log["custom_attributes"]["outcome"], log.get("error")) == ("On its", "incomplete", None)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_customer_set_inside_a_call_holds_for_the_rest_of_the_outer_scope(local: Logs) -> None:
    @athina_trace
    def identify(question: str) -> None:
        set_customer("disney")

    with athina_session("t"):
        identify("q")
        assert here() == ("t", "disney", False)
    assert here() == (None, None, False)


def test_the_time_of_a_returned_stream_counts_from_the_call(local: Logs) -> None:
    @athina_trace
    def ask(question: str) -> Iterator[str]:
        time.sleep(0.03)
        return iter(["a"])

    @athina_trace
    def ask_again(question: str) -> Iterator[str]:
        time.sleep(0.03)
        return (word for word in ["a"])

    assert [*ask("q"), *ask_again("q")] == ["a", "a"]
    for log in local():
        assert log["response_time"] >= 30
        assert log["custom_attributes"]["time_to_first_chunk_ms"] >= 30
