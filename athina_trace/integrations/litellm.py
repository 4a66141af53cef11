"""LiteLLM: logs the answers of models of any provider, through its callbacks.

    litellm.callbacks = [AthinaLogger()]      # or instrument_litellm()

In the configuration of its proxy:

    litellm_settings:
      callbacks: athina_trace.integrations.litellm.athina_logger

Each request to a provider is one log, including failed attempts, of which a router may make several. The session in
`metadata` takes precedence over that of the surrounding scope; its other fields are used if the scope does not set
them.

LiteLLM calls its loggers after the call has returned, in its own thread or task. It does not report abandoned streams,
cancelled calls, and calls whose event loop closes when they return: these are logged when LiteLLM releases them. Only
the fields of a log are read from what it passes to loggers: never a provider's key.

Source of the callbacks' arguments: litellm 1.80 to 1.108.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import binascii
import json
import math
import re
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import wrapt

from athina_trace import _fork, _guard, _periodic
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import FINISHED, Answer
from athina_trace._capture.answer_logs import Origin, log_answer
from athina_trace._capture.nesting import end, follow_nesting
from athina_trace._clock import clock
from athina_trace._serialization.secrets import MASKED
from athina_trace.integrations.frameworks import MOST_RUNNING, follow_chain, identifier, named_by, seen_by
from athina_trace.integrations.openai.chat import ChatChunks
from athina_trace.integrations.openai.exchange import read_exchange
from athina_trace.integrations.openai.normalise import Data, as_data, child, normalise, number, string
from athina_trace.integrations.openai.responses import ResponseEvents

if TYPE_CHECKING:
    # The host may not be installed during type checking.
    class CustomLogger:
        turn_off_message_logging: bool

        def __init__(self, **options: object) -> None: ...

    litellm: Any
    BaseResponsesAPIStreamingIterator: Any
    LLMCachingHandler: Any
    Logging: Any

    def should_redact_message_logging(details: dict[str, Any], /) -> bool: ...
else:
    import litellm
    from litellm.caching.caching_handler import LLMCachingHandler
    from litellm.integrations.custom_logger import CustomLogger
    from litellm.litellm_core_utils.litellm_logging import Logging
    from litellm.litellm_core_utils.redact_messages import should_redact_message_logging
    from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator

__all__ = ["AthinaLogger", "athina_logger", "instrument_litellm", "uninstrument_litellm"]

_SOURCE: Final = "litellm"
_ANSWERING: Final = frozenset(
    (
        *("completion", "acompletion", "text_completion", "atext_completion"),
        *("responses", "aresponses", "anthropic_messages", "aanthropic_messages"),
    )
)
"""The types of calls with text answers, unlike embeddings and the like."""
_READ: Final = (
    *("call_type", "litellm_call_id", "status", "model", "messages", "response", "model_parameters", "response_cost"),
    *("custom_llm_provider", "end_user", "session_id", "model_group", "cache_hit", "error_str"),
)
"""The keys read from LiteLLM's standard payload: none with an API key or the traceback of a failure."""
_NAMED: Final = ("context", "user_query", "user_feedback", "user_feedback_comment", "model_options")
"""Fields besides identifiers in `metadata`, as for LiteLLM's own callback for Athina."""
_INVENTED: Final = re.compile(r"chatcmpl-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The ids that LiteLLM gives to answers if it does not pass on the provider's. Source: `litellm.types.utils`."""
_OF_PROVIDER: Final = re.compile(r"\blitellm\.\w+: .*?\b\w+(?P<kind>Exception|Error) - (?P<text>.+)", re.DOTALL)
"""LiteLLM's format for a provider's error. Source: `litellm.litellm_core_utils.exception_mapping_utils`."""
_BYTES: Final = re.compile(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\"")
"""A body that LiteLLM did not decode, as in the failures of some streams."""
_ROUTES: Final = re.compile(r"^(converse|invoke)/")
"""The ways to ask Bedrock for an answer, which a model's name may begin with."""
_LISTS: Final = (
    *("callbacks", "input_callback", "success_callback", "failure_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)
"""LiteLLM's lists of loggers: with each call, it copies those in the first list to the others."""


_NAMING: Final = ("metadata", "litellm_metadata", "litellm_session_id")
"""LiteLLM's parameters of a call that contain a program's metadata."""
_MARK: Final = "athina_trace"
"""The key of our mark in LiteLLM's data about a call."""
_NO_LOGGING: Final = "x-litellm-disable-callbacks"
"""The header with which a client of the proxy switches off loggers."""
_VISIT_SECONDS: Final = 5.0


class _Mark:
    """Put into LiteLLM's data about a call: once it is collected, LiteLLM will not report the call any more."""

    __slots__ = ("__weakref__",)

    def __deepcopy__(self, _memo: object) -> _Mark:
        return self


@dataclass(slots=True, kw_only=True)
class _Request:
    """A request to a provider, with the data for its log in case LiteLLM does not report it."""

    call: str
    """LiteLLM's id of the call."""
    origin: Origin
    payload: dict[str, Any]
    """As in LiteLLM's standard payload."""
    params: dict[str, Any]
    """The parameters that name the session and fields of the log."""
    is_wanted: bool
    """Whether the answer is text, and the program has not kept it from loggers."""
    chunks: Sequence[Any] | None = None
    """The chunks of a completion's stream so far; LiteLLM appends to the list."""
    events: list[Any] = field(default_factory=list)
    """The events of a response's stream so far."""
    is_answered: bool = False
    """Whether the answer, or the beginning of its stream, has arrived."""
    result: Any = None
    """The return value of an asynchronous call."""
    loop: asyncio.AbstractEventLoop | None = None
    """The event loop in which it returned: once this is closed, LiteLLM may not call loggers any more."""
    mark: weakref.ref[_Mark] | None = None


_requests: Newest[_Request] = Newest(MOST_RUNNING)
_left: deque[_Request] = deque()
"""Requests that LiteLLM has released."""


class AthinaLogger(CustomLogger):
    """A logger for `litellm.callbacks`. For sync and async code, and any number of concurrent calls.

    >>> litellm.callbacks = [AthinaLogger()]

    Args:
        options: LiteLLM's own for a logger, such as `turn_off_message_logging`.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        follow_nesting()
        _follow_answers()

    # LiteLLM passes some of these by name.

    def log_pre_api_call(self, model: object, messages: object, kwargs: Any) -> None:  # noqa: ARG002
        """Note the origin of a request, since LiteLLM's later callbacks may run in another thread."""
        with _guard.shield("reading the start of LiteLLM's call"):
            _log_left()
            call = identifier(kwargs.get("litellm_call_id"))
            if call is not None and _requests.get(call) is None:
                _begin(call, kwargs, is_redacted=self.turn_off_message_logging)

    def log_post_api_call(self, kwargs: Any, response_obj: object, start_time: object, end_time: object) -> None:  # noqa: ARG002
        """Note that a request was answered: later calls here belong to another one."""
        with _guard.shield("reading the end of LiteLLM's request"):
            call = identifier(kwargs.get("litellm_call_id"))
            if call is not None:
                end((_SOURCE, call))
            if (request := _requests.get(call)) is not None:
                request.is_answered = True

    def log_success_event(self, kwargs: Any, response_obj: object, start_time: object, end_time: object) -> None:  # noqa: ARG002
        """Log an answer."""
        with _guard.shield("reading an answer of LiteLLM"):
            self._log(kwargs, start_time, end_time)

    def log_failure_event(self, kwargs: Any, response_obj: object, start_time: object, end_time: object) -> None:  # noqa: ARG002
        """Log a request that failed."""
        with _guard.shield("reading a failure of LiteLLM"):
            self._log(kwargs, start_time, end_time)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: object, start_time: object, end_time: object
    ) -> None:
        """Log an answer."""
        self.log_success_event(kwargs, response_obj, start_time, end_time)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: object, start_time: object, end_time: object
    ) -> None:
        """Log a request that failed."""
        self.log_failure_event(kwargs, response_obj, start_time, end_time)

    def _log(self, kwargs: Any, start_time: object, end_time: object) -> None:
        given = kwargs.get("standard_logging_object")
        if not isinstance(given, dict):
            return  # a stream that is still in progress
        payload: Data = normalise({**{name: given.get(name) for name in _READ}, "began": _moment(start_time)})
        call = string(payload, "litellm_call_id") or identifier(kwargs.get("litellm_call_id"))
        request = _requests.pop(call)
        origin = Origin.here() if request is None else request.origin
        if call is not None:
            end((_SOURCE, call))
        if string(payload, "call_type") not in _ANSWERING:
            return
        if isinstance(start_time, datetime) and isinstance(end_time, datetime):
            # By our own clock, it would last until this logger is called.
            origin.response_time = round((end_time - start_time).total_seconds() * 1000)
        # The answer of a fallback still has the exception of the failed call.
        error = kwargs.get("exception") if payload.get("status") != "success" else None
        if error is None and payload.get("status") == "failure":
            error = RuntimeError(string(payload, "error_str") or "failed")
        if error is not None and request is not None and request.payload["response"] is None:
            # LiteLLM also passes nothing on from a failed stream.
            payload = {**payload, "response": child(payload, "response") or _received(request).result()}
        answer, records = _read(payload, _params(kwargs), origin, error, call=call)
        if answer.error is not None:
            answer.error = _message_of(answer.error)
        key = kwargs.get("api_key")
        if answer.error is not None and isinstance(key, str) and key:
            answer.error = answer.error.replace(key, MASKED)
        log_answer(records, origin)


# Calls that LiteLLM does not report ---------------------------------------------------------------------------------


def _begin(call: str, kwargs: Any, *, is_redacted: bool) -> _Request:
    """Keep the data for a log in case LiteLLM does not report the request. `is_redacted`: leave out content."""
    params, is_hidden = _params(kwargs), is_redacted or should_redact_message_logging(kwargs)
    messages = [] if is_hidden else kwargs.get("messages")
    proxied = params.get("proxy_server_request")
    headers = proxied.get("headers") if isinstance(proxied, dict) else None
    is_silenced = params.get("no-log") is True or (isinstance(headers, dict) and _NO_LOGGING in headers)
    # Without its session, since callbacks of this call may come after the next call is made here.
    origin = Origin.of_run((_SOURCE, call))
    # Its callbacks mostly come after a decorated call that only returns the answer has ended.
    origin.is_awaited = origin.open_draft is not None
    request = _Request(
        call=call,
        origin=origin,
        payload={
            "model": kwargs.get("model"),
            # Copied, since the program may append to its list.
            "messages": list(messages) if isinstance(messages, list) else messages,
            "model_parameters": kwargs.get("optional_params"),
            "custom_llm_provider": kwargs.get("custom_llm_provider"),
            "response": {} if is_hidden else None,
            "began": _moment(kwargs.get("start_time")),
        },
        params={name: params.get(name) for name in _NAMING},
        is_wanted=kwargs.get("call_type") in _ANSWERING and not is_silenced,
    )
    _requests.put(call, request)
    kwargs[_MARK] = mark = _Mark()
    # Only noted, since the garbage collector may call this at any time, even in the middle of our own work.
    request.mark = weakref.ref(mark, lambda _: _left.append(request))
    return request


def _follow_answers() -> None:
    """Record the results of requests: loggers are not given, for example, the chunks of an asynchronous stream."""
    if isinstance(litellm.CustomStreamWrapper.__dict__["__init__"], wrapt.ObjectProxy):
        return
    wrapt.wrap_function_wrapper(Logging, "handle_sync_success_callbacks_for_async_calls", _answered)
    wrapt.wrap_function_wrapper(LLMCachingHandler, "_update_litellm_logging_obj_environment", _found_in_cache)
    wrapt.wrap_function_wrapper(litellm.CustomStreamWrapper, "__init__", _stream_begins)
    # A router wraps these in further streams with the same events.
    for kind in BaseResponsesAPIStreamingIterator.__subclasses__():
        if kind.__module__ == BaseResponsesAPIStreamingIterator.__module__:
            for name, step in (("__next__", _next_event), ("__anext__", _anext_event)):
                if name in kind.__dict__:
                    wrapt.wrap_function_wrapper(kind, name, step)


def _answered(wrapped: Callable[..., None], logging: Any, args: Any, kwargs: Any) -> None:
    with _guard.shield("reading the end of LiteLLM's call"):
        request = _requests.get(identifier(logging.model_call_details.get("litellm_call_id")))
        if request is not None:
            request.result, request.loop = args[0] if args else kwargs.get("result"), asyncio.get_running_loop()
            request.origin.response_time = (clock.perf_ns() - request.origin.started_ns) // 1_000_000
    wrapped(*args, **kwargs)


def _found_in_cache(wrapped: Callable[..., None], _handler: object, args: Any, kwargs: Any) -> None:
    """Note the origin of an answer from LiteLLM's cache, for which it reports no request."""
    wrapped(*args, **kwargs)
    with _guard.shield("reading LiteLLM's cache"):
        details = (args[0] if args else kwargs["logging_obj"]).model_call_details
        call = identifier(details.get("litellm_call_id"))
        listed = [each for name in _LISTS for each in getattr(litellm, name, ())]
        loggers = [each for each in listed if isinstance(each, AthinaLogger)]
        if call is not None and loggers:
            request = _begin(call, details, is_redacted=any(each.turn_off_message_logging for each in loggers))
            request.is_answered = request.payload["cache_hit"] = True
            # The stream of a synchronous call was made before.
            request.chunks = getattr(kwargs.get("cached_result"), "chunks", None)
            end((_SOURCE, call))


def _stream_begins(wrapped: Callable[..., None], stream: Any, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    with _guard.shield("reading the start of LiteLLM's stream"):
        request = _request_of(stream)
        if request is not None and request.chunks is None:  # a router has one stream around another
            request.chunks = stream.chunks


def _next_event(wrapped: Callable[..., Any], stream: Any, args: Any, kwargs: Any) -> Any:
    event = wrapped(*args, **kwargs)
    _note_event(stream, event)
    return event


async def _anext_event(wrapped: Callable[..., Awaitable[Any]], stream: Any, args: Any, kwargs: Any) -> Any:
    event = await wrapped(*args, **kwargs)
    _note_event(stream, event)
    return event


def _note_event(stream: Any, event: object) -> None:
    with _guard.shield("reading an event of LiteLLM's stream"):
        request = _request_of(stream)
        if request is not None:
            request.events.append(event)


def _request_of(stream: Any) -> _Request | None:
    return _requests.get(identifier(stream.logging_obj.model_call_details.get("litellm_call_id")))


def _log_left() -> None:
    """Log the requests that LiteLLM has released without a report."""
    while _left:
        _log_left_one(_left.popleft())


def _log_left_one(request: _Request) -> None:
    call = request.call
    if _requests.get(call) is not request:
        return  # it was logged, and a fallback may have begun under its id
    _requests.pop(call)
    end((_SOURCE, call))
    built, result = _received(request), request.result
    is_silent = request.is_answered and result is None and request.chunks is None and not request.events
    if is_silent or not request.is_wanted:
        return
    payload = normalise(request.payload)
    if payload["response"] is None:
        payload["response"] = built.result() if result is None else normalise(result)
    given_up = None if built.ended or result is not None else GeneratorExit()
    payload["status"] = "success" if given_up is None else None
    answer, records = _read(payload, request.params, request.origin, given_up, call=call)
    answer.progress = FINISHED if given_up is None else 0
    log_answer(records, request.origin, error=given_up)


def _received(request: _Request) -> ChatChunks | ResponseEvents:
    """Assemble the received part of a stream."""
    built = ResponseEvents() if request.events else ChatChunks()
    for chunk in tuple(request.events or request.chunks or ()):
        if type(plain := normalise(chunk)) is dict:
            built.add(plain)
    return built


def _run_periodically(_now: float, ending: bool) -> float:  # noqa: FBT001 - the signature of periodic callbacks
    _log_left()
    for request in _requests.values():
        if ending or (request.loop is not None and request.loop.is_closed()):
            _log_left_one(request)
    return _VISIT_SECONDS if _requests.values() else math.inf


def _reset() -> None:
    """Forget all requests: a forked child must not log its parent's."""
    global _requests  # noqa: PLW0603 - one for the process
    _requests = Newest(MOST_RUNNING)
    _left.clear()


_periodic.register(_run_periodically)
_fork.register("litellm", after_in_child=_reset)

# Reading -------------------------------------------------------------------------------------------------------------


def _params(kwargs: Any) -> dict[str, Any]:
    params = kwargs.get("litellm_params")
    return params if isinstance(params, dict) else {}


def _moment(time: object) -> str | None:
    return str(time) if isinstance(time, datetime) else None


def _metadata(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the places of a program's metadata, that of the request first: a proxy puts it inside its own."""
    places: list[object] = []
    for name in ("metadata", "litellm_metadata"):
        outer = params.get(name)
        places += [outer.get("requester_metadata"), outer] if isinstance(outer, dict) else []
    return [place for place in places if isinstance(place, dict)]


def _read(
    payload: Data, params: dict[str, Any], origin: Origin, error: BaseException | None, *, call: str | None
) -> tuple[Answer, list[Any]]:
    """Read the records for the log of a request.

    Args:
        payload: the data kept from LiteLLM's standard payload.
        params: LiteLLM's own parameters of the call.
        origin: where the request was made; gets the fields in the call's metadata.
        error: the exception with which it failed.
        call: LiteLLM's id of it.

    Returns:
        The answer, and all its records.
    """
    metadata = _metadata(params)
    for place in metadata:
        origin.scope = named_by(place, origin.scope, further=_NAMED)
        origin.reference = identifier(place.get("external_reference_id")) or origin.reference
    named = params.get("litellm_session_id"), *(place.get("session_id") for place in metadata)
    conversation = next((own for each in named if (own := identifier(each)) is not None), None)
    origin.conversation = conversation or string(payload, "session_id") or origin.conversation
    records = _records(payload, error, origin.started_ns)
    answer = seen_by(_SOURCE, call or str(origin.started_ns), records)
    # Fallbacks have the id of the failed call; reports about the same call, as for streams, have the same start time.
    answer.request = f"{answer.request} {payload.get('began')}"
    _add_details(answer, payload, metadata)
    follow_chain(answer, answer.details.get("response_id"))
    return answer, records


def _records(payload: Data, error: BaseException | None, order: int) -> list[Any]:
    """Read a request and its result as records, the answer first.

    Args:
        payload: the data kept from LiteLLM's standard payload.
        error: the exception with which the request failed.
        order: when the request began.
    """
    given, model = child(payload, "response"), string(payload, "model")
    asked = {**child(payload, "model_parameters"), "model": model}
    # The two APIs have different names for the request's messages.
    asked |= dict.fromkeys(("messages", "input"), payload.get("messages"))
    kind = "response" if "output" in given else "chat"
    records = read_exchange(kind, asked, given or None, order=order, error=error)
    return [*records] if records else [Answer(key=(kind, ""), order=order, model=model)]


def _add_details(answer: Answer, payload: Data, metadata: list[dict[str, Any]]) -> None:
    """Add LiteLLM's further data to an answer.

    Args:
        answer: the result of `_records`.
        payload: the data kept from LiteLLM's standard payload.
        metadata: the metadata of the call.
    """
    details = dict(answer.details)
    if (own := details.get("response_id")) is not None:
        details["response_id"] = _provided(own)
        answer.names = (("id", details["response_id"]),)
    if _INVENTED.fullmatch(details.get("completion_id", "")):
        answer.names = ()
    if payload.get("cache_hit") is True:
        # Served from the cache: it has the id of the original answer, but is a separate one.
        answer.names, details["cache_hit"] = (), "true"
    served, tags = _noted(metadata)
    if payload.get("status") == "success":
        # The answer of a stream has the model's name that was asked for. LiteLLM leaves the other one in the program's
        # own dictionary, where the next call finds it.
        answer.model = served or answer.model
    provider, asked = string(payload, "custom_llm_provider"), string(payload, "model")
    if answer.model is not None and answer.error is not None:
        # Of a request that failed, a router gives the name by which LiteLLM finds the provider, and its route there.
        answer.model = _ROUTES.sub("", answer.model.removeprefix(f"{provider}/"))
    elif answer.model == f"{provider}/{asked}":
        answer.model = asked  # as LiteLLM names the models of some providers, such as Ollama, unless they stream
    details |= {"tags": ", ".join(tags)} if tags else {}
    if (group := string(payload, "model_group")) is not None:
        details["model_group"] = group
    answer.details = details
    user = string(payload, "end_user") or string(child(payload, "model_parameters"), "user")
    answer.further = {} if user is None else {"customer_user_id": user}
    if answer.error is None and answer.usage:
        answer.cost = number(payload, "response_cost")


def _message_of(error: str) -> str:
    """Return a provider's own message from the text of LiteLLM's exception."""
    found = _OF_PROVIDER.search(error)
    if found is None:
        return error
    text = found["text"]
    try:
        if (written := _BYTES.match(text)) is not None:
            text = ast.literal_eval(written[0]).decode(errors="replace")
        data, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text if found["kind"] == "Exception" else error
    body = as_data(data[0] if type(data) is list and data else data)
    return string(child(body, "error"), "message") or string(body, "message") or error


def _noted(metadata: list[dict[str, Any]]) -> tuple[str | None, list[str]]:
    """Return the name of the model that served a call, and the tags in its metadata."""
    served: str | None = None
    tags: dict[str, None] = {}
    for place in metadata:
        hidden = place.get("hidden_params")
        model = hidden.get("provider_response_model") if isinstance(hidden, dict) else None
        if served is None and type(model) is str and model:
            served = model
        if type(given := normalise(place.get("tags"))) is list:
            tags |= dict.fromkeys(tag for tag in given if type(tag) is str)
    return served, list(tags)


def _provided(own: str) -> str:
    """Return the provider's id of a response, which LiteLLM has encoded in its own id.

    Source: `ResponsesAPIRequestUtils._build_responses_api_response_id`.
    """
    try:
        wrapped = base64.b64decode(own.removeprefix("resp_")).decode()
    except (binascii.Error, ValueError):
        return own
    return wrapped.rpartition("response_id:")[2] if wrapped.startswith("litellm:") else own


athina_logger: Final = AthinaLogger()
"""The logger of `instrument_litellm`, to be named in the configuration of LiteLLM's proxy."""


def instrument_litellm() -> None:
    """Log the answers of all models that are called through LiteLLM in this process.

    May be called again; `uninstrument_litellm` undoes it.
    """
    if not any(isinstance(each, AthinaLogger) for each in litellm.callbacks):
        litellm.callbacks.append(athina_logger)


def uninstrument_litellm() -> None:
    """Undo `instrument_litellm`; loggers that the program added itself remain."""
    for name in _LISTS:
        listed: Any = getattr(litellm, name, None)
        if isinstance(listed, list):
            listed[:] = [each for each in listed if each is not athina_logger]
    if not any(isinstance(each, AthinaLogger) for each in litellm.callbacks):
        for request in _requests.values():
            request.is_wanted = False  # how it ends is not heard of
