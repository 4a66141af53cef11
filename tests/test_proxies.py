"""Mocks, proxies and other objects with dynamic attributes are decorated at once, called through, and logged."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import weakref
import xmlrpc.client
from collections.abc import Callable
from typing import Any
from unittest import mock

import openai
import pytest
import wrapt
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from athina_trace import athina_session, athina_trace, instrument_openai, uninstrument_openai, wrap
from athina_trace.testing import captured_logs

Logs = Callable[[], list[dict[str, Any]]]


class Remote:
    """Has every attribute, each of which is another such object."""

    def __getattr__(self, name: str) -> Any:
        return Remote()

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        return "a"


class Raising(Remote):
    """No attribute can be read, not even `__class__`."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingLate(Remote):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingClass(Remote):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError


class AsyncRemote(Remote):
    async def __call__(self, *args: Any, **kwargs: Any) -> str:  # type: ignore[override]
        return "a"


class Declared(Remote):
    def __call__(self, question: str) -> str:
        return "a"


class Descriptor(Remote):
    def __get__(self, instance: object, owner: Any = None) -> Any:
        return self


def cyclic() -> Any:
    def one(*args: Any, **kwargs: Any) -> str:
        return "a"

    def two(*args: Any, **kwargs: Any) -> str:
        return "a"

    one.__wrapped__, two.__wrapped__ = two, one  # type: ignore[attr-defined]
    return one


def lending(inner: Any) -> Any:
    def outer(*args: Any, **kwargs: Any) -> str:
        return "a"

    outer.__wrapped__ = inner  # type: ignore[attr-defined]
    return outer


def sealed() -> Any:
    made = mock.Mock(return_value="a")
    mock.seal(made)
    return made


def real(question: str) -> str:
    return "a"


def spec(question: str) -> str:
    raise NotImplementedError


async def aspec(question: str) -> str:
    raise NotImplementedError


REMOTE = Remote()
HOLDER = contextvars.ContextVar[Any]("HOLDER")
MAKE: dict[str, Callable[[], Any]] = {
    "Mock": lambda: mock.Mock(return_value="a"),
    "Mock, spec": lambda: mock.Mock(spec=spec, return_value="a"),
    "MagicMock": lambda: mock.MagicMock(return_value="a"),
    "AsyncMock": lambda: mock.AsyncMock(return_value="a"),
    "AsyncMock, spec": lambda: mock.AsyncMock(spec=aspec, return_value="a"),
    "autospec": lambda: mock.create_autospec(spec, return_value="a"),
    "autospec, async": lambda: mock.create_autospec(aspec, return_value="a"),
    "autospec of an instance": lambda: mock.create_autospec(Declared(), return_value="a"),
    "method of a mock": lambda: mock.Mock(**{"ask.return_value": "a"}).ask,
    "sealed": sealed,
    "proxy": Remote,
    "async proxy": AsyncRemote,
    "proxy, declared": Declared,
    "proxy, descriptor": Descriptor,
    "raises from all": Raising,
    "raises from what is missing": RaisingLate,
    "raises from its class": RaisingClass,
    "LocalProxy": lambda: LocalProxy(lambda: real),
    "weakref.proxy": lambda: weakref.proxy(REMOTE),
    "wrapt proxy": lambda: wrapt.CallableObjectProxy(Remote()),
    "partial of a proxy": lambda: functools.partial(Remote()),
    "partial of a mock": lambda: functools.partial(mock.Mock(return_value="a")),
    "bound to a mock": lambda: Remote().__call__,
    "wraps a mock": lambda: lending(mock.Mock()),
    "wraps a proxy": lambda: lending(Remote()),
    "wraps what raises": lambda: lending(RaisingLate()),
    "wraps itself": cyclic,
    "partial of a circle": lambda: functools.partial(cyclic()),
}
MAKE["ServerProxy"] = lambda: xmlrpc.client.ServerProxy("http://127.0.0.1:9").ask


pytestmark = pytest.mark.timeout(60)  # what looks through a proxy for ever fails, instead of filling the memory


def result_of(called: Any) -> Any:
    async def awaited() -> Any:
        return await called

    return asyncio.run(awaited()) if inspect.isawaitable(called) else called


@pytest.mark.parametrize("what", [what for what in MAKE if what != "ServerProxy"])
def test_called_through_and_logged(local: Logs, what: str) -> None:
    decorated = athina_trace(MAKE[what]())
    assert result_of(decorated("q")) == "a"
    (log,) = local()
    assert log["response"] == "a"
    assert "q" in (log.get("user_query"), *log["custom_attributes"].values()) or '["q"]' in (
        log["custom_attributes"].values()
    )


@pytest.mark.parametrize("what", ["autospec", "autospec, async", "proxy, declared"])
def test_proxies_that_declare_parameters_have_named_inputs(local: Logs, what: str) -> None:
    result_of(athina_trace(MAKE[what]())("q"))
    assert local()[0]["user_query"] == "q"


@pytest.mark.parametrize("what", MAKE)
def test_everything_that_decorates(local: Logs, what: str) -> None:
    for decorate in (athina_trace, athina_session("t"), wrap, lambda it: athina_trace(athina_session("t")(it))):
        decorated = decorate(MAKE[what]())
        if what != "ServerProxy":
            assert result_of(decorated("q")) == "a"


def test_a_remote_method_that_fails_fails_as_undecorated(local: Logs) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - the operating system's own
        athina_trace(MAKE["ServerProxy"]())("q")
    assert "Error" in local()[0]["error"]


def test_a_decorated_mock_is_still_one(local: Logs) -> None:
    undecorated = mock.MagicMock(return_value="a")
    decorated = athina_trace(undecorated)
    decorated("q", size=3)
    decorated.assert_called_once_with("q", size=3)
    decorated.side_effect = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        decorated()
    assert isinstance(decorated, mock.MagicMock)
    assert decorated == undecorated
    assert copy.copy(decorated) is copy.deepcopy(decorated) is decorated
    assert len(decorated) == 0
    assert decorated.anything.at.all() is undecorated.anything.at.all()

    class Holder:
        ask = decorated

    decorated.side_effect = None
    assert Holder().ask("q") == "a"
    undecorated.assert_called_with("q")  # no instance was passed
    assert len(local()) == 3


def test_mocks_that_are_called_as_methods_and_give_mocks(local: Logs) -> None:
    with mock.patch.object(Declared, "__call__", autospec=True) as called:
        athina_trace(Declared())("q")
    assert called.call_count == 1
    made = athina_trace(mock.MagicMock())("q")
    assert isinstance(made, mock.MagicMock)
    assert local()[1]["response"] == "<unittest.mock.MagicMock>"


def test_a_local_proxy_that_is_bound_later(local: Logs) -> None:
    decorated = athina_trace(LocalProxy(HOLDER))
    with pytest.raises(RuntimeError):
        decorated("q")
    HOLDER.set(real)
    assert decorated("q") == "a"
    assert [log.get("error", "none")[:12] for log in local()] == ["RuntimeError", "none"]


@pytest.mark.parametrize("what", ["Mock", "Mock, spec", "proxy", "raises from all", "wraps a proxy", "wraps itself"])
def test_clients_whose_method_was_replaced_are_instrumented(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, replaced = openai._base_client.SyncAPIClient, MAKE[what]()
    monkeypatch.setattr(owner, "request", replaced)
    instrument_openai()
    try:
        assert vars(owner)["request"] is not replaced
    finally:
        uninstrument_openai()
    assert vars(owner)["request"] is replaced


def wrapping(inner: Any) -> Any:
    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return outer


LAYERS: dict[str, Callable[[Any], Any]] = {
    "partial": functools.partial,
    "wraps": wrapping,
    "wrapt": wrapt.CallableObjectProxy,
    "session": athina_session("t"),
    "static": staticmethod,
    "cache": functools.lru_cache,
    "trace": athina_trace,
}


@given(
    what=st.sampled_from([what for what in MAKE if what != "ServerProxy"]),
    stack=st.lists(st.sampled_from([*LAYERS]), max_size=5),
)
def test_any_wrapper_around_any_proxy(what: str, stack: list[str]) -> None:
    function = MAKE[what]()
    for layer in stack:
        try:
            function = LAYERS[layer](function)
        except (RuntimeError, TypeError):  # the wrapper itself reads an attribute
            if layer in ("session", "trace"):
                raise
    with captured_logs() as logs:
        assert result_of(athina_trace(function)("q")) == "a"
    assert len(logs.wire) >= 1


def test_a_hundred_thousand_layers_do_no_harm(local: Logs) -> None:
    function = real
    for _ in range(100_000):
        inner, function = function, lambda *args, **kwargs: "a"
        function.__wrapped__ = inner  # type: ignore[attr-defined]
    assert athina_trace(function)("q") == "a"
    assert len(local()) == 1
