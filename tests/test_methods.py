"""The instance or class that a method is bound to is never an input, however the method is called."""

# ruff: noqa: N804, N805, PLW0211 - how the first parameter is named is the subject
from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import inspect
import itertools
import json
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pydantic
import pytest
import wrapt
from hypothesis import given
from hypothesis import strategies as st

from athina_trace import athina_session, athina_trace
from athina_trace.testing import captured_logs

Logs = Callable[[], list[dict[str, Any]]]
Decorator = Callable[[Any], Any]

MARK = "kept-in-the-instance"


def plainly(function: Any) -> Any:
    """Wrap as a decorator without functools.wraps does."""

    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return called


def wrapping(function: Any) -> Any:
    return functools.wraps(function)(plainly(function))


@wrapt.decorator
def by_wrapt(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


class Tool:
    """A decorator that is a class, is a descriptor, and lends the attributes of its function."""

    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, instance: object, _owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


DECORATORS: dict[str, Decorator] = {
    "closure": plainly,
    "wraps": wrapping,
    "wrapt": by_wrapt,
    "lru_cache": functools.lru_cache,
    "validate_call": pydantic.validate_call(config={"arbitrary_types_allowed": True}),
    "class": Tool,
    "session": athina_session("t"),
    "nothing": lambda function: function,
}


def attributes(log: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = log.get("custom_attributes", {})
    return found


def check(log: dict[str, Any], *, question: str | None = "q") -> None:
    """Only `question` is an input of this log, and nothing of the instance is in it."""
    assert log.get("user_query") == question
    assert MARK not in json.dumps(log)
    assert not [name for name in attributes(log) if name.startswith("input.")]


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (outer, inner)
        for outer, inner in itertools.product(DECORATORS, DECORATORS)
        if inner != "closure"  # whose *args declare no instance
        and (outer, inner) not in {("validate_call", "lru_cache"), ("validate_call", "class")}  # refused by pydantic
    ],
)
@pytest.mark.parametrize("name", ["self", "this", "_", "__me"])
def test_decorators_above_and_below(local: Logs, outer: str, inner: str, name: str) -> None:
    made: dict[str, Any] = {}
    exec(  # noqa: S102 - the parameter's name is the subject
        f"class Desk:\n"
        f"    held = {MARK!r}\n"
        f"    @outer\n    @athina_trace\n    @inner\n"
        f"    def ask({name}, question): return {name}.held and 'a'\n",
        {
            "outer": DECORATORS[outer],
            "inner": DECORATORS[inner],
            "athina_trace": athina_trace,
            "__name__": __name__,
        },
        made,
    )
    desk = made["Desk"]()
    desk.at = MARK
    assert desk.ask("q") == made["Desk"].ask(desk, "q") == "a"
    assert operator.attrgetter("ask")(desk)(question="q") == "a"
    logs = local()
    assert logs
    for log in logs:
        check(log)


def desk_of(kind: str) -> Any:  # noqa: C901, PLR0911 - one class of each kind
    def method(self: Any, question: str) -> str:
        return f"{self.held and question}"

    method.__qualname__ = "Desk.ask"
    traced = athina_trace(method)
    if kind == "dataclass":

        @dataclasses.dataclass
        class Data:
            held: str = MARK
            ask = wrapping(traced)

        return Data()
    if kind == "slots":

        @dataclasses.dataclass(slots=True, frozen=True)
        class Slots:
            held: str = MARK

            @wrapping
            @athina_trace
            def ask(this, question: str) -> str:
                return f"{this.held and question}"

        return Slots()
    if kind == "pydantic":

        class Model(pydantic.BaseModel):
            held: str = MARK

            @wrapping
            @athina_trace
            def ask(this, question: str) -> str:
                return f"{this.held and question}"

        return Model()
    if kind == "attrs":

        @attrs.define
        class Attrs:
            held: str = MARK

            @wrapping
            @athina_trace
            def ask(this, question: str) -> str:
                return f"{this.held and question}"

        return Attrs()
    if kind == "mixin":

        class Mixin:
            held = MARK

            @plainly
            @athina_trace
            def ask(this, question: str) -> str:
                return f"{this.held and question}"

        class Mixed(Mixin):
            def __init__(self) -> None:
                self.at = MARK

        return Mixed()
    if kind == "super":

        class Base:
            held = MARK

            @plainly
            @athina_trace
            def ask(this, question: str) -> str:
                return f"{this.held and question}"

        class Derived(Base):
            def ask(self, question: str) -> Any:
                return super().ask(question)

        return Derived()
    if kind == "nested":

        class Outer:
            class Inner:
                held = MARK

                @plainly
                @athina_trace
                def ask(this, question: str) -> str:
                    return f"{this.held and question}"

        return Outer.Inner()
    if kind == "enum":

        class Desk(enum.Enum):
            ONE = MARK

            @plainly
            @athina_trace
            def ask(this, question: str) -> str:
                return f"{this.value and question}"

        return Desk.ONE
    if kind == "metaclass":

        class Meta(type):
            @plainly
            @athina_trace
            def ask(klass, question: str) -> str:
                return f"{klass.held and question}"  # type: ignore[attr-defined]

        return Meta("Made", (), {"held": MARK})
    assigned = type("Assigned", (), {"held": MARK})
    assigned.ask = wrapping(traced) if kind == "assigned" else traced  # type: ignore[attr-defined]
    return assigned()


@pytest.mark.parametrize(
    "kind",
    [
        *("dataclass", "slots", "pydantic", "attrs", "mixin", "super", "nested", "enum", "metaclass"),
        *("assigned", "assigned bare"),
    ],
)
def test_classes_of_every_kind(local: Logs, kind: str) -> None:
    desk = desk_of(kind)
    assert desk.ask("q") == desk.ask(question="q") == "q"
    for log in local():
        check(log)
    assert len(local()) == 2


class Desk:
    """Every way in which Python itself calls a function with the instance or the class first."""

    def __init__(self) -> None:
        self.dsn, self.at = "postgres://app:hunter2@db/prod", MARK

    @athina_trace
    def ask(self, question: str) -> str:
        return f"a {question}"

    @athina_trace
    def unusual(this, question: str) -> str:
        return f"a {question}"

    @property
    @athina_trace
    def state(this) -> str:
        return this.at and "s"

    @functools.cached_property
    @athina_trace
    def plan(this) -> str:
        return this.at and "p"

    half = functools.partialmethod(ask, "q")

    @functools.singledispatchmethod
    @athina_trace
    def dispatched(this, question: Any) -> str:
        return "d"

    @dispatched.register
    @athina_trace
    def _(this, question: str) -> str:
        return f"s {question}"

    @classmethod
    @athina_trace
    def made(klass, question: str) -> str:
        return f"{klass.__name__} {question}"

    @athina_trace
    @classmethod
    def made_below(klass, question: str) -> str:
        return f"{klass.__name__} {question}"

    @classmethod
    @plainly
    @athina_trace
    def made_above(klass, question: str) -> str:
        return f"{klass.__name__} {question}"

    @athina_trace
    def starred(*args: Any) -> str:
        return f"{args[1]}"

    @athina_trace
    def given(this, /, **given: Any) -> str:
        return f"{given['this']}"

    @athina_trace
    def __call__(self, question: str) -> str:
        return f"c {question}"

    @wrapping
    @athina_trace
    async def later(this, question: str) -> str:
        return f"l {question}"

    @wrapping
    @athina_trace
    def stream(this, question: str) -> Iterator[str]:
        yield question

    @staticmethod
    @athina_trace
    def static_above(question: Any) -> str:
        return "x"

    @athina_trace
    @staticmethod
    def static_below(self: Any) -> str:
        return "x"


@athina_trace
def bolted_on(self: Any, question: str) -> str:
    return f"{self.at and question}"


class Bolted:
    """Has methods that were written elsewhere, with any name for the instance."""

    at = MARK
    ask = athina_trace(lambda this, question: f"{this.at and question}")
    made = athina_trace(classmethod(lambda klass, question: f"{klass.at and question}"))


@wrapping
@athina_trace
def bolted_unusually(this: Any, question: str) -> str:
    return f"{this.at and question}"


Bolted.later = bolted_unusually  # type: ignore[attr-defined]
DESK = Desk()
CALLS: dict[str, Callable[[], Any]] = {
    "bound": lambda: DESK.ask("q"),
    "by class": lambda: Desk.ask(DESK, "q"),
    "by class, named": lambda: Desk.ask(self=DESK, question="q"),
    "by class, unusually named": lambda: Desk.unusual(this=DESK, question="q"),
    "from the class's dictionary": lambda: Desk.__dict__["ask"](DESK, "q"),
    "from the class's dictionary, unusually named": lambda: Desk.__dict__["unusual"](DESK, "q"),
    "MethodType": lambda: types.MethodType(Desk.__dict__["unusual"], DESK)("q"),
    "MethodType of a function": lambda: types.MethodType(bolted_on, DESK)("q"),
    "function": lambda: bolted_on(DESK, "q"),
    "function by names": lambda: bolted_on(self=DESK, question="q"),
    "partial": lambda: functools.partial(Desk.unusual, DESK)("q"),
    "partial by name": lambda: athina_trace(functools.partial(bolted_on.__wrapped__, self=DESK))(question="q"),  # type: ignore[attr-defined]
    "partial, decorated": lambda: athina_trace(functools.partial(inspect.unwrap(Desk.unusual), DESK))("q"),
    "bound, decorated": lambda: athina_trace(inspect.unwrap(Desk.ask).__get__(DESK))("q"),
    "partialmethod": DESK.half,
    "singledispatchmethod": lambda: DESK.dispatched("q"),
    "classmethod": lambda: Desk.made("q"),
    "classmethod of an instance": lambda: DESK.made("q"),
    "classmethod below": lambda: Desk.made_below("q"),
    "classmethod far above": lambda: Desk.made_above("q"),
    "call": lambda: DESK("q"),
    "async": lambda: asyncio.run(DESK.later("q")),
    "stream": lambda: list(DESK.stream("q")),
    "subclass": lambda: type("Sub", (Desk,), {})().unusual("q"),
    "written elsewhere": lambda: Bolted().ask("q"),
    "written elsewhere, by class": lambda: Bolted.ask(Bolted(), "q"),
    "written elsewhere, in a subclass": lambda: type("Sub", (Bolted,), {})().ask("q"),
    "written elsewhere, below another decorator": lambda: Bolted().later("q"),  # type: ignore[attr-defined]
    "classmethod written elsewhere": lambda: Bolted.made("q"),
}


@pytest.mark.parametrize("way", CALLS)
def test_every_way_to_call_a_method(local: Logs, way: str) -> None:
    assert CALLS[way]()
    for log in local():
        check(log)
    assert len(local()) == 1


def test_properties_and_arguments_in_a_row(local: Logs) -> None:
    desk = Desk()
    assert (desk.state, desk.plan, desk.starred("q"), desk.given(this="q")) == ("s", "p", "q", "q")
    state, plan, starred, given = local()
    check(state, question=None)
    check(plan, question=None)
    assert attributes(starred)["input.args"] == '["q"]'
    assert given["user_query"] == "q", "a keyword may be called like a parameter that is positional only"


def test_a_default_that_holds_the_instance(local: Logs) -> None:
    class Desk:
        at = MARK

        def handler(self) -> Any:
            @athina_trace
            def handle(question: str, self: Any = self) -> str:
                return f"{self.at and question}"

            return handle

    assert Desk().handler()("q") == "q"
    check(local()[0])


def test_first_arguments_that_are_inputs(local: Logs) -> None:
    @dataclasses.dataclass
    class Order:
        size: int = 3

        @staticmethod
        @athina_trace
        def above(order: Any) -> None: ...

        @athina_trace
        @staticmethod
        def below(order: Any) -> None: ...

        @staticmethod
        @wrapping
        @athina_trace
        def far_above(order: Any) -> None: ...

        @athina_trace
        def compare(self, other: Any) -> None: ...

        class Line:
            def __init__(self, order: Any) -> None: ...

    @athina_trace
    def nested(order: Any) -> None: ...

    order = Order()
    for function in (Order.above, order.above, Order.below, order.below, Order.far_above, order.far_above, nested):
        function(order)
    athina_trace(functools.partial(inspect.unwrap(Order.compare), order))(order)
    athina_trace(Order.Line)(order)
    logs = local()
    assert len(logs) == 9
    for log in logs:
        (name,) = (name for name in attributes(log) if name.startswith("input."))
        assert (name, attributes(log)[name]) in (("input.order", '{"size":3}'), ("input.other", '{"size":3}'))
    Desk.static_below("its own")
    assert local()[-1]["user_query"] == "its own"


@given(
    stack=st.lists(st.sampled_from(sorted(set(DECORATORS) - {"validate_call", "lru_cache"})), max_size=4),
    place=st.integers(0, 4),
    kind=st.sampled_from(["method", "classmethod", "staticmethod"]),
    words=st.text(st.characters(codec="ascii"), min_size=1, max_size=5),
)
def test_decorated_is_undecorated(stack: list[str], place: int, kind: str, words: str) -> None:
    """Whatever wraps it: the same result, and no instance in the log."""

    def method(self: Any, question: str) -> str:
        return f"{getattr(self, 'at', 'none')} {question}"

    def static(question: str) -> str:
        return f"static {question}"

    def made(*decorators: Decorator) -> Any:
        ask = static if kind == "staticmethod" else method
        for decorate in decorators:
            ask = decorate(ask)
        held: dict[str, Any] = {"method": lambda it: it, "classmethod": classmethod, "staticmethod": staticmethod}
        return type("Desk", (), {"at": MARK, "ask": held[kind](ask)})

    others = [DECORATORS[name] for name in stack]
    below = others[:place]
    undecorated, decorated = made(*others), made(*below, athina_trace, *others[place:])
    with captured_logs() as logs:
        for call in (
            lambda cls: cls().ask(words),
            lambda cls: cls.ask(cls(), words) if kind == "method" else cls.ask(words),
            lambda cls: cls().ask(question=words),
        ):
            assert outcome(call, decorated) == outcome(call, undecorated)
    if plainly not in below:
        assert all("input.self" not in attributes(log) for log in logs.wire)


def outcome(call: Callable[[Any], Any], cls: Any) -> Any:
    try:
        return call(cls)
    except TypeError as error:
        return type(error)
