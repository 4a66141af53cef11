"""The life cycle of a process that logs: before its first log, while Athina fails, killed, switched off."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import athina_trace
from athina_trace import FlushReport, aflush, athina_session, configure, flush, shutdown, status
from tests.conftest import KEY
from tests.support import athina_server
from tests.support.athina_server import AthinaServer, answer, busy, html
from tests.support.waiting import until

Logs = Callable[[], list[dict[str, Any]]]
ROOT = Path(__file__).parents[1]


@athina_trace.athina_trace
def ask(question: str) -> str:
    return question


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_module_that_another_thread_is_importing_is_no_obstacle(tmp_path: Path) -> None:
    done = run(
        "import sys, types\n"
        "for name in ('multiprocessing', 'multiprocessing.process'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "import athina_trace\n"
        "print(len(athina_trace.log_inference(response='Hello')))",
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert (done.stdout, done.stderr) == ("36\n", "")


def test_a_module_that_logs_while_it_is_loaded_and_that_the_first_log_needs_is_no_obstacle(tmp_path: Path) -> None:
    """The thread that starts logging waits until the module is loaded, which waits for the thread: not for long."""
    (tmp_path / "program.py").write_text(
        "import threading, time\n"
        "import athina_trace\n"
        "from athina_trace import _runtime\n"
        "def hook(log):\n"
        "    return log\n"
        "thread = threading.Thread(target=lambda: athina_trace.log_inference(response='in a thread'))\n"
        "thread.start()\n"
        "while _runtime._maker is None:\n"
        "    time.sleep(0.001)\n"
        "@athina_trace.athina_trace\n"
        "def answer(question):\n"
        "    return 'while loading'\n"
        "answer('?')\n"
    )
    done = run(
        "import athina_trace\n"
        "from athina_trace import _runtime\n"
        "_runtime._START_SECONDS = 0.2\n"
        "import program\n"
        "program.thread.join()\n"
        "print(sorted(log['response'] for log in athina_trace.recent_logs()))",
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
        ATHINA_BEFORE_EMIT="program:hook",
        ATHINA_HOOK_TIMEOUT="60",
        PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
    )
    assert done.stdout == "['in a thread', 'while loading']\n", done.stderr
    assert done.stderr.count("athina_trace: start-up (without it") == 1


def test_importing_starts_opens_and_loads_nothing(tmp_path: Path) -> None:
    done = run(
        "import sys, threading, athina_trace\n"
        "@athina_trace.athina_trace(prompt_slug='support/v1')\n"
        "def answer(question: str) -> str: ...\n"
        "later = {'openai', 'httpx', 'httpcore', 'starlette', 'jinja2', 'pydantic', 'pydantic_core', 'sqlite3'}\n"
        "print(threading.active_count(), later & set(sys.modules))",
        XDG_STATE_HOME=str(tmp_path / "untouched"),
    )
    assert (done.stdout, done.stderr) == ("1 set()\n", "")
    assert not (tmp_path / "untouched").exists()


def test_if_disabled_nothing_is_captured_or_created(tmp_path: Path) -> None:
    done = run(
        "import threading, athina_trace as a\n"
        "captured = []\n"
        "class Watched(str):\n"
        "    def __getattribute__(self, name): captured.append(name); return str.__getattribute__(self, name)\n"
        "@a.athina_trace\n"
        "def f(question): return question\n"
        "with a.athina_session('s'), a.athina_trace(user_query='q') as log:\n"
        "    log.update(response='r'); f(Watched('x')); list(a.athina_trace(lambda: iter([1]))())\n"
        "print(threading.active_count(), captured, a.flush(1).delivered, a.status().made, a.recent_logs())",
        ATHINA_TRACE_ENABLED="0",
        XDG_STATE_HOME=str(tmp_path / "untouched"),
    )
    assert (done.stdout, done.stderr) == ("1 [] 0 0 []\n", "")
    assert not (tmp_path / "untouched").exists()


def test_a_log_is_on_disk_before_the_call_returns(athina: AthinaServer, tmp_path: Path) -> None:
    environment = {"ATHINA_API_KEY": KEY, "ATHINA_BASE_URL": athina.url, "XDG_STATE_HOME": str(tmp_path)}
    athina.stop()
    killed = run(
        "import os, signal, athina_trace as a\n"
        "with a.athina_session('s'):\n"
        "    for n in range(20): a.athina_trace(lambda question: question)(str(n))\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
        **environment,
    )
    assert killed.returncode == -signal.SIGKILL
    athina.start()
    done = run("import athina_trace as a; print(a.flush(60))", **environment)
    assert "delivered=20, waiting=0" in done.stdout, done
    assert [request.json["user_query"] for request in athina.accepted] == [str(n) for n in range(20)]


def test_a_short_script_delivers_before_it_ends(athina: AthinaServer, tmp_path: Path) -> None:
    done = run(
        "import athina_trace as a; a.athina_trace(lambda question: question)('q')",
        ATHINA_API_KEY=KEY,
        ATHINA_BASE_URL=athina.url,
        ATHINA_EXIT_TIMEOUT="60",
        XDG_STATE_HOME=str(tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(athina.accepted) == 1


def test_files_are_private_and_hold_no_key(delivered: Logs) -> None:
    ask("q")
    delivered()
    ask("r")
    folder = Path(status().outbox).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_dir()} <= {0o700}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "faults",
    [
        [answer(500)],
        [answer(503), html(502)],
        [busy(0)],
        [answer(408), answer(425)],
        [athina_server.close_before_answer],
        [athina_server.reset],
        [athina_server.close_in_mid_answer],
    ],
    ids=["500", "503 and html", "429", "408 and 425", "closed", "reset", "closed in mid-answer"],
)
def test_a_server_that_fails_gets_everything_in_order(athina: AthinaServer, delivered: Logs, faults: list[Any]) -> None:
    athina.script(*faults)
    with athina_session("s"):
        for number in range(5):
            ask(str(number))
    delivered()
    seen = list(dict.fromkeys(request.json["user_query"] for request in athina.accepted))
    assert seen == [str(number) for number in range(5)]
    assert status().waiting == 0


def test_retry_after_is_honoured(athina: AthinaServer, delivered: Logs) -> None:
    athina.script(busy(1))
    ask("q")
    delivered()
    first, second = athina.requests
    assert second.at - first.at >= 1


def test_a_hanging_server_never_holds_the_caller(athina: AthinaServer, delivered: Logs) -> None:
    athina.when(lambda request: request.json.get("session_id") == "stuck", athina_server.hang)
    began = time.monotonic()
    with athina_session("stuck"):
        ask("q")
    for number in range(20):
        with athina_session(f"free {number}"):
            ask("q")
    assert time.monotonic() - began < 10  # a request may take 15
    athina.wait_for(20)
    until(lambda: status().waiting == 1)
    assert flush(0.1).waiting == 1


@pytest.mark.parametrize("code", [400, 422])
def test_refused_logs_are_kept_and_stop_nothing(
    athina: AthinaServer, delivered: Logs, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    athina.script(answer(code, b'{"error": "prompt is wrong"}'))
    with athina_session("s"):
        ask("bad")
        ask("good")
    report = flush(60)
    assert (status().delivered, report.refused, report.waiting) == (1, 1, 0)
    assert [request.json["user_query"] for request in athina.accepted] == ["good"]
    assert [log["user_query"] for log in athina_trace.recent_logs()] == ["bad", "good"]
    assert f"status {code} (prompt is wrong)" in caplog.text


@pytest.mark.parametrize("code", [401, 403])
def test_a_wrong_key_pauses_and_keeps_everything(
    athina: AthinaServer, delivered: Logs, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    athina.when(lambda _: True, answer(code, b'{"error": "invalid key"}'))
    for number in range(20):
        ask(str(number))
    report = flush(60)
    assert not report
    assert report.waiting == 20
    assert report.paused == f"status {code}: invalid key"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "check ATHINA_API_KEY" in warnings[0]
    athina.clear()
    configure(api_key=KEY, base_url=athina.url)
    assert flush(60)
    assert len({request.json["user_query"] for request in athina.accepted}) == 20


def test_flush_reports_its_result_and_ends_in_time(athina: AthinaServer, delivered: Logs) -> None:
    athina.stop()
    ask("q")
    began = time.monotonic()
    report = flush(0.3)
    assert not report
    assert (report.delivered, report.waiting, report.refused) == (0, 1, 0)
    assert 0.3 <= time.monotonic() - began < 10
    assert 0.3 <= report.elapsed < 10
    athina.start()
    assert flush(60)
    assert status().waiting == 0


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, threading.TIMEOUT_MAX + 1])
def test_a_caller_may_wait_for_as_long_as_it_takes(seconds: float, athina: AthinaServer, delivered: Logs) -> None:
    ask("first")
    assert flush(seconds)
    assert asyncio.run(aflush(seconds))
    ask("second")
    shutdown(seconds)
    assert [request.json["user_query"] for request in athina.accepted] == ["first", "second"]


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, float("-inf")])
def test_without_a_positive_timeout_nothing_waits(seconds: float, athina: AthinaServer, delivered: Logs) -> None:
    athina.stop()
    ask("q")
    assert flush(seconds).waiting == 1
    shutdown(seconds)
    athina.start()
    assert flush(60)
    assert athina_trace.recent_logs(10**30)
    assert athina_trace.recent_logs(-1) == []


def test_a_web_page_instead_of_athina_is_reported(
    athina: AthinaServer, delivered: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    """The status decides, so the log counts as delivered; a warning says that the answer is not Athina's."""
    athina.script(html(200))
    ask("q")
    assert flush(60)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "with status 200 and a web page: it counts as delivered" in warned[0]
    assert "check ATHINA_BASE_URL" in warned[0]


def test_aflush_leaves_the_event_loop_free(athina: AthinaServer, delivered: Logs) -> None:
    may_answer = threading.Event()

    def answer_once_the_loop_has_turned(exchange: athina_server.Exchange) -> None:
        if may_answer.wait(50):
            athina_server.accept(exchange)

    athina.script(answer_once_the_loop_has_turned)

    async def main() -> FlushReport:
        ask("q")
        flushing = asyncio.create_task(aflush(60))
        for _ in range(10):
            await asyncio.sleep(0.01)
        may_answer.set()
        return await flushing

    assert asyncio.run(main()).delivered == 1
    assert len(athina.requests) == 1


def test_shutdown_stops_the_threads_and_a_later_log_starts_anew(delivered: Logs) -> None:
    others = set(threading.enumerate())
    ask("first")
    delivered()
    mine = set(threading.enumerate()) - others
    assert {thread.name for thread in mine} >= {"athina-trace-engine", "athina-trace-sender-1"}
    shutdown()
    for thread in mine:
        thread.join(60)
    assert not [thread for thread in mine if thread.is_alive()]
    ask("second")
    assert [log["user_query"] for log in delivered()] == ["first", "second"]


def test_configure_again_delivers_to_the_new_address(athina: AthinaServer, delivered: Logs) -> None:
    ask("old")
    with AthinaServer() as other:
        configure(api_key="another key", base_url=other.url)
        ask("new")
        assert flush(60)
        assert [request.json["user_query"] for request in other.accepted] == ["new"]
        assert [request.headers["athina-api-key"] for request in other.accepted] == ["another key"]
    assert [request.json["user_query"] for request in athina.accepted] == ["old"]


def test_no_fault_of_ours_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from athina_trace import _guard  # noqa: PLC0415 - the modules to break
    from athina_trace._capture import arguments, emission  # noqa: PLC0415 - the modules to break

    configure(outbox=":memory:")
    monkeypatch.setattr(_guard, "strict", False)

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(emission, "assemble", broken)
    assert ask("q") == "q"
    monkeypatch.setattr(arguments, "plain", broken)
    monkeypatch.setattr(arguments, "text", broken)
    assert ask("q") == "q"
    assert list(athina_trace.athina_trace(lambda question: iter([question]))("q")) == ["q"]
    assert status().faults == 3
    assert "athina_trace: writing a log failed; your call is unaffected" in caplog.text


def test_the_bytes_are_one_json_object(delivered: Logs, athina: AthinaServer) -> None:
    ask("emoji 🎈, a lone surrogate \ud800 and \x00")
    delivered()
    (request,) = athina.accepted
    assert json.loads(request.body)["user_query"] == "emoji 🎈, a lone surrogate � and �"
