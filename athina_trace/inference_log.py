"""One log as a pydantic model, which coerces types; `before_emit` is given one.

Loaded with the first log, like everything that needs pydantic: a program that only decorates does not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Optional, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from athina_trace.schema import ALIASES, with_aliases


def _to_text(value: object) -> object:
    # Identifiers are often integers; a bool is probably a mistake.
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _to_response(value: object) -> object:
    if value is None:
        return ""
    # Athina shows every answer as text.
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


Text: TypeAlias = Annotated[str, BeforeValidator(_to_text)]
OptionalText = Optional[Text]  # noqa: UP045 - pyright knows no `|` between aliases at run time
Response = Annotated[str, BeforeValidator(_to_response)]


class InferenceLog(BaseModel):
    """One log, as Athina accepts it. Identifiers and `response` become strings; None means absent.

    >>> log = InferenceLog(language_model_id="gpt-4o", prompt="Hi", response="Hello", completion_tokens=3)
    >>> log.wire()["completion"]
    3
    """

    # Not `defer_build`: a fork in the middle of a later build would leave pydantic's lock held.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        # Logfire's plugin for pydantic would put unmasked content into a span.
        plugin_settings={"logfire": {"record": "off"}},
    )

    language_model_id: Text
    prompt: str | list[dict[str, Any]]
    response: Response
    session_id: OptionalText = None
    user_query: OptionalText = None
    context: Any = None
    expected_response: OptionalText = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None
    prompt_slug: OptionalText = None
    environment: OptionalText = None
    customer_id: OptionalText = None
    customer_user_id: OptionalText = None
    external_reference_id: OptionalText = None
    tool_calls: Any = None
    tools: Any = None
    response_time: int | None = None
    status_code: int | None = None
    error: OptionalText = None
    custom_attributes: dict[str, Any] | None = None
    custom_eval_metrics: dict[str, float] | None = None
    model_options: dict[str, Any] | None = None
    functions: Any = None
    function_call_response: Any = None
    user_feedback: Literal[1, 0, -1] | None = None
    user_feedback_comment: OptionalText = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> InferenceLog:
        """Build a log from `fields`, under either spelling. Raises pydantic's `ValidationError` on a wrong type."""
        return cls.model_validate({ALIASES.get(name, name): value for name, value in fields.items()})

    def wire(self) -> dict[str, Any]:
        """Return the JSON object to send: absent fields left out, both spellings of a name that has two."""
        return with_aliases(self.model_dump(exclude_none=True))


def invalid_fields(fields: Mapping[str, Any]) -> set[str]:
    """Return the names of the fields whose values the model rejects."""
    try:
        InferenceLog.model_validate(fields)
    except ValidationError as error:
        return {str(problem["loc"][0]) for problem in error.errors(include_url=False)}
    return set()
