"""The destination of the demo's logs: Athina if there is a key, otherwise a local Athina."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from athina_trace import configure
from athina_trace.local_athina import LocalAthina


@contextmanager
def open_destination() -> Iterator[LocalAthina | None]:
    """Log through an outbox for this run only; yield the local Athina, if the logs go to one."""
    folder = Path(tempfile.mkdtemp(prefix="athina_trace-demo-"))
    outbox = str(folder / "outbox.db")
    if os.environ.get("ATHINA_API_KEY"):
        configure(outbox=outbox)
        yield None
    else:
        with LocalAthina(folder / "received.db") as athina:
            configure(outbox=outbox, base_url=athina.url, api_key="any")
            yield athina
