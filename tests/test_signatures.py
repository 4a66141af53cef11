"""A decorated function declares the same parameters as the undecorated one, however they are inspected."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import itertools
import os
import subprocess
import sys
import typing
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import celery
import click
import pluggy
import pytest
from celery.utils.functional import fun_accepts_kwargs, fun_takes_argument, head_from_fun
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, validate_call

from athina_trace import athina_session, athina_trace

Decorate = Callable[[Any], Any]
Logs = Callable[[], list[dict[str, Any]]]


def undecorated(function: Any) -> Any:
    return function


DECORATORS = [athina_trace, athina_session("s")]
KINDS = ["def", "async def", "def generator", "async def generator", "classmethod", "staticmethod"]
# Among them those of our own code, which must not get into each other's way.
NAMES = ["question", "self", "function", "call", "args", "kwargs", "opened", "enabled", "_", "__", "größe", "result"]


@st.composite
def declarations(draw: st.DrawFn) -> str:
    """Return the parameters of a function as source code."""
    names = iter(draw(st.permutations(NAMES)))
    few = st.integers(0, 2)
    only, usual, named = draw(few), draw(few), draw(few)
    defaults = draw(st.integers(0, only + usual))
    annotations = st.sampled_from(["", ": int", ": 'list[int]'"])
    texts = [name + draw(annotations) for name in itertools.islice(names, only + usual)]
    texts = [text if at < only + usual - defaults else f"{text} = {at}" for at, text in enumerate(texts)]
    if only:
        texts.insert(only, "/")
    star = draw(st.booleans())
    if star or named:
        texts.append(f"*{next(names)}" if star else "*")
    texts += [f"{next(names)}{draw(st.sampled_from(['', ' = 7']))}" for _ in range(named)]
    if draw(st.booleans()):
        texts.append(f"**{next(names)}")
    return ", ".join(texts)


def make(declared: str, kind: str) -> Any:
    """Return a function that declares these parameters, and returns all its arguments."""
    start, _, _ = kind.partition(" generator")
    body = "yield locals()" if "generator" in kind else "return locals()"
    made: dict[str, Any] = {}
    exec(f"{start if 'def' in start else 'def'} made({declared}) -> 'int':\n    {body}", made)  # noqa: S102 - ours
    function = made["made"]
    return {"classmethod": classmethod, "staticmethod": staticmethod}.get(kind, undecorated)(function)


def says(function: Any) -> dict[str, Any]:
    """Return what all ways of inspection say about a function's parameters."""
    asked: dict[str, Callable[[Any], Any]] = {
        "signature": inspect.signature,
        "evaluated": functools.partial(inspect.signature, eval_str=True),
        "not followed": functools.partial(inspect.signature, follow_wrapped=False),
        "getfullargspec": inspect.getfullargspec,
        "hints": typing.get_type_hints,
        "code": lambda each: [
            getattr(each.__code__, name) for name in ("co_argcount", "co_posonlyargcount", "co_kwonlyargcount")
        ],
        "names": lambda each: each.__code__.co_varnames[: each.__code__.co_argcount + each.__code__.co_kwonlyargcount],
        "collected": lambda each: each.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS),
        "defaults": lambda each: (each.__defaults__, each.__kwdefaults__),
        "celery": lambda each: (
            head_from_fun(each).__kwdefaults__,
            fun_accepts_kwargs(each),
            fun_takes_argument("question", each),
        ),
        "pluggy": pluggy._hooks.varnames,
    }
    return {name: ask(function) for name, ask in asked.items()}


@given(declared=declarations(), kind=st.sampled_from(KINDS), decorate=st.sampled_from(DECORATORS))
def test_it_declares_the_same_parameters(declared: str, kind: str, decorate: Decorate) -> None:
    class Plain:
        made = make(declared, kind)

    class Decorated:
        made = decorate(make(declared, kind))

    for plain, decorated in ((Plain.made, Decorated.made), (Plain().made, Decorated().made)):
        expected: dict[str, Any] = {}
        with suppress(ValueError):  # a method that takes no instance cannot be bound
            expected = says(plain)
        for name, answer in expected.items():
            assert says(decorated)[name] == answer, name


@given(
    declared=declarations(),
    kind=st.sampled_from(KINDS[:4]),
    args=st.lists(st.integers(), max_size=4),
    kwargs=st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=3),
    decorate=st.sampled_from(DECORATORS),
)
def test_it_takes_the_same_arguments(
    declared: str, kind: str, args: list[int], kwargs: dict[str, int], decorate: Decorate
) -> None:
    def outcome(function: Any) -> Any:
        try:  # of the call alone: what it gives is begun later
            given = function(*args, **kwargs)
        except TypeError as error:
            return str(error)
        if kind == "async def":
            return asyncio.run(given)
        return given if kind == "def" else type(given)

    plain = make(declared, kind)
    assert outcome(decorate(plain)) == outcome(plain)


def test_a_coroutine_that_nobody_awaits_is_warned_of_once(local: Logs) -> None:
    @athina_trace
    async def ask(question: str) -> str:
        return question

    with pytest.warns(RuntimeWarning) as warned:
        [ask("q")].clear()
    gc.collect()
    assert [str(warning.message) for warning in warned] == [f"coroutine '{ask.__qualname__}' was never awaited"]
    ask("q").close()
    assert local() == []


def test_defaults_that_are_changed_later(local: Logs) -> None:
    @athina_trace
    def ask(question: str = "then", *, size: int = 1) -> tuple[str, int]:
        return question, size

    ask.__defaults__, ask.__kwdefaults__ = ("now",), {"size": 2}
    assert ask() == ("now", 2)
    assert local()[0]["user_query"] == "now"


def test_wraps_of_a_decorated_function_equals_wraps_of_an_undecorated_one() -> None:
    """A wrapper that passes an argument itself must not declare it: Celery would require it from callers."""

    def asked(decorate: Decorate) -> inspect.FullArgSpec:
        @decorate
        def ask(connection: object, question: str) -> None: ...

        @functools.wraps(ask)
        def connected(*args: Any, **kwargs: Any) -> Any:
            return ask("connection", *args, **kwargs)

        return inspect.getfullargspec(connected)

    assert asked(athina_trace) == asked(undecorated)


# ---- the libraries themselves


@pytest.mark.parametrize("decorate", DECORATORS)
def test_celery_checks_the_arguments_of_a_task(decorate: Decorate, local: Logs) -> None:
    app: Any = celery.Celery("tests", broker="memory://", task_always_eager=True, task_store_eager_result=False)

    @decorate
    def add(x: int, y: int = 2, *, z: int = 3) -> int:
        return x + y + z

    @decorate
    def named(self: Any, x: int) -> tuple[str, int]:
        return self.name.rpartition(".")[2], x

    add, named = app.task(add), app.task(bind=True)(named)
    assert [add.delay(1).get(), add.delay(1, y=1, z=1).get(), named.delay(1).get()] == [6, 3, ("named", 1)]
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"wrong": 1})):
        with pytest.raises(TypeError, match="add"):
            add.apply_async(args, kwargs)


@pytest.mark.parametrize("decorate", DECORATORS)
def test_pluggy_calls_hooks_with_what_they_declare(decorate: Decorate, local: Logs) -> None:
    specification, implementation = pluggy.HookspecMarker("tests"), pluggy.HookimplMarker("tests")

    class Hooks:
        @specification
        @decorate
        def ask(self, question: str, size: int) -> None: ...

    class One:
        @implementation
        @decorate
        def ask(self, size: int) -> str:
            return f"one {size}"

    class Two:
        @implementation(wrapper=True)
        @decorate
        def ask(self, question: str) -> Generator[None, list[str], list[str]]:
            return [*(yield), question]

    manager = pluggy.PluginManager("tests")
    manager.add_hookspecs(Hooks)
    manager.register(One())
    manager.register(Two())
    assert manager.hook.ask(question="q", size=3) == ["one 3", "q"]


@pytest.mark.parametrize("decorate", DECORATORS)
def test_click_pydantic_and_singledispatch(decorate: Decorate, local: Logs) -> None:
    @click.command
    @click.option("--size", default=1)
    @click.argument("question")
    @decorate
    def ask(size: int, question: str) -> None:
        click.echo(f"{question} {size}")

    assert CliRunner().invoke(ask, ["where", "--size", "3"]).output == "where 3\n"

    @validate_call
    @decorate
    def add(x: int, y: int = 2) -> int:
        return x + y

    assert add("1") == 3
    with pytest.raises(ValidationError):
        add("no number")

    @functools.singledispatch
    def kind(_value: object) -> str:
        return "object"

    @kind.register
    @decorate
    def _(_value: int) -> str:
        return "int"

    assert [kind(1), kind("1")] == ["int", "object"]


def test_annotations_stay_where_the_class_of_the_proxy_is_asked_for_its_own() -> None:
    class Desk:
        @athina_trace
        async def ask(self, question: str) -> int:
            return 1

    for proxy in (Desk.__dict__["ask"], Desk().ask):
        with suppress(AttributeError):
            type(proxy).__annotations__  # noqa: B018 - which Python may make now
        if sys.version_info < (3, 14):  # later, wrapt's own classes cannot be asked
            assert typing.get_type_hints(type(proxy)) == {}
        assert typing.get_type_hints(proxy) == {"question": str, "return": int}


def test_wrapt_without_its_extension() -> None:
    """As where it has no wheel and no compiler, or where the program switches it off."""
    script = (
        "import asyncio, athina_trace, wrapt\n"
        "from athina_trace.testing import captured_logs\n"
        "class Desk:\n"
        "    @athina_trace.athina_trace\n"
        "    async def ask(self, question: str) -> str: return f'answer to {question}'\n"
        "with captured_logs() as logs: asyncio.run(Desk().ask('q'))\n"
        "print(wrapt.FunctionWrapper.__module__, logs[0].response, Desk.ask.__annotations__)\n"
    )
    environment = {**os.environ, "WRAPT_DISABLE_EXTENSIONS": "1"}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split(" ", 1)[1] == "answer to q {'question': <class 'str'>, 'return': <class 'str'>}\n"
    assert not ran.stdout.startswith("_wrappers")
