"""A stand-in for OpenAI's API on this machine, so that the examples need no key and no network.

It speaks enough of Assistants, Responses, Conversations and Chat Completions for the real `openai` client,
and plays the support assistant of a parcel company: the same question always gets the same answer.

    with StandIn() as server:
        client = OpenAI(base_url=server.base_url, api_key="any")

    python examples/standin_openai.py --port 8765
"""

import argparse
import threading
from contextlib import AbstractContextManager
from types import TracebackType

from standin import chat
from standin.assistants import Assistants
from standin.responses import Responses
from standin.runs import Runs
from standin.server import Router, Server


class StandIn(AbstractContextManager["StandIn"]):
    """The server, which listens from its creation until `close`; also a context manager.

    `port` 0 means any free one. `latency` is the time before an answer, in seconds.
    """

    def __init__(self, *, port: int = 0, latency: float = 0.05) -> None:
        desk = Assistants()
        runs = Runs(desk, latency=latency)
        router = Router(desk.routes(), runs.routes(), Responses().routes(), chat.routes())
        self._server = Server(router, port=port, latency=latency)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="stand-in", daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        """The client's `base_url`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve a small stand-in for OpenAI's API on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds an answer takes (default: %(default)s)")
    options = parser.parse_args()
    with StandIn(port=options.port, latency=options.latency) as server:
        print(f"OPENAI_BASE_URL={server.base_url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    main()
