"""OpenAI's Agents SDK: logs the answers of an agent's models, through the SDK's own tracing.

    instrument_openai_agents()      # beside OpenAI's own upload of traces, which is left as it is

Each span of a response or a generation is one log. The sums in spans of tasks and turns are not counted, since their
models' tokens already are. Outputs of tools go to the log of the answer that called them; handoffs and guardrails are
noted in the log of the answer that they concern. The session is the run's `group_id`, else the conversation, else that
of the surrounding scope. With `trace_include_sensitive_data=False`, the SDK passes on tokens and failures only, and the
log says so.

Source of the spans: openai-agents 0.6 to 0.24.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from athina_trace import _guard
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import Answer, Key
from athina_trace._capture.answer_logs import Origin, log_answer, log_tool_output
from athina_trace._capture.nesting import end, follow_nesting
from athina_trace.integrations.frameworks import MOST_RUNNING, follow_chain, identifier, named_by, seen_by
from athina_trace.integrations.openai.common import usage_counts
from athina_trace.integrations.openai.exchange import add_request, read_exchange
from athina_trace.integrations.openai.normalise import NOTHING, Data, as_data, child, children, normalise, string

if TYPE_CHECKING:
    # The host may not be installed during type checking.
    def add_trace_processor(processor: object, /) -> None: ...
    def get_current_trace() -> object: ...
else:
    from agents.tracing import add_trace_processor, get_current_trace

__all__ = ["AthinaTracingProcessor", "instrument_openai_agents", "uninstrument_openai_agents"]

_SOURCE: Final = "openai_agents"
_WITHHELD: Final = {"content": "withheld by trace_include_sensitive_data=False"}
_MODELS: Final = ("response", "generation")
_AGENTS: Final = {"agent": "name", "turn": "agent_name"}
"""The spans that contain answers → the field with the agent's name."""
_OF_CLIENT: Final = re.compile(r"Error code: (\d{3}) - (.+)", re.DOTALL)
"""The text of a failure in OpenAI's client, which is all that the span has. Source: `openai._base_client`."""
_FAKE_ID: Final = "__fake_id__"
"""The SDK's id for a response that it made from chat completions. Source: `agents.models.fake_id`."""


@dataclass(slots=True)
class _Span:
    """A span that has started."""

    origin: Origin
    parent: _Span | None
    agent: str | None = None
    """The agent's name, in spans of agents and turns."""
    answer: tuple[Answer, Origin] | None = None
    """Identifies the last answer inside."""
    notes: dict[str, str] = field(default_factory=dict)
    """Attributes for the next answer inside."""

    def around(self) -> list[_Span]:
        """Return the enclosing turn and agent; before 0.20, there are no turns."""
        inner = self.parent
        outer = None if inner is None else inner.parent
        return [each for each in (inner, outer) if each is not None and each.agent is not None]


class AthinaTracingProcessor:
    """A tracing processor, for `add_trace_processor(...)`. For any number of concurrent runs.

    >>> add_trace_processor(AthinaTracingProcessor())
    """

    def __init__(self) -> None:
        follow_nesting()
        self._spans: Newest[_Span] = Newest(MOST_RUNNING)
        self.is_on = True

    def on_trace_start(self, trace: object) -> None:
        """Do nothing: only spans are read."""

    def on_trace_end(self, trace: object) -> None:
        """Do nothing: its answers are already logged."""

    def on_span_start(self, span: Any) -> None:
        """Note the origin of a model's request."""
        if self.is_on:
            with _guard.shield("reading the start of a span of the Agents SDK"):
                self._spans.put(span.span_id, self._begun(span))

    def on_span_end(self, span: Any) -> None:
        """Log an answer, or add to the answer that the span concerns."""
        if self.is_on:
            with _guard.shield("reading a span of the Agents SDK"):
                # A processor that was added while the span ran sees only its end.
                begun = self._spans.pop(span.span_id) or self._begun(span)
                try:
                    _read(span, begun)
                finally:
                    end(_name(span))

    def shutdown(self, timeout: float | None = None) -> None:
        """Do nothing: logs are on disk already."""

    def force_flush(self) -> None:
        """Do nothing: logs are on disk already."""

    def _begun(self, span: Any) -> _Span:
        data, parent, trace = span.span_data, self._spans.get(span.parent_id), get_current_trace()
        metadata = getattr(trace, "metadata", None)
        named = metadata.get("session_id") if isinstance(metadata, dict) else None
        origin = Origin.of_run(
            _name(span),
            None if parent is None else (_SOURCE, str(span.parent_id)),
            conversation=identifier(getattr(trace, "group_id", None)) or identifier(named),
        )
        place = _AGENTS.get(data.type)
        agent = None if place is None else identifier(getattr(data, place, None))
        origin.scope = named_by(metadata, origin.scope)
        return _Span(origin, parent, agent)


def _name(span: Any) -> Key:
    return (_SOURCE, str(span.span_id))


def _read(span: Any, begun: _Span) -> None:
    """Log the answer in an ended span, or add its data to the answer that it concerns."""
    data = span.span_data
    if data.type in _MODELS:
        _log(span, begun)
    elif data.type == "function":
        tool, given, output = identifier(data.name), normalise(data.input), normalise(data.output)
        output = _failure(span) if output is None else output
        if output is not None:
            log_tool_output(output, begun.origin, call=None, tool=tool, arguments=given, name=_name(span))
    elif data.type == "handoff":
        _note(begun, {"handoff": f"{data.from_agent} -> {data.to_agent}"})
    elif data.type == "guardrail":
        _note(begun, {f"guardrail_{data.name}": "triggered" if data.triggered else "passed"})


def _log(span: Any, begun: _Span) -> None:
    """Log a model's answer, or the failure of its request."""
    data, origin, given_up = span.span_data, begun.origin, None
    usage, failure = usage_counts({"usage": normalise(data.usage)}), _failure(span)
    usage = usage if any(usage.values()) else {}  # as of a stream without counts
    records, is_answered = _records(data, origin.started_ns)
    if not is_answered and usage:
        # Only for this source: an instrumented client may have seen the content.
        origin.attributes = _WITHHELD
    elif not is_answered and failure is None:
        given_up = GeneratorExit()  # a stream that was left, or a task that was cancelled
    answer = seen_by(_SOURCE, str(span.span_id), records)
    answer.usage = answer.usage or usage
    origin.conversation = origin.conversation or answer.session
    follow_chain(answer, answer.details.get("response_id"))
    if failure is not None:
        found = _OF_CLIENT.fullmatch(failure)
        answer.error, answer.status = (found[2] if found else failure), "failed"
        answer.status_code = int(found[1]) if found else None
    for place in begun.around():
        answer.details = {"agent": place.agent or "", **answer.details, **place.notes}
        place.notes = {}
        place.answer = Answer(key=answer.key, source=_SOURCE, request=answer.request, progress=0), origin
    log_answer(records, origin, error=given_up)


def _failure(span: Any) -> str | None:
    """Return the text of a span's failure."""
    failure = normalise(span.error)
    if type(failure) is not dict:
        return None
    return string(child(failure, "data"), "error") or string(failure, "message") or "failed"


def _note(begun: _Span, notes: dict[str, str]) -> None:
    """Add attributes to the last answer of the turn or agent; if there is none, to the next one."""
    place = begun.parent
    if place is not None and place.answer is not None:
        named, origin = place.answer
        log_answer([replace(named, details=notes)], origin)
    elif place is not None:
        place.notes |= notes


def _records(data: Any, order: int) -> tuple[list[Any], bool]:
    """Read an answer and its request as records, the answer first; also return whether the span has one."""
    kind, given, asked = "response", normalise(getattr(data, "response", None)), {"input": normalise(data.input)}
    if data.type == "generation":
        kind, given, asked = _generation(normalise(data.output), normalise(data.model_config), asked["input"])
        asked["model"] = identifier(data.model)
    records = read_exchange(kind, asked, given, order=order) if given else None
    if not records or not isinstance(records[0], Answer):
        answer = Answer(key=(kind, ""), order=order)
        add_request(answer, asked)
        return [answer], False
    answer = records[0]
    if answer.details.get("response_id") == _FAKE_ID:
        provided = (string(child(item, "provider_data"), "response_id") for item in children(given, "output"))
        own = next((text for text in provided if text), None)
        answer.details = {} if own is None else {"completion_id": own}
        answer.names = () if own is None else (("id", own),)
    return [*records], True


def _generation(output: Any, config: Any, messages: Any) -> tuple[str, Data, dict[str, Any]]:
    """Read a generation: messages of chat completions, or a response that the SDK made from their stream.

    Returns:
        The kind of the answer, the answer, and the parameters of its request.
    """
    asked = {**as_data(config), "messages": messages, "input": messages}
    given = [each for each in output if type(each) is dict] if type(output) is list else []
    if given and given[0].get("object") == "response":
        return "response", given[0], asked
    choices = [{"index": place, "message": message} for place, message in enumerate(given)]
    return "chat", {"object": "chat.completion", "choices": choices} if choices else NOTHING, asked


_processor: AthinaTracingProcessor | None = None


def instrument_openai_agents() -> None:
    """Log the answers of the models of all agents in this process.

    OpenAI's own upload of traces is not affected. May be called again; `uninstrument_openai_agents` undoes it. Call the
    SDK's `set_trace_processors` before this function, since it removes all processors, including this one.
    """
    global _processor  # noqa: PLW0603 - the SDK has one list of processors
    if _processor is None:
        _processor = AthinaTracingProcessor()
        add_trace_processor(_processor)


def uninstrument_openai_agents() -> None:
    """Undo `instrument_openai_agents`."""
    global _processor  # noqa: PLW0603 - the SDK has one list of processors
    if _processor is not None:
        _processor.is_on = False  # the SDK can add processors, but not remove one
        _processor = None
