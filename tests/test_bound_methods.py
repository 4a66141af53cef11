"""Bound methods of decorated functions behave like Python's own in every respect that a program can observe."""

from __future__ import annotations

import asyncio
import copy
import doctest
import functools
import gc
import inspect
import io
import operator
import pickle
import sys
import types
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import attrs
import blinker
import django.dispatch
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from athina_trace import athina_session, athina_trace
from athina_trace._wrapping.callables import Owner, parameters

Logs = Callable[[], list[dict[str, Any]]]


def undecorated(function: Any) -> Any:
    return function


class Plain:
    """Described."""

    def __init__(self, name: str = "one") -> None:
        self.name = name

    def method(self, question: str, *, size: int = 3) -> str:
        """Answer."""
        return f"{self.name} {question} {size}"

    @classmethod
    def made(cls, question: str) -> str:
        return f"{cls.__name__} {question}"

    @staticmethod
    def static(question: str) -> str:
        return question


class Traced(Plain):
    method = athina_trace(Plain.method)
    made = athina_trace(vars(Plain)["made"])
    static = athina_trace(vars(Plain)["static"])


class Within(Plain):
    method = athina_session("s")(athina_trace(Plain.method))
    made = athina_session("s")(athina_trace(vars(Plain)["made"]))
    static = athina_session("s")(athina_trace(vars(Plain)["static"]))


class Below(Plain):
    made: Any = classmethod(athina_trace(vars(Plain)["made"].__func__))
    static = staticmethod(athina_trace(Plain.static))


CLASSES = (Traced, Within, Below)
for kind in (Plain, *CLASSES):
    kind.__name__ = "Plain"  # which is in some answers

# What can be done with two methods that may be of one instance or of two: the same, decorated or not.
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": operator.eq,
    "unequal": operator.ne,
    "less": operator.lt,
    "hashed alike": lambda one, two: hash(one) == hash(two),
    "in": lambda one, two: one in [two, None],
    "in a set": lambda one, two: len({one, two}),
    "in a dict": lambda one, two: {one: 1}.get(two),
    "called": lambda one, two: (one("q"), two("q")),
    "copied": lambda one, two: (copy.copy(one) == one, copy.copy(one) == two, copy.copy(one)("q")),
    "unlike its copy": lambda one, two: isinstance(one, types.MethodType) and copy.deepcopy(one) == one,
    "copied deeply": lambda one, two: copy.deepcopy(one)("q"),
    "pickled": lambda one, two: pickle.loads(pickle.dumps(one))("q"),  # noqa: S301 - ours
    "made of two": lambda one, two: type(one)(one.__func__, two.__self__)("q"),
    "its function": lambda one, two: one.__func__ is two.__func__,
    "its instance": lambda one, two: one.__self__ is two.__self__,
    "kept in a class": lambda one, two: type("Holder", (), {"kept": one})().kept("q"),
    "is a method": lambda one, two: (inspect.ismethod(one), inspect.isroutine(one), callable(one)),
    "signature": lambda one, two: str(inspect.signature(one)),
    "named": lambda one, two: (one.__name__, one.__qualname__, one.__module__, one.__doc__),
    "shown": lambda one, two: repr(one).split(" of ")[0].split(" at ")[0],
    "given an attribute": lambda one, two: setattr(one, "note", 1),
    "asked for what it has not": lambda one, two: one.missing,
    "weakly held": lambda one, two: weakref.WeakMethod(one)()("q"),  # type: ignore[misc]
    "weakly held twice": lambda one, two: weakref.WeakMethod(one) == weakref.WeakMethod(two),
    "in a partial": lambda one, two: functools.partial(one, size=4)("q"),
    "wrapped": lambda one, two: functools.wraps(one)(lambda: None).__name__,
}


def outcome(operation: Callable[[Any, Any], Any], one: Any, two: Any) -> Any:
    try:
        return operation(one, two)
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return type(error).__name__


def pair(cls: type[Plain], name: str, *, same: bool, on_class: bool) -> tuple[Any, Any]:
    first: Any = cls if on_class else cls()
    second: Any = first if same else cls("two")
    return getattr(first, name), getattr(second, name)


@given(
    st.sampled_from(CLASSES), st.sampled_from(["method", "made", "static"]), st.sampled_from([*OPERATIONS]),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_decorated_methods_are_methods(cls: type[Plain], name: str, what: str, same: bool, on_class: bool) -> None:
    operation = OPERATIONS[what]
    # A static method's function, taken out of its class and put into another, is a mistake that would now work.
    assume(name != "static" or what not in ("named", "kept in a class"))
    one, two = pair(cls, name, same=same, on_class=on_class)
    # A function is pickled by its name, which leads to another class here.
    assume(what != "pickled" or (cls is not Below and inspect.ismethod(one)))
    decorated = outcome(operation, one, two)
    assert decorated == outcome(operation, *pair(Plain, name, same=same, on_class=on_class))


@pytest.mark.parametrize("name", dir(types.MethodType))
def test_bound_methods_have_all_attributes_of_methods(name: str) -> None:
    assert hasattr(Traced().method, name)
    assert hasattr(Traced.made, name)


class Agent:
    def __init__(self, customer: str) -> None:
        self.customer, self.notes = customer, list[str]()
        self.tools: dict[str, Any] = {"note": self.note}

    @athina_trace
    def note(self, text: str) -> str:
        self.notes.append(text)
        return self.customer


def test_a_copy_that_holds_its_own_method_works_on_itself(local: Logs) -> None:
    template = Agent("nobody")
    mine = copy.deepcopy(template)
    mine.customer = "disney"
    assert mine.tools["note"]("secret plan") == "disney"
    assert (mine.notes, template.notes) == (["secret plan"], [])
    assert mine.tools["note"] == mine.note != template.note
    unpickled = pickle.loads(pickle.dumps(template))  # noqa: S301 - ours
    assert unpickled.tools["note"].__self__ is unpickled
    assert len(local()) == 1


class Receiver:
    got: tuple[Any, ...] = ()

    @athina_trace
    def on(self, sender: Any, **more: Any) -> str:
        self.got = (*self.got, sender)
        return "seen"

    @athina_trace
    @classmethod
    def on_class(cls, sender: Any, **more: Any) -> str:
        cls.got = (*cls.got, sender)
        return "seen"


@pytest.mark.parametrize("name", ["on", "on_class"])
def test_signals_call_decorated_receivers_while_they_live(local: Logs, name: str) -> None:
    receiver = Receiver()
    signals = blinker.Signal(), django.dispatch.Signal()
    for signal in signals:
        signal.connect(getattr(receiver, name))
        assert [answer for _, answer in signal.send("x")] == ["seen"]
    assert len(local()) == 2
    assert signals[1].disconnect(getattr(receiver, name))
    dead = weakref.WeakMethod(receiver.on)
    if name == "on":
        del receiver
        assert dead() is None
        assert signals[0].send("x") == []


# ---- what Python does to methods of these names


def test_hooks_of_classes_are_class_methods(local: Logs) -> None:
    class Base:
        ready = False

        @athina_trace
        def __init_subclass__(cls, **given: Any) -> None:
            super().__init_subclass__()
            cls.ready = True

        @athina_trace
        def __class_getitem__(cls, item: Any) -> Any:
            return cls.__name__, item

        @athina_trace
        def __new__(cls, *given: Any) -> Any:
            return super().__new__(cls)

    class Sub(Base, given=1):
        pass

    assert Sub.ready
    assert Base["x"] == ("Base", "x")  # type: ignore[misc]
    assert type(Sub(1)) is Sub
    assert not Base.ready
    assert len(local()) == 3


# ---- callable instances and partials


class Answering:
    def __init__(self, answer: str) -> None:
        self.answer = answer

    def __call__(self, question: str) -> str:
        return self.answer


@pytest.mark.parametrize("decorate", [athina_trace(prompt_slug="p"), athina_session("s"), athina_trace])
@pytest.mark.parametrize("target", [Answering("a"), functools.partial(Answering("a"))])
def test_decorated_instances_and_partials_are_pickled_with_their_decorator(
    local: Logs, decorate: Any, target: Any
) -> None:
    again = pickle.loads(pickle.dumps(decorate(target)))  # noqa: S301 - ours
    assert again("q") == "a"
    assert [log.get("prompt_slug") for log in local()] == {
        "athina_trace": [None], "athina_session": []
    }.get(getattr(decorate, "__name__", type(decorate).__name__), ["p"])  # fmt: skip


def test_a_function_that_pickle_does_not_find_fails_as_undecorated() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(athina_trace(lambda: None))

    def stream() -> Iterator[int]:
        yield 1

    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(athina_trace(stream))
    # By value, as dill takes what has no reference.
    by_value: Any = athina_trace(stream).__reduce_ex__(2)
    make, given = by_value
    assert given == (stream,)
    assert [*make(*given)()] == [1]


def test_a_class_that_is_made_again_with_slots_finds_itself(local: Logs) -> None:
    @attrs.define
    class Desk:
        name: str = "desk"

        @athina_trace
        def ask(self, question: str) -> tuple[str, str, bool]:
            return question, __class__.__name__, super().__getattribute__("name") == self.name  # type: ignore[name-defined]

        @athina_trace
        async def ask_async(self) -> str:
            return str(super().__getattribute__("name"))

    assert Desk().ask("q") == ("q", "Desk", True)
    assert asyncio.run(Desk().ask_async()) == "desk"


def test_metadata_of_a_function_is_pickled_with_it_by_value(local: Logs) -> None:
    """As cloudpickle does with functions of scripts and notebooks, for Ray, Dask and Spark."""

    def ask(this: object, question: str) -> None: ...

    ask.__qualname__ = f"{Plain.__qualname__}.ask"
    owner = Owner(ask, parameters(ask))
    assert owner.is_first((Plain(), "q"), {})
    copied = pickle.loads(pickle.dumps(owner))  # noqa: S301 - ours
    assert copied.is_first((Plain(), "q"), {})
    assert not copied.is_first(("a", "q"), {})


async def script_coroutine(question: str) -> str:
    return f"answer to {question}"


def script_coroutine_by_value() -> Any:
    return script_coroutine


class ByValue(pickle.Pickler):
    """As those of cloudpickle and dill, of which Ray, Dask and Spark bring copies."""

    __module__ = "some.cloudpickle.cloudpickle"

    def dump(self, obj: object) -> None:
        super().dump(obj)

    def reducer_override(self, obj: object) -> Any:
        return (script_coroutine_by_value, ()) if obj is script_coroutine else NotImplemented


def test_a_coroutine_function_of_a_script_is_sent_along_by_what_sends_functions(
    local: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a script is found there in the same process only, where pickle itself takes it by reference."""
    monkeypatch.setattr(script_coroutine, "__module__", "__main__")
    decorated = athina_trace(prompt_slug="sent")(script_coroutine)
    monkeypatch.setattr(sys.modules["__main__"], "script_coroutine", decorated, raising=False)
    assert pickle.loads(pickle.dumps(decorated)) is decorated  # noqa: S301 - ours
    pickled = io.BytesIO()
    ByValue(pickled).dump(decorated)
    sent = pickle.loads(pickled.getvalue())  # noqa: S301 - ours
    assert sent is not decorated
    assert asyncio.run(sent("q")) == "answer to q"
    assert [log["prompt_slug"] for log in local()] == ["sent"]


@pytest.mark.parametrize("kind", ["def", "async def", "yield"])
def test_a_decorated_nested_function_is_freed_at_once(kind: str, local: Logs) -> None:
    class Large: ...

    def inner(large: Large) -> Any:
        def plain() -> object:
            return large

        async def coroutine() -> object:
            return large

        def generator() -> Iterator[object]:
            yield large

        return athina_trace({"def": plain, "async def": coroutine, "yield": generator}[kind])

    large = Large()
    reference, function = weakref.ref(large), inner(large)
    if kind == "def":
        function()
    gc.disable()
    try:
        del large, function
        assert reference() is None
    finally:
        gc.enable()


def plain_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    @decorate
    def down(number: int) -> int:
        return 0 if number == 0 else 1 + int(down(number - 1))

    return down  # type: ignore[no-any-return]


def method_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    class Tree:
        @decorate
        def down(self, number: int) -> int:
            return 0 if number == 0 else 1 + int(self.down(number - 1))

    return Tree().down  # type: ignore[no-any-return]


def classmethod_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    class Tree:
        @decorate
        @classmethod
        def down(cls, number: int) -> int:
            return 0 if number == 0 else 1 + int(cls.down(number - 1))

    return Tree.down  # type: ignore[no-any-return]


def coroutine_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    @decorate
    async def down(number: int) -> None:
        await (down(number - 1) if number else asyncio.sleep(0))

    return lambda number: asyncio.run(down(number))


def generator_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    @decorate
    def down(number: int) -> Iterator[int]:
        yield number
        if number:
            yield from down(number - 1)

    return lambda number: list(down(number))


def async_generator_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    @decorate
    async def down(number: int) -> AsyncIterator[int]:
        yield number
        if number:
            async for each in down(number - 1):
                yield each

    async def read(number: int) -> list[int]:
        return [each async for each in down(number)]

    return lambda number: asyncio.run(read(number))


def waiting_generator_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    @decorate
    async def down(number: int) -> AsyncIterator[int]:
        if number:
            async for each in down(number - 1):
                yield each
        else:
            await asyncio.sleep(0)  # with all of them around it
            yield number

    async def read(number: int) -> list[int]:
        return [each async for each in down(number)]

    return lambda number: asyncio.run(read(number))


def returning_generator_recursion(decorate: Callable[[Any], Any]) -> Callable[[int], object]:
    @decorate
    def down(number: int) -> Generator[int, None, int]:
        yield number
        return (yield from down(number - 1)) if number else number

    return lambda number: list(down(number))


# On Python 3.10 each call of a C function is one level, too, and nothing else gives a generator's return value.
since_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="a step of such a generator takes a call of `next`")


@pytest.mark.parametrize(
    "recursion",
    [
        plain_recursion,
        method_recursion,
        classmethod_recursion,
        coroutine_recursion,
        generator_recursion,
        pytest.param(returning_generator_recursion, marks=since_311),
        async_generator_recursion,
        waiting_generator_recursion,
    ],
)
def test_recursion_is_at_least_half_as_deep(
    recursion: Callable[[Callable[[Any], Any]], Callable[[int], object]], local: Logs
) -> None:
    def is_possible(levels: int) -> bool:
        try:
            down(levels)
        except RecursionError:
            return False
        return True

    limit, down = sys.getrecursionlimit(), recursion(undecorated)
    sys.setrecursionlimit(600)
    try:
        depth = next(levels for levels in range(300, 700, 10) if not is_possible(levels))
        recursion(athina_trace)(depth // 2 - 20)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("decorate", [athina_trace, athina_session("s")])
def test_a_decorated_function_belongs_to_its_module(decorate: Callable[[Any], Any]) -> None:
    def ask(question: Plain, *, size: int = 3) -> str:
        """Answer.

        >>> 1 + 1
        2
        """
        return question.name

    decorated = decorate(ask)
    assert type(decorated) is types.FunctionType
    # Where FastAPI looks annotations up that are text, and doctest whether a function is of the module at hand.
    assert decorated.__globals__ is globals()
    assert inspect.signature(decorated, eval_str=True) == inspect.signature(ask, eval_str=True)
    assert len(doctest.DocTestFinder().find(decorated, "ask", module=sys.modules[__name__])) == 1


def test_attributes_set_on_a_class_method_object_stay_there() -> None:
    method: Any = classmethod(lambda cls: None)
    method.note = "theirs"
    decorated = athina_trace(method)
    assert (type(decorated), decorated.note) == (classmethod, "theirs")
