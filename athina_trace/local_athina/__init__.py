"""A local Athina: its logging API on this machine, to try things out and for the tests of users' programs.

    with LocalAthina() as athina:
        athina_trace.configure(base_url=athina.url, api_key="any")
        ...
        athina_trace.flush()
        assert athina.logs()[0]["user_query"] == "Where is my parcel?"

It needs the extra `ui`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from athina_trace.local_athina.faults import Faults
    from athina_trace.local_athina.local_server import LocalAthina

__all__ = ["Faults", "LocalAthina"]


def __getattr__(name: str) -> Any:
    # Lazily: pytest imports this package in every run, to look for the fixture in `plugin`.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from athina_trace.local_athina import faults, local_server  # noqa: PLC0415 - an optional extra

    return getattr(local_server if name == "LocalAthina" else faults, name)
