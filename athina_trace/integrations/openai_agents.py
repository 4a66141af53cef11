"""OpenAI's Agents SDK: what the models of an agent answer, as the SDK's own tracing shows it.

    instrument_openai_agents()      # beside OpenAI's own upload of traces, which is left as it is

Each span of a response or a generation is one log. The sums that spans of tasks and turns have are not counted, since
their models' tokens were counted already. Outputs of tools go to the log that called for them; handoffs and guardrails
are noted in the log of the answer that they concern. The session is the run's `group_id`, else its conversation, else
that of the scope around.

With `trace_include_sensitive_data=False` the SDK gives away tokens and failures only: the log says so.

Source of the spans: openai-agents 0.6 to 0.24.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from athina_trace import _guard
from athina_trace._answers.records import AS_TYPED, Answer, Key, Record, ToolCall
from athina_trace._capture.answered import Origin, begin, end, log_answer, log_tool_output
from athina_trace._capture.draft import current_draft
from athina_trace._clock import clock
from athina_trace.context import Given, current_scope
from athina_trace.integrations.frameworks import Begun, identifier, named_by
from athina_trace.integrations.openai.common import usage_counts
from athina_trace.integrations.openai.exchange import Exchange, read_exchange
from athina_trace.integrations.openai.normalise import NOTHING, Data, child, children, members, normalise, string

if TYPE_CHECKING:
    # The host need not be installed where types are checked.
    def add_trace_processor(processor: object, /) -> None: ...
    def get_current_trace() -> object: ...
else:
    from agents.tracing import add_trace_processor, get_current_trace

__all__ = ["AthinaTracingProcessor", "instrument_openai_agents", "uninstrument_openai_agents"]

_SOURCE: Final = "openai_agents"
_WITHHELD: Final = {"content": "withheld by trace_include_sensitive_data=False"}
_MODELS: Final = ("response", "generation")
_FAKE_ID: Final = "__fake_id__"
"""What the SDK calls a response that it made of chat completions. Source: `agents.models.fake_id`."""


@dataclass(slots=True)
class _Span:
    """A span that has begun."""

    origin: Origin
    parent: _Span | None
    agent: str | None = None
    """The name of the agent that an agent's or a turn's span is of."""
    answer: tuple[Answer, Origin] | None = None
    """The last one that was given inside, as far as an addition to it needs to know it."""
    notes: dict[str, str] = field(default_factory=dict)
    """What is to be said of the next answer that is given inside."""

    def around(self) -> list[_Span]:
        """Return the turn and the agent that this is in."""
        return [each for each in (self.parent, self.parent and self.parent.parent) if each is not None and each.agent]


class AthinaTracingProcessor:
    """A tracing processor, for `add_trace_processor(...)`. For any number of runs at once.

    >>> add_trace_processor(AthinaTracingProcessor())
    """

    def __init__(self) -> None:
        self._spans: Begun[_Span] = Begun()
        self.is_on = True

    def on_trace_start(self, trace: object) -> None:
        """Do nothing: a trace is read where an answer is asked for."""

    def on_trace_end(self, trace: object) -> None:
        """Do nothing: its answers are logged already."""

    def on_span_start(self, span: Any) -> None:
        """Take over where an answer is asked for."""
        if self.is_on:
            with _guard.shield("reading the start of a span of the Agents SDK"):
                self._spans.put(span.span_id, self._begun(span))

    def on_span_end(self, span: Any) -> None:
        """Log an answer, or add to one what concerns it."""
        if self.is_on:
            with _guard.shield("reading a span of the Agents SDK"):
                # A processor that was added while the span ran begins with its end.
                begun = self._spans.pop(span.span_id) or self._begun(span)
                try:
                    _read(span, begun)
                finally:
                    end(_name(span.span_id))

    def shutdown(self, timeout: float | None = None) -> None:
        """Do nothing: logs are on disk already."""

    def force_flush(self) -> None:
        """Do nothing: logs are on disk already."""

    def _begun(self, span: Any) -> _Span:
        data, parent = span.span_data, self._spans.get(span.parent_id)
        around = begin(_name(span.span_id), None if parent is None else _name(span.parent_id))
        origin = Origin(clock.perf_ns(), current_scope(), current_draft(), within=around)
        if data.type in _MODELS:
            trace = get_current_trace()
            scope = named_by(getattr(trace, "metadata", None), origin.scope)
            group = identifier(getattr(trace, "group_id", None))
            if group is not None:
                scope = scope.over(Given({"session_id": group}), scope.opened_by)
            origin = origin._replace(scope=scope)
        agent = {"agent": "name", "turn": "agent_name"}.get(data.type)
        return _Span(origin, parent, None if agent is None else identifier(getattr(data, agent, None)))


def _name(span_id: object) -> Key:
    return (_SOURCE, str(span_id))


def _read(span: Any, begun: _Span) -> None:
    """Log what a span that has ended says, or add it to the answer that it concerns."""
    data, origin = span.span_data, begun.origin
    if data.type in _MODELS:
        _log(span, begun)
    elif data.type == "function" and (output := normalise(data.output)) is not None:
        origin = origin._replace(within=(_name(span.span_id), *origin.within))
        log_tool_output(output, origin, call=None, tool=identifier(data.name), arguments=normalise(data.input))
    elif data.type == "handoff":
        _note(begun, {"handoff": f"{data.from_agent} -> {data.to_agent}"})
    elif data.type == "guardrail":
        _note(begun, {f"guardrail_{data.name}": "triggered" if data.triggered else "passed"})


def _log(span: Any, begun: _Span) -> None:
    """Log the answer of a model."""
    origin, usage = begun.origin, usage_counts({"usage": normalise(span.span_data.usage)})
    records = _answered(span, origin.started_ns)
    error: BaseException | None = None
    if records is None:
        answer = Answer(key=_name(span.span_id), order=origin.started_ns, model=identifier(_given(span, "model")))
        records = [answer]
        _add_error(answer, normalise(span.error))
        if answer.error is None and usage:
            # Of its own log only: the client's instrumentation may have seen what was said.
            origin = origin._replace(attributes=_WITHHELD)
        elif answer.error is None:
            error = GeneratorExit()  # the stream was given up, or the task cancelled
    answer = records[0]
    answer.source, answer.fidelity, answer.request = _SOURCE, AS_TYPED, str(span.span_id)
    answer.usage = answer.usage or usage
    around = begun.around()
    if around:
        answer.details = {**answer.details, "agent": around[0].agent or ""}
    for each in around:
        answer.details = {**answer.details, **each.notes}
        each.notes = {}
        each.answer = Answer(key=answer.key, source=_SOURCE, request=answer.request, progress=0), origin
    log_answer(records, origin, error=error)


def _answered(span: Any, order: int) -> list[Any] | None:
    """Read the answer of a span, and what was asked for it, as records, the answer first; None where it has none."""
    data, name = span.span_data, _name(span.span_id)
    if data.type == "response":
        kind, given, asked = "response", normalise(data.response), {"input": normalise(data.input)}
    else:
        kind, given, asked = _generation(data)
    records = read_exchange(Exchange(kind=kind, order=order, params=asked, answer=given)) if given else None
    if not records or not isinstance(records[0], Answer):
        return None
    answer = records[0]
    for record in records:
        if isinstance(record, ToolCall):
            record.owner, record.source = name, _SOURCE
    answer.key = name
    own = answer.details.get("response_id")
    if own == _FAKE_ID:
        provided = (string(child(item, "provider_data"), "response_id") for item in children(given, "output"))
        own = next((text for text in provided if text), None)
        answer.details = {} if own is None else {"completion_id": own}
    answer.names = () if own is None else (("id", own),)
    _add_error(answer, normalise(span.error))
    return list(records)


def _generation(data: Any) -> tuple[str, Data, dict[str, Any]]:
    """Read a generation, which has messages of chat completions, or a response that the SDK made of their stream."""
    output, config = normalise(data.output), normalise(data.model_config)
    asked = {**(config if type(config) is dict else NOTHING), "messages": normalise(data.input)}
    messages = children({"": output}, "")
    if messages and messages[0].get("object") == "response":
        return "response", messages[0], {**asked, "input": asked["messages"]}
    choices = [{"index": place, "message": message} for place, message in enumerate(messages)]
    model = identifier(data.model)
    return "chat", {"object": "chat.completion", "model": model, "choices": choices} if choices else {}, asked


def _add_error(answer: Answer, error: Any) -> None:
    if type(error) is dict:
        answer.error = string(child(error, "data"), "error") or string(error, "message") or "error"
        answer.status = "failed"


def _given(span: Any, name: str) -> object:
    return getattr(span.span_data, name, None)


def _note(begun: _Span, notes: dict[str, str]) -> None:
    """Add something to the answer that was given before in the same turn, or of the same agent, else to the next one."""
    parent = begun.parent
    if parent is None:
        return
    if parent.answer is None:
        parent.notes |= notes
        return
    answer, origin = parent.answer
    answer.details = {**answer.details, **notes}
    log_answer([answer], origin)


_processor: AthinaTracingProcessor | None = None


def instrument_openai_agents() -> None:
    """Log what the models of every agent of this process answer. OpenAI's own upload of traces stays as it is.

    May be called again; `uninstrument_openai_agents` undoes it. The SDK's `set_trace_processors` takes out ours, too:
    it is to be called before.
    """
    global _processor  # noqa: PLW0603 - the SDK has one list of processors
    if _processor is None:
        _processor = AthinaTracingProcessor()
        add_trace_processor(_processor)


def uninstrument_openai_agents() -> None:
    """Undo `instrument_openai_agents`."""
    global _processor  # noqa: PLW0603 - the SDK has one list of processors
    if _processor is not None:
        _processor.is_on = False  # the SDK can add a processor, but take out none
        _processor = None
