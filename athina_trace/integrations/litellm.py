"""LiteLLM: what models of any provider answer through it, as its callbacks show it.

    litellm.callbacks = [AthinaLogger()]      # or instrument_litellm()

In the configuration of its proxy:

    litellm_settings:
      callbacks: athina_trace.integrations.litellm.athina_logger

Each request to a provider is one log: an attempt that failed, too, as a router makes several. The session that
`metadata` names wins over that of the scope around; what else it names adds to it. LiteLLM calls its loggers after the
call has returned, in a thread or task of its own. Of what it hands over only what makes a log is read: never a
provider's key.

Source of the callbacks' arguments: litellm 1.80 to 1.108.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from athina_trace import _guard
from athina_trace._answers.records import Answer
from athina_trace._capture.answered import Origin, end, follow_nesting, log_answer
from athina_trace._serialization.secrets import MASKED
from athina_trace.integrations.frameworks import Begun, identifier, named_by, seen_by
from athina_trace.integrations.openai.exchange import Exchange, read_exchange
from athina_trace.integrations.openai.normalise import Data, child, members, normalise, number, string

if TYPE_CHECKING:
    # The host need not be installed where types are checked.
    class CustomLogger:
        def __init__(self, **options: object) -> None: ...

    litellm: Any
else:
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

__all__ = ["AthinaLogger", "athina_logger", "instrument_litellm", "uninstrument_litellm"]

_SOURCE: Final = "litellm"
_ANSWERING: Final = frozenset(
    (
        *("completion", "acompletion", "text_completion", "atext_completion"),
        *("responses", "aresponses", "anthropic_messages", "aanthropic_messages"),
    )
)
"""The types of calls that a model answers with words, in contrast to embeddings and the like."""
_READ: Final = (
    *("call_type", "litellm_call_id", "status", "model", "messages", "response", "model_parameters", "response_cost"),
    *("custom_llm_provider", "end_user", "session_id", "model_group", "cache_hit", "error_str"),
)
"""What is read of LiteLLM's standard payload: nothing that holds a key, nor the traceback of a failure."""
_NAMED: Final = ("context", "user_query", "user_feedback", "user_feedback_comment", "model_options")
"""What `metadata` may name besides identifiers, as for LiteLLM's own callback for Athina."""
_INVENTED: Final = re.compile(r"chatcmpl-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The id that LiteLLM gives to answers of providers whose ids it does not pass on. Source: `litellm.types.utils`."""
_LISTS: Final = (
    *("callbacks", "input_callback", "success_callback", "failure_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)
"""Where LiteLLM keeps its loggers: it puts those of the first list into the others when a call is made."""


class AthinaLogger(CustomLogger):
    """A logger for `litellm.callbacks`. For sync and async code, and for any number of calls at once.

    >>> litellm.callbacks = [AthinaLogger()]

    Args:
        options: LiteLLM's own for a logger, such as `turn_off_message_logging`.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        follow_nesting()
        self._begun: Begun[Origin] = Begun()

    # LiteLLM passes some of these by name.

    def log_pre_api_call(self, model: object, messages: object, kwargs: Any) -> None:  # noqa: ARG002
        """Note where a request is made: what LiteLLM calls later may run in a thread that does not know."""
        with _guard.shield("reading the start of LiteLLM's call"):
            call = identifier(kwargs.get("litellm_call_id"))
            if call is not None and self._begun.get(call) is None:
                # Without its session: what this calls later may still be to come when the next call is made here.
                self._begun.put(call, Origin.of_run((_SOURCE, call)))

    def log_post_api_call(self, kwargs: Any, response_obj: object, start_time: object, end_time: object) -> None:  # noqa: ARG002
        """Note that a request was answered: what is asked here from now on is another one."""
        with _guard.shield("reading the end of LiteLLM's request"):
            call = identifier(kwargs.get("litellm_call_id"))
            if call is not None:
                end((_SOURCE, call))

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
            return  # a stream that is still under way
        payload: Data = normalise({name: given.get(name) for name in _READ})
        call = string(payload, "litellm_call_id") or identifier(kwargs.get("litellm_call_id"))
        origin = self._begun.pop(call) or Origin.here()
        if call is not None:
            end((_SOURCE, call))
        if string(payload, "call_type") not in _ANSWERING:
            return
        params = _params(kwargs)
        metadata, scope, reference = _metadata(params), origin.scope, origin.reference
        for place in metadata:
            scope = named_by(place, scope, further=_NAMED)
            reference = identifier(place.get("external_reference_id")) or reference
        took = None
        if isinstance(start_time, datetime) and isinstance(end_time, datetime):
            # By our own clock it would last until this logger is called.
            took = round((end_time - start_time).total_seconds() * 1000)
        conversation = _session(params) or string(payload, "session_id") or origin.conversation
        origin = origin._replace(scope=scope, reference=reference, response_time=took, conversation=conversation)
        error = kwargs.get("exception")
        if error is None and payload.get("status") == "failure":
            error = RuntimeError(string(payload, "error_str") or "failed")
        records = _records(payload, error, origin.started_ns)
        answer = seen_by(_SOURCE, call or str(origin.started_ns), records)
        _add_details(answer, payload, metadata)
        key = kwargs.get("api_key")
        if answer.error is not None and isinstance(key, str) and key:
            answer.error = answer.error.replace(key, MASKED)
        log_answer(records, origin)


def _params(kwargs: Any) -> dict[str, Any]:
    params = kwargs.get("litellm_params")
    return params if isinstance(params, dict) else {}


def _session(params: dict[str, Any]) -> str | None:
    """Return what a program named the session of a request."""
    named = (params.get("litellm_session_id"), *(place.get("session_id") for place in _metadata(params)))
    return next((own for each in named if (own := identifier(each)) is not None), None)


def _metadata(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return where a program's metadata may be, that of the request first: a proxy puts it inside its own."""
    places: list[object] = []
    for name in ("metadata", "litellm_metadata"):
        outer = params.get(name)
        places += [outer.get("requester_metadata"), outer] if isinstance(outer, dict) else []
    return [place for place in places if isinstance(place, dict)]


def _records(payload: Data, error: BaseException | None, order: int) -> list[Any]:
    """Read a request and what came of it as records, the answer first.

    Args:
        payload: what was taken over of LiteLLM's standard payload.
        error: what the request failed with.
        order: when it began.
    """
    given, model = child(payload, "response"), string(payload, "model")
    asked = {**child(payload, "model_parameters"), "model": model}
    # Each of the two APIs has a name of its own for the request's messages.
    asked |= dict.fromkeys(("messages", "input"), payload.get("messages"))
    kind = "response" if "output" in given else "chat"
    records = read_exchange(Exchange(kind=kind, order=order, params=asked, answer=given or None, error=error))
    return [*records] if records else [Answer(key=(kind, ""), order=order, model=model)]


def _add_details(answer: Answer, payload: Data, metadata: list[dict[str, Any]]) -> None:
    """Add to an answer what LiteLLM knows besides.

    Args:
        answer: what `_records` has read.
        payload: what was taken over of LiteLLM's standard payload.
        metadata: of the call.
    """
    details = dict(answer.details)
    if (own := details.get("response_id")) is not None:
        details["response_id"] = _provided(own)
        answer.names = (("id", details["response_id"]),)
    if _INVENTED.fullmatch(details.get("completion_id", "")):
        answer.names = ()
    if payload.get("cache_hit") is True:
        # Served again: it has the id of the answer that it was, and is one of its own.
        answer.names, details["cache_hit"] = (), "true"
    plain = [each for place in metadata if type(each := normalise(_picked(place))) is dict]
    # The answer of a stream has the model's name that was asked for.
    answer.model = next((model for each in plain if (model := string(each, "served"))), answer.model)
    if answer.model is not None and answer.error is not None:
        # Of a request that failed, a router gives the name by which LiteLLM finds the provider.
        answer.model = answer.model.removeprefix(f"{string(payload, 'custom_llm_provider')}/")
    tags = dict.fromkeys(tag for each in plain for tag in members(each, "tags") if isinstance(tag, str))
    details |= {"tags": ", ".join(tags)} if tags else {}
    if (group := string(payload, "model_group")) is not None:
        details["model_group"] = group
    answer.details = details
    user = string(payload, "end_user") or string(child(payload, "model_parameters"), "user")
    answer.further = {} if user is None else {"customer_user_id": user}
    if answer.error is None:
        answer.cost = number(payload, "response_cost")


def _picked(metadata: dict[str, Any]) -> dict[str, Any]:
    hidden = metadata.get("hidden_params")
    served = hidden.get("provider_response_model") if isinstance(hidden, dict) else None
    return {"served": served, "tags": metadata.get("tags")}


def _provided(own: str) -> str:
    """Return the provider's id of a response, which LiteLLM has put into one of its own.

    Source: `ResponsesAPIRequestUtils._build_responses_api_response_id`.
    """
    try:
        wrapped = base64.b64decode(own.removeprefix("resp_")).decode()
    except (binascii.Error, ValueError):
        return own
    return wrapped.rpartition("response_id:")[2] if wrapped.startswith("litellm:") else own


athina_logger: Final = AthinaLogger()
"""The logger of `instrument_litellm`, and what the configuration of LiteLLM's proxy names."""


def instrument_litellm() -> None:
    """Log what every model answers that is asked through LiteLLM in this process.

    May be called again; `uninstrument_litellm` undoes it.
    """
    if not any(isinstance(each, AthinaLogger) for each in litellm.callbacks):
        litellm.callbacks.append(athina_logger)


def uninstrument_litellm() -> None:
    """Undo `instrument_litellm`; loggers that the program put there itself stay."""
    for name in _LISTS:
        listed: Any = getattr(litellm, name, None)
        if isinstance(listed, list):
            listed[:] = [each for each in listed if each is not athina_logger]
