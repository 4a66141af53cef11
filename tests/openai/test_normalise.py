"""Normalisation: any object becomes bounded plain data of exact built-in types."""

from __future__ import annotations

import enum
import threading
from collections import UserDict
from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
import wrapt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from athina_trace.integrations.openai import normalise as border
from athina_trace.integrations.openai.normalise import count, normalise, number, string

from . import samples
from .samples import read


class Loose(BaseModel):
    """A model like the client's: it keeps whatever the server sends, validated or not."""

    model_config = ConfigDict(extra="allow")


class Declared(Loose):
    object: str


class Aliased(Loose):
    schema_: dict[str, Any] = Field(alias="schema")


class Unwritable(Loose):
    id: str = "run_1"

    @field_serializer("id")
    def refuse(self, _: str) -> str:
        raise RuntimeError


def test_a_model_equals_the_json_that_was_received() -> None:
    assert read(Loose(**samples.run())) == read(samples.run())
    assert normalise(Aliased(schema={"type": "object"})) == {"schema": {"type": "object"}}


def test_a_model_that_cannot_be_dumped_is_read_by_its_attributes() -> None:
    assert read(Unwritable(**samples.run())) == read(samples.run())


def test_a_page_of_models_keeps_the_requested_order() -> None:
    class Page(Loose):
        _options: Any = SimpleNamespace(params={"order": "asc"})

    messages = [Loose(**samples.message(f"msg_{n}", f"{n}.", at=12)) for n in (1, 2)]
    for page, backwards in ((Page, False), (Loose, True)):
        records: list[Any] = read(page.model_validate({"data": messages})) or []
        assert [record.backwards for record in records] == [backwards, backwards]


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    TWO = 2


class Half(float):
    pass


def test_values_of_subclasses_become_built_in_types() -> None:
    plain = normalise({"a": Colour.RED, "b": Size.TWO, "c": Half(0.5)})
    assert plain == {"a": "red", "b": 2, "c": 0.5}
    assert [type(value) for value in plain.values()] == [str, int, float]


@pytest.mark.parametrize("value", [True, "one", "-1", "1" * 19, None, float("nan"), float("inf"), []])
def test_an_invalid_count_is_none(value: object) -> None:
    assert count({"a": value}, "a") is None


@pytest.mark.parametrize(
    ("value", "whole"), [(0, 0), (2.0, 2), ("12", 12), (10**400, 10**400), (2.5, None), (-1, None)]
)
def test_counts_are_non_negative_integers(value: object, whole: int | None) -> None:
    assert count({"a": value}, "a") == whole
    assert number({"a": value}, "a") == (None if type(value) is str else value)


def test_values_that_are_not_data_become_none() -> None:
    thing = SimpleNamespace(name="f", lock=threading.Lock(), call=print, nothing=None, _private=1)
    assert normalise({"thing": thing, "list": [1, (2, "x")], 3: "no name"}) == {
        "thing": {"name": "f", "lock": None, "call": None},
        "list": [1, [2, "x"]],
    }


@pytest.mark.parametrize(
    "wrap",
    [dict, MappingProxyType, UserDict, lambda wire: SimpleNamespace(**wire), wrapt.ObjectProxy, lambda w: Loose(**w)],
    ids=["dictionary", "mapping", "user's dictionary", "object", "proxy", "model"],
)
def test_all_kinds_of_wrappers_are_unwrapped(wrap: Any) -> None:
    assert normalise(wrap({"a": [wrap({"b": "text"})], "c": 1})) == {"a": [{"b": "text"}], "c": 1}


def test_a_proxy_of_a_model_is_read_like_the_model() -> None:
    wire = samples.response("resp_1", samples.output_text("Yes."))
    assert read(wrapt.ObjectProxy(Declared(**wire))) == read(wire) != []


def test_a_model_that_was_never_initialised_is_read() -> None:
    class Page(Loose):
        data: list[Any]
        _options: Any = None

    page = Page.__new__(Page)
    page.__dict__["data"] = [{"id": "msg_1"}]
    assert normalise(page)["data"] == [{"id": "msg_1"}]


def test_a_body_with_any_json_is_read() -> None:
    half = b'{"object": "chat.completion", "choices": [{"message": {"content": "Rain \\ud83d"}}], "usage": NaN}'
    found: Any = read(SimpleNamespace(http_response=SimpleNamespace(content=half)))
    assert [answer.text for answer in found] == ["Rain \ud83d"]


@pytest.mark.parametrize(
    "content",
    [b"<html>Log in</html>", b"[]", b'"text"', b"null", b"", "\ufeff{}".encode(), "text", None],
)
def test_a_body_that_is_not_a_json_object_is_no_answer(content: object) -> None:
    assert not read(SimpleNamespace(http_response=SimpleNamespace(content=content)))


def test_cyclic_data_terminates() -> None:
    circle: dict[str, Any] = {"name": "round", "wide": []}
    circle["wide"] = [circle] * 50
    assert normalise(circle)["name"] == "round"


def values_in(plain: Any) -> int:
    parts = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    return 1 + sum(map(values_in, parts))


def test_data_that_is_shared_many_times_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "_MOST_VALUES", 1000)
    shared: list[Any] = ["end"]
    for _ in range(30):
        shared = [shared] * 10
    assert values_in(normalise(shared)) <= 1001
    assert values_in(normalise(dict.fromkeys(map(str, range(5000)), 1))) <= 1001


def test_the_total_length_of_strings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "_MOST_CHARACTERS", 10_000)
    plain = normalise({"first": "x" * 8000, "second": "y" * 8000, "short": "z" * 100})
    assert [len(text) for text in plain.values()] == [8000, 2000, 100]


def test_the_result_is_a_copy() -> None:
    tools = [{"type": "function", "parameters": {"type": "object"}}]
    copied = normalise(tools)
    tools[0]["parameters"]["type"] = "changed"  # type: ignore[index]
    assert copied == [{"type": "function", "parameters": {"type": "object"}}]


def test_an_endless_mapping_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "_MOST_VALUES", 1000)

    class Endless(UserDict[str, int]):
        def items(self) -> Any:
            return ((str(number), number) for number in iter(int, 1))

    assert normalise(Endless()) == {"0": 0}


class Lies:
    """An object that raises when its class is read."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError

    @__class__.setter
    def __class__(self, value: object) -> None: ...


class Deaf:
    """An object that raises on every attribute."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


class BrokenList(list[object]):
    def __iter__(self) -> Any:
        raise RuntimeError


class BrokenMapping(UserDict[str, object]):
    def items(self) -> Any:
        raise RuntimeError


# The first two cannot pass through hypothesis, which reads the class of every value.
HOSTILE: list[Callable[[], Any]] = [
    Lies,
    Deaf,
    lambda: BrokenList([1]),
    BrokenMapping,
    MagicMock,
    object,
    lambda: print,
    lambda: iter("abc"),
]


@pytest.mark.parametrize("make", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_one_hostile_value_loses_no_other_value(make: Callable[[], Any]) -> None:
    hostile = make()
    plain = normalise({"before": 1, "hostile": hostile, "list": [1, hostile, 2], "after": "x"})
    assert (plain["before"], plain["after"]) == (1, "x")
    assert [each for each in plain["list"] if type(each) is int] == [1, 2]
    assert normalise(hostile) in (None, {})


def test_a_mock_is_no_answer() -> None:
    assert read(MagicMock()) is None
    assert normalise(Mock(spec=["choices"])) in (None, {})


def exact(plain: Any) -> bool:
    if type(plain) is dict:
        return all(type(name) is str and exact(part) for name, part in plain.items())
    if type(plain) is list:
        return all(map(exact, plain))
    return type(plain) in (str, int, float, bool, type(None))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(HOSTILE[2:]).map(lambda make: make()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.sets(st.integers())
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), inner).map(lambda d: SimpleNamespace(**d))
        | st.dictionaries(st.text(), inner).map(MappingProxyType)
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_any_object_becomes_exact_built_in_types(subject: object) -> None:
    assert exact(normalise(subject))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_data_is_unchanged(wire: object) -> None:
    assert normalise(wire) == wire


def test_an_empty_string_reads_as_none() -> None:
    assert string({"a": ""}, "a") is None


def test_a_client_model_is_read_whatever_the_program_put_into_it() -> None:
    from openai.types.chat import ChatCompletion  # noqa: PLC0415 - for this test

    wire = samples.chat(content="Hello.")
    whole: Any = ChatCompletion.model_validate(wire)
    assert read(whole) == read(wire)
    whole.choices[0].message.content = SimpleNamespace(text=Colour.RED)
    circle: list[Any] = []
    circle.append(circle)
    whole.usage = circle
    plain = normalise(whole)
    assert plain["choices"][0]["message"]["content"] == {"text": "red"}
    assert exact(plain)
