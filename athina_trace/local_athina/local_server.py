"""A local Athina that runs for the duration of a `with` block."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from athina_trace._serving.server import Server, listen
from athina_trace.local_athina.api import create_local_athina
from athina_trace.local_athina.faults import Faults
from athina_trace.local_athina.received_logs import ReceivedLogs
from athina_trace.viewer.log_fields import parse_object

if TYPE_CHECKING:
    from typing_extensions import Self


class LocalAthina:
    """Athina's API at `url`, on a free port of this machine, with the viewer at the same address.

    Attributes:
        faults: how requests are answered; may be changed at any time.
        path: the outbox file with the received logs.
    """

    def __init__(self, path: str | Path | None = None, *, faults: Faults | None = None, key: str | None = None) -> None:
        """`path`: the file for received logs (default: in a temporary folder); `key`: the only API key to accept."""
        self._stack = ExitStack()
        if not path:
            folder = tempfile.TemporaryDirectory(prefix="athina_trace-", ignore_cleanup_errors=True)
            path = Path(self._stack.enter_context(folder)) / "received.db"
        self.path = str(path)
        self.faults = faults or Faults()
        # Listens from now on, so that `url` is known before the block begins.
        self._received = ReceivedLogs(self.path)
        self._server = Server(create_local_athina(self._received, faults=self.faults, key=key), listen("127.0.0.1", 0))

    @property
    def url(self) -> str:
        """The value for ATHINA_BASE_URL."""
        return self._server.url

    def logs(self) -> list[dict[str, Any]]:
        """Return all logs that arrived, oldest first, as they were sent."""
        return [parse_object(body) for body in self._received.bodies("log")]

    def changes(self) -> list[dict[str, Any]]:
        """Return all updates and feedback that arrived, oldest first, as they were sent."""
        return [parse_object(body) for body in self._received.bodies("update", "update_by_id", "feedback")]

    def __enter__(self) -> Self:
        """Start."""
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and delete the received logs if they are in a temporary folder."""
        self._server.__exit__(kind, error, trace)
        self._received.close()
        self._stack.close()
