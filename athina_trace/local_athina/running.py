"""The former module of `LocalAthina`, now in `athina_trace.local_athina`; old imports still work."""

from athina_trace.local_athina.local_server import LocalAthina

__all__ = ["LocalAthina"]
