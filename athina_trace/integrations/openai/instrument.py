"""`instrument_openai`: makes OpenAI's client record the answers of models.

Every call of every client, sync or async, OpenAI or Azure, its own class or a subclass, whatever the resource
(`create`, `parse`, `stream`, the polls, further pages, raw and streaming responses), goes exactly once through
`SyncAPIClient.request` or `AsyncAPIClient.request`. These two are patched, rather than forty methods that differ from
version to version and call each other: one call is one request, whose method, path and body show what it is about.
`_process_response`, which makes the answer, is patched as well, since other tools may wrap it, or replace `request`.
The decoded body is taken from `_process_response_data`, rather than decoding it again. If a client's `request` was
replaced before, its requests are seen in `_process_response`, `_make_status_error_from_response`, and the exception
for requests that get no answer. To instrument one client, its class is patched and the client is marked.

`openai` is never imported from here: the patch waits until the program imports it.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import threading
import weakref
from types import FunctionType
from typing import TYPE_CHECKING, Any

import wrapt

from athina_trace import _fork, _guard
from athina_trace._wrapping import callables, results
from athina_trace._wrapping.calls import Call
from athina_trace.integrations.openai import stream_observer
from athina_trace.integrations.openai.patches import (
    MARK,
    patched_build_request,
    patched_connect,
    patched_connection_error,
    patched_process_response,
    patched_process_response_async,
    patched_process_response_data,
    patched_request,
    patched_request_async,
    patched_status_error,
    switch,
)
from athina_trace.integrations.openai.standalone_logs import standalone_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_BASE = "openai._base_client"
_CLASSES = ("SyncAPIClient", "AsyncAPIClient")
_STREAMS = {
    "openai._streaming": ("Stream", "AsyncStream"),
    "openai._response": ("APIResponse", "AsyncAPIResponse"),
    "openai._legacy_response": ("LegacyAPIResponse",),
}
"""Streams and unparsed responses, which the program reads after the call returned them."""
_METHODS = (
    "request",
    "_process_response",
    "_process_response_data",
    "_make_status_error_from_response",
    "_build_request",
    "connect",
    "__init__",
)
_UNANSWERED = ("openai._exceptions", "APIConnectionError")
_CONNECTING = tuple(
    f"openai.resources.{name}"
    for name in ("responses.responses", "realtime.realtime", "beta.responses.responses", "beta.realtime.realtime")
)
"""Modules of resources that open WebSockets. Each is imported on first use."""
_COPIES = ("copy", "with_options")
_hooked = False
_awaited: set[str] = set()
"""Modules of `_CONNECTING` that are patched when the program imports them."""
_lock = threading.Lock()
"""Held while classes are patched, else two threads could wrap one patch in the other."""
_clients: weakref.WeakSet[Any] = weakref.WeakSet()
"""The marked clients."""
_owners: weakref.WeakSet[type] = weakref.WeakSet()
"""The patched classes."""
_patches: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""Our patches, each with the method that it replaced."""


def instrument_openai(client: Any = None, *, fetch_details: bool = False) -> None:
    """Automatically record every answer that an OpenAI client gets in the log of the decorated call around it.

    Outside of decorated calls, each run, response and chat completion becomes a log of its own. The client's methods
    return exactly what they returned before.

    Args:
        client: the client to instrument; without one, all clients of this process are, including existing ones.
            A subclass whose own `request` answers without calling the client's is not seen.
        fetch_details: fetch the messages and steps of a run when it has ended, which costs requests; otherwise its
            log has those that the program itself asks for.

    May be called again, before or after `openai` is imported and clients are made; `uninstrument_openai` undoes it.
    Raises `TypeError` if `client` is not an OpenAI client.

    >>> instrument_openai()
    """
    global _hooked  # noqa: PLW0603 - there is one import of openai
    switch.fetches = fetch_details
    if client is not None:
        _instrument_client(client)
        return
    switch.everything = True
    if _BASE in sys.modules:
        _patch_all(sys.modules[_BASE])
    elif not _hooked:
        _hooked = True
        wrapt.register_post_import_hook(_imported, _BASE)


def uninstrument_openai(client: Any = None) -> None:
    """Undo `instrument_openai`: for one client, or without one for the whole process.

    >>> uninstrument_openai()
    """
    for each in [client] if client is not None else list(_clients):
        _forget_client(each)
    if client is None:
        switch.everything = False
    if not (switch.everything or _clients):
        for owner in list(_owners):
            _restore(owner)


def _imported(module: ModuleType) -> None:
    if switch.everything:
        _patch_all(module)


def _patch_all(module: ModuleType) -> None:
    for name in _CLASSES:
        owner = getattr(module, name, None)
        if callable(getattr(owner, "request", None)):
            _patch(owner)
        else:
            words = (
                "this version of openai has no %s.request, so the answers of its clients are not logged; upgrade "
                "athina-trace, or install a version from 1 to 3"
            )
            _guard.log_throttled(logging.WARNING, "openai", words, name)


def _patch(owner: Any) -> None:
    """Patch a client class, and its subclasses that have their own `request`.

    Other tools set those to wrappers of the method that the class had at the time, which would bypass our patch.
    """
    is_async = owner.__name__.startswith("Async")
    with _lock:
        patched = patched_request_async if is_async else patched_request
        _put(owner, "request", patched)
        _put(owner, "_process_response", patched_process_response_async if is_async else patched_process_response)
        _put(owner, "_process_response_data", patched_process_response_data)
        _put(owner, "_make_status_error_from_response", patched_status_error)
        _put(owner, "_build_request", patched_build_request)
        module, name = _UNANSWERED
        if (error := getattr(sys.modules.get(module), name, None)) is not None:
            _put(error, "__init__", patched_connection_error)
        for cls in _subclasses(owner):
            if "request" in vars(cls):
                _put(cls, "request", functools.partial(patched, is_base=False))
    for name in _CONNECTING:
        if name in sys.modules:
            _connecting_imported(sys.modules[name])
        elif name not in _awaited:
            _awaited.add(name)
            wrapt.register_post_import_hook(_connecting_imported, name)
    for name, classes in _STREAMS.items():
        for stream in (getattr(sys.modules.get(name), each, None) for each in classes):
            if isinstance(stream, type):
                results.drive(stream, _returned)


def _connecting_imported(module: ModuleType) -> None:
    """Patch the resources of a module that open WebSockets, which do not go through `request`."""
    if switch.everything or _clients:
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and cls.__module__ == module.__name__ and "connect" in vars(cls):
                _put(cls, "connect", patched_connect)


def _subclasses(owner: type[Any]) -> Iterator[type[Any]]:
    subclasses: list[type[Any]] = owner.__subclasses__()
    for cls in subclasses:
        yield cls
        yield from _subclasses(cls)


def _put(owner: type, name: str, patcher: Callable[[Any], Any]) -> None:
    method = getattr(owner, name, None)
    # Another tool may have wrapped our patch: a second patch around its wrapper would log everything twice.
    if callable(method) and not any(map(_is_patch, callables.layers(method))):
        patch = patcher(method)
        _patches[patch] = inspect.getattr_static(owner, name)
        setattr(owner, name, patch)
        _owners.add(owner)


def _is_patch(method: Any) -> bool:
    # Not by equality alone: a proxy equals the patch inside it.
    return type(method) is FunctionType and method in _patches


def _restore(owner: type) -> None:
    """Restore a class's own methods, except those that another tool has patched since, whose patch would be lost."""
    for name in _METHODS:
        patch: Any = vars(owner).get(name)
        if _is_patch(patch):
            setattr(owner, name, _patches[patch])


def _instrument_client(client: Any) -> None:
    owner = next((kind for kind in client.__class__.__mro__ if kind.__name__ in _CLASSES), None)  # for proxies, too
    if not all(callable(getattr(client, name, None)) for name in ("request", "with_options")) or owner is None:
        raise TypeError(f"instrument_openai() takes a client of the openai package, got {type(client).__name__}")
    known = client in _clients
    _clients.add(client)
    _patch(owner)
    if not known:
        for name in _COPIES:
            setattr(client, name, wrapt.FunctionWrapper(getattr(client, name), _copied))
        setattr(client, MARK, True)


def _copied(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
    """Make `client.with_options(...)` return an instrumented client, too."""
    made = wrapped(*args, **kwargs)
    with _guard.shield("instrumenting a copy of a client"):
        _instrument_client(made)
    return made


def _forget_client(client: Any) -> None:
    if MARK in vars(client):  # also in a shallow copy of a client
        for name in (MARK, *_COPIES):
            vars(client).pop(name, None)
    _clients.discard(client)


def _returned(stream: Any, call: Call) -> Any:
    """End the call of a decorated function with the client's stream, or the unparsed response, that it returned.

    A stream that is not observed, or not for this call, is an ordinary iterator.
    """
    observer = stream_observer.observer_of(stream)
    return stream if observer is not None and observer.end_with(call) else None


def _reset() -> None:
    """Forget, in a forked child, what its parent waits for, and locks that threads of the parent may have held."""
    global _lock  # noqa: PLW0603 - one for the process
    _lock = threading.Lock()
    standalone_logs.reset()
    stream_observer.reset()


_fork.register("openai", after_in_child=_reset)
