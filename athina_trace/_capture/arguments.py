"""What a call was given: the decorator's options, the function's parameters and their roles → an open draft."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from athina_trace._capture import messages
from athina_trace._capture.draft import LogDraft
from athina_trace._pipeline.redaction import INPUTS, RESPONSE
from athina_trace._pipeline.wire import flat, is_prompt
from athina_trace._serialization import looks_secret, plain, text
from athina_trace._wrapping import callables
from athina_trace.schema import ALIASES, FIELDS, nearest

# The first parameter of these names that is not None gives the field.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "session_id": ("session_id", "thread_id", "conversation_id"),
    "prompt": ("prompt", "messages"),
    "user_query": ("user_query", "query", "question", "user_message", "message", "user_input"),
    "context": ("context",),
    "expected_response": ("expected_response",),
}
_TEXTS = frozenset({"session_id", "user_query", "expected_response"})


@dataclass(frozen=True)
class Options:
    """What `@athina_trace(...)` was told. `Options.checked` refuses what makes no sense."""

    named: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    response: Callable[[Any], Any] | None = None
    capture_inputs: bool | frozenset[str] = True
    capture_response: bool = True
    sample_rate: float | None = None
    hides: int = 0

    @classmethod
    def checked(
        cls,
        named: Mapping[str, Any],
        *,
        inputs: Mapping[str, str] | None,
        response: Callable[[Any], Any] | None,
        capture_inputs: Any,
        capture_response: bool = True,
        sample_rate: float | None = None,
    ) -> Options:
        """Options, or a `TypeError` that names what is wrong and suggests what was meant."""
        for name in (*named, *(inputs or ())):
            if ALIASES.get(name, name) not in FIELDS:
                raise TypeError(f"athina_trace() got {name!r}, which is no field of an Athina log{nearest(name)}")
        if response is not None and not callable(response):
            raise TypeError(f"athina_trace(response=...) takes a function of the result, got {response!r}")
        if not isinstance(capture_inputs, bool):
            capture_inputs = frozenset(_parameter_names(capture_inputs))
        mapped = {ALIASES.get(name, name): parameter for name, parameter in (inputs or {}).items()}
        if sample_rate is not None and not 0 <= sample_rate <= 1:
            raise TypeError(f"athina_trace(sample_rate=...) takes a share from 0 to 1, got {sample_rate!r}")
        # Arguments are left out when they are read; this leaves out what OpenAI's objects say of them.
        hides = (INPUTS if capture_inputs is False else 0) | (0 if capture_response else RESPONSE)
        return cls(named, mapped, response, capture_inputs, capture_response, sample_rate, hides)


def _parameter_names(given: Any) -> list[str]:
    if isinstance(given, str):
        raise TypeError(f"athina_trace(capture_inputs=...) takes True, False or names; write [{given!r}]")
    return list(given)


class Function:
    """What is known of a decorated function before its first call: its name, its parameters, their roles."""

    __slots__ = ("_defaults", "_names", "_never", "_options", "_roles", "_star", "name")

    def __init__(self, target: Any, options: Options, *, bound: bool, static_method: bool = False) -> None:
        """Read the target's declaration.

        Args:
            target: the function, or another callable.
            options: what the decorator was given.
            bound: whether calls come without the first parameter, `self` or `cls`.
            static_method: whether a parameter named `self` is one like any other.
        """
        self.name = ".".join(callables.names(target))
        self._options = options
        parameters = callables.parameters(target)
        never = () if static_method else [p.name for p in parameters if p.name in callables.OWNER_NAMES]
        if bound and parameters and parameters[0].kind in callables.POSITIONAL:
            owner = parameters.pop(0)
            # Where it is positional only, a keyword of its name is another argument.
            never = [owner.name, *never] if owner.kind is owner.POSITIONAL_OR_KEYWORD else never
        self._never = tuple(never)
        self._names = tuple(p.name for p in parameters if p.kind in callables.POSITIONAL)
        self._star = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "args")
        self._defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._roles = self._plan({p.name for p in parameters}, open_ended=open_ended)

    def _plan(self, names: set[str], *, open_ended: bool) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Field → the parameters that may give it; those that cannot occur, or must not be read, left out."""
        rules = {**PARAMETERS, **{field: (parameter,) for field, parameter in self._options.inputs.items()}}
        possible = {
            field: tuple(n for n in rule if (open_ended or n in names) and self._may_read(field, n))
            for field, rule in rules.items()
        }
        return tuple((field, rule) for field, rule in possible.items() if rule)

    def draft(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LogDraft:
        """A draft with what the arguments say, read now: the function may change them later."""
        arguments = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
        if len(args) > len(self._names):
            arguments[self._star] = args[len(self._names) :]
        for name in self._never:
            arguments.pop(name, None)
        attributes: dict[str, Any] = {"function": self.name}
        return LogDraft(self._options.named, self._read(arguments, attributes), attributes)

    def _read(self, arguments: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
        """The fields that `arguments` give; what remains goes to `attributes` as `input.<name>`."""
        inputs: dict[str, Any] = {}
        capture = self._options.capture_inputs
        for name, candidates in self._roles:
            for parameter in candidates:
                value = arguments.get(parameter)
                if value is not None:
                    inputs[name] = _read_as(name, value, parameter)
                    del arguments[parameter]
                    break
        if "user_query" not in inputs and "prompt" not in inputs and capture is True:
            _only_string(arguments, inputs)
        for parameter, value in arguments.items():
            if capture is True or (capture and parameter in capture):
                attributes[f"input.{parameter}"] = flat(plain(value, name=parameter))
        return inputs

    def _may_read(self, name: str, parameter: str) -> bool:
        """Whether this argument may leave the program: identifiers and mapped ones always, others if captured."""
        capture = self._options.capture_inputs
        if capture is True or name == "session_id" or name in self._options.inputs:
            return True
        return capture is not False and parameter in capture


def check_inputs(target: Any, options: Options) -> None:
    """Raise `TypeError` where `inputs=...` maps a parameter that the function does not have."""
    parameters = callables.parameters(target)
    names = sorted(p.name for p in parameters)
    unknown = [name for name in options.inputs.values() if name not in names]
    if unknown and names and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        function = ".".join(callables.names(target))
        raise TypeError(
            f"athina_trace(inputs=...) maps the parameter {unknown[0]!r}, which {function}() does not have; "
            f"its parameters are {names}"
        )


def _only_string(arguments: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Take the only argument that is a string and no identifier as what the user asked."""
    strings = [name for name, value in arguments.items() if type(value) is str and not _is_id(name)]
    if len(strings) == 1:
        inputs["user_query"] = text(arguments.pop(strings[0]))


def _is_id(name: str) -> bool:
    return name in ("id", "model", "key", "slug") or name.endswith(("_id", "_key", "_slug")) or looks_secret(name)


def _read_as(name: str, value: object, parameter: str) -> Any:
    """An argument as the field `name` takes it: text, data, or for a prompt text or a list of messages."""
    if name in _TEXTS:
        return text(value)
    data = plain(value, name=parameter)
    if name != "prompt":
        return data
    prompt = None if isinstance(data, str) else messages.prompt_of(data)
    if prompt is not None:
        return prompt
    return data if is_prompt(data) else text(data)
