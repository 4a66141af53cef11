"""LangChain and LangGraph: logs the answers of chat models and LLMs of any provider, through callbacks.

    chain.invoke(question, config={"callbacks": [AthinaCallbackHandler()]})   # one call
    instrument_langchain()                                                    # every call of this process

Each run of a model is one log; runs of chains and graphs only show what belongs together. A tool's output goes to the
log of the answer that called it, and retrieved documents to the next answer in the same chain. The session is
LangGraph's thread, else that of the surrounding scope.

Source of the callbacks' arguments: langchain-core 0.3 to 1.8, langgraph 1.2.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import wrapt

from athina_trace import _guard
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import AS_TYPED, FINISHED, Answer, Key, Record, ToolCall
from athina_trace._capture.answer_logs import Origin, log_answer, log_documents, log_tool_output
from athina_trace._capture.failures import status_of
from athina_trace._capture.nesting import continue_in, end, follow_nesting, within
from athina_trace.integrations.frameworks import MOST_RUNNING, follow_chain, identifier, named_by
from athina_trace.integrations.openai.common import (
    content_text,
    function_body,
    messages,
    model_options,
    offered_tools,
    outputs,
    question,
    usage_counts,
)
from athina_trace.integrations.openai.exchange import error_text
from athina_trace.integrations.openai.normalise import (
    Data,
    as_data,
    child,
    children,
    count,
    members,
    normalise,
    string,
)
from athina_trace.integrations.openai.responses import conversation_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    # The host may not be installed during type checking.
    class BaseCallbackHandler: ...

    BaseChatModel: Any
    BaseLLM: Any

    def register_configure_hook(context_var: object, *, inheritable: bool, handle_class: type) -> None: ...
else:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.language_models import BaseChatModel, BaseLLM
    from langchain_core.tracers.context import register_configure_hook

__all__ = ["AthinaCallbackHandler", "instrument_langchain", "uninstrument_langchain"]

_SOURCE: Final = "langchain"
_ROLES: Final = {"human": "user", "ai": "assistant"}
"""LangChain's types of messages that have other names at OpenAI."""
_MODEL: Final = ("model_name", "model", "model_id")
_FIELDS: Final = ("type", "role", "content", "name", "tool_call_id")
"""Fields read from a prompt's message; not its response metadata, which may be large and concerns an earlier answer."""
_USAGE_DETAILS: Final = (
    ("input_token_details", {"cache_read": "cached_tokens", "cache_creation": "cache_write_tokens"}),
    ("output_token_details", {"reasoning": "reasoning_tokens"}),
)
"""Source: `UsageMetadata` of langchain-core; the names on the right are OpenAI's."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run of a model that has started."""

    origin: Origin
    prompt: Sequence[Any] = ()
    """Messages of the request, as plain data with a role."""
    params: Data = field(default_factory=dict)
    node: str | None = None
    received: list[str] = field(default_factory=list)
    """The texts of a stream so far, which LangChain does not pass on from a call that is cancelled or fails."""


class AthinaCallbackHandler(BaseCallbackHandler):
    """Logs each run of a model that is reported to it. For sync and async code, and any number of concurrent calls.

    >>> model.invoke("Where is it?", config={"callbacks": [AthinaCallbackHandler()]})
    """

    # Run on the event loop, in order, rather than in a thread for each token and each step of a chain.
    run_inline = True

    def __init__(self) -> None:
        follow_nesting()
        _follow_calls()
        self._models: Newest[_Run] = Newest(MOST_RUNNING)
        self._tools: Newest[tuple[Origin, str | None, str | None, Any]] = Newest(MOST_RUNNING)
        self._retrievers: Newest[Origin] = Newest(MOST_RUNNING)

    # Models ----------------------------------------------------------------------------------------------------------

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **given: Any) -> None:  # noqa: ARG002
        """Note the request to a chat model. `messages`: a list with one list of messages."""
        with _guard.shield("reading the start of LangChain's model"):
            listed = [each for one in messages for each in one]
            self._began(run_id, [_with_role(normalise(_picked(message))) for message in listed], given)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: Any, **given: Any) -> None:  # noqa: ARG002
        """Note the request to an LLM. `prompts`: a list with one text."""
        with _guard.shield("reading the start of LangChain's model"):
            self._began(run_id, [{"role": "user", "content": text} for text in normalise(prompts) or ()], given)

    def _began(self, run_id: object, prompt: Sequence[Any], given: dict[str, Any]) -> None:
        call = _call.get()
        if call is not None:
            continue_in(call.around)  # runs of a batch are siblings, not nested
        metadata, origin = given.get("metadata"), _origin(run_id, given)
        origin.scope = named_by(metadata, origin.scope)
        known: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        params = {"model": known.get("ls_model_name"), **as_data(normalise(given.get("invocation_params")))}
        self._models.put(
            run_id,
            _Run(
                origin=origin,
                prompt=prompt,
                params=params,
                node=identifier(known.get("langgraph_node")),
            ),
        )
        if call is not None:
            call.begun[run_id] = self
            call.continue_in(next(iter(call.begun)))  # an LLM gets all of them in one request

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: Any, **_: Any) -> None:
        """Keep the text of a chunk."""
        with _guard.shield("reading a chunk of LangChain's stream"):
            run, text = self._models.get(run_id), token if chunk is None else chunk.text
            if run is not None and isinstance(text, str):
                run.received.append(text)

    def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        """Log a model's answer."""
        with _guard.shield("reading an answer of LangChain"):
            self._ended(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: Any, **given: Any) -> None:
        """Log a failed run of a model, or a stream that was closed early, with what it had received."""
        with _guard.shield("reading a failure of LangChain"):
            self._ended(run_id, given.get("response"), error)

    def _ended(self, run_id: object, result: object, error: BaseException | None) -> None:
        # A handler that was added while the model ran knows only the answer.
        run, name = self._models.pop(run_id) or _Run(origin=_origin(run_id, {})), _name(run_id)
        try:
            records = _records(name, run, normalise(result), error)
        finally:
            end(name)
        log_answer(records, run.origin, error=None if isinstance(error, Exception) else error)

    def origin_of(self, run_id: object) -> Origin | None:
        """Return the origin of a model's run, unless it has ended."""
        run = self._models.get(run_id)
        return None if run is None else run.origin

    def give_up(self, run_id: object, error: BaseException) -> None:
        """Log an abandoned run of a model."""
        with _guard.shield("logging a run that LangChain abandoned"):
            self._ended(run_id, None, error)

    def forget(self, run_id: object) -> None:
        """Forget a run whose model was not asked after all."""
        self._models.pop(run_id)
        end(_name(run_id))

    # Tools and retrievers --------------------------------------------------------------------------------------------

    def on_tool_start(self, serialized: Any, input_str: Any, *, run_id: Any, **given: Any) -> None:
        """Note which tool call is executed."""
        with _guard.shield("reading the start of LangChain's tool"):
            name = given.get("name") or string(as_data(normalise(serialized)), "name")
            inputs = normalise(given.get("inputs"))
            origin = _origin(run_id, given)
            call = identifier(given.get("tool_call_id"))
            self._tools.put(run_id, (origin, call, name, input_str if inputs is None else inputs))

    def on_tool_end(self, output: Any, *, run_id: Any, **_: Any) -> None:
        """Add a tool's output to the log of the answer that called it."""
        with _guard.shield("reading LangChain's output of a tool"):
            plain = normalise(output)
            call = None
            if isinstance(plain, dict) and "tool_call_id" in plain:
                call, plain = string(plain, "tool_call_id"), content_text(plain.get("content"))
            self._tool_ended(run_id, plain, call)

    def on_tool_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        """Log a tool's failure as its output, but not an interrupt, after which the tool is called again."""
        with _guard.shield("reading LangChain's failure of a tool"):
            is_interrupt = any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)
            failed = isinstance(error, Exception) and not is_interrupt
            self._tool_ended(run_id, error_text(error) if failed else None, None)

    def _tool_ended(self, run_id: object, output: object, call: str | None) -> None:
        run = self._tools.pop(run_id)
        if run is not None and output is not None:
            origin, called, tool, given = run
            call = called or call
            log_tool_output(output, origin, call=call, tool=tool, arguments=given, name=_name(run_id))
        end(_name(run_id))

    def on_retriever_start(self, serialized: Any, query: Any, *, run_id: Any, **given: Any) -> None:  # noqa: ARG002
        """Note where a retriever runs."""
        with _guard.shield("reading the start of LangChain's retriever"):
            self._retrievers.put(run_id, _origin(run_id, given))

    def on_retriever_end(self, documents: Any, *, run_id: Any, **_: Any) -> None:
        """Keep the retrieved documents for the next answer."""
        with _guard.shield("reading LangChain's documents"):
            origin = self._retrievers.pop(run_id)
            texts = [string(as_data(document), "page_content") for document in normalise(documents) or ()]
            if origin is not None:
                log_documents([text for text in texts if text], origin)
            end(_name(run_id))

    def on_retriever_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:  # noqa: ARG002
        """Note that a retriever has failed."""
        self._retrievers.pop(run_id)
        end(_name(run_id))

    # Chains and graphs -----------------------------------------------------------------------------------------------

    def on_chain_start(
        self,
        serialized: Any,  # noqa: ARG002
        inputs: Any,  # noqa: ARG002
        *,
        run_id: Any,
        **given: Any,
    ) -> None:
        """Note a chain, in which models, tools and retrievers run."""
        with _guard.shield("reading the start of LangChain's chain"):
            _origin(run_id, given)

    def on_chain_end(self, outputs: Any, *, run_id: Any, **_: Any) -> None:  # noqa: ARG002
        """Note that a chain has ended; its answers are already logged."""
        end(_name(run_id))

    def on_chain_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:  # noqa: ARG002
        """Note that a chain has ended; a failure is in the log of the model that failed."""
        end(_name(run_id))


def _name(run_id: object) -> Key:
    return (_SOURCE, str(run_id))


def _origin(run_id: object, given: dict[str, Any]) -> Origin:
    """Begin a run here. `given`: the arguments of the callback."""
    parent, metadata = given.get("parent_run_id"), given.get("metadata")
    conversation = None
    if isinstance(metadata, dict):
        # LangGraph's thread; or the session of a message history, or one set for Athina.
        conversation = identifier(metadata.get("session_id")) or identifier(metadata.get("thread_id"))
    return Origin.of_run(_name(run_id), None if parent is None else _name(parent), conversation=conversation)


# Batches, and calls that are given up --------------------------------------------------------------------------------


class _Call:
    """A call to a model, perhaps for several answers, with its runs."""

    def __init__(self) -> None:
        self.around = within()
        self.begun: dict[object, AthinaCallbackHandler] = {}
        self.results: dict[object, Any] = {}
        """The answer of each run of a chat model; None if it has not arrived."""

    def __enter__(self) -> None:
        self._token = _call.set(self)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        _restore(self._token)
        if error is None:
            return
        for run_id, handler in self.begun.items():
            if handler.origin_of(run_id) is None:
                continue  # LangChain itself has ended it
            if (result := self.results.get(run_id)) is not None:
                came = {"generations": [result.generations], "llm_output": result.llm_output}
                handler.on_llm_end(came, run_id=run_id)
            elif isinstance(error, Exception) or (self.results and run_id not in self.results):
                handler.forget(run_id)  # its model was not asked after another had failed
            else:
                handler.give_up(run_id, error)

    def continue_in(self, run_id: object) -> None:
        """Make this run the current one for later requests."""
        origin = self.begun[run_id].origin_of(run_id) if run_id in self.begun else None
        if origin is not None:
            continue_in((_name(run_id), *origin.within))

    @contextmanager
    def asking(self, kwargs: dict[str, Any]) -> Iterator[object]:
        """Note that the model is asked for the answer of one run, whose id is yielded."""
        run_id = getattr(kwargs.get("run_manager"), "run_id", None)
        self.results[run_id] = None
        self.continue_in(run_id)
        token = _call.set(None)  # a model that this one calls is not part of the batch
        try:
            yield run_id
        finally:
            _restore(token)


_call: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("athina_trace_langchain_call", default=None)


def _restore(token: contextvars.Token[_Call | None]) -> None:
    with suppress(ValueError):  # a coroutine may be closed in another context than it ran in
        _call.reset(token)


_follows_calls = False


def _follow_calls() -> None:
    """Observe what LangChain does not report to handlers.

    These are runs that a cancelled task or a timeout abandons, answers in a batch in which a later one fails, and which
    request of a batch is made when.
    """
    global _follows_calls  # noqa: PLW0603 - the classes are the process's
    if _follows_calls:
        return
    _follows_calls = True
    for kind in (BaseChatModel, BaseLLM):
        wrapt.wrap_function_wrapper(kind, "generate", _generate)
        wrapt.wrap_function_wrapper(kind, "agenerate", _agenerate)
    wrapt.wrap_function_wrapper(BaseChatModel, "_generate_with_cache", _ask)
    wrapt.wrap_function_wrapper(BaseChatModel, "_agenerate_with_cache", _ask_async)


def _generate(wrapped: Callable[..., Any], _model: object, args: Any, kwargs: Any) -> Any:
    batch = args[0] if args else kwargs.get("messages", kwargs.get("prompts"))
    if type(batch) is list and len(batch) == 1:
        return wrapped(*args, **kwargs)
    with _Call():
        return wrapped(*args, **kwargs)


async def _agenerate(wrapped: Callable[..., Awaitable[Any]], _model: object, args: Any, kwargs: Any) -> Any:
    with _Call():
        return await wrapped(*args, **kwargs)


def _ask(wrapped: Callable[..., Any], _model: object, args: Any, kwargs: Any) -> Any:
    call = _call.get()
    if call is None:
        return wrapped(*args, **kwargs)
    with call.asking(kwargs) as run_id:
        result = call.results[run_id] = wrapped(*args, **kwargs)
    return result


async def _ask_async(wrapped: Callable[..., Awaitable[Any]], _model: object, args: Any, kwargs: Any) -> Any:
    call = _call.get()
    if call is None:
        return await wrapped(*args, **kwargs)
    with call.asking(kwargs) as run_id:
        result = call.results[run_id] = await wrapped(*args, **kwargs)
    return result


# Reading -------------------------------------------------------------------------------------------------------------


def _picked(message: Any) -> Any:
    stored = getattr(message, "__dict__", None)
    return {name: stored[name] for name in _FIELDS if name in stored} if type(stored) is dict else message


def _with_role(message: Any) -> Any:
    """Give a LangChain message the role that OpenAI uses for its type."""
    if type(message) is not dict or "role" in message:
        return message
    kind = (string(message, "type") or "").removesuffix("MessageChunk").lower()
    return {**message, "role": _ROLES.get(kind, kind) or None}


def _records(name: Key, run: _Run, result: Any, error: BaseException | None) -> list[Record]:
    """Read a result and its request as records.

    Args:
        name: the name of the run.
        run: the request.
        result: an `LLMResult` as plain data; None if there is none.
        error: the exception that ended the run early.
    """
    result = as_data(result)
    candidates = next((each for each in members(result, "generations") if type(each) is list and each), [])
    candidates = [each for each in candidates if type(each) is dict] or [{}]
    first, message = candidates[0], child(candidates[0], "message")
    metadata, llm_output = child(message, "response_metadata"), child(result, "llm_output")
    places = (metadata, child(first, "generation_info"), llm_output, run.params)
    texts = [_text(each) for each in candidates]
    if error is not None:
        texts[0] = texts[0] or "".join(run.received)
    own = string(metadata, "id") or string(message, "id") or ""
    # Messages without a provider's id have one that LangChain made from the run's id.
    own = "" if own.startswith(("lc_", "run-")) else own
    details = {"response_id" if own.startswith("resp_") else "completion_id": own} if own else {}
    # LangChain's mark for a cached answer, which has the id of the original answer, but is a separate one.
    is_cached = child(message, "usage_metadata").get("total_cost") == 0
    if is_cached:
        details["cache_hit"] = "true"
    answer = Answer(
        key=name,
        names=(("id", own),) if own and not is_cached else (),
        source=_SOURCE,
        fidelity=AS_TYPED,
        request=name[1],
        order=run.origin.started_ns,
        progress=FINISHED,
        status=_once(_first(places, ("finish_reason", "stop_reason", "status"))),
        model=_once(_first(places, _MODEL), _first([run.params], _MODEL)),
        text=texts[0],
        choices=tuple(texts[1:]),
        prompt=messages(run.prompt),
        usage=_usage(message, places),
        tools=offered_tools(run.params),
        functions=tuple(members(run.params, "functions")),
        options=model_options(run.params),
        details=details if run.node is None else {**details, "langgraph_node": run.node},
    )
    answer.query = question(reversed(answer.prompt))
    answer.session, answer.previous = conversation_of(run.params), string(run.params, "previous_response_id")
    if isinstance(error, Exception):
        answer.error, answer.status = error_text(error), "failed"
        answer.status_code = status_of(error)
    follow_chain(answer, details.get("response_id"))
    return [answer, *_calls(message, name), *outputs(run.prompt)]


def _text(candidate: Data) -> str:
    message = child(candidate, "message")
    refusal = string(child(message, "additional_kwargs"), "refusal")
    return string(candidate, "text") or content_text(message.get("content")) or refusal or ""


def _first(places: Iterable[Data], names: Sequence[str]) -> str | None:
    return next((text for place in places for name in names if (text := string(place, name))), None)


def _once(text: str | None, requested: str | None = None) -> str | None:
    """Return a text once: LangChain joins those of all chunks, such as both last ones of some servers' streams.

    Args:
        text: the text, which may be repeated.
        requested: the text that is expected, which may itself be a repetition, such as `mama`.
    """
    if text is None:
        return None
    if requested and text == requested * (len(text) // len(requested)):
        return requested
    return text[: (text + text).find(text, 1)]


def _usage(message: Data, places: Iterable[Data]) -> dict[str, int]:
    """Read tokens: LangChain's counts, else the provider's."""
    usage = child(message, "usage_metadata")
    if not usage:
        found = (child(place, name) for place in places for name in ("token_usage", "usage"))
        return next((counts for each in found if (counts := usage_counts({"usage": each}))), {})
    counts = usage_counts(
        {"usage": {name: usage.get(name) for name in ("input_tokens", "output_tokens", "total_tokens")}}
    )
    for group, names in _USAGE_DETAILS:
        for given, ours in names.items():
            if tokens := count(child(usage, group), given):
                counts[ours] = tokens
    return counts


def _calls(message: Data, owner: Key) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for place, call in enumerate([*children(message, "tool_calls"), *children(message, "invalid_tool_calls")]):
        own, arguments = string(call, "id"), call.get("args")
        if not isinstance(arguments, str):
            # Formatted like OpenAI's models do, so that both sources yield the same text.
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        body = function_body(own, {"name": call.get("name"), "arguments": arguments})
        calls.append(ToolCall(key=own or f"#{place}", owner=owner, source=_SOURCE, body=body))
    return calls


# Every run of this process -------------------------------------------------------------------------------------------


class _Switch:
    """Stands in for a context variable of LangChain, but has the same value in all threads and contexts.

    Its value is the handler if switched on, else None, for which LangChain adds nothing.
    """

    def __init__(self) -> None:
        self.handler: AthinaCallbackHandler | None = None
        self.is_registered = False

    def get(self) -> AthinaCallbackHandler | None:
        return self.handler


_switch = _Switch()


def instrument_langchain() -> None:
    """Log the answers of all models that run through LangChain or LangGraph in this process.

    May be called again; `uninstrument_langchain` undoes it. If a run has its own `AthinaCallbackHandler`, that one logs
    it.
    """
    _switch.handler = _switch.handler or AthinaCallbackHandler()
    if not _switch.is_registered:
        _switch.is_registered = True
        register_configure_hook(_switch, inheritable=True, handle_class=AthinaCallbackHandler)


def uninstrument_langchain() -> None:
    """Undo `instrument_langchain`: runs that start from now on are not logged."""
    _switch.handler = None
