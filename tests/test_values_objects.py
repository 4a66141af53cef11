"""Objects of every kind, as `athina_trace._serialization` reads them: by what they store, never by their own code."""

import array
import asyncio
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import gc
import io
import ipaddress
import itertools
import json
import pathlib
import socket
import threading
import time
import types
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, NoReturn, TypedDict

import attrs
import flask
import httpx
import numpy as np
import pandas as pd
import pydantic
import pydantic.v1
import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from starlette.responses import JSONResponse, PlainTextResponse, Response

from athina_trace._serialization import Limits, plain, text

HERE = __name__


class Colour(enum.Enum):
    RED = "red"
    BOX = ({"a": 1},)


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Turn:
    role: str
    password: str = "hunter2"
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class SlottedTurn:
    role: str
    unset: int = dataclasses.field(init=False)


class Point(NamedTuple):
    x: int
    y: list[int]


class Movie(TypedDict):
    title: str


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    role: str
    key: pydantic.SecretStr = pydantic.SecretStr("hidden")
    raw: pydantic.SecretBytes = pydantic.SecretBytes(b"hidden")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> str:
        raise AssertionError

    @pydantic.model_serializer
    def serialize(self) -> dict[str, Any]:
        raise AssertionError


class Root(pydantic.RootModel[list[int]]):
    pass


class OldModel(pydantic.v1.BaseModel):
    role: str
    key: pydantic.v1.SecretStr = pydantic.v1.SecretStr("hidden")


@attrs.define
class Slotted:
    role: str
    inner: Any = None


@attrs.frozen(slots=False)
class Frozen:
    role: str


class Words(str):
    __slots__ = ()

    def __str__(self) -> NoReturn:
        raise AssertionError

    def __len__(self) -> NoReturn:
        raise AssertionError


class Row(collections.OrderedDict[str, int]):
    def items(self) -> NoReturn:
        raise AssertionError


class Plain:
    pass


class View(Mapping[str, int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[str]:
        return map(str, range(self.size))

    def __getitem__(self, key: str) -> int:
        if key == "1":
            raise KeyError(key)
        return int(key)


class Endless(Sequence[int]):
    def __len__(self) -> int:
        raise OverflowError

    def __getitem__(self, index: Any) -> Any:
        return index


class Breaking(AbstractSet[int]):
    def __len__(self) -> int:
        return 3

    def __contains__(self, item: object) -> bool:
        return False

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise OSError


class Slow(View):
    reads = 0

    def __getitem__(self, key: str) -> int:
        Slow.reads += 1
        time.sleep(0.01)
        return 0


class OwnMessage(Exception):  # noqa: N818  its name is its point
    def __str__(self) -> NoReturn:
        raise AssertionError


class Oddly:
    shape = "round"
    dtype = None


class Base(orm.DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    posts: orm.Mapped[list["Post"]] = orm.relationship()


class Post(Base):
    __tablename__ = "post"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    user: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("user.id"))


def function() -> None:
    pass


DATA: list[tuple[Any, Any]] = [
    (Colour.RED, "red"),
    (Colour.BOX, [{"a": 1}]),
    (Level.LOW | Level.HIGH, 3),
    (Turn("user"), {"role": "user", "password": "[masked]", "tags": []}),
    (SlottedTurn("user"), {"role": "user"}),
    (Point(1, [2]), {"x": 1, "y": [2]}),
    (Movie(title="m"), {"title": "m"}),
    (
        Model.model_validate({"role": "user", "more": [1]}),
        {"role": "user", "key": "[masked]", "raw": "[masked]", "more": [1]},
    ),
    (Root([1, 2]), [1, 2]),
    (OldModel(role="user"), {"role": "user", "key": "[masked]"}),
    (Slotted("user", Frozen("x")), {"role": "user", "inner": {"role": "x"}}),
    (Words("words"), "words"),
    (collections.UserString("words"), "words"),
    (dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), "2024-01-02T03:04:05+00:00"),
    (dt.date(2024, 1, 2), "2024-01-02"),
    (dt.time(3, 4, 5), "03:04:05"),
    (dt.timedelta(days=1, seconds=2, milliseconds=500), "P1DT2.5S"),
    (dt.timedelta(seconds=-90), "-PT90S"),
    (dt.timedelta(), "PT0S"),
    (dt.timedelta(days=3), "P3D"),
    (decimal.Decimal("1.10"), "1.10"),
    (decimal.Decimal("NaN"), "NaN"),
    (fractions.Fraction(1, 3), "1/3"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    (ipaddress.ip_address("127.0.0.1"), "127.0.0.1"),
    (httpx.URL("http://localhost/a"), "http://localhost/a"),
    (pydantic.HttpUrl("http://localhost/a"), "http://localhost/a"),
    (range(10**12), "range(0, 1000000000000)"),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    (collections.deque([1, 2]), [1, 2]),
    (array.array("d", [1.0]), [1.0]),
    (collections.OrderedDict(a=1), {"a": 1}),
    (Row(a=1), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.ChainMap({"a": 1}), {"a": 1}),
    (collections.UserDict(a=1), {"a": 1}),
    (collections.UserList([1]), [1]),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    ({"a": 1}.keys(), ["a"]),
    ({"a": 1}.values(), [1]),
    ({"a": 1}.items(), [["a", 1]]),
    (ValueError("no"), "ValueError: no"),
    (KeyError("no"), "KeyError: 'no'"),
    (OwnMessage("no", 1, Plain()), f"{HERE}.OwnMessage: no, 1"),
    (FileNotFoundError(2, "No such file", "a.txt"), "FileNotFoundError: [Errno 2] No such file: 'a.txt'"),
    (FileNotFoundError(2, "No such file", Plain()), "FileNotFoundError: 2, No such file"),
    (ValueError(), "ValueError"),
    (np.float64(1.5), 1.5),
    (np.float32("nan"), "NaN"),
    (np.int64(2), 2),
    (np.bool_(1), True),
    (np.str_("s"), "s"),
    (np.datetime64("2024-01-02"), "2024-01-02"),
    (np.longdouble(1), "<numpy.longdouble, nested too deep>"),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.zeros((3, 40)), "<ndarray float64 (3, 40)>"),
    (np.array([{1}], dtype=object), [[1]]),
    (pd.DataFrame({"a": [1, 2]}), "<DataFrame (2, 1)>"),
    (pd.Series([1.0, 2.0]), "<Series float64 (2,)>"),
    (pd.NaT, None),
    (pd.NA, None),
    (pd.Timestamp("2024-01-02T03:04:05"), "2024-01-02T03:04:05"),
    (pd.Timedelta(seconds=2), "PT2S"),
]

NO_DATA: list[tuple[Any, Any]] = [
    (Oddly(), f"<{HERE}.Oddly>"),
    (threading.Lock(), "<_thread.lock>"),
    (io.StringIO("x"), "<_io.StringIO>"),
    (Plain(), f"<{HERE}.Plain>"),
    (Plain, f"<class {HERE}.Plain>"),
    (Colour, f"<class {HERE}.Colour>"),
    (function, f"<function {HERE}.function>"),
    (View(1).__len__, f"<function {HERE}.View.__len__>"),
    (len, "<function len>"),
    (json, "<module json>"),
    (object(), "<object>"),
    (itertools.count(), "<itertools.count>"),
    (iter([1]), "<list_iterator>"),
    (map(print, [1]), "<map>"),
    (httpx.Timeout(1), "<httpx.Timeout>"),
    (User(id=1), f"<{HERE}.User>"),
    (sa.create_engine("sqlite://"), "<sqlalchemy.engine.base.Engine>"),
    (..., "<ellipsis>"),
]


def numbered(table: list[tuple[Any, Any]]) -> list[Any]:
    """Give each case its place as its name, since pytest would ask the values themselves."""
    return [pytest.param(*case, id=str(n)) for n, case in enumerate(table)]


@pytest.mark.parametrize(("value", "expected"), numbered(DATA))
def test_data(value: Any, expected: Any) -> None:
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)
    assert plain({"a": [value]}) == {"a": [expected]} or "too deep" in str(expected)


@pytest.mark.parametrize(("value", "expected"), numbered(NO_DATA))
def test_objects_without_data_are_named(value: Any, expected: str) -> None:
    assert plain(value) == expected
    assert text([value]) == json.dumps([expected])


def test_sockets_and_clients_are_named() -> None:
    with socket.socket() as sock, httpx.Client() as client:
        assert plain([sock, client]) == ["<socket.socket>", "<httpx.Client>"]


def test_generators_are_not_consumed() -> None:
    generator = (n for n in range(3))
    assert plain([generator]) == ["<generator>"]
    assert list(generator) == [0, 1, 2]


def test_coroutines_are_not_awaited() -> None:
    async def answer() -> int:
        return 42

    coroutine = answer()
    assert plain(coroutine) == "<coroutine>"
    assert asyncio.run(coroutine) == 42


def test_rows_load_nothing() -> None:
    engine = sa.create_engine("sqlite://")
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add(User(id=1))
        session.commit()
        user = session.get_one(User, 1)
        session.expire(user)
        statements.clear()
        assert plain([user]) == [f"<{HERE}.User>"]
        assert statements == []
        assert plain(session.execute(sa.select(User.id)).all()) == [[1]]
    engine.dispose()


def test_cycle_through_objects() -> None:
    turn = Slotted("user")
    turn.inner = [turn]
    assert plain(turn) == {"role": "user", "inner": [f"<circular {HERE}.Slotted>"]}


def test_objects_nested_too_deep() -> None:
    chain = None
    for _ in range(50):
        chain = Slotted("user", chain)
    assert "nested too deep" in text(chain)


def test_mapping_that_refuses_a_key_keeps_the_rest() -> None:
    assert plain(View(3)) == {"0": 0, "1": "<unreadable: KeyError>", "2": 2}


def test_endless_sequence_ends() -> None:
    assert plain(Endless(), limits=Limits(nodes=3)) == [0, 1, 2, "… more items"]


def test_iteration_that_fails_keeps_the_items_so_far() -> None:
    assert plain(Breaking()) == [1, "… unreadable: OSError"]


def test_slow_mappings_are_abandoned_after_a_time_limit() -> None:
    before = Slow.reads
    result = plain([Slow(1000), Slow(1000)], limits=Limits(patience=0.05))
    assert 0 < Slow.reads - before < 500
    assert "… more items" in str(result)


def test_dict_that_changes_meanwhile() -> None:
    shared: dict[int, Any] = dict.fromkeys(range(1000), "x")
    stop = threading.Event()

    def change() -> None:
        for n in itertools.count(1000):
            if stop.is_set():
                return
            shared[n] = "x"
            del shared[n]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        assert all(len(plain(shared)) in {1000, 1001} for _ in range(50))  # type: ignore[arg-type]
    finally:
        stop.set()
        thread.join()


def refuse(*_args: object, **_more: object) -> NoReturn:
    raise RuntimeError


NASTY = (
    *("__repr__", "__str__", "__len__", "__iter__", "__eq__", "__bool__", "__getattr__", "__getattribute__"),
    *("__getitem__", "__contains__", "__reduce__", "__deepcopy__", "__next__", "__format__", "__index__"),
    *("__float__", "__int__", "__call__", "__class_getitem__", "__dir__", "__sizeof__", "items", "keys"),
)


class NastyMeta(type):
    __hash__ = refuse
    __eq__ = refuse
    __getattribute__ = refuse
    __repr__ = refuse
    mro_entries = refuse


class Lying:
    __class__ = property(refuse)
    __dict__ = property(refuse)


def nasty(*bases: type) -> type:
    return type("Nasty", bases, {**dict.fromkeys(NASTY, refuse), "__hash__": object.__hash__, "__module__": "m"})


NASTY_OBJECTS: list[tuple[Any, Any]] = [
    (nasty(object)(), "<m.Nasty>"),
    (nasty(str)("a"), "a"),
    (nasty(int)(1), 1),
    (nasty(float)(1.5), 1.5),
    (nasty(bytes)(b"a"), "<1 bytes>"),
    (nasty(list)([1]), [1]),
    (nasty(tuple)((1,)), [1]),
    (nasty(dict)(a=1), {"a": 1}),
    (nasty(set)({1}), [1]),
    (nasty(collections.deque)([1]), [1]),
    (nasty(ValueError)("a"), "m.Nasty: a"),
    (nasty(decimal.Decimal)("1.5"), "1.5"),
    (nasty(dt.date)(2024, 1, 2), "2024-01-02"),
    (nasty(View)(1), "<m.Nasty>"),
    (nasty(Endless)(), ["… unreadable: RuntimeError"]),
    (NastyMeta("Odd", (), {"__module__": "m"})(), "<m.Odd>"),
    (NastyMeta("Odd", (), {"__module__": 1})(), "<Odd>"),
    (Lying(), f"<{HERE}.Lying>"),
]


@pytest.mark.parametrize(("value", "expected"), numbered(NASTY_OBJECTS))
def test_nasty_objects(value: Any, expected: Any) -> None:
    assert [plain(value)] == [expected]
    assert plain([1, value, 2]) == [1, expected, 2]
    assert plain({"k": value, "l": 2}) == {"k": expected, "l": 2}
    with contextlib.suppress(TypeError, RuntimeError):
        assert isinstance(plain({value: 1, "l": 2}), dict)


def test_nasty_values_leave_their_fields() -> None:
    assert plain(Slotted("user", nasty(object)())) == {"role": "user", "inner": "<m.Nasty>"}


def test_dynamic_classes_can_be_garbage_collected() -> None:
    cls = dataclasses.make_dataclass("Brief", ["a"])
    assert plain(cls(1)) == {"a": 1}
    gone = weakref.ref(cls)
    del cls
    gc.collect()
    assert gone() is None


# ---- responses of HTTP


def response_class(name: str, **attributes: Any) -> Any:
    """An object as a framework's that is not installed here: known by the name of its class, or of one above."""
    module, _, qualname = name.rpartition(".")
    response = type("Mine", (type(qualname, (), {"__module__": module}),), {})()
    vars(response).update(attributes)
    return response


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (PlainTextResponse("Größe"), "Größe"),
        (JSONResponse({"a": "Größe", "api_key": "sk-1"}), {"a": "Größe", "api_key": "[masked]"}),
        (PlainTextResponse("[no JSON"), "[no JSON"),
        (PlainTextResponse("[" * 100_000), "[" * 100_000),
        (flask.Response(["Grö", "ße"]), "Größe"),
        (response_class("django.http.response.HttpResponse", _container=[b"Gr\xc3", b"\xb6\xc3\x9fe"]), "Größe"),
        (httpx.Response(200, text="Größe"), "Größe"),
        (response_class("quart.wrappers.response.Response", response=types.SimpleNamespace(data=b"a")), "a"),
        (response_class("litestar.response.base.Response", content={"a": [1]}), {"a": [1]}),
        (response_class("aiohttp.web_response.StreamResponse", _body=b"a"), "a"),
        (response_class("sanic.response.types.HTTPResponse", body=b"a"), "a"),
        (response_class("bottle.BaseResponse", body="a"), "a"),
        (response_class("requests.models.Response", _content=b"a"), "a"),
        # Not read, empty, binary, large.
        (response_class("requests.models.Response", _content=False), f"<{HERE}.Mine>"),
        (flask.Response(iter(["a"])), "<flask.wrappers.Response>"),
        (flask.Response(), "<flask.wrappers.Response>"),
        (Response(b"\xff\x00"), "<2 bytes>"),
        (PlainTextResponse("ä" * 600_000), "ä" * 500_000),
    ],
)
def test_http_responses_are_logged_as_their_body(response: Any, body: object) -> None:
    assert plain(response, limits=Limits(string=2_000_000)) == body
