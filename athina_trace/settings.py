"""Settings: frozen, built once, from an environment mapping or from `configure(...)`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from athina_trace import _guard
from athina_trace._serialization import looks_secret
from athina_trace.errors import SettingsError

MEMORY: Final = ":memory:"

Masker: TypeAlias = Literal["card", "email", "key", "phone"]
PathPattern: TypeAlias = tuple[str, re.Pattern[str]]
"""A pattern for paths, in which `*` matches any characters, and a pattern for what is masked there."""


def _imported(value: object) -> object:
    """Import the object that `package.module:name` names."""
    if not isinstance(value, str):
        return value
    module, colon, name = value.strip().partition(":")
    if not colon:
        raise ValueError("must be a callable, or its name as package.module:name")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot be imported: {error}") from None


def _items(value: object) -> object:
    """Read a list from the text of a variable: JSON, or names separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _patterns(value: object) -> object:
    given = [value] if isinstance(value, (str, re.Pattern)) and not str(value).lstrip().startswith("[") else value
    listed = json.loads(given) if isinstance(given, str) else given
    if not isinstance(listed, Iterable):
        raise ValueError("must be a list of patterns, or of pairs of a path and a pattern")  # noqa: TRY004 - pydantic's
    patterns: list[PathPattern] = []
    for each in listed:
        path, pattern = ("*", each) if isinstance(each, (str, re.Pattern)) else each
        try:
            patterns.append((path, re.compile(pattern)))
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return tuple(patterns)


Maskers: TypeAlias = Annotated[frozenset[Masker], BeforeValidator(_items)]
Patterns: TypeAlias = Annotated[tuple[PathPattern, ...], BeforeValidator(_patterns)]
Hook: TypeAlias = Annotated[Callable[[Any], Any] | None, BeforeValidator(_imported)]
MaskHook: TypeAlias = Annotated[Callable[[str, str], str] | None, BeforeValidator(_imported)]

_NO_PATTERNS: Final[tuple[PathPattern, ...]] = ()


class Settings(BaseModel):
    """How this process logs. `VARIABLES` maps each field to its environment variable.

    >>> Settings.build({"ATHINA_API_KEY": "key", "ATHINA_ENVIRONMENT": "staging"}, connections=2).environment
    'staging'
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=True,
        # Logfire's plugin for pydantic would put the key into a span.
        plugin_settings={"logfire": {"record": "off"}},
    )

    api_key: SecretStr | None = Field(
        default=None, description="Athina's API key. Without one, logs stay in the local outbox."
    )
    base_url: str = Field(
        default="https://log.athina.ai", description="Athina's address; set it for a self-hosted Athina."
    )
    api_version: Literal["v1", "v2"] = Field(default="v1", description="Version of the endpoint that takes logs.")
    environment: str | None = Field(
        default=None, description="Default for the field `environment`, such as `production`."
    )
    language_model_id: str | None = Field(
        default=None, description="Default model, if neither the code nor the client names one."
    )
    enabled: bool = Field(default=True, description="Off: nothing is captured, and no file or thread is created.")
    outbox: str | None = Field(
        default=None,
        description="Path of the outbox file, or `:memory:`; by default a file in the user's state directory.",
    )
    relay: SecretStr | None = Field(
        default=None,
        description="Servers of a relay's stream, `nats://host:4222,…` or `tls://…`; logs are delivered there instead "
        "of to Athina.",
    )
    relay_prefix: str = Field(
        default="athina",
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
        description="Prefix of all names that the relay uses on its servers.",
    )
    relay_credentials: str | None = Field(
        default=None, description="Path of a `.creds` file for the relay, instead of a password."
    )
    relay_certificate: str | None = Field(
        default=None, description="Path of a PEM file with the client's certificate and key for the relay."
    )
    connections: int = Field(
        default=64, ge=1, le=256, description="Maximum number of requests in flight; a fast server gets far fewer."
    )
    max_attempts: int = Field(
        default=500,
        ge=1,
        description="Attempts until a log that fails while others succeed is refused; 500 take about 4 hours.",
    )
    exit_timeout: float = Field(
        default=2.0, ge=0, le=300, description="Seconds that a normal exit may wait for deliveries."
    )
    max_log_bytes: int = Field(
        default=1_000_000,
        ge=2_048,
        le=100_000_000,
        description="Maximum size of a log, in bytes of JSON; larger logs are shortened.",
    )
    max_outbox_bytes: int = Field(
        default=1_000_000_000,
        ge=65_536,
        description="Maximum size of the outbox, in bytes; beyond it, new logs are dropped and counted.",
    )
    request_timeout: float = Field(
        default=15.0, gt=0, le=300, description="Seconds that one request to Athina may take."
    )
    keep_delivered: float = Field(
        default=24.0,
        ge=0,
        description="Hours that delivered logs stay in the outbox, within a tenth of its size; 0: none are kept.",
    )
    estimate_cost: bool = Field(
        default=False,
        description="On: a log without a cost is sent with an estimate from list prices; needs `genai-prices`.",
    )
    console: bool = Field(
        default=False, description="On: each log is also printed on standard error when it is made, for development."
    )
    quiet: bool = Field(
        default=False, description="On: no note on the terminal about where logs without a key are kept."
    )
    custom_attributes: dict[str, Any] = Field(
        default_factory=dict,
        description="Attributes for every log; in the environment, a JSON object.",
    )
    capture_inputs: bool = Field(
        default=True, description="Off: captured arguments, prompts and questions stay out of every log."
    )
    capture_response: bool = Field(default=True, description="Off: captured answers stay out of every log.")
    maskers: Maskers = Field(
        default=frozenset(),
        description="Built-in maskers to use: `card`, `email`, `key`, `phone`; in the environment, with commas.",
    )
    mask_patterns: Patterns = Field(
        default=_NO_PATTERNS,
        description="Regular expressions to mask, each alone or in a pair with a path such as `custom_attributes.*`; "
        "in the environment, a JSON list.",
    )
    mask: MaskHook = Field(
        default=None,
        description="A function (path, text) → text that is given every string; or its name, `package.module:name`.",
    )
    sample_rate: float = Field(
        default=1.0, ge=0, le=1, description="Share of conversations to log; each is kept or left out as a whole."
    )
    keep_failed: bool = Field(default=True, description="On: failed calls are logged regardless of `sample_rate`.")
    before_emit: Hook = Field(
        default=None, description="A function that is given each log, and returns the log to keep, or None to drop it."
    )
    on_delivered: Hook = Field(
        default=None,
        description="Called with a `Delivered`, with the `prompt_run_id`, for each log that Athina accepted.",
    )
    on_refused: Hook = Field(default=None, description="Called with a `Refused` for each log that Athina refused.")
    hook_timeout: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds to wait for `before_emit`; after that, the log is sent without its content.",
    )
    flush_each_call: bool = Field(
        default=False,
        description="On: the outermost call returns only once its logs are delivered; for serverless functions.",
    )
    flush_timeout: float = Field(
        default=5.0, gt=0, le=300, description="Seconds that `flush_each_call` may wait at the end of a call."
    )

    @field_validator("base_url")
    @classmethod
    def _an_http_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or not value.partition("://")[2].strip("/ "):
            raise ValueError("must start with http:// or https://, followed by a host")
        return value.rstrip("/")

    @field_validator("relay")
    @classmethod
    def _servers(cls, value: SecretStr | None) -> SecretStr | None:
        for server in value.get_secret_value().split(",") if value is not None else ():
            if not server.strip().startswith(("nats://", "tls://")):
                raise ValueError("must be addresses that start with nats:// or tls://, separated by commas")
        return value

    @field_validator("outbox")
    @classmethod
    def _an_absolute_path(cls, value: str | None) -> str | None:
        # A program may change its folder later, as daemons do, and its logs must not end up in two places. A home
        # folder does not depend on that, and a missing one is reported when the path is used.
        return value if value is None or value == MEMORY or value.startswith("~") else str(Path(value).absolute())

    @field_validator("api_key", "relay", "outbox", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("must consist of printable ASCII characters")
        return value

    @classmethod
    def build(cls, environ: Mapping[str, str] = os.environ, /, **overrides: Any) -> Settings:
        """Build settings from `environ` (a mapping of variables) and `overrides` (fields), which take precedence.

        Raises `SettingsError`, naming the variable or field, its value and the rule; warns about a variable whose name
        looks like a typo.
        """
        for variable in environ:
            if variable.startswith("ATHINA_") and variable not in _OF_VARIABLES:
                name = variable.removeprefix("ATHINA_").removeprefix("TRACE_").lower()
                # Other tools may use this prefix as well: only what is nearly one of our names is reported.
                if meant := difflib.get_close_matches(name, VARIABLES, n=1):
                    message = "the variable %s is not a setting; did you mean %s?"
                    _guard.log_throttled(logging.WARNING, variable, message, variable, VARIABLES[meant[0]])
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
        """Return the outbox's path: one for each destination, so that no log is sent with another service's key."""
        if self.outbox is not None:
            return self.outbox if self.outbox == MEMORY else str(Path(self.outbox).expanduser())
        # Not the cache folder: waiting logs exist nowhere else.
        state = environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        name = "local"
        if self.relay is not None:
            # Without the password: it may change, and waiting logs must not be left behind.
            servers = re.sub(r"//[^/@,]*@", "//", self.relay.get_secret_value())
            name = hashlib.sha256(f"{servers}\n{self.relay_prefix}".encode()).hexdigest()[:16]
        elif self.api_key is not None:
            destination = f"{self.base_url}\n{self.api_key.get_secret_value()}"
            name = hashlib.sha256(destination.encode()).hexdigest()[:16]
        return str(Path(state) / "athina_trace" / f"{name}.db")


VARIABLES = {
    field: "ATHINA_TRACE_ENABLED" if field == "enabled" else f"ATHINA_{field.upper()}"
    for field in Settings.model_fields
}
"""Field → the environment variable that sets it."""
_OF_VARIABLES = frozenset(VARIABLES.values())
_MEANT = {
    "debug": "console",
    "endpoint": "base_url",
    "env": "environment",
    "host": "base_url",
    "model": "language_model_id",
    "token": "api_key",
    "url": "base_url",
}
"""What other tools call a setting → the setting."""


def _read(field: str, text: str) -> Any:
    """Return the value of a variable; only `custom_attributes` is JSON, the rest is for pydantic to read."""
    if field != "custom_attributes":
        return text.strip()
    try:
        return json.loads(text)
    except ValueError:
        return text


def _explain(error: ValidationError, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    """Name each wrong value, with the rule that it breaks; for an unknown name, suggest the nearest one."""
    sentences = []
    for problem in error.errors(include_url=False, include_input=False):
        field = str(problem["loc"][0])
        rule = problem["msg"].removeprefix("Value error, ")
        name = field if field in overrides else VARIABLES.get(field, field)
        known = {**{each: each for each in VARIABLES}, **_MEANT}
        close = difflib.get_close_matches(field, known, n=1) if problem["type"] == "extra_forbidden" else ()
        near = [known[each] for each in close]
        meant = f"; did you mean {near[0]!r}?" if near else ""
        shown = "(hidden)" if field == "relay" or any(map(looks_secret, (field, *near))) else repr(values.get(field))
        sentences.append(f"{name}={shown}: {rule[0].lower()}{rule[1:]}{meant}")
    return "; ".join(sentences)
