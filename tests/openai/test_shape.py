from __future__ import annotations

import enum
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from athina_trace.integrations.openai.objects import read
from athina_trace.integrations.openai.shape import data, get, items, number, string, unwrapped, whole

from . import samples


class Loose(BaseModel):
    """As the client's models are: whatever the server sends is kept, checked or not."""

    model_config = ConfigDict(extra="allow")


class Aliased(Loose):
    schema_: dict[str, Any] = Field(alias="schema")


class Unwritable(Loose):
    id: str = "run_1"

    @field_serializer("id")
    def refuse(self, _: str) -> str:
        raise RuntimeError


def test_a_model_reads_as_what_came_over_the_wire() -> None:
    assert read(Loose(**samples.run())) == read(samples.run())
    assert unwrapped(Aliased(schema={"type": "object"})) == {"schema": {"type": "object"}}


def test_a_model_that_cannot_be_written_down_is_read_by_its_attributes() -> None:
    assert read(Unwritable(**samples.run())) == read(samples.run())


def test_a_page_of_models_keeps_the_order_that_it_was_asked_for() -> None:
    class Page(Loose):
        _options: Any = SimpleNamespace(params={"order": "asc"})

    messages = [Loose(**samples.message(f"msg_{n}", f"{n}.", at=12)) for n in (1, 2)]
    assert [get(reading, "backwards") for reading in read(Page.model_validate({"data": messages})) or ()] == [
        False,
        False,
    ]
    assert [get(reading, "backwards") for reading in read(Loose.model_validate({"data": messages})) or ()] == [
        True,
        True,
    ]


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    TWO = 2


def test_values_of_subclasses_read_as_their_values() -> None:
    assert string({"a": Colour.RED}, "a") == "red"
    assert whole({"a": Size.TWO}, "a") == 2
    assert data({"a": Colour.RED}) == {"a": "red"}


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), []])
def test_what_is_no_count_is_none(value: object) -> None:
    assert whole({"a": value}, "a") is None


@pytest.mark.parametrize(("value", "count"), [(0, 0), (2.0, 2), (10**400, 10**400), (2.5, None), (-1, None)])
def test_counts_are_whole_and_not_negative(value: object, count: int | None) -> None:
    assert whole({"a": value}, "a") == count
    assert number({"a": value}, "a") == value


def test_data_copies_what_is_data_and_leaves_out_the_rest() -> None:
    thing = SimpleNamespace(name="f", lock=threading.Lock(), call=print, nothing=None, _private=1)
    copied = data({"thing": thing, "list": [1, (2, "x")]})
    assert copied == {
        "thing": {"name": "f", "lock": None, "call": None, "nothing": None},
        "list": [1, [2, "x"]],
    }


def test_data_of_a_circle_ends() -> None:
    circle: dict[str, Any] = {"name": "round", "wide": []}
    circle["wide"] = [circle] * 50
    copied = data(circle)
    assert get(copied, "name") == "round"


def test_data_is_a_copy() -> None:
    tools = [{"type": "function", "parameters": {"type": "object"}}]
    copied = data(tools)
    tools[0]["parameters"]["type"] = "changed"  # type: ignore[index]
    assert copied == [{"type": "function", "parameters": {"type": "object"}}]


def test_a_list_that_raises_is_an_empty_one() -> None:
    class Broken(list[object]):
        def __iter__(self) -> Any:
            raise RuntimeError

    assert items({"a": Broken([1])}, "a") == ()
