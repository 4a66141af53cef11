"""The packages of optional extras that some commands need."""

from __future__ import annotations

import importlib.util

from athina_trace.cli.terminal import UsageError

_PACKAGES = {
    "ui": ("jinja2", "markdown_it", "starlette", "uvicorn"),
    "gateway": ("google.protobuf", "httptools", "opentelemetry.proto", "starlette", "uvicorn"),
    "nats": ("nats",),
}
"""Extra → the packages that it brings."""


def require_packages(extra: str, needed_by: str) -> None:
    """Raise `UsageError` if a package of an extra is missing; `needed_by` is the subject of the message."""
    missing: list[str] = []
    for name in _PACKAGES[extra]:
        try:
            is_missing = importlib.util.find_spec(name) is None
        except ModuleNotFoundError:  # not even its parent package
            is_missing = True
        if is_missing:
            missing.append(name)
    if missing:
        raise UsageError(f"{needed_by} needs {', '.join(missing)}: pip install 'athina-trace[{extra}]'")
