"""Where the command line begins: whether its packages are there, then the command."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

NEEDED = ("jinja2", "markdown_it", "rich", "starlette", "uvicorn")
_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201 - the command line speaks
            f"athina-trace needs {', '.join(missing)}, which come with: pip install 'athina-trace[ui]'", file=sys.stderr
        )
        return _USAGE
    from athina_trace.cli.commands import run  # noqa: PLC0415 - an optional extra

    return run(arguments)
