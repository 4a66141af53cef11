"""The settings that are code or patterns: read from Python, or from the text of an environment variable."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator

Masker: TypeAlias = Literal["card", "email", "key", "phone"]
PathPattern: TypeAlias = tuple[str, re.Pattern[str]]
"""A pattern of paths, where `*` stands for any characters, and what is masked there."""


def _imported(value: object) -> object:
    """`package.module:name` as the object of that name."""
    if not isinstance(value, str):
        return value
    module, colon, name = value.strip().partition(":")
    if not colon:
        raise ValueError("must be a callable, or its place as package.module:name")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot be imported: {error}") from None


def _items(value: object) -> object:
    """A list from the text of a variable: JSON, or names between commas."""
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
    return tuple(_pattern(each) for each in listed)


def _pattern(given: Any) -> PathPattern:
    path, pattern = ("*", given) if isinstance(given, (str, re.Pattern)) else given
    try:
        return path, re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


Maskers: TypeAlias = Annotated[frozenset[Masker], BeforeValidator(_items)]
Patterns: TypeAlias = Annotated[tuple[PathPattern, ...], BeforeValidator(_patterns)]
Hook: TypeAlias = Annotated[Callable[[Any], Any] | None, BeforeValidator(_imported)]
MaskHook: TypeAlias = Annotated[Callable[[str, str], str] | None, BeforeValidator(_imported)]

NO_PATTERNS: Final[tuple[PathPattern, ...]] = ()
