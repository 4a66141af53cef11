"""Real servers on free ports, each for the length of a `with`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import waitress.server
from waitress import wasyncore

ROOT = Path(__file__).parents[2]


@contextmanager
def uvicorn_server(app: Any) -> Iterator[str]:
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="websockets-sansio")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def waitress_server(app: Any) -> Iterator[str]:
    channels: dict[int, Any] = {}
    server = waitress.server.create_server(app, host="127.0.0.1", port=0, threads=8, map=channels)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            wasyncore.loop(timeout=0.05, map=channels, count=1)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(channels)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        stopping.set()
        thread.join(60)


@contextmanager
def gunicorn_server(app: str, environment: dict[str, str]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "gunicorn", app, "-b", f"fd://{descriptor}", "-w", "2", "--threads", "8"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATHINA_")}
        process = subprocess.Popen(
            [*command, "--log-level", "warning", "--no-control-socket"],
            cwd=ROOT,
            env={**inherited, **environment, "PYTHONPATH": str(ROOT)},
            pass_fds=[descriptor],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            _wait(url)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=100, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
