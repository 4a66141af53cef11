"""Where `LocalAthina` was before it moved to `athina_trace.local_athina`; imports of it from here work as they did."""

from athina_trace.local_athina.local_server import LocalAthina

__all__ = ["LocalAthina"]
