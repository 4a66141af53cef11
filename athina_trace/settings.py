"""Settings: frozen, built once, from an environment mapping or from `configure(...)`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from athina_trace._hook_types import NO_PATTERNS, Hook, Maskers, MaskHook, Patterns
from athina_trace.errors import SettingsError

MEMORY = ":memory:"


def _blank_is_unset(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


class Settings(BaseModel):
    """How one process logs. `VARIABLES` has the environment variable of each field.

    >>> Settings.build({"ATHINA_API_KEY": "key", "ATHINA_ENVIRONMENT": "staging"}, connections=2).environment
    'staging'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    api_key: Annotated[SecretStr | None, BeforeValidator(_blank_is_unset)] = Field(
        default=None, description="Athina's API key. Without one, logs stay in the local outbox."
    )
    base_url: str = Field(
        default="https://log.athina.ai", description="Where Athina listens; self-hosted Athina's address."
    )
    api_version: Literal["v1", "v2"] = Field(default="v1", description="Version of the endpoint that takes logs.")
    environment: str | None = Field(
        default=None, description="Default of the field `environment`, such as `production`."
    )
    language_model_id: str | None = Field(
        default=None, description="Default model, where neither code nor client names one."
    )
    enabled: bool = Field(default=True, description="Off: nothing is captured, no file and no thread is made.")
    outbox: str | None = Field(
        default=None,
        description="Path of the outbox file, or `:memory:`; by default a file in the user's state directory.",
    )
    connections: int = Field(default=8, ge=1, le=64, description="Most requests in flight at once.")
    cpu_share: float = Field(
        default=1.0, gt=0, le=1, description="Most of one processor core that deliveries may take; 1 sets no bound."
    )
    exit_timeout: float = Field(
        default=2.0, ge=0, le=300, description="Seconds that a normal exit may wait for deliveries."
    )
    max_log_bytes: int = Field(
        default=1_000_000,
        ge=2_048,
        le=100_000_000,
        description="Largest log, bytes of JSON; larger ones are shortened.",
    )
    max_outbox_bytes: int = Field(
        default=1_000_000_000,
        ge=65_536,
        description="Largest outbox on disk, bytes; over it new logs are dropped and counted.",
    )
    request_timeout: float = Field(
        default=15.0, gt=0, le=300, description="Seconds that one request to Athina may take."
    )
    keep_delivered: float = Field(
        default=0.0, ge=0, description="Hours that delivered logs stay in the outbox, to be looked at."
    )
    custom_attributes: dict[str, Any] = Field(
        default_factory=dict,
        description="Attributes that every log carries; in the environment a JSON object.",
    )
    capture_inputs: bool = Field(
        default=True, description="Off: arguments, prompts and questions that were captured stay out of every log."
    )
    capture_response: bool = Field(default=True, description="Off: answers that were captured stay out of every log.")
    maskers: Maskers = Field(
        default=frozenset(),
        description="Built-in maskers to switch on: `card`, `email`, `key`, `phone`; in the environment with commas.",
    )
    mask_patterns: Patterns = Field(
        default=NO_PATTERNS,
        description="Regular expressions to mask, each alone or as a pair with a path such as `custom_attributes.*`; "
        "in the environment a JSON list.",
    )
    mask: MaskHook = Field(
        default=None,
        description="A function (path, text) → text that sees every string value; or its place, `package.module:name`.",
    )
    sample_rate: float = Field(
        default=1.0, ge=0, le=1, description="Share of conversations that is logged; each is kept or left out whole."
    )
    keep_failed: bool = Field(default=True, description="On: failed calls are logged whatever `sample_rate` says.")
    before_emit: Hook = Field(
        default=None, description="A function of each log that gives the log to keep, or None to leave it out."
    )
    on_delivered: Hook = Field(
        default=None, description="Called with a `Delivered` for each log that Athina took; has its `prompt_run_id`."
    )
    on_refused: Hook = Field(default=None, description="Called with a `Refused` for each log that Athina refused.")
    hook_timeout: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds that a log waits for `before_emit`, and then goes without content.",
    )
    flush_each_call: bool = Field(
        default=False,
        description="On: the outermost call ends only once its logs are delivered; for functions as a service.",
    )
    flush_timeout: float = Field(
        default=5.0, gt=0, le=300, description="Seconds that `flush_each_call` may wait at the end of a call."
    )

    @field_validator("base_url")
    @classmethod
    def _an_http_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            message = "must start with http:// or https://"
            raise ValueError(message)
        return value.rstrip("/")

    @field_validator("outbox")
    @classmethod
    def _an_absolute_path(cls, value: str | None) -> str | None:
        # A program may change its folder later, as daemons do, and its logs must not be split over two places. A home
        # is the same from everywhere, and where there is none is said when the path is used.
        return value if value is None or value == MEMORY or value.startswith("~") else str(Path(value).absolute())

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            message = "must consist of printable ASCII characters"
            raise ValueError(message)
        return value

    @classmethod
    def build(cls, environ: Mapping[str, str] = os.environ, /, **overrides: Any) -> Settings:
        """Settings from `environ` (a mapping of variables), then `overrides` (fields), the latter winning.

        Raises `SettingsError`, naming the variable or field, its value and the rule.
        """
        values: dict[str, Any] = {
            field: _read(field, environ[variable])
            for field, variable in VARIABLES.items()
            if field not in overrides and environ.get(variable, "").strip()
        }
        try:
            return cls(**values, **overrides)
        except ValidationError as error:
            raise SettingsError(_explain(error, {**values, **overrides}, overrides)) from None

    def outbox_path(self, environ: Mapping[str, str] = os.environ) -> str:
        """The outbox file: one for each destination, so that no log is ever sent with another service's key."""
        if self.outbox is not None:
            return self.outbox if self.outbox == MEMORY else str(Path(self.outbox).expanduser())
        state = environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        return str(Path(state) / "athina_trace" / f"{self._destination()}.db")

    def _destination(self) -> str:
        if self.api_key is None:
            return "local"
        return hashlib.sha256(f"{self.base_url}\n{self.api_key.get_secret_value()}".encode()).hexdigest()[:16]


VARIABLES = {
    field: "ATHINA_TRACE_ENABLED" if field == "enabled" else f"ATHINA_{field.upper()}"
    for field in Settings.model_fields
}
"""Field → the environment variable that sets it."""


def _read(field: str, text: str) -> Any:
    """What a variable's text means; only `custom_attributes` is more than a scalar."""
    if field != "custom_attributes":
        return text.strip()
    try:
        return json.loads(text)
    except ValueError:
        return text


def _explain(error: ValidationError, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    return "; ".join(
        _sentence(str(problem["loc"][0]), problem["msg"].removeprefix("Value error, "), values, overrides)
        for problem in error.errors(include_url=False, include_input=False)
    )


def _sentence(field: str, rule: str, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    name = field if field in overrides else VARIABLES.get(field, field)
    shown = "(hidden)" if field == "api_key" else repr(values.get(field))
    return f"{name}={shown}: {rule[0].lower()}{rule[1:]}"
