"""Makes an open draft from a call's arguments, by the decorator's options and the roles of the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeVar

from athina_trace._answers import libraries
from athina_trace._capture.draft import LogDraft
from athina_trace._capture.options import Options
from athina_trace._pipeline.wire import is_prompt
from athina_trace._serialization import MASKED, looks_secret, plain, text
from athina_trace._serialization.introspection import stored_pairs, type_name, type_placeholder
from athina_trace._serialization.keys import KEY
from athina_trace._serialization.strings import is_clean
from athina_trace._wrapping import callables

D = TypeVar("D", bound=LogDraft)

# Field → names of parameters. The first of them that is not None gives the field.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "session_id": ("session_id", "thread_id", "conversation_id"),
    "prompt": ("prompt", "messages"),
    "user_query": ("user_query", "query", "question", "user_message", "message", "user_input"),
    "context": ("context",),
    "expected_response": ("expected_response",),
}
_IDS = frozenset({"id", "key", "model", "slug"})
_ID_ENDINGS = ("_id", "_key", "_slug")
_IMMUTABLE = frozenset({str, int, float, bool, type(None)})
_MESSAGES = frozenset({"aiogram.types.message.Message"})
"""Chat frameworks' messages that serialize to data: the question is their text, not all of their fields."""
_TEXTS = frozenset({"session_id", "user_query", "expected_response"})


class Function:
    """What is known of a decorated function before its first call: its name, and its parameters with their roles."""

    __slots__ = ("_constants", "_defaults", "_named", "_names", "_never", "_options", "_roles", "_star", "name")

    def __init__(
        self,
        target: Any,
        declared: Sequence[inspect.Parameter],
        options: Options,
        *,
        bound: bool,
        static_method: bool = False,
    ) -> None:
        """Read the target's signature.

        Args:
            target: the function, or another callable.
            declared: its parameters.
            options: what the decorator was given.
            bound: whether calls are bound: their arguments lack the first parameter, `self` or `cls`.
            static_method: whether a parameter named `self` is an ordinary one.
        """
        self.name = ".".join(callables.names(target))
        self._options = options
        parameters = [*declared]
        never = () if static_method else [p.name for p in parameters if p.name in callables.OWNER_NAMES]
        if bound and parameters and parameters[0].kind in callables.POSITIONAL:
            owner = parameters.pop(0)
            # If it is positional-only, a keyword argument of the same name is another one.
            never = [owner.name, *never] if owner.kind is owner.POSITIONAL_OR_KEYWORD else never
        self._never = tuple(never)
        constants = LogDraft(options.named, {}, {})
        # Immutable constants are read once; others are read for each call, so that calls do not share them.
        immutable = not constants.attributes and _IMMUTABLE.issuperset(map(type, constants.named.values()))
        self._constants, self._named = (constants.named, {}) if immutable else ({}, options.named)
        self._names = tuple(p.name for p in parameters if p.kind in callables.POSITIONAL)
        self._star = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "args")
        self._defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        # Field → the parameters that may give it, without those that cannot occur or must not be read. Computed once,
        # so that a call looks up no more than necessary.
        possible = {p.name for p in parameters}
        rules = {**PARAMETERS, **{field: (parameter,) for field, parameter in options.inputs.items()}}
        roles = {
            field: tuple(n for n in rule if (open_ended or n in possible) and self._may_read(field, n))
            for field, rule in rules.items()
        }
        self._roles = tuple((field, rule) for field, rule in roles.items() if rule)

    def draft(self, kind: type[D], args: tuple[Any, ...], kwargs: dict[str, Any]) -> D:
        """Return a draft of class `kind` with the arguments, which are read now: the function may change them later."""
        # Without `strict=False`, which takes as long as all the rest of this line.
        arguments: dict[str, Any] = {**self._defaults, **dict(zip(self._names, args)), **kwargs}  # noqa: B905
        if len(args) > len(self._names):
            arguments[self._star] = args[len(self._names) :]
        # `self` or `cls` may also be passed by keyword, or at another position than declared.
        for name in self._never:
            arguments.pop(name, None)
        inputs: dict[str, Any] = {}
        for name, candidates in self._roles:
            for parameter in candidates:
                value = arguments.get(parameter)
                if value is not None:
                    # Most are strings that need no change, and so no call.
                    is_text = type(value) is str and name in _TEXTS and is_clean(value)
                    inputs[name] = value if is_text else _read_as(name, value, parameter)
                    del arguments[parameter]
                    break
        attributes: dict[str, Any] = {"function": self.name}
        capture = self._options.capture_inputs
        if capture is True and "user_query" not in inputs and "prompt" not in inputs:
            # A single string argument is most likely the question; identifiers do not count.
            strings = [
                name
                for name, value in arguments.items()
                if type(value) is str and not (name.endswith(_ID_ENDINGS) or name in _IDS or looks_secret(name))
            ]
            if len(strings) == 1:
                inputs["user_query"] = text(arguments.pop(strings[0]))
        for parameter, value in arguments.items():
            if capture is True or (capture and parameter in capture):
                attributes[f"input.{parameter}"] = plain(value, name=parameter)
        draft = kind(self._named, inputs, attributes)
        draft.options = self._options
        draft.named.update(self._constants)
        return draft

    def _may_read(self, name: str, parameter: str) -> bool:
        """Return whether an argument may be logged: session ids and mapped ones always, others if captured."""
        capture = self._options.capture_inputs
        if capture is True or name == "session_id" or name in self._options.inputs:
            return True
        return capture is not False and parameter in capture


def check_inputs(target: Any, declared: Sequence[inspect.Parameter], options: Options) -> None:
    """Raise `TypeError` if `inputs=...` maps a parameter that the function does not have."""
    names = sorted(p.name for p in declared)
    unknown = [name for name in options.inputs.values() if name not in names]
    if unknown and names and not any(p.kind is p.VAR_KEYWORD for p in declared):
        function = ".".join(callables.names(target))
        raise TypeError(
            f"athina_trace(inputs=...) maps the parameter {unknown[0]!r}, which {function}() does not have; "
            f"its parameters are {names}"
        )


def _read_as(name: str, value: object, parameter: str) -> Any:
    """Return an argument in the form that the field `name` needs: text, data, or for a prompt text or messages."""
    if name in _TEXTS:
        written = text(value)
        return written if written is value else _words(name, value, written)
    data = plain(value, name=parameter)
    if name == "custom_attributes" and not isinstance(data, dict):
        return {parameter: data}
    if name != "prompt":
        return data
    prompt = None if isinstance(data, str) else libraries.prompt_of(data)
    if prompt is not None:
        return prompt
    return data if is_prompt(data) else text(data)


def _words(name: str, value: object, written: str) -> str:
    """Return a value's text: `written`, or for a message object such as Chainlit's or Telegram's its content."""
    if name == "session_id" and type(value) is str and (MASKED in written or KEY in written):
        # If a token in the id is masked, the hash still distinguishes sessions.
        return f"{written} {sha256(value.encode('utf-8', 'replace')).hexdigest()[:12]}"
    is_data = written != type_placeholder(value) and type_name(type(value)) not in _MESSAGES
    if type(value) is str or is_data:
        return written
    found = [words for _, words in stored_pairs(value, ("content", "text")) if isinstance(words, str) and words]
    return text(found[0]) if found else written
