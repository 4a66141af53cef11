"""Logs are delivered when a web server is stopped with SIGTERM, as containers are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import httpx
import pytest

from tests.production.servers import ROOT
from tests.support.athina_server import AthinaServer
from tests.support.ports import free_port
from tests.support.processes import run

REQUESTS = 5
APP = """
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from athina_trace import aflush, athina_trace, configure

    configure(environment="early")  # before the fork of a preloaded application

    @athina_trace
    def answer(question):
        return "soon"

    @asynccontextmanager
    async def lifespan(app):
        yield
        await aflush(timeout=100)

    async def ask(request):
        return PlainTextResponse(answer(request.query_params["q"]))

    routes = [Route("/", ask)]
    plain, flushing = Starlette(routes=routes), Starlette(routes=routes, lifespan=lifespan)

    def wsgi(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer(environ["QUERY_STRING"].partition("=")[2]).encode()]
"""
GUNICORN = ["gunicorn", "-w", "2", "--log-level", "warning", "--no-control-socket", "-b", "127.0.0.1:{port}"]
UVICORN = ["uvicorn", "--log-level", "warning", "--port", "{port}"]


def serve_and_stop(command: list[str], environment: dict[str, str], folder: Path) -> None:
    """Start a server, ask it some questions, stop it with SIGTERM at once, and wait for its end."""
    (folder / "served.py").write_text(dedent(APP))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in command)],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
    )
    try:
        ask(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait(60)


def ask(url: str) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client(trust_env=False, timeout=100) as client:
        for number in range(REQUESTS):
            while True:
                try:
                    client.get(url, params={"q": str(number)}).raise_for_status()
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                else:
                    break


@pytest.fixture
def environment(athina: AthinaServer, tmp_path: Path) -> dict[str, str]:
    return {
        "ATHINA_API_KEY": "key",
        "ATHINA_BASE_URL": athina.url,
        "ATHINA_OUTBOX": str(tmp_path / "outbox.db"),
        "ATHINA_EXIT_TIMEOUT": "20",  # a busy machine must not fail the test
    }


def questions(athina: AthinaServer) -> list[str]:
    """Return the question of each log; one sent twice, because a process was killed while sending it, counts once."""
    logs = {request.json["external_reference_id"]: request.json["user_query"] for request in athina.accepted}
    return sorted(logs.values())


@pytest.mark.parametrize(
    "command",
    [
        [*GUNICORN, "served:wsgi"],
        [*GUNICORN, "--preload", "served:wsgi"],
        [*GUNICORN, "-k", "uvicorn.workers.UvicornWorker", "served:flushing"],
        [*UVICORN, "--workers", "2", "served:flushing"],
        [*UVICORN, "served:flushing"],
    ],
    ids=["gunicorn", "preloaded", "gunicorn's uvicorn, flushed", "uvicorn workers, flushed", "uvicorn, flushed"],
)
def test_logs_are_delivered_before_the_server_exits(
    command: list[str], athina: AthinaServer, environment: dict[str, str], tmp_path: Path
) -> None:
    serve_and_stop(command, environment, tmp_path)
    assert questions(athina) == list("01234")
    assert {request.json["environment"] for request in athina.accepted} == {"early"}


def test_logs_left_by_uvicorn_are_delivered_by_the_next_process(
    athina: AthinaServer, environment: dict[str, str], tmp_path: Path
) -> None:
    serve_and_stop([*UVICORN, "served:plain"], environment, tmp_path)
    run("import athina_trace; assert athina_trace.flush(60)", **environment)
    assert questions(athina) == list("01234")
