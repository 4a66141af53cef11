"""The command in its own process: started, terminated, and killed in the middle of a request."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

import athina_trace
from athina_trace._serving.server import listen
from athina_trace.cli.main import main
from athina_trace.gateway.server import allow_files
from athina_trace.local_athina import LocalAthina
from tests.gateway.conftest import CLIENT, LOG, PATH

ROOT = Path(__file__).parents[2]


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the gateway on a free port, yield it and its address, and kill it in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "athina_trace", "gateway", "--port", "0", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "*", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"ATHINA_BASE_URL=(http://\S+)", first)
        assert found, first + process.communicate(timeout=100)[1]
        assert process.stdout.readline().startswith("Logs are kept in ")
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_sigterm_finishes_requests_delivers_and_exits(local_athina: LocalAthina) -> None:
    settings = {"ATHINA_API_KEY": "k", "ATHINA_BASE_URL": local_athina.url, "ATHINA_EXIT_TIMEOUT": "60"}
    with started(**settings) as (process, url):
        with httpx.Client(base_url=url, headers=CLIENT, trust_env=False) as client:
            for number in range(200):
                assert client.post(PATH, json={**LOG, "session_id": f"s{number}"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        assert errors == ""
    assert len(local_athina.logs()) == 200


def test_acknowledged_logs_survive_a_kill(local_athina: LocalAthina, tmp_path: Path) -> None:
    settings = {"ATHINA_OUTBOX": str(tmp_path / "outbox.db")}
    answered: list[str] = []
    with started(**settings) as (process, url):

        def send(name: str) -> None:
            with httpx.Client(base_url=url, headers=CLIENT, trust_env=False) as client:
                for number in range(100_000):
                    reference = f"{name}-{number}"
                    answer = client.post(PATH, json={**LOG, "session_id": name, "external_reference_id": reference})
                    if answer.status_code == 200:
                        answered.append(reference)

        def send_until_killed(name: str) -> None:
            with pytest.raises(httpx.TransportError):
                send(name)

        threads = [threading.Thread(target=send_until_killed, args=(f"client{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 300:
            threads[0].join(0.01)
        process.kill()
        for thread in threads:
            thread.join(60)
    athina_trace.configure(api_key="k", base_url=local_athina.url, outbox=settings["ATHINA_OUTBOX"])
    assert athina_trace.flush(60).waiting == 0
    arrived = [log["external_reference_id"] for log in local_athina.logs()]
    assert set(answered) <= set(arrived)
    assert len(set(arrived)) == len(arrived)
    for name in {reference.partition("-")[0] for reference in arrived}:
        numbers = [int(each.partition("-")[2]) for each in arrived if each.startswith(f"{name}-")]
        assert numbers == sorted(numbers)


def test_the_file_limit_is_raised_for_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert [allow_files(count) for count in (100, 1000, 10_000)] == [100, 1000, 3696]
    assert given == [(1400, 4096), (4096, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert allow_files(1000) == 624
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert allow_files(10_000) == 10_000


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--host", "0.0.0.0"], {}, "set ATHINA_GATEWAY_TOKEN"),
        (["--host", "0.0.0.0"], {"ATHINA_GATEWAY_TOKEN": "short"}, "at least 16 characters"),
        ([], {"ATHINA_GATEWAY_TOKEN": "ümläut-ümläut-ümläut"}, "printable ASCII"),
        ([], {"ATHINA_OUTBOX": ":memory:"}, "ATHINA_FLUSH_EACH_CALL=1"),
        ([], {"ATHINA_TRACE_ENABLED": "0"}, "a gateway would accept no logs"),
        ([], {"ATHINA_SAMPLE_RATE": "2"}, "ATHINA_SAMPLE_RATE='2'"),
    ],
)
def test_unsafe_configurations_do_not_start(
    arguments: list[str],
    environment: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["gateway", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_port_in_use_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(listen("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["gateway", "--port", str(port)]) == 1
    assert f"port {port} of 127.0.0.1 is in use: choose another one with --port" in capsys.readouterr().err
