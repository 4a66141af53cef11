"""A local Athina: its logging API on this machine, for trying things out and for the tests of users' own programs.

    with LocalAthina() as athina:
        athina_trace.configure(base_url=athina.url, api_key="any")
        ...
        athina_trace.flush()
        assert athina.logs()[0]["user_query"] == "Where is my parcel?"

It needs the extra `ui`, and is loaded when one of its names is first asked for: pytest looks in here for a fixture in
every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from athina_trace.local_athina.faults import Faults
    from athina_trace.local_athina.running import LocalAthina

__all__ = ["Faults", "LocalAthina"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from athina_trace.local_athina import faults, running  # noqa: PLC0415 - an optional extra

    return getattr(running if name == "LocalAthina" else faults, name)
